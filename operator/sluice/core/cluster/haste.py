"""An alarm fires: traffic goes back on what an earlier pass saw, before anything is looked at anew.

Looking is most of a pass, and where very many deployments go back at once each waits for the looks of the others. To
take all traffic back needs none: in a blue/green deployment the fleets in service stand at full size, whatever became
of the new ones, and the routes are written under the resourceVersion that was seen, which voids the pass if they are
others by now. On a memory nothing else is done, and nothing else is decided: the pass after it looks. Rolling
deployments have no such memory, as their old fleets come back first."""

from sluice.api.status import EndpointStatus
from sluice.core import guardrails
from sluice.core.cluster import alarms
from sluice.core.cluster.actions import WriteRoute
from sluice.core.decision import Decision
from sluice.core.endpoint.draft import Draft, Pass, deletion_asked


def is_worth_remembering(status: EndpointStatus) -> bool:
    """Whether what a pass saw may be needed: alarms can turn the deployment back, and all its traffic at once."""
    deployment = status.deployment
    return (
        deployment is not None
        and bool(deployment.alarms)
        and deployment.stage in alarms.HEEDED_IN
        and deployment.policy != guardrails.ROLLING
    )


def is_due(given: Pass) -> bool:
    """Whether the readings alone turn the deployment back."""
    deployment = given.status.deployment
    if deployment is None or not is_worth_remembering(given.status) or deletion_asked(given.endpoint):
        return False
    return alarms.trigger(Draft(given), deployment, bake_over=False) is not None


def only_back(d: Draft) -> Decision:
    """What a decision comes to that rests on a memory: that traffic goes back, or nothing but a look."""
    deployment = d.status.deployment
    routes = [action for action in d.actions if isinstance(action, WriteRoute)]
    if deployment is None or deployment.stage != "RollingBack" or not routes:
        return Decision(d.given.status, look_again=d.now)
    d.actions[:] = routes
    return d.finish()
