"""The story, step by step: each does one thing a person would do and waits for what the Endpoint must then show.

The demo tells them in order; the cluster tests call the same functions. Every wait has a deadline, and what did not
happen is a NotHappenedError that shows what was seen instead."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass

from demo.example import Example
from demo.install import OPERATOR_NAMESPACE, SimulatedAws
from demo.picture import Picture, short
from demo.surroundings import CHECKOUT, Surroundings
from demo.watcher import NotHappenedError, Watcher

NAMESPACE = "sluice-demo"
CREATION_SECONDS = 180
BEFORE_BAKE_SECONDS = 180
DEPLOYMENT_SECONDS = 300
ROLLBACK_SECONDS = 180
DELETION_SECONDS = 240


@dataclass(frozen=True, slots=True)
class Stage:
    """What every step works with: the cluster, the stand-in for AWS, the example, and eyes on its Endpoint."""

    surroundings: Surroundings
    aws: SimulatedAws
    example: Example
    watcher: Watcher
    tell: Callable[[str], None]
    """Called with each command that is about to be run."""


def watcher(surroundings: Surroundings, example: Example) -> Watcher:
    """Eyes on the example's Endpoint."""
    return Watcher(surroundings, NAMESPACE, example.endpoint, operator_namespace=OPERATOR_NAMESPACE)


def clear(stage: Stage) -> None:
    """Nothing of an earlier run is left, in SageMaker neither; the namespace stays, with what a person put there."""
    if stage.surroundings.api().get(f"/api/v1/namespaces/{NAMESPACE}") is None:
        _kubectl(stage, "create", "namespace", NAMESPACE)
        return
    _kubectl(stage, "delete", "-n", NAMESPACE, "-f", _shown(stage.example), "--ignore-not-found", "--wait=false")
    stage.watcher.until("it is gone", lambda seen: not seen.exists, seconds=DELETION_SECONDS)


def create(stage: Stage) -> Picture:
    """Apply the example: Creating, then InService and Ready with the image it names."""
    example = stage.example
    stage.aws.alarms.create(example.alarms, endpoint_name=example.endpoint_name)
    _kubectl(stage, "apply", "-n", NAMESPACE, "-f", _shown(example))
    stage.watcher.until(
        "endpointStatus is Creating", lambda seen: seen.endpoint_status == "Creating", seconds=CREATION_SECONDS
    )
    return stage.watcher.until(
        f"{example.image} is in service", lambda seen: _serves(seen, example.image), seconds=CREATION_SECONDS
    )


def ship(stage: Stage, image: str) -> Picture:
    """Edit the Model's image and wait until the canary bakes: both revisions take traffic."""
    before = stage.watcher.now
    patch = json.dumps({"spec": {"primaryContainer": {"image": image}}}, separators=(",", ":"))
    _kubectl(stage, "patch", "smodel", stage.example.model, "-n", NAMESPACE, "--type=merge", "-p", patch)
    stage.watcher.until(
        "the edit is taken up (Ready is False)", lambda seen: seen.ready.status == "False", seconds=BEFORE_BAKE_SECONDS
    )
    return stage.watcher.until(
        "the canary bakes with part of the traffic on the new revision",
        lambda seen: (
            seen.deployment is not None
            and seen.deployment.revision != before.revision
            and seen.deployment.stage == "Baking"
            and 0 < seen.deployment.traffic_percent < 100
        ),
        seconds=BEFORE_BAKE_SECONDS,
    )


def canary(stage: Stage, image: str) -> Picture:
    """An edit goes all the way: canary, bake, the rest, final bake, InService on the new revision."""
    before = stage.watcher.now
    ship(stage, image)
    return arrive(stage, image, before.revision)


def arrive(stage: Stage, image: str, left: str) -> Picture:
    """The deployment that runs ends well: InService and Ready on another revision than the one it left."""
    return stage.watcher.until(
        f"{image} is in service on another revision than {left}, outcome Succeeded",
        lambda seen: _serves(seen, image) and seen.revision != left and seen.outcome == "Succeeded",
        seconds=DEPLOYMENT_SECONDS,
    )


def rolled_back(stage: Stage, image: str) -> Picture:
    """Another edit, but its canary makes an alarm fire: all traffic goes back, and the Endpoint says so.

    InService and Serving on the revision before, not Ready, Stalled with reason RolledBack."""
    before = stage.watcher.now
    canary_percent = _new_percent(ship(stage, image))
    mark = stage.watcher.mark()
    alarm = stage.example.alarms[0]
    stage.tell(f"CloudWatch: {alarm} goes to ALARM (5 % server errors)")
    stage.aws.alarms.set(alarm, "ALARM", "Threshold crossed: 5 % of invocations answered 5xx")
    seen = stage.watcher.until(
        "it is rolled back: InService, Stalled with reason RolledBack",
        lambda seen: (
            seen.endpoint_status == "InService"
            and seen.deployment is None
            and (seen.stalled.status, seen.stalled.reason) == ("True", "RolledBack")
        ),
        seconds=ROLLBACK_SECONDS,
    )
    wrong = [
        text
        for text, right in (
            (f"revision is {seen.revision}, expected is {before.revision}", seen.revision == before.revision),
            (f"images are {seen.images}, expected are {before.images}", seen.images == before.images),
            (f"Ready is {seen.ready.status}, expected is False", seen.ready.status == "False"),
            (f"Serving is {seen.serving.status}, expected is True", seen.serving.status == "True"),
            (f"outcome is {seen.outcome}, cause {seen.cause}, expected are RolledBack, Alarm",
             (seen.outcome, seen.cause) == ("RolledBack", "Alarm")),
            (f"more than the canary's {canary_percent:g} % of the traffic was shown on the new one on the way back",
             all(_new_percent(one) <= canary_percent for one in stage.watcher.since(mark))),
        )
        if not right
    ]  # fmt: skip
    if wrong:
        raise NotHappenedError(f"after the rollback: {'; '.join(wrong)}. It shows: {seen.words()}")
    return seen


def fixed(stage: Stage, image: str) -> Picture:
    """The alarm is OK again and a mended image is shipped: the latch opens for it, and it goes all the way."""
    for alarm in stage.example.alarms:
        stage.tell(f"CloudWatch: {alarm} goes to OK")
        stage.aws.alarms.set(alarm, "OK", "errors are gone")
    seen = canary(stage, image)
    if seen.stalled.status != "False":
        raise NotHappenedError(f"after the fix: Stalled is {seen.stalled.status}. It shows: {seen.words()}")
    return seen


def _new_percent(seen: Picture) -> float:
    """The share of the traffic that it shows on the new revision."""
    return seen.deployment.traffic_percent if seen.deployment is not None else 0.0


def _serves(seen: Picture, image: str) -> bool:
    return (
        seen.is_ready
        and seen.endpoint_status == "InService"
        and seen.deployment is None
        and short(image) in seen.images
    )


def _shown(example: Example) -> str:
    """Its directory, as a person in the checkout writes it."""
    return str(example.directory.relative_to(CHECKOUT))


def _kubectl(stage: Stage, *arguments: str) -> None:
    stage.tell("kubectl " + " ".join(arguments))
    stage.surroundings.run_kubectl(*arguments)
