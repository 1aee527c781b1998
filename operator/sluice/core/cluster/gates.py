"""What the start of a deployment waits for: gates that are asked in turn, and the first that holds says why.

A gate holds by giving the pass its verdict; nothing has been made yet, so holding costs nothing. A revision that a
person brings back passes no gate: it is the way out of what a gate would wait for."""

from collections.abc import Callable

from sluice.api import names
from sluice.api.reasons import CommandResult, Reason
from sluice.core import capabilities, guardrails
from sluice.core.cluster import alarms, limits, plans, replacing
from sluice.core.cluster.alarms import Hold
from sluice.core.endpoint import deployment
from sluice.core.endpoint.commands import acknowledge, unanswered
from sluice.core.endpoint.draft import Draft
from sluice.core.resolve import spec_counts
from sluice.core.revision import Revision

Gate = Callable[[Draft, Revision], bool]
"""Whether the start of this revision's deployment is held; then the reason has been said."""


def _guarded(d: Draft, desired: Revision) -> bool:
    """The deploymentConfig fits the instance counts."""
    config = plans.config_of(d.spec, d.status)
    counts, _ = plans.variants_of(d, desired)  # those that it starts with
    finding = guardrails.check(config, counts)
    finding = finding or plans.too_long(config, counts)
    if finding is None and plans.replaces(d.spec, config):
        finding = replacing.refused(counts)
    if finding is None:
        return False
    d.stalled(finding.reason, finding.text())
    return True


def _alarms_quiet(d: Draft, desired: Revision) -> bool:
    """Every alarm was read, and none fires: firing before the start waits, or a person says ignore-firing."""
    questions = alarms.asked(d.spec, plans.config_of(d.spec, d.status))
    if not questions:
        return False
    held, firing = alarms.judge_start(d, questions)
    held = alarms.unknown_variant(questions, spec_counts(desired.endpoint_config)) or held
    if held is not None:
        d.again(d.given.settings.look_seconds)
        _say(d, held)
        return True
    said = unanswered(d.given.endpoint, d.status).get(capabilities.IGNORE_FIRING)
    if not firing:
        return False
    if d.annotation(names.IGNORE_FIRING) == desired.name:
        text = f"started although {', '.join(firing)} in ALARM; each counts once it has been OK"
        acknowledge(d, capabilities.IGNORE_FIRING, desired.name, CommandResult.DONE, text)
        return False
    if said is not None:
        text = f"the revision that waits is {desired.name}"
        acknowledge(d, capabilities.IGNORE_FIRING, said, CommandResult.REFUSED, text)
    d.again(d.given.settings.look_seconds)
    d.reconciling(
        Reason.ALARM_FIRING,
        f"{', '.join(firing)} in ALARM before the start; revision {desired.name} starts by itself when OK, or now with "
        f"annotation {names.IGNORE_FIRING}: {desired.name}.",
    )
    return True


def _say(d: Draft, held: Hold) -> None:
    if held.reason is Reason.ALARMS_UNREADABLE:
        d.reconciling(held.reason, f"{held.text}.")
    else:
        d.stalled(held.reason, f"{held.text}.")


GATES: tuple[Gate, ...] = (deployment.settling, _guarded, limits.braked, _alarms_quiet, limits.queued)
"""In this order: what a person must mend comes before what is waited for, and a place among the deployments that may
run at once is taken last, by what could start."""
