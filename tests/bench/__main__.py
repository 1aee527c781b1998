"""`python -m tests.bench`: measures, prints a table, and writes every figure with its counts to a JSON file."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import kubernetes
from rich.console import Console
from rich.table import Table
from tests.bench import (
    alarms,
    capacity,
    clean,
    cloudwatch,
    cluster,
    deployments,
    emergency,
    lost,
    lost_deployments,
    measures,
    reactions,
    router,
    turning,
)
from tests.bench.figures import Figure
from tests.bench.world import CHECKOUT, World
from tests.operator.harness.kube import ApiError

from localcluster.errors import LocalClusterError

DEFAULT_OUTPUT = CHECKOUT / "build" / "bench.json"
FAILED = "failed"
SAGEMAKER_PARTS = ("creation", "restart", "steady", "throttling", "moving", "changes", "deletions")
LOST = {f"lost-{case}": case for case in lost.CASES}
CLUSTER_PARTS = (
    router.PARTS
    | cluster.PARTS
    | deployments.PARTS
    | clean.PARTS
    | capacity.PARTS
    | alarms.PARTS
    | cloudwatch.PARTS
    | emergency.PARTS
    | reactions.PARTS
    | turning.PARTS
)
PARTS = (*SAGEMAKER_PARTS, *CLUSTER_PARTS, *LOST, *lost_deployments.PARTS)
Measure = Callable[[World], list[Figure]]


def main() -> int:
    """Parse arguments, measure, report."""
    arguments = _arguments()
    sagemaker = set(arguments.only) & set(SAGEMAKER_PARTS)
    counts = ([50] if arguments.quick else arguments.endpoints) if sagemaker else []
    console, figures, began = Console(stderr=True), [], datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="sluice-bench-") as directory:
        for count in counts:
            for number, plan in enumerate(_plan(count, arguments, largest=count == max(counts))):
                with World(Path(directory) / f"{count}-{number}") as world:
                    for measure in plan:
                        figures += _run(lambda take=measure, stage=world: take(stage), console)  # type: ignore[misc]
                        _write(arguments.json, began, arguments, figures)
        for name, part in _cluster_parts(arguments).items():
            figures += _run(lambda take=part, where=Path(directory) / name: take(where), console)  # type: ignore[misc]
            _write(arguments.json, began, arguments, figures)
    output = Console(width=None if sys.stdout.isatty() else 140)
    _table(figures, output)
    output.print(f"Every figure with its counts: {arguments.json}", highlight=False, soft_wrap=True)
    return exit_code(figures)


def exit_code(figures: Sequence[Figure]) -> int:
    """1 where a measurement could not be made, or where something is not 0 that has to be. No time makes it fail."""
    return 1 if any(figure.wrong or figure.value.startswith(FAILED) for figure in figures) else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.bench", description=__doc__)
    parser.add_argument("--endpoints", type=int, nargs="+", default=[200, 1000])
    parser.add_argument("--quick", action="store_true", help="50 endpoints and short windows: is the benchmark whole?")
    parser.add_argument("--steady-minutes", type=float, default=5.0, help="5 holds exactly one full listing (default)")
    parser.add_argument("--throttle-minutes", type=float, default=3.0, help="default 3; 10 for the record")
    parser.add_argument("--requests", type=int, default=100_000, help="of each case (policy) of lost-*, at least")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="default: all of them")
    parser.add_argument("--json", type=Path, default=DEFAULT_OUTPUT, metavar="FILE")
    return parser.parse_args()


def _plan(count: int, arguments: argparse.Namespace, *, largest: bool) -> list[list[Measure]]:
    """The measurements with this many endpoints; each list has a world of its own. Lags and throttling are measured
    with the largest number only."""
    quick, only = arguments.quick, set(arguments.only)
    if only - {"creation"}:
        only.add("restart")  # creation lifts the operator's own limits; from the restart on it has its defaults
    window = 60.0 if quick else 60.0 * arguments.steady_minutes
    parts: dict[str, Measure] = {
        "restart": lambda world: measures.restart(world, count),
        "steady": lambda world: measures.steady(world, count, window),
    }
    if largest:
        parts |= {
            "throttling": lambda world: measures.throttled(
                world, count, 60.0 if quick else 60.0 * arguments.throttle_minutes
            ),
            "moving": lambda world: measures.moving_lag(world, count, moving=20, rounds=1 if quick else 3),
            "changes": lambda world: measures.steady_lag(
                world, count, changes=10 if quick else 40, over_seconds=40 if quick else 120
            ),
        }
        if not quick:
            parts["deletions"] = lambda world: measures.deletion_lag(world, count, deletions=10, over_seconds=270)
    # Endpoints must be created before anything else is measured with them.
    worlds: list[list[Measure]] = [
        [
            lambda world: measures.creation(world, count, 0.0),
            *(part for name, part in parts.items() if name in only),
        ]
    ]
    if "creation" in only:
        worlds.insert(0, [lambda world: measures.creation(world, count, 0.1)])
    return worlds


def _cluster_parts(arguments: argparse.Namespace) -> dict[str, Callable[[Path], list[Figure]]]:
    """The measurements of the Cluster backend that were asked for; each makes its world in a directory of its own."""
    quick, requests = arguments.quick, 2_000 if arguments.quick else arguments.requests
    parts: dict[str, Callable[[Path], list[Figure]]] = {
        name: lambda directory, take=take: take(directory, quick=quick)  # type: ignore[misc]
        for name, take in CLUSTER_PARTS.items()
    }
    parts |= {
        name: lambda directory, case=case: lost.measure(case, requests, directory)  # type: ignore[misc]
        for name, case in LOST.items()
    }
    parts |= {
        name: lambda directory, take=take: take(directory, requests)  # type: ignore[misc]
        for name, take in lost_deployments.PARTS.items()
    }
    return {name: part for name, part in parts.items() if name in arguments.only}


def _run(measure: Callable[[], list[Figure]], console: Console) -> list[Figure]:
    began = time.monotonic()
    try:
        with console.status("measuring ..."):
            figures = measure()
    except (
        RuntimeError,
        AssertionError,
        OSError,
        LocalClusterError,
        ApiError,
    ) as error:  # the others are still worth having
        figures = [Figure("a measurement", f"{FAILED}: {type(error).__name__}: {error}")]
    for figure in figures:
        console.print(f"{figure.name}: {figure.value}", highlight=False)
    console.print(f"  ({time.monotonic() - began:.0f} s)", style="bright_black")
    return figures


def _write(file: Path, began: datetime, arguments: argparse.Namespace, figures: list[Figure]) -> None:
    """After each measurement, so that an interrupted run is not lost."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(
        json.dumps({"run": _about(began, arguments), "figures": [asdict(one) for one in figures]}, indent=1)
    )


def _about(began: datetime, arguments: argparse.Namespace) -> dict[str, Any]:
    described = Path("/proc/cpuinfo").read_text().splitlines()
    processor = next((line.partition(":")[2].strip() for line in described if "model name" in line), platform.machine())
    return {
        "began": began.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m tests.bench", *sys.argv[1:]]),
        "commit": _output("git", "rev-parse", "--short", "HEAD"),
        "machine": {"processor": processor, "cores": os.cpu_count(), "kernel": platform.release()},
        "versions": {
            "python": platform.python_version(), "boto3": boto3.__version__, "kubernetes client": kubernetes.__version__
        },
        "loadAverage": os.getloadavg(),
        "throttleMinutes": arguments.throttle_minutes,
    }  # fmt: skip


def _output(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, cwd=CHECKOUT, check=False)  # noqa: S603 - git, no input
    return done.stdout.strip()


def _table(figures: list[Figure], console: Console) -> None:
    table = Table("figure", "measured", "aim")
    for figure in figures:
        table.add_row(
            figure.name, figure.value, f"{figure.aim} NOT MET: {figure.wrong}" if figure.wrong else figure.aim
        )
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
