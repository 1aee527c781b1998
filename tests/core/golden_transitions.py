"""The golden stories of deployments in the cluster: what each transition leaves in the status and what it does.

`PYTHONPATH=operator:. python -m tests.core.golden_transitions` writes the files anew; look at the difference before it
is committed."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import yaml
from tests.core.cluster_stage import AlarmNow, ClusterStage, blue_green, rolling
from tests.core.watched import CRASHES, NO_DATA, NO_ROOM, name_of

from sluice.core.actions import StoreRevision
from sluice.core.cluster.actions import DeleteFleet, EnsureFleet, ScaleFleet, WriteRoute

HERE = Path(__file__).parent / "golden"
SHOWN = (
    "revision",
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
REVISIONS = ("OLD", "NEW", "THIRD")
MOVES = (WriteRoute, EnsureFleet, ScaleFleet, DeleteFleet)
Act = Callable[[ClusterStage], None]


@dataclass(frozen=True)
class Story:
    """Four instances are in service; their image is edited to `new:1`."""

    policy: Mapping[str, Any]
    happens: Mapping[int, Act] = field(default_factory=dict)
    """What happens so many passes after the edit, a second each."""
    heeds_alarm: bool = False
    """Whether an alarm is named that turns a deployment back."""
    replace_first: bool = False


# What happens ---------------------------------------------------------------------------------------------------


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


def _crash(stage: ClusterStage) -> None:
    stage.cluster.troubles["new:1"] = CRASHES


def _find_no_data(stage: ClusterStage) -> None:
    stage.cluster.troubles["new:1"] = NO_DATA


def _find_no_room(stage: ClusterStage) -> None:
    stage.cluster.troubles["new:1"] = NO_ROOM


def _supersede(stage: ClusterStage) -> None:
    stage.image("third:1")


def _revert(stage: ClusterStage) -> None:
    stage.image(IN_SERVICE)


def _bring_back(stage: ClusterStage) -> None:
    """To the revision that was, or still is, in service before the edit."""
    before = stage.status.previous_revision
    stage.annotate(rollback=before.name if before is not None else name_of(stage))


def _retry(stage: ClusterStage) -> None:
    stage.annotate(retry="1")


def _retry_as_a_router_starts(stage: ClusterStage) -> None:
    """In place of another; it has no routes yet."""
    stage.cluster.routers.pop()
    _retry(stage)


def _fires_without_room(stage: ClusterStage) -> None:
    """For the instances that have gone."""
    for fleet in stage.cluster.fleets.values():
        if fleet.image == IN_SERVICE:
            stage.capped[fleet.name] = fleet.ready
    _fires(stage)


def _room(stage: ClusterStage) -> None:
    stage.capped.clear()


def _half_an_hour_later(stage: ClusterStage) -> None:
    stage.now += timedelta(minutes=30)


IN_SERVICE = "repo/churn:1"
ALL_AT_ONCE, CANARY = blue_green(final=30), blue_green("CANARY", wait=60, final=30)
LINEAR = blue_green("LINEAR", wait=20, final=30)
ROLLING, BACK_AT_ONCE = rolling(50, wait=30, back=50), rolling(50, wait=30)
LATE = {"blueGreenUpdatePolicy": {**CANARY["blueGreenUpdatePolicy"], "maximumExecutionTimeoutInSeconds": 600}}
STUCK = {50: _fires_without_room, 60: _half_an_hour_later}
STUCK_LATE = {80: _fires_without_room, 90: _half_an_hour_later}
STORIES = {
    "all-at-once": Story(ALL_AT_ONCE),
    "all-at-once-brought-back": Story(ALL_AT_ONCE, {60: _bring_back}),
    "all-at-once-brought-back-while-cleaning-up": Story(ALL_AT_ONCE, {48: _bring_back}),
    "canary": Story(CANARY, heeds_alarm=True),
    "canary-alarm": Story(CANARY, {40: _fires}, heeds_alarm=True),
    "canary-alarm-before-confirmation": Story(CANARY, {17: _fires}, heeds_alarm=True),
    "canary-alarm-in-final-bake": Story(CANARY, {100: _fires}, heeds_alarm=True),
    "canary-brought-back": Story(CANARY, {40: _bring_back}),
    "canary-crash": Story(CANARY, {10: _crash}),
    "canary-deadline": Story(LATE, {40: _pause, 50: _half_an_hour_later}),
    "canary-no-data": Story(CANARY, {10: _find_no_data}),
    "canary-no-room": Story(CANARY, {10: _find_no_room, 15: _half_an_hour_later}),
    "canary-paused-and-promoted": Story(CANARY, {40: _pause, 80: _promote}, heeds_alarm=True),
    "canary-reverted": Story(CANARY, {40: _revert}),
    "canary-superseded": Story(CANARY, {40: _supersede}),
    "canary-unreadable": Story(CANARY, {40: _away, 120: _back}, heeds_alarm=True),
    "canary-unreadable-past-deadline": Story(LATE, {40: _away, 50: _half_an_hour_later}, heeds_alarm=True),
    "linear": Story(LINEAR),
    "replace-first": Story(ROLLING, replace_first=True),
    "replace-first-alarm": Story(ROLLING, {80: _fires}, heeds_alarm=True, replace_first=True),
    "rolling": Story(ROLLING, heeds_alarm=True),
    "rolling-alarm": Story(ROLLING, {80: _fires}, heeds_alarm=True),
    "rolling-back-failed": Story(ROLLING, {**STUCK, 65: _room}, heeds_alarm=True),
    "rolling-back-failed-and-content": Story(ROLLING, {**STUCK, 65: _bring_back}, heeds_alarm=True),
    "rolling-back-failed-and-retried": Story(ROLLING, {**STUCK, 65: _retry}, heeds_alarm=True),
    "rolling-back-failed-at-full-traffic": Story(BACK_AT_ONCE, {**STUCK_LATE, 95: _retry}, heeds_alarm=True),
    "rolling-back-failed-beside-new-router": Story(
        BACK_AT_ONCE, {**STUCK_LATE, 95: _retry_as_a_router_starts}, heeds_alarm=True
    ),
}


# How it is told -------------------------------------------------------------------------------------------------


def tell(name: str) -> str:
    """A story as it would be written now: a document for every pass that changed the stage, the step or the reason, and
    a short one for every other pass that moved instances or traffic. Where something happens, what went before is told
    by other stories: it begins with what the Endpoint was at then."""
    stage = _in_service(STORIES[name])
    words: dict[str, str] = {}
    _learn(stage, words)
    stage.image("new:1")
    begun, told, last = stage.now, [], None
    for _ in _passes(stage, STORIES[name].happens):
        _learn(stage, words)
        seconds, running = int((stage.now - begun).total_seconds()), stage.status.deployment
        told_of = running and (running.revision, running.stage, running.step)
        now = (told_of, stage.status.endpoint_status, stage.condition("Ready"))
        if now != last:
            told.append(_document(stage, seconds))
        elif moves := [_action(action) for action in stage.actions if isinstance(action, MOVES)]:
            told.append({"seconds": seconds, "message": stage.message(), "actions": moves})
        last = now
    first = min(STORIES[name].happens, default=0)
    before = [document for document in told if document["seconds"] < first and "endpointStatus" in document]
    told = [*before[-1:], *(document for document in told if document["seconds"] >= first)]
    text = yaml.safe_dump_all(told, sort_keys=False, width=110)
    for real, word in sorted(words.items(), key=lambda item: -len(item[0])):
        text = text.replace(real, word)
    return f"# {name}. Written by tests/core/golden_transitions.py.\n{text}"


def _in_service(story: Story) -> ClusterStage:
    config = dict(story.policy)
    if story.heeds_alarm:
        config["autoRollbackConfiguration"] = {"alarms": [{"alarmName": "errors"}]}
    more = {"kubernetes": {"replaceFirst": True}} if story.replace_first else {}
    stage = ClusterStage({"variantName": "a", "initialInstanceCount": 4}, deploymentConfig=config, **more)
    stage.alarms = {"errors": AlarmNow()}
    stage.in_service()
    return stage


def _passes(stage: ClusterStage, happens: Mapping[int, Act]) -> Iterator[None]:
    """Until all has happened and the Endpoint has come to rest."""
    for second in range(1, 1000):
        if second in happens:
            happens[second](stage)
        stage.step()
        yield
        resting = stage.status.deployment is None and stage.condition("Reconciling")[0] != "True"
        if resting and second > max(happens, default=0):
            return
    raise AssertionError(f"never at rest: {stage.message()}")


def _learn(stage: ClusterStage, words: dict[str, str]) -> None:
    """Words in place of names that hold a hash. What is new is of the revision that the spec asks for."""
    desired = stage.resolution().revision
    assert desired is not None
    known = sum(word in REVISIONS for word in words.values())
    word = words.get(desired.name) or words.setdefault(desired.name, REVISIONS[known])
    for fleet in stage.cluster.fleets:
        words.setdefault(fleet, f"{word}-FLEET")


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
