"""What holds of every pass of a deployment in the cluster, whatever happens (the invariants that progressive delivery
is known to break elsewhere): one identity and one plan from start to end, steps in order, bakes of their full length
from confirmation, deadlines that do not move, a rollback that latches, and no step without a verdict of every alarm."""

from datetime import timedelta
from typing import TYPE_CHECKING

from sluice.api.status import DeploymentStatus, EndpointStatus
from sluice.core.cluster import alarms

if TYPE_CHECKING:
    from tests.core.cluster_stage import ClusterStage

BAKES = {"Baking", "FinalBaking"}
FORWARD = {"Provisioning", "Shifting", *BAKES}
FOLLOWS = {
    "Provisioning": {"Shifting", "RollingBack"},
    "Shifting": {*BAKES, "RollingBack"},
    "Baking": {"Shifting", "Provisioning", "RollingBack"},
    "FinalBaking": {"CleaningUp", "RollingBack"},
    "RollingBack": set(),
    "CleaningUp": set(),
}
READABLE = {"OK", "ALARM", "INSUFFICIENT_DATA"}


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

    def after(self, stage: "ClusterStage", before: EndpointStatus) -> None:
        """The pass has decided; its actions are yet to come."""
        old, new = before.deployment, stage.status.deployment
        if new is not None and new.stage in FORWARD:
            _looks_again(stage, new)
        if new is None or old is None or old.start_time != new.start_time:
            self.baked_seconds = 0.0
            return
        retried = before.endpoint_status == "UpdateRollbackFailed" and new.stage in FORWARD
        if not retried:
            _same(old, new)
        if new.stage != old.stage and not retried:
            assert new.stage in FOLLOWS[old.stage], f"{new.stage} after {old.stage}"
            if old.stage in BAKES and new.stage != "RollingBack":
                self._has_baked(old, new)
        if new.stage in BAKES and old.stage not in BAKES:
            self.baked_seconds = 0.0
            _confirmed(stage)
        if not retried:
            _verdicts(stage, old, new)

    def _has_baked(self, old: DeploymentStatus, new: DeploymentStatus) -> None:
        step = old.plan[(old.step or 1) - 1]
        if (new.promoted_step if new.promoted_step is not None else -1) >= (old.step or 0):
            return
        assert self.baked_seconds >= step.wait_seconds - 0.01, (
            f"step {old.step} baked {self.baked_seconds} s of {step.wait_seconds}"
        )


def _looks_again(stage: "ClusterStage", new: DeploymentStatus) -> None:
    """Nothing else may happen for hours: the deadline is kept all the same, and so is the end of a bake."""
    metadata = stage.endpoint["metadata"]
    if (metadata.get("annotations") or {}).get("sluice.dev/reconcile") or metadata.get("deletionTimestamp"):
        return
    assert stage.decision is not None
    again = stage.decision.look_again
    assert again is not None, f"{new.stage}, and nobody looks again"
    assert new.deadline is None or again <= max(new.deadline, stage.now + timedelta(seconds=60))


def _same(old: DeploymentStatus, new: DeploymentStatus) -> None:
    assert (old.revision, old.fleet_hash, old.plan, old.deadline) == (
        new.revision,
        new.fleet_hash,
        new.plan,
        new.deadline,
    ), "one identity, one plan, one deadline"
    assert (new.step or 0) - (old.step or 0) in {0, 1}, "one step at a time"
    assert old.traffic_since is None or (new.traffic_since is not None and new.traffic_since <= old.traffic_since)
    if old.stage == "RollingBack":
        assert (new.traffic_percent or 0) <= (old.traffic_percent or 0), "back is back"


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
    others = sum(weight for name, weight in weights.items() if name not in new)
    assert share <= most + 0.01 or not others, f"{share} % in {running.stage}, step {step} has {most} %"
