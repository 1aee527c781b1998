"""What a deployment of each policy takes beside the instances in service: instance-seconds, against the least that its
plan can do with. Operator and API server are real, hands make pods, which are ready at once, and report for routers."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.cluster import READY_SECONDS
from tests.bench.figures import Figure
from tests.bench.policies import policies
from tests.bench.rollouts import ENDPOINT, Rollouts, rollouts
from tests.bench.routing import NAMESPACE, until
from tests.conformance.recorder import Recorder

from sluice.core.cluster.names import LABEL_FLEET

INSTANCES = 10
WAIT_SECONDS, WAIT_SECONDS_QUICK = 5, 1
PERCENT, PERCENT_QUICK = 20, 50
LOOK_SECONDS = 0.05
Moment = tuple[float, int]
"""When (time.monotonic()), and how many pods there were from then on."""


def used(directory: Path, *, quick: bool) -> list[Figure]:
    """One deployment of each policy."""
    wait, percent = (WAIT_SECONDS_QUICK, PERCENT_QUICK) if quick else (WAIT_SECONDS, PERCENT)
    figures = []
    with rollouts(directory, INSTANCES, real=False) as stage:
        for name, (config, kubernetes) in policies(wait, percent).items():
            stage.guard(config, kubernetes)
            told = name if name == "ALL_AT_ONCE" else f"{name} by {percent} %"
            figures.append(_one(stage, told, wait, replace_first=bool(kubernetes)))
    return figures


def _one(stage: Rollouts, name: str, wait: int, *, replace_first: bool) -> Figure:
    recorder = Recorder(stage.world.kube, NAMESPACE)
    with _counted(stage) as moments:
        began = time.monotonic()
        stage.deploy("Succeeded")
        until("the old pods are gone", lambda: moments[-1][1] == INSTANCES, READY_SECONDS)
        took = time.monotonic() - began
    plan = next(
        deployment["plan"]
        for seen in recorder.seen(ENDPOINT)
        if (deployment := (seen.get("status") or {}).get("deployment") or {}).get("plan")
    )
    recorder.close()
    least = least_beyond(plan, INSTANCES, replace_first=replace_first)
    (beyond, missing), bakes = areas(moments, INSTANCES), sum(step["waitSeconds"] for step in plan)
    ratio = f"{beyond / least:.2f} times the least: {beyond:.1f} for {least:.0f}" if least else f"{beyond:.1f} for 0"
    return Figure(
        f"instance-seconds beyond {INSTANCES} instances, {name}, bakes of {wait} s",
        f"{ratio}; {missing:.1f} below; {took:.1f} s of wall for {bakes} s of bakes",
        "",
        {
            "beyond": round(beyond, 2),
            "least": least,
            "below": round(missing, 2),
            "seconds": round(took, 2),
            "steps": len(plan),
            "mostPods": max(count for _, count in moments),
        },
    )


def least_beyond(plan: Sequence[Mapping[str, Any]], instances: int, *, replace_first: bool) -> float:
    """Instance-seconds that nothing but the bakes of the plan needs. Blue/green, whose plan names no old instances: a
    whole new fleet through all of them. Rolling: through a bake stand the step's new instances, and the old ones that
    go after it, or have gone before."""
    rolling = any(not one.get("new") for step in plan for one in step.get("instances") or ())
    if not rolling:
        return float(instances * sum(step["waitSeconds"] for step in plan))
    total, old = 0.0, instances
    for step in plan:
        new, left = (
            sum(one["count"] for one in step["instances"] if bool(one.get("new")) is it) for it in (True, False)
        )
        total += step["waitSeconds"] * max(0, new + (left if replace_first else old) - instances)
        old = left
    return total


def areas(moments: Sequence[Moment], instances: int) -> tuple[float, float]:
    """Pod-seconds beyond this many, and below."""
    beyond = missing = 0.0
    for (at, count), (following, _) in itertools.pairwise(moments):
        beyond += max(0, count - instances) * (following - at)
        missing += max(0, instances - count) * (following - at)
    return beyond, missing


@contextmanager
def _counted(stage: Rollouts) -> Iterator[list[Moment]]:
    """How many pods of fleets there are, looked at again and again."""
    moments, ended = list[Moment](), threading.Event()

    def look() -> None:
        count = len(stage.world.kube.list("Pod", NAMESPACE, labelSelector=LABEL_FLEET))
        moments.append((time.monotonic(), count))

    def work() -> None:
        while not ended.wait(LOOK_SECONDS):
            look()

    look()
    thread = threading.Thread(target=work, name="counting", daemon=True)
    thread.start()
    try:
        yield moments
    finally:
        ended.set()
        thread.join(10)


PARTS: dict[str, Callable[..., list[Figure]]] = {"deployments-capacity": used}
"""Takes a directory of its own and `quick`."""
