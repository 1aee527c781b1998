"""Requests lost while deployments of each policy come one after the other, through two real routers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure
from tests.bench.lost import Outcome, call, counted, rounds, upper_bound
from tests.bench.policies import policies
from tests.bench.rollouts import ENDPOINT, Rollouts, rollouts

INSTANCES, PERCENT, WAIT_SECONDS = 3, 40, 1
"""Two to three steps or batches."""
REQUESTS_PER_DEPLOYMENT = 10_000
"""A policy has a deployment for each so many requests that were asked for, or more."""


def measure(directory: Path, requests: int) -> list[Figure]:
    """Each policy with at least so many requests."""
    figures = []
    with rollouts(directory, INSTANCES, real=True) as stage:
        for name, (config, kubernetes) in policies(WAIT_SECONDS, PERCENT).items():
            figures.append(
                counted(
                    f"deployments, {name}",
                    stage.world,
                    lambda c=config, k=kubernetes: _deployed(stage, c, k, requests),  # type: ignore[misc]
                )
            )
    lost, total = (sum(figure.detail[word] for figure in figures) for word in ("lost", "requests"))
    every = f"{lost} lost of {total:,}; 95 %: < {1e6 * upper_bound(lost) / total:.0f} per million"
    detail = {"lost": lost, "requests": total}
    return [*figures, Figure("lost, deployments of all policies", every, "0", detail, {"lost": lost})]


def _deployed(stage: Rollouts, config: Mapping[str, Any], kubernetes: Mapping[str, Any], requests: int) -> Outcome:
    stage.guard(config, kubernetes)
    calls, deployments = call(stage.world, ENDPOINT, *stage.world.routers), 0
    for _ in rounds(calls, requests, max(1, requests // REQUESTS_PER_DEPLOYMENT)):
        stage.deploy("Succeeded")
        deployments += 1
    called = calls.finish()
    return Outcome(called, deployments, "deployments", revisions=len(called.pods))


PARTS = {"lost-deployments": measure}
"""Takes a directory of its own and the requests of each policy."""
