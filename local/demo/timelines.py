"""`python -m demo.timelines`: runs one deployment of each policy under load and draws what was seen into docs/images.

The pictures of docs/deployments.md: `make timelines` makes them anew, from real runs with short waits."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

from demo import cluster_story, guarded_story, install
from demo.cluster_story import ClusterStage, Declared, call, clear, kubectl, put, upload
from demo.drawing import Sample, draw
from demo.guarded_story import BAD, BAD_ANSWER, told
from demo.picture import Picture
from demo.steps import NAMESPACE
from demo.surroundings import CHECKOUT, DemoError, Surroundings
from demo.watcher import NotHappenedError

IMAGES = CHECKOUT / "docs" / "images"
POLICIES = CHECKOUT / "examples" / "cluster-policies"
NAME = "timeline"
INSTANCES = 4
LOOK_SECONDS = 0.1
BEFORE_SECONDS = AFTER_SECONDS = 2.0
"""What is shown of the time before the edit and after the end."""
DEPLOYMENT_SECONDS = 240
MODELS = ("tree", "forest")
"""Each deployment brings the other one."""


@dataclass(frozen=True, slots=True)
class Run:
    """One deployment to be: the example whose policy it has, with shorter waits, and what it ships."""

    name: str
    example: str
    title: str
    waits: Mapping[str, int]
    is_bad: bool = False

    @property
    def policy(self) -> dict[str, Any]:
        """The example's DeploymentConfig with this run's waits."""
        spec = next(iter(yaml.safe_load_all((POLICIES / f"{self.example}.yaml").read_text())))["spec"]
        policy: dict[str, Any] = _with(spec["deploymentConfig"], self.waits)
        return policy


RUNS = (
    Run("all-at-once", "all-at-once", "ALL_AT_ONCE with a final bake", {"terminationWaitInSeconds": 12}),
    Run(
        "canary", "canary", "CANARY, 25 %",
        {"waitIntervalInSeconds": 12, "terminationWaitInSeconds": 8},
    ),
    Run(
        "linear", "linear", "LINEAR, steps of 25 %",
        {"waitIntervalInSeconds": 6, "terminationWaitInSeconds": 8},
    ),
    Run("rolling", "rolling", "ROLLING, batches of 50 %", {"waitIntervalInSeconds": 8}),
    Run(
        "rollback", "canary", "CANARY, 25 %, of a model that answers 500",
        {"waitIntervalInSeconds": 30, "terminationWaitInSeconds": 8}, is_bad=True,
    ),
)  # fmt: skip
ALARM = {
    "name": "errors",
    "traffic": {"metric": "Invocation5XXErrors", "threshold": 0.05, "windowSeconds": 2, "minimumRequests": 20},
}


def main() -> int:
    """Record and draw; exits with 1 if a deployment does not go as it should."""
    try:
        surroundings = Surroundings.from_environment()
        with surroundings.alone():
            _record_all(surroundings)
    except DemoError as error:
        print(f"\nNo pictures: {error}", file=sys.stderr, flush=True)
        return 1
    return 0


def _record_all(surroundings: Surroundings) -> None:
    models = cluster_story.bring_models()
    install.install(surroundings, lambda said: print(f"{said} ...", flush=True))
    with (
        install.simulated_aws(surroundings) as aws,
        cluster_story.open_stage(surroundings, aws, models, _declared(guarded_story.MANIFEST, models.image)) as stage,
    ):
        clear(stage)
        upload(stage)
        for model in (*MODELS, BAD):
            put(stage, _uri(model))
        _apply(stage, RUNS[0])
        stage.watcher.until("it is in service", lambda seen: seen.is_ready, seconds=DEPLOYMENT_SECONDS)
        callers = call(stage, told)
        callers.restart({})
        stage.callers = stage.until_the_end.enter_context(callers)
        serving = MODELS[0]
        for run in RUNS:
            shipped = BAD if run.is_bad else next(model for model in MODELS if model != serving)
            _draw(stage, run, serving, shipped)
            serving = serving if run.is_bad else shipped
        kubectl(stage, "delete", "sep", NAME, "-n", NAMESPACE, "--wait=false")


def _draw(stage: ClusterStage, run: Run, old: str, new: str) -> None:
    _apply(stage, run)
    stage.watcher.until(
        "the policy is taken up",
        lambda seen: seen.is_ready and seen.observed_generation == seen.generation,
        seconds=DEPLOYMENT_SECONDS,
    )
    before = stage.watcher.now.revision
    with recorded(stage, old, new) as recording:
        _wait(BEFORE_SECONDS)
        patch = json.dumps({"spec": {"primaryContainer": {"modelDataUrl": _uri(new)}}})
        kubectl(stage, "patch", "smodel", NAME, "-n", NAMESPACE, "--type=merge", "-p", patch)
        seen = stage.watcher.until(
            f"the deployment {run.name} ends", lambda seen: _ended(seen, run, before), seconds=DEPLOYMENT_SECONDS
        )
        _wait(AFTER_SECONDS)
    if stage.tally.failures:
        raise NotHappenedError(f"{run.name}: {stage.tally.failures} calls were lost. It shows: {seen.words()}")
    if run.is_bad and not sum(one.errors for one in recording.samples):
        raise NotHappenedError(f"{run.name}: nobody saw an error of the bad model. It shows: {seen.words()}")
    picture = IMAGES / f"deployment-{run.name}.svg"
    picture.write_text(draw(run.title, recording.samples))
    total = sum(one.old_answers + one.new_answers + one.errors for one in recording.samples)
    print(
        f"{picture.relative_to(CHECKOUT)}: {recording.samples[-1].seconds:.0f} s, {total} answers, 0 lost", flush=True
    )


def _ended(seen: Picture, run: Run, before: str) -> bool:
    if run.is_bad:
        return seen.deployment is None and seen.outcome == "RolledBack" and seen.stalled.reason == "RolledBack"
    return seen.is_ready and seen.deployment is None and seen.outcome == "Succeeded" and seen.revision != before


@dataclass(slots=True)
class Recording:
    """What is seen of a deployment, ten times a second."""

    samples: list[Sample] = field(default_factory=list)
    failure: Exception | None = None


@contextmanager
def recorded(stage: ClusterStage, old: str, new: str) -> Iterator[Recording]:
    """Record as long as the block lasts. Raises DemoError where that failed."""
    recording, ending = Recording(), threading.Event()
    thread = threading.Thread(target=_look, args=(stage, old, new, recording, ending), name="recorder", daemon=True)
    thread.start()
    try:
        yield recording
    finally:
        ending.set()
        thread.join(30)
    if recording.failure is not None:
        raise DemoError(f"the recording broke off: {recording.failure}")


def _look(stage: ClusterStage, old: str, new: str, recording: Recording, ending: threading.Event) -> None:
    try:
        api, began = stage.surroundings.api(), time.monotonic()
        path = f"/api/v1/namespaces/{NAMESPACE}/pods?labelSelector=sluice.dev%2Fendpoint%3D{NAME}"
        before = dict(stage.tally.answers)
        old_fleets: set[str] | None = None
        while not ending.wait(LOOK_SECONDS):
            seen, answers = stage.watcher.now, dict(stage.tally.answers)
            pods = (api.get(path) or {}).get("items", ())
            ready = [one["metadata"]["labels"]["sluice.dev/fleet"] for one in pods if _is_ready(one)]
            if old_fleets is None:
                old_fleets = set(ready)
            counted = {name: answers.get(name, 0) - before.get(name, 0) for name in (old, new, BAD_ANSWER)}
            recording.samples.append(
                Sample(
                    seconds=time.monotonic() - began,
                    stage=seen.deployment.stage if seen.deployment else "",
                    new_percent=_new_percent(seen, recording.samples),
                    old_ready=sum(fleet in old_fleets for fleet in ready),
                    new_ready=sum(fleet not in old_fleets for fleet in ready),
                    old_answers=counted[old],
                    new_answers=counted[new],
                    errors=counted[BAD_ANSWER],
                )
            )
            before = answers
    except Exception as error:  # noqa: BLE001 - told when the block ends
        recording.failure = error


def _new_percent(seen: Picture, before: list[Sample]) -> float:
    """The new revision's share; once nothing is deployed any more, what it was at last."""
    if seen.deployment is not None:
        return seen.deployment.traffic_percent
    return before[-1].new_percent if before else 0.0


def _is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = pod["status"].get("conditions", ())
    is_ready = any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)
    return is_ready and "deletionTimestamp" not in pod["metadata"]


def _declared(manifest: Path, image: str) -> Declared:
    """The guarded example under a name of its own, with several instances."""
    declared = cluster_story.read(manifest).with_image(image)
    documents = json.loads(json.dumps(declared.documents).replace(f'"{declared.endpoint}"', f'"{NAME}"'))
    for document in documents:
        if document["kind"] == "EndpointConfig":
            document["spec"]["productionVariants"][0]["initialInstanceCount"] = INSTANCES
        if document["kind"] == "Model":
            document["spec"]["kubernetes"]["resources"]["requests"] = {"cpu": "20m", "memory": "128Mi"}
        if document["kind"] == "Endpoint":
            document["spec"]["kubernetes"]["alarms"] = [ALARM]
    return replace(declared, documents=tuple(documents))


def _apply(stage: ClusterStage, run: Run) -> None:
    """Apply the Endpoint under the run's policy; the Model stays with what was shipped last."""
    documents = [dict(one) for one in stage.declared.documents]
    for document in documents:
        if document["kind"] == "Endpoint":
            document["spec"] = document["spec"] | {"deploymentConfig": run.policy}
    is_there = stage.watcher.now.exists
    wanted = [one for one in documents if one["kind"] == "Endpoint" or not is_there]
    stage.surroundings.run_kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=yaml.safe_dump_all(wanted))


def _uri(model: str) -> str:
    return f"s3://iris-models/{model}/model.tar.gz"


def _with(config: Any, waits: Mapping[str, int]) -> Any:
    """A DeploymentConfig with these waits wherever it has one of that name."""
    if not isinstance(config, dict):
        return config
    return {key: waits.get(key, _with(value, waits)) for key, value in config.items()}


def _wait(seconds: float) -> None:
    """Let the recording go on for so long."""
    threading.Event().wait(seconds)


if __name__ == "__main__":
    sys.exit(main())
