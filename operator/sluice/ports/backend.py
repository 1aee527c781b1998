"""Where Endpoints become real. SageMaker implements this; the cluster will."""

from collections.abc import Callable
from datetime import datetime
from typing import Protocol

from sluice.api.status import EndpointStatus
from sluice.core.actions import AwsAction
from sluice.core.identity import Key, Target
from sluice.core.observation import AlarmReading, CallProblem, Listed, Observation, Questions


class ActFailed(Exception):
    """An action failed; the problem says what kind of failure it was."""

    def __init__(self, problem: CallProblem) -> None:
        super().__init__(f"{problem.operation}: {problem.message}")
        self.problem = problem


class Backend(Protocol):
    """One pass uses listed (cheap, from the sweep), observe and act; wake tells the controller what moved."""

    async def account_id(self, target: Target) -> str:
        """The account that the target's credentials belong to (cached). Raises ActFailed."""
        ...

    def listed(self, target: Target) -> Listed | None:
        """The endpoint in the newest listing; None if it is not there or nothing was listed yet."""
        ...

    async def observe(self, target: Target, status: EndpointStatus, questions: Questions) -> Observation:
        """Look. Never raises for AWS' failures: they are Observation.problem."""
        ...

    async def act(self, target: Target, action: AwsAction) -> None:
        """Make one call. Raises ActFailed."""
        ...

    def watch(self, key: Key, target: Target, *, moving: bool) -> None:
        """Keep this Endpoint in the sweep of its account and region; `moving` asks for close looks."""
        ...

    def forget(self, key: Key) -> None:
        """Take the Endpoint out of the sweep."""
        ...

    def on_moved(self, wake: Callable[[Key], None]) -> None:
        """Call wake(key) when a watched endpoint's listing differs from what was last described."""
        ...


class AlarmReader(Protocol):
    """CloudWatch alarms by name; one poller per account and region serves all Endpoints."""

    async def read(self, target: Target, names: tuple[str, ...], not_before: datetime) -> tuple[AlarmReading, ...]:
        """A reading of each name taken at or after not_before. Unreachable or denied: state Unreadable."""
        ...
