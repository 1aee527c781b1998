"""The third part: a canary under load, and a bad one that a Prometheus alert turns back; every answer is counted.

Each step does one thing a person would do and waits for what must then be seen, as in steps.py."""

from __future__ import annotations

import json
from math import sqrt
from urllib.parse import urlsplit

from demo.caller import Answer, Tally
from demo.cluster_story import ANSWERS_SECONDS, ClusterStage, call, calling, create, kubectl, put, split, upload
from demo.install import PROMETHEUS_NAMESPACE
from demo.picture import Picture
from demo.steps import NAMESPACE
from demo.surroundings import CHECKOUT
from demo.watcher import NotHappenedError
from localcluster import prometheus

MANIFEST = CHECKOUT / "examples" / "guarded" / "flowers.yaml"
PROMETHEUS = CHECKOUT / "examples" / "prometheus"
FIRST, GOOD, BAD = "tree", "forest", "broken"
BAD_ANSWER = "5xx"
"""What an error of the bad model's server is counted as."""
ALERT = "errors"
"""The name of the manifest's alarm on a Prometheus alert."""
CANARY_PERCENT = 25
SAID_EVERY = 100
DEPLOYMENT_SECONDS = 360
"""A model server starts, on two cores."""
ROLLBACK_SECONDS = 180
BAKE_ANSWERS = 200
"""What a slow machine, too, answers while the canary bakes: after that its share is another."""


def prepare(stage: ClusterStage) -> None:
    """The first model's data is there, and Prometheus reads the routers of the namespace."""
    upload(stage)
    whole, routers = PROMETHEUS / "prometheus.yaml", PROMETHEUS / "routers.yaml"
    if stage.models.prometheus == prometheus.STEADY_NAME:
        kubectl(stage, "apply", "-f", str(whole.relative_to(CHECKOUT)))
    else:  # a cluster that pulls the image from a registry of its own
        stage.tell(f"kubectl apply -f {whole.relative_to(CHECKOUT)} (with the image {stage.models.prometheus})")
        edited = whole.read_text().replace(prometheus.STEADY_NAME, stage.models.prometheus)
        stage.surroundings.run_kubectl("apply", "-f", "-", stdin=edited)
    kubectl(stage, "apply", "-n", NAMESPACE, "-f", str(routers.relative_to(CHECKOUT)))
    stage.surroundings.run_kubectl(
        "rollout", "status", "deployment/prometheus", "-n", PROMETHEUS_NAMESPACE, f"--timeout={ROLLBACK_SECONDS}s"
    )


def begin(stage: ClusterStage) -> Picture:
    """The first model is in service, and callers ask it without a pause."""
    seen = create(stage)
    callers = call(stage, told)
    callers.restart({FIRST: 1})
    stage.callers = stage.until_the_end.enter_context(callers)
    callers.until(SAID_EVERY, seconds=ANSWERS_SECONDS)
    return seen


def told(answer: Answer) -> str:
    """Whom an answer counts for: the model that names itself, or the bad one's errors."""
    return BAD_ANSWER if answer.prediction.startswith("error 5") else answer.model


def canary(stage: ClusterStage) -> Tally:
    """Another model, as good: a quarter of the answers while it bakes, then all of them, and none is lost."""
    before = stage.watcher.now
    _ship(stage, GOOD)
    _until_it_bakes(stage)
    calling(stage).restart({FIRST: 100 - CANARY_PERCENT, GOOD: CANARY_PERCENT})
    split(stage, BAKE_ANSWERS)
    stage.watcher.until(
        f"the model {GOOD} is in service, outcome Succeeded",
        lambda seen: seen.is_ready and seen.revision != before.revision and seen.outcome == "Succeeded",
        seconds=DEPLOYMENT_SECONDS,
    )
    calling(stage).restart({GOOD: 1})
    return split(stage)


def rolled_back(stage: ClusterStage) -> Tally:
    """A bad model: its canary's errors raise the alert, all traffic goes back, and after that nobody sees an error."""
    before = stage.watcher.now
    _ship(stage, BAD)
    mark = stage.watcher.mark()
    _until_it_gets_traffic(stage)
    callers = calling(stage)
    callers.restart({GOOD: 100 - CANARY_PERCENT, BAD_ANSWER: CANARY_PERCENT})
    seen = stage.watcher.until(
        "it is rolled back: InService, Stalled with reason RolledBack",
        lambda seen: (
            seen.endpoint_status == "InService"
            and seen.deployment is None
            and (seen.stalled.status, seen.stalled.reason) == ("True", "RolledBack")
        ),
        seconds=ROLLBACK_SECONDS,
    )
    worst = callers.tally
    callers.restart({GOOD: 1})
    stage.say(f"    while the bad model had its share: {worst.words()}")
    after = split(stage)
    # Of the answers that the canary may have had, the errors are a part: the rollback took its share away on the way.
    most = worst.total * CANARY_PERCENT / 100
    allowed = most + 4.9 * sqrt(most * (1 - CANARY_PERCENT / 100))
    wrong = [
        text
        for text, right in (
            (f"revision is {seen.revision}, expected is {before.revision}", seen.revision == before.revision),
            (f"outcome is {seen.outcome}, cause {seen.cause}, expected are RolledBack, Alarm",
             (seen.outcome, seen.cause) == ("RolledBack", "Alarm")),
            (f"{ALERT} was never shown in ALARM",
             any((ALERT, "ALARM") in one.alarms for one in stage.watcher.since(mark))),
            (f"others answered than {GOOD} and the bad model: {dict(worst.answers)}",
             all(name in (GOOD, BAD_ANSWER) or name.startswith("error ") for name in worst.answers)),
            ("nobody saw an error of the bad model", worst.answers.get(BAD_ANSWER, 0) > 0),
            (f"{worst.answers.get(BAD_ANSWER, 0)} of {worst.total} answers were errors, at most {allowed:.0f} may be",
             worst.answers.get(BAD_ANSWER, 0) <= allowed),
        )
        if not right
    ]  # fmt: skip
    if wrong:
        raise NotHappenedError(f"after the rollback: {'; '.join(wrong)}. It shows: {seen.words()}")
    return after


def _ship(stage: ClusterStage, model: str) -> None:
    """Upload a model and have the Endpoint's Model name it."""
    [first] = stage.declared.model_data
    uri = f"s3://{urlsplit(first).netloc}/{model}/model.tar.gz"
    put(stage, uri)
    patch = json.dumps({"spec": {"primaryContainer": {"modelDataUrl": uri}}}, separators=(",", ":"))
    kubectl(stage, "patch", "smodel", stage.declared.endpoint, "-n", NAMESPACE, "--type=merge", "-p", patch)


def _until_it_bakes(stage: ClusterStage) -> Picture:
    return stage.watcher.until(
        f"the canary bakes with {CANARY_PERCENT} % of the traffic on the new revision",
        lambda seen: (
            seen.deployment is not None
            and seen.deployment.stage == "Baking"
            and seen.deployment.traffic_percent == CANARY_PERCENT
        ),
        seconds=DEPLOYMENT_SECONDS,
    )


def _until_it_gets_traffic(stage: ClusterStage) -> Picture:
    """An alert may be quicker than the last router's word that it sends the canary its share: no bake is seen then."""
    return stage.watcher.until(
        f"{CANARY_PERCENT} % of the traffic goes to the new revision",
        lambda seen: seen.deployment is not None and seen.deployment.stage in ("Shifting", "Baking", "RollingBack"),
        seconds=DEPLOYMENT_SECONDS,
    )
