"""A person brings the revision of before back, long after a deployment has ended and its fleet is gone: how soon all
requests go to it. Operator, API server and routers are real; a pod is a small program that listens at once, so what a
model's start takes is not in it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench.cluster import READY_SECONDS, fleets_of
from tests.bench.figures import Figure
from tests.bench.lost import KEPT, SINGLES, upper_bound
from tests.bench.policies import policies
from tests.bench.rollouts import Rollouts, rollouts
from tests.bench.router import percentile
from tests.bench.routing import until

TIMES, TIMES_QUICK = 20, 3
INSTANCES, WAIT_SECONDS = 2, 1
PER_SECOND = 100


@dataclass(frozen=True, slots=True)
class _Back:
    """One rollback, in seconds since 1970."""

    said: float
    """When the annotation was about to be written."""
    ready: float
    """When the last pod of the old revision was about to be written as Ready."""
    written: float
    """When the route that sends everything there was seen."""
    confirmed: float
    """When both routers were seen to have it in force."""


def emergency(directory: Path, *, quick: bool) -> list[Figure]:
    """One after the other, under load."""
    with rollouts(directory, INSTANCES, real=True) as stage:
        stage.guard(policies(WAIT_SECONDS, 50)["ALL_AT_ONCE"][0])
        world = stage.world
        calls = world.call(stage.endpoint, *world.routers, concurrency=KEPT, singles=SINGLES, per_second=PER_SECOND)
        calls.until_total(PER_SECOND, 60)
        backs = [_brought_back(stage, number) for number in range(TIMES_QUICK if quick else TIMES)]
        called = calls.finish()
    return [
        Figure(
            "last pod of the old revision Ready -> both routers' reports of the route with all requests to it seen: "
            "sluice.dev/rollback when its fleet is gone",
            f"{_said([back.confirmed - back.ready for back in backs])} ({len(backs)} rollbacks); -> EndpointRoute seen "
            f"{_said([back.written - back.ready for back in backs])}",
            "p99 < 2 s",
            {
                "seconds": _rounded([back.confirmed - back.ready for back in backs]),
                "written": _rounded([back.written - back.ready for back in backs]),
            },
        ),
        Figure(
            "sluice.dev/rollback written -> the same, with pods that start at once",
            _said([back.confirmed - back.said for back in backs]),
            "",
            {"seconds": _rounded([back.confirmed - back.said for back in backs])},
        ),
        Figure(
            "requests lost in these rollbacks and the deployments between them",
            f"{called.lost_count} lost of {called.total:,}; 95 %: "
            f"< {1e6 * upper_bound(called.lost_count) / called.total:.0f} per million",
            "0",
            {"statuses": called.statuses, "samples": called.lost[:20]},
            {"lost": called.lost_count},
        ),
    ]


def _brought_back(stage: Rollouts, number: int) -> _Back:
    """Another revision takes over; when nothing is left of the one before, that is brought back."""
    world, old = stage.world, stage.status()["revision"]["name"]
    fleet_before = _serving(stage)
    after = stage.deploy("Succeeded")
    until("the old fleet is gone", lambda: fleet_before not in fleets_of(world), READY_SECONDS)
    fleet_after, generation = _serving(stage), world.routes.specs[stage.endpoint][-1][1]
    said = time.time()
    stage.annotate("sluice.dev/rollback", f"{old}/{number}")  # the same value is acted on once
    stage.until_rests(after["lastDeployment"])
    serving = stage.status()["revision"]["name"]
    if serving != old:
        raise RuntimeError(f"{serving} serves, and {old} was to be brought back")
    for at, written, spec in world.routes.specs[stage.endpoint]:
        if written > generation and _weights(spec).get(fleet_after, 0) == 0:
            confirmed = world.routes.confirmations(stage.endpoint, written)
            assert confirmed.keys() == {router.name for router in world.routers}, confirmed
            assert stage.standins is not None
            return _Back(said, stage.standins.ready[fleet_before], at, max(confirmed.values()))
    raise RuntimeError(f"the route of {stage.endpoint} never left {fleet_after}")


def _serving(stage: Rollouts) -> str:
    """The one fleet that has requests."""
    (name,) = (name for name, weight in _weights(stage.world.routes.specs[stage.endpoint][-1][2]).items() if weight)
    return name


def _weights(spec: dict[str, Any]) -> dict[str, int]:
    return {fleet["name"]: fleet["weight"] for fleet in spec["fleets"]}


def _said(seconds: Sequence[float]) -> str:
    return f"p50 {percentile(seconds, 0.5):.2f} s, p99 {percentile(seconds, 0.99):.2f} s"


def _rounded(seconds: Sequence[float]) -> list[float]:
    return [round(value, 3) for value in sorted(seconds)]


PARTS: dict[str, Callable[..., list[Figure]]] = {"emergency": emergency}
"""Each takes a directory of its own and `quick`."""
