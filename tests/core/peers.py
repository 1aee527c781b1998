"""What the tests of other controllers' failures share: an Endpoint in service, the ways to a moment of its deployment,
and what must hold there."""

from collections.abc import Callable
from typing import Any

from tests.core.cluster_stage import AlarmNow, ClusterStage, blue_green
from tests.core.watched import watched

OLD, NEW = "repo/churn:1", "new:1"


def served(policy: dict[str, Any] | None = None, count: int = 4, **spec: Any) -> ClusterStage:
    """An Endpoint in service."""
    config = {"deploymentConfig": policy} if policy is not None else {}
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": count}, **config, **spec)
    stage.cluster.start_seconds = 3.0
    stage.in_service()
    return stage


def answered(stage: ClusterStage) -> None:
    """No request meets a fleet without a ready pod, by what every router that callers reach has in force."""
    for router in stage.cluster.routers:
        if router.ready and not router.terminating and router.applied is not None:
            for entry in router.applied[2].fleets:
                here = stage.cluster.fleets.get(entry.name)
                if entry.weight:
                    assert here is not None, f"{router.pod} sends to {entry.name}, which is gone"
                    assert here.ready, f"{router.pod} sends to {entry.name}, which has no ready pod"


def until(stage: ClusterStage, asked: Callable[[ClusterStage], bool], most: int = 400) -> ClusterStage:
    for _ in range(most):
        stage.step()
        answered(stage)
        if asked(stage):
            return stage
    raise AssertionError(f"{stage.stages} {stage.message()}")


def at(wanted: str, step: int | None = None) -> Callable[[ClusterStage], bool]:
    def asked(stage: ClusterStage) -> bool:
        running = stage.status.deployment
        return running is not None and running.stage == wanted and step in {None, running.step}

    return asked


def settled(stage: ClusterStage) -> bool:
    return stage.status.deployment is None and stage.condition("Reconciling")[0] != "True"


def images(stage: ClusterStage) -> list[tuple[str, int, int]]:
    return [(f.image, f.replicas, f.ready) for f in stage.cluster.fleets.values() if f.gone_at is None]


def edited(stage: ClusterStage, image: str = NEW) -> ClusterStage:
    """The stage with another image asked for, and the pass that sees it."""
    stage.image(image)
    stage.step()
    return stage


def rolled_back() -> ClusterStage:
    """A deployment that an alarm turned back; the failed spec is still the one asked for."""
    stage = watched(blue_green("CANARY", wait=60, final=60))
    until(edited(stage), at("Baking"))
    stage.alarms["errors"] = AlarmNow("ALARM")
    until(stage, settled)
    stage.alarms["errors"] = AlarmNow()
    assert stage.condition("Stalled") == ("True", "RolledBack")
    return stage
