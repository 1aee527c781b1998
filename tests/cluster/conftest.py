"""The demo is told once for all cluster tests; each test goes on from the Endpoint that it leaves in service."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from demo import install, steps
from demo.example import read_example
from demo.surroundings import CHECKOUT, Surroundings

DEMO_SECONDS = 600


@dataclass(frozen=True, slots=True)
class Told:
    """A finished run of `python -m demo` without a terminal."""

    code: int
    output: str
    errors: str
    transcript: Path


@pytest.fixture(scope="session")
def surroundings() -> Surroundings:
    """The cluster of `make up`; without one this fails and says what to do."""
    return Surroundings.from_environment()


@pytest.fixture(scope="session")
def told(surroundings: Surroundings, tmp_path_factory: pytest.TempPathFactory) -> Told:
    """The demo, run as a person without a terminal would."""
    transcript = tmp_path_factory.mktemp("demo") / "transcript.md"
    path = os.pathsep.join(str(CHECKOUT / place) for place in ("local", "simulator", "operator"))
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "demo", "--transcript", str(transcript)],
        capture_output=True,
        text=True,
        timeout=DEMO_SECONDS,
        cwd=CHECKOUT,
        env={**os.environ, "PYTHONPATH": path},
        check=False,
    )
    return Told(done.returncode, done.stdout, done.stderr, transcript)


@pytest.fixture(scope="session")
def stage(surroundings: Surroundings, told: Told) -> Iterator[steps.Stage]:
    """What the demo left running, with the demo's own eyes and hands."""
    assert told.code == 0, f"the demo failed, so there is nothing to go on from:\n{told.output}\n{told.errors}"
    example = read_example()
    with install.simulated_aws(surroundings) as aws, steps.watcher(surroundings, example) as watcher:
        made = steps.Stage(surroundings, aws, example, watcher, print)
        watcher.until("the demo's Endpoint is seen", lambda seen: seen.is_ready, seconds=30)
        yield made
