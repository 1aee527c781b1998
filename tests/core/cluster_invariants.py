"""What holds of every pass of a deployment in the cluster, whatever happens (the invariants that progressive delivery
is known to break elsewhere): one identity and one plan from start to end, steps in order, bakes of their full length
from confirmation, deadlines that do not move, a rollback that latches, and no step without a verdict of every alarm."""

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from tests.core.cluster_causes import may_begin, may_end, may_turn_back, said
from tests.core.cluster_old_fleets import goes_on_without_old_pods, old_ones_stand

from sluice.api.routes import EndpointRouteSpec
from sluice.api.status import DeploymentStatus, EndpointStatus
from sluice.core.cluster import alarms
from sluice.core.cluster.actions import EvictRouter, ScaleFleet
from sluice.core.cluster.routing import fleets_of
from sluice.core.endpoint.draft import Pass

if TYPE_CHECKING:
    from tests.core.cluster_stage import ClusterStage
    from tests.core.cluster_state import Fleet

BAKES = {"Baking", "FinalBaking"}
FORWARD = {"Provisioning", "Shifting", *BAKES}
FAILED = "UpdateRollbackFailed"
FOLLOWS = {
    "Provisioning": {"Shifting", "RollingBack"},
    "Shifting": {*BAKES, "RollingBack"},
    "Baking": {"Shifting", "Provisioning", "RollingBack"},
    "FinalBaking": {"CleaningUp", "RollingBack"},
    "RollingBack": {FAILED},
    FAILED: {"RollingBack", "Provisioning", "Shifting", "FinalBaking"},
    "CleaningUp": set(),
}
"""What a deployment may be at after what else: its stage, or that its rollback has failed (`at`)."""
READABLE = {"OK", "ALARM", "INSUFFICIENT_DATA"}


def at(status: EndpointStatus) -> str:
    """What a deployment that runs is at."""
    assert status.deployment is not None
    return FAILED if status.endpoint_status == FAILED else status.deployment.stage


class Watcher:
    """Follows one Endpoint's passes."""

    def __init__(self) -> None:
        self.baked_seconds = 0.0

    def before(self, stage: "ClusterStage", seconds: float) -> None:
        """Time has passed; the pass is yet to come."""
        running = stage.status.deployment
        if seconds < 0:
            self.baked_seconds = 0.0  # the bake begins anew
        elif running is not None and running.stage in BAKES and running.paused_since is None:
            self.baked_seconds += seconds

    def after(self, stage: "ClusterStage", given: Pass) -> None:
        """The pass has decided on what it was given; its actions are yet to come."""
        before = given.status
        old, new = before.deployment, stage.status.deployment
        assert sum(isinstance(action, EvictRouter) for action in stage.actions) <= 1, "one router at a time, and once"
        if new is not None and new.stage in FORWARD:
            _looks_again(stage, new)
        if new is None or old is None or old.start_time != new.start_time:
            self.baked_seconds = 0.0
            _follows(given, old, new, stage.status)
            return
        # Told to go on after a rollback that failed, it has another deadline, also where it turns back at once.
        retried = before.endpoint_status == FAILED and (new.stage in FORWARD or new.deadline != old.deadline)
        assert not retried or said(given, "retry"), f"{new.stage} after a rollback that failed, and nobody said so"
        if not retried:
            _same(stage, old, new)
        if at(stage.status) != at(before):
            assert at(stage.status) in FOLLOWS[at(before)], f"{at(stage.status)} after {at(before)}"
        if old.stage in BAKES and new.stage not in {old.stage, "RollingBack"}:
            self._has_baked(old, new)
        if new.stage in BAKES and old.stage not in BAKES:
            self.baked_seconds = 0.0
            _confirmed(stage)
        if not retried:
            _verdicts(stage, old, new)
        if old.stage in FORWARD or retried:
            _is_justified(given, new.model_copy(update={"stage": "Provisioning"}) if retried else old, new)
        if new.stage != "CleaningUp" and stage.decision is not None:
            old_ones_stand(given, stage.decision, new)

    def _has_baked(self, old: DeploymentStatus, new: DeploymentStatus) -> None:
        step = old.plan[(old.step or 1) - 1]
        if (new.promoted_step if new.promoted_step is not None else -1) >= (old.step or 0):
            return
        assert self.baked_seconds >= step.wait_seconds - 0.01, (
            f"step {old.step} baked {self.baked_seconds} s of {step.wait_seconds}"
        )


def _follows(given: Pass, old: DeploymentStatus | None, new: DeploymentStatus | None, after: EndpointStatus) -> None:
    """One deployment has ended, or another begun, or both."""
    if old is not None:
        may_end(given, old, after)
    if new is not None:
        may_begin(given, new)


def _is_justified(given: Pass, old: DeploymentStatus, new: DeploymentStatus) -> None:
    """A deployment that went forward turns back only for a cause, and goes on whatever the old fleets do."""
    if new.stage == "RollingBack":
        may_turn_back(given, old, new.cause, new.message)
    elif (old.stage, old.step) != (new.stage, new.step):
        goes_on_without_old_pods(given, new)


def _looks_again(stage: "ClusterStage", new: DeploymentStatus) -> None:
    """Nothing else may happen for hours: the deadline is kept all the same, and so is the end of a bake."""
    metadata = stage.endpoint["metadata"]
    if (metadata.get("annotations") or {}).get("sluice.dev/reconcile") or metadata.get("deletionTimestamp"):
        return
    assert stage.decision is not None
    again = stage.decision.look_again
    assert again is not None, f"{new.stage}, and nobody looks again"
    assert new.deadline is None or again <= max(new.deadline, stage.now + timedelta(seconds=60))
    assert new.bake_until is not None or again <= stage.now + timedelta(seconds=10), f"{new.stage} waits for an event"


def _same(stage: "ClusterStage", old: DeploymentStatus, new: DeploymentStatus) -> None:
    assert (old.revision, old.fleet_hash, old.plan, old.deadline) == (
        new.revision,
        new.fleet_hash,
        new.plan,
        new.deadline,
    ), "one identity, one plan, one deadline"
    assert (new.step or 0) - (old.step or 0) in {0, 1}, "one step at a time"
    assert old.traffic_since is None or (new.traffic_since is not None and new.traffic_since <= old.traffic_since)
    if old.stage == "RollingBack":
        mine = {fleet.name for fleet in stage.cluster.fleets.values() if fleet.fleet_hash == new.fleet_hash}
        routed = sum(_share_of(stage, name) for name in mine) / 10_000  # a step that was not confirmed when it turned
        assert (new.traffic_percent or 0) <= max(old.traffic_percent or 0, routed), "back is back"


def _confirmed(stage: "ClusterStage") -> None:
    """A bake begins only when every Ready router has the step's routes."""
    route = stage.cluster.route
    assert route is not None
    for router in stage.cluster.routers:
        if router.ready and not router.terminating and not router.frozen:
            assert router.applied is not None, f"{router.pod} has no routes"
            assert router.applied[1] == route.generation, f"{router.pod} has not confirmed"


def _verdicts(stage: "ClusterStage", old: DeploymentStatus, new: DeploymentStatus) -> None:
    """ALARM under traffic has turned back; no step was taken without a good reading of every alarm."""
    watch = alarms.watch(stage.endpoint, stage.status.model_copy(update={"deployment": old}), stage.resolution())
    asked = {(q.source, q.name) for q in watch.alarms} if watch is not None else set()
    mine = {(a.source, a.alarm_name): a for a in new.alarms}
    moved = old.stage in {"Provisioning", *BAKES} and new.stage not in {old.stage, "RollingBack"}
    promoted = new.promoted_step is not None and new.promoted_step >= (old.step or 0)
    for key in asked & set(mine):
        reading = stage.readings.get(key)
        firing = reading is not None and reading.state == "ALARM" and not mine[key].ignored
        if firing and old.traffic_since is not None and old.stage in FORWARD:
            assert new.stage == "RollingBack", f"{key} in ALARM and {new.stage}"
        if not moved:
            continue
        assert not firing, f"{key} in ALARM, and yet {new.stage}"
        if promoted:
            continue
        assert reading is not None, f"{key} was never read"
        assert reading.state in READABLE, f"{key} is {reading.state}, and yet {new.stage}"
        since = old.bake_until or old.stage_since
        assert since is not None
        since = min(since, stage.now)  # after a clock that went back
        assert reading.read_at >= since, f"the reading of {key} is from before the end of the bake"


def share_is_the_steps(stage: "ClusterStage", weights: dict[str, int]) -> None:
    """The new revision never gets more than its step's share, and on the way back never more than it has. Where a batch
    goes before its successors come, the step is the one that it is about to take: nobody else has room for its part."""
    running = stage.status.deployment
    if running is None or running.stage == "CleaningUp":
        return
    new = {fleet.name for fleet in stage.cluster.fleets.values() if fleet.fleet_hash == running.fleet_hash}
    share = sum(weight for name, weight in weights.items() if name in new) / 10_000
    step = running.step or 0
    if running.replace_first and running.stage in {"Provisioning", "RollingBack"}:
        step = min(step + 1, len(running.plan))
    most = running.plan[step - 1].traffic_percent if step else 0.0
    if running.stage == "Provisioning":  # told to go on after a rollback that failed, it may be between two steps
        most = max(most, running.traffic_percent or 0.0)
    others = sum(weight for name, weight in weights.items() if name not in new)
    assert share <= most + 0.01 or not others, f"{share} % in {running.stage}, step {step} has {most} %"


# What an action must not do -------------------------------------------------------------------------------------


def must_be_let_go(stage: "ClusterStage", fleet: str) -> None:
    if stage.namespace_terminating:
        return
    for router in stage.cluster.routers:
        if router.stops_by is not None and stage.now > router.stops_by:
            continue
        if router.applied is not None:
            assert fleet not in fleets_of(router.applied[2]), f"{router.pod} still sends to {fleet}"
        assert fleet not in router.busy, f"{router.pod} has requests of {fleet} running"
    if stage.cluster.route is not None:
        assert fleet not in fleets_of(stage.cluster.route.spec), f"the routes name {fleet}"


def must_stand(stage: "ClusterStage", spec: EndpointRouteSpec) -> None:
    """Weight is moved only to a fleet that has ready pods, or that has all of it anyway."""
    before = {f.name: f.weight for f in stage.cluster.route.spec.fleets} if stage.cluster.route else None
    if not any(f.ready and (before or {}).get(f.name) for f in stage.cluster.fleets.values()):
        return  # nobody answers anyway
    for fleet in spec.fleets:
        if before is not None and fleet.weight > before.get(fleet.name, 0) and stage.status.revision is not None:
            here = stage.cluster.fleets.get(fleet.name)
            rolling_back = stage.status.deployment is not None and stage.status.deployment.stage == "RollingBack"
            assert rolling_back or (here is not None and here.ready), f"{fleet.name} gets weight without pods"
    _must_have_room(stage, spec)
    if spec.fleets:
        assert sum(f.weight for f in spec.fleets) == 1_000_000


def _must_have_room(stage: "ClusterStage", spec: EndpointRouteSpec) -> None:
    """In a rolling deployment no fleet of the old revision gets more traffic than its ready pods are for, unless
    the new one answers nothing at all."""
    deployment = stage.status.deployment
    if deployment is None or deployment.policy != "ROLLING" or deployment.replace_first or not spec.fleets:
        return
    new = [f for f in stage.cluster.fleets.values() if f.fleet_hash == deployment.fleet_hash]
    if not any(fleet.ready > fleet.failing for fleet in new):
        return
    if max(Counter(f.revision for f in spec.fleets).values()) > 1:  # variants that move in lock-step
        return
    before = {f.name: f.weight for f in stage.cluster.route.spec.fleets} if stage.cluster.route else {}
    for entry in spec.fleets:
        here = stage.cluster.fleets.get(entry.name)
        if here is None or here in new or entry.weight <= before.get(entry.name, 0):
            continue
        whole = stage.peak.get(entry.name, here.replicas)
        if deployment.stage == "RollingBack":  # a person may have said to be content with less
            whole = min([whole, *(c.count for c in deployment.before if c.variant_name == here.variant)])
        assert entry.weight / 1_000_000 * whole <= here.ready + 1e-3, f"{entry.name} gets traffic before capacity"


def must_not_be_the_last(stage: "ClusterStage", action: EvictRouter) -> None:
    others = [r for r in stage.cluster.routers if r.uid != action.uid and r.ready and not r.frozen]
    assert others, "the last router is never evicted"


def must_not_serve_less(stage: "ClusterStage", action: ScaleFleet) -> None:
    fleet = stage.cluster.fleets[action.name]
    deployment = stage.status.deployment
    if deployment is None:
        stage.peak[fleet.name] = action.replicas  # with so many it is whole from now on
    if deployment is None or action.replicas >= fleet.replicas:
        return
    assert deployment.policy == "ROLLING", "nothing scales in during a blue/green deployment"
    if action.replicas == 0:
        must_be_let_go(stage, fleet.name)
    if deployment.replace_first:
        _must_leave_somebody(stage, fleet, action.replicas)
        return
    whole = max(stage.peak.get(fleet.name, 0), fleet.replicas, 1)
    in_force = {"the route": stage.cluster.route.spec} if stage.cluster.route is not None else {}
    for router in stage.cluster.routers:
        if router.ready and not router.frozen:
            assert router.applied is not None, f"capacity goes down, and {router.pod} has no routes"
            in_force[router.pod] = router.applied[2]
    for who, spec in in_force.items():
        share = _share_in(spec, fleet.name) / 1_000_000
        assert action.replicas >= int(share * whole - 1e-6), f"{who} sends {share:.0%} to {fleet.name}"


def _must_leave_somebody(stage: "ClusterStage", fleet: "Fleet", replicas: int) -> None:
    """Where batches go before their successors come: never the last pods that serve, unless it goes back to a variant
    that somebody had scaled to nothing. Of a variant that only one of the revisions has, others take the requests."""
    running = stage.status.deployment
    if running is not None and running.stage == "RollingBack":
        before = sum(c.count for c in running.before if not c.new and c.variant_name == fleet.variant)
        if not before:
            return
    standing = [f for f in stage.cluster.fleets.values() if f.gone_at is None]
    mine = [f for f in standing if f.variant == fleet.variant]
    mine = mine if len({f.fleet_hash for f in mine}) > 1 else standing
    left = sum(min(f.ready, replicas) if f is fleet else f.ready for f in mine)
    assert left or not any(f.ready for f in mine), f"the last pods that serve go with {fleet.name}"


def _share_of(stage: "ClusterStage", fleet: str) -> int:
    route = stage.cluster.route
    return _share_in(route.spec, fleet) if route else 0


def _share_in(spec: EndpointRouteSpec, fleet: str) -> int:
    return sum(f.weight for f in spec.fleets if f.name == fleet)
