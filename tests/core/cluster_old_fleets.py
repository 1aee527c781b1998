"""Old fleets and new ones fail apart: old instances that fail never keep new ones from their next step, and new ones
that fail never take an old one away (invariant 7 of section 2.1 of progressive delivery's reference)."""

from dataclasses import replace

from sluice.api.status import DeploymentStatus
from sluice.core.cluster.actions import DeleteFleet, ScaleFleet
from sluice.core.cluster.observation import ClusterObservation, FleetSeen, PodTrouble, RouterSeen
from sluice.core.decision import Decision
from sluice.core.endpoint.decide import decide
from sluice.core.endpoint.draft import Pass

CRASHES = PodTrouble("CrashLoop", "container model ended with exit code 1", final=True)


def goes_on_without_old_pods(given: Pass, new: DeploymentStatus) -> None:
    """The step that was just taken would have been taken although every old pod fails."""
    old, cluster = _old_hash(given), given.cluster
    assert cluster is not None
    assert old is not None
    mine = {fleet.name for fleet in cluster.fleets if fleet.fleet_hash == old}
    if cluster.route is None or any(fleet.require_ready and fleet.name in mine for fleet in cluster.route.spec.fleets):
        return  # on a way back that failed the old fleets' part of the requests rose: after `retry` these routes stand
    found = decide(replace(given, cluster=_all_fail(cluster, old))).status.deployment
    assert found is not None
    assert (found.stage, found.step) == (new.stage, new.step), (
        f"old pods that fail hold {new.stage} up: {found.message}"
    )


def old_ones_stand(given: Pass, decision: Decision, deployment: DeploymentStatus) -> None:
    """Until it cleans up, no old fleet goes; and old instances make room only for new ones that are there."""
    if given.cluster is None:
        assert not decision.actions, "nothing was seen"
        return
    if given.endpoint["metadata"].get("deletionTimestamp"):
        return
    old = _old_hash(given)
    fleets = {fleet.name: fleet for fleet in given.cluster.fleets if fleet.fleet_hash == old}
    for action in decision.actions:
        assert not (isinstance(action, DeleteFleet) and action.name in fleets), f"{action.name} goes too early"
        here = fleets.get(action.name) if isinstance(action, ScaleFleet) else None
        if not isinstance(action, ScaleFleet) or here is None or action.replicas >= here.replicas:
            continue
        assert (deployment.policy, deployment.stage == "RollingBack") == ("ROLLING", False), f"{here.name} is scaled in"
        short = _short(given.cluster, deployment)
        assert not short, f"{here.name} is scaled in to {action.replicas}, and new instances are not there: {short}"


def _short(cluster: ClusterObservation, deployment: DeploymentStatus) -> list[str]:
    """The variants without all new instances of the steps taken."""
    if not deployment.step:
        return []
    wanted = {c.variant_name: c.count for c in deployment.plan[deployment.step - 1].instances if c.new}
    ready = {f.variant: f.ready for f in cluster.fleets if f.fleet_hash == deployment.fleet_hash and not f.deleting}
    return [f"{name} {ready.get(name, 0)}/{count}" for name, count in wanted.items() if ready.get(name, 0) < count]


def _old_hash(given: Pass) -> str | None:
    return given.status.revision.fleet_hash if given.status.revision is not None else None


def _all_fail(cluster: ClusterObservation, fleet_hash: str) -> ClusterObservation:
    names = {fleet.name for fleet in cluster.fleets if fleet.fleet_hash == fleet_hash}
    return replace(
        cluster,
        fleets=tuple(_failed(fleet) if fleet.name in names else fleet for fleet in cluster.fleets),
        routers=tuple(_without(router, names) for router in cluster.routers),
    )


def _failed(fleet: FleetSeen) -> FleetSeen:
    return replace(fleet, ready=0, candidate=None, troubles=(replace(CRASHES, pods=fleet.replicas),))


def _without(router: RouterSeen, names: set[str]) -> RouterSeen:
    """A router that finds no pod of these fleets."""
    if router.report is None:
        return router
    routes = tuple(
        route.model_copy(
            update={
                "fleets": tuple(
                    fleet.model_copy(update={"hosts": 0, "healthy": 0}) if fleet.name in names else fleet
                    for fleet in route.fleets
                )
            }
        )
        for route in router.report.routes
    )
    return replace(router, report=router.report.model_copy(update={"routes": routes}))
