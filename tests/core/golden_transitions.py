"""The golden stories of deployments in the cluster: what each transition leaves in the status and what it does.

`PYTHONPATH=operator:. python -m tests.core.golden_transitions` writes the files anew; look at the difference before it
is committed."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from tests.core.cluster_stage import AlarmNow, ClusterStage, blue_green, rolling

from sluice.core.actions import StoreRevision
from sluice.core.cluster.actions import DeleteFleet, EnsureFleet, ScaleFleet, WriteRoute

HERE = Path(__file__).parent / "golden"
SHOWN = (
    "policy",
    "stage",
    "stepText",
    "trafficText",
    "stageSince",
    "bakeUntil",
    "deadline",
    "trafficSince",
    "pausedSince",
    "promotedStep",
    "alarms",
    "cause",
    "message",
)
Act = Callable[[ClusterStage], None]


def _nothing(stage: ClusterStage) -> None:
    del stage


def _fires(stage: ClusterStage) -> None:
    stage.alarms["errors"] = AlarmNow("ALARM", "5 % of the requests failed")


def _away(stage: ClusterStage) -> None:
    stage.provider_is_away = True


def _back(stage: ClusterStage) -> None:
    stage.provider_is_away = False


def _pause(stage: ClusterStage) -> None:
    stage.annotate(pause="true")


def _promote(stage: ClusterStage) -> None:
    assert stage.status.deployment is not None
    stage.annotate(promote=stage.status.deployment.revision)


CANARY, ROLLING = blue_green("CANARY", wait=60, final=30), rolling(50, wait=30, back=50)
# Policy, and what happens so many seconds after the edit.
STORIES: dict[str, tuple[dict[str, Any], dict[int, Act]]] = {
    "canary": (CANARY, {}),
    "canary-alarm": (CANARY, {40: _fires}),
    "canary-alarm-in-final-bake": (CANARY, {100: _fires}),
    "canary-unreadable": (CANARY, {40: _away, 120: _back}),
    "canary-paused-and-promoted": (CANARY, {40: _pause, 80: _promote}),
    "rolling": (ROLLING, {}),
    "rolling-alarm": (ROLLING, {80: _fires}),
}


def tell(name: str) -> str:
    """A story as it would be written now: a document for every pass that changed the stage, the step or the reason."""
    policy, happens = STORIES[name]
    config = {**policy, "autoRollbackConfiguration": {"alarms": [{"alarmName": "errors"}]}}
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 4}, deploymentConfig=config)
    stage.alarms = {"errors": AlarmNow()}
    stage.in_service()
    assert stage.status.revision is not None
    words = {stage.status.revision.name: "OLD"} | dict.fromkeys(stage.cluster.fleets, "OLD-FLEET")
    stage.image("new:1")
    begun, told, last = stage.now, [], None
    for second in range(1, 400):
        happens.get(second, _nothing)(stage)
        stage.step()
        words |= {fleet: "NEW-FLEET" for fleet in stage.cluster.fleets if fleet not in words}
        if stage.status.deployment is not None:
            words[stage.status.deployment.revision] = "NEW"
        deployment = stage.status.deployment
        now = (deployment and (deployment.stage, deployment.step), stage.condition("Ready"))
        if now != last:
            told.append(_document(stage, int((stage.now - begun).total_seconds())))
            last = now
        if deployment is None and stage.status.last_deployment is not None and len(told) > 4:
            break
    text = yaml.safe_dump_all(told, sort_keys=False, width=110)
    for real, word in sorted(words.items(), key=lambda item: -len(item[0])):
        text = text.replace(real, word)
    return f"# {name}. Written by tests/core/golden_transitions.py.\n{text}"


def _document(stage: ClusterStage, seconds: int) -> dict[str, Any]:
    status = stage.status.to_manifest()
    running = status.get("deployment") or {}
    shown = {key: running[key] for key in SHOWN if key in running}
    if running:
        shown["newVariants"] = [_variant(variant) for variant in running.get("pendingVariants", ())]
        if running.get("oldVariants"):
            shown["oldVariants"] = [_variant(variant) for variant in running["oldVariants"]]
    return {
        "seconds": seconds,
        "endpointStatus": status.get("endpointStatus"),
        "ready": "{} {}".format(*stage.condition("Ready")),
        "message": stage.message(),
        **({"alarms": status["alarmsText"]} if "alarmsText" in status else {}),
        **({"deployment": shown} if shown else {}),
        **({"lastDeployment": status["lastDeployment"]["outcome"]} if "lastDeployment" in status else {}),
        "actions": [_action(action) for action in stage.actions],
        "events": [f"{event.type} {event.reason}" for event in stage.decision.events] if stage.decision else [],
    }


def _variant(variant: dict[str, Any]) -> str:
    counts = f"{variant.get('variantName')} {variant.get('currentInstanceCount')}/{variant.get('desiredInstanceCount')}"
    counts += f" at weight {variant.get('currentWeight'):g} of {variant.get('desiredWeight'):g}"
    return ", ".join([counts, *(f"{s['status']}: {s['statusMessage']}" for s in variant.get("variantStatus", ()))])


def _action(action: Any) -> str:
    match action:
        case WriteRoute():
            weights = ", ".join(f"{fleet.name} {fleet.weight / 10_000:g}%" for fleet in action.spec.fleets)
            return f"WriteRoute {weights}"
        case ScaleFleet():
            return f"ScaleFleet {action.name} {action.replicas}"
        case EnsureFleet():
            return f"EnsureFleet {action.name} {action.replicas}"
        case DeleteFleet() | StoreRevision():
            return f"{type(action).__name__} {action.name}"
        case _:
            return type(action).__name__


if __name__ == "__main__":
    for name in STORIES:
        (HERE / f"{name}.yaml").write_text(tell(name))
        print(f"wrote {name}.yaml")  # noqa: T201 - a command
