"""Deployments in the cluster whose alarms are watched: one in service, and the ways to a moment of it."""

from typing import Any

from tests.core.cluster_stage import AlarmNow, ClusterStage, blue_green

from sluice.core.cluster.observation import PodTrouble

TRAFFIC = {"name": "errors", "traffic": {"metric": "Invocation5XXErrors", "threshold": 0.05}}
CRASHES = PodTrouble("CrashLoop", "container model ended with exit code 1", 4, final=True)
NO_DATA = PodTrouble("ModelDataFailed", "s3://models/churn/model.tar.gz is no gzip archive", 4, final=True)
NO_ROOM = PodTrouble("Unschedulable", "0/3 nodes have a GPU", 4)


def watched(
    policy: dict[str, Any] | None = None, *names: str, own: tuple[dict[str, Any], ...] = (), **spec: Any
) -> Any:
    """An Endpoint in service whose deployments heed these alarms of CloudWatch, which are OK, and these of its own."""
    names = names or (() if own else ("errors",))
    config = dict(policy or blue_green("CANARY", wait=60, final=60))
    if names:
        config["autoRollbackConfiguration"] = {"alarms": [{"alarmName": name} for name in names]}
    stage = ClusterStage(
        {"variantName": "a", "initialInstanceCount": 4},
        deploymentConfig=config,
        **({"kubernetes": {"alarms": list(own)}} if own else {}),
        **spec,
    )
    stage.alarms = {name: AlarmNow() for name in (*names, *(one["name"] for one in own))}
    stage.in_service()
    return stage


def served(policy: dict[str, Any] | None = None, **spec: Any) -> ClusterStage:
    """An Endpoint of four instances in service with image one:1."""
    stage = ClusterStage(
        {"variantName": "a", "initialInstanceCount": 4},
        deploymentConfig=policy or blue_green("CANARY", wait=60, final=60),
        **spec,
    )
    stage.image("one:1")
    stage.in_service()
    return stage


def name_of(stage: ClusterStage) -> str:
    """The revision in service."""
    assert stage.status.revision is not None
    return stage.status.revision.name


def reach(stage: ClusterStage, wanted: str, step: int | None = None, most: int = 300) -> None:
    """Passes until the deployment is in this stage (and step)."""
    for _ in range(most):
        stage.step()
        deployment = stage.status.deployment
        if deployment and deployment.stage == wanted and step in {None, deployment.step}:
            return
    raise AssertionError(f"never {wanted}: {stage.stages} {stage.message()}")


def deployment(stage: ClusterStage) -> Any:
    assert stage.status.deployment is not None, stage.message()
    return stage.status.deployment


def ended(stage: ClusterStage) -> Any:
    assert stage.status.last_deployment is not None
    return stage.status.last_deployment


def images_of(stage: ClusterStage) -> list[str]:
    return sorted(fleet.image for fleet in stage.cluster.fleets.values())
