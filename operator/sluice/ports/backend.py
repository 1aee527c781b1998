"""Where Endpoints become real: SageMaker, or the cluster itself."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from sluice.api.status import EndpointStatus
from sluice.core.actions import AwsAction
from sluice.core.cluster.actions import ClusterAction
from sluice.core.cluster.observation import ClusterObservation
from sluice.core.cluster.rights import AlarmPlace
from sluice.core.identity import Key, Owner, Target
from sluice.core.observation import AlarmReading, AlarmWatch, CallProblem, Listed, Observation, Questions
from sluice.core.resolve import Resolution
from sluice.core.revision import StoredRevision


class ActFailed(Exception):
    """An action failed; the problem says what kind of failure it was."""

    def __init__(self, problem: CallProblem) -> None:
        super().__init__(f"{problem.operation}: {problem.message}")
        self.problem = problem


class Backend(Protocol):
    """SageMaker. One pass uses listed (cheap, from the sweep), observe and act; on_moved tells what moved outside."""

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


@dataclass(frozen=True, slots=True)
class ClusterSight:
    """What was seen of one Endpoint in the cluster, or what kept it from being seen."""

    seen: ClusterObservation | None = None
    problem: CallProblem | None = None


class ClusterBackend(Protocol):
    """The cluster's own nodes. Nothing has to be swept: what moves wakes the Endpoint through the watches."""

    async def observe(
        self, endpoint: Mapping[str, Any], resolution: Resolution, stored: tuple[StoredRevision, ...]
    ) -> ClusterSight:
        """Look, live. Never raises for the API server's failures."""
        ...

    async def act(self, owner: Owner, action: ClusterAction, seen: ClusterObservation) -> None:
        """Make one change. `seen`: what it was decided from. Raises ActFailed, NotHeld, and Conflict where something is
        not as it was observed."""
        ...


class AlarmReader(Protocol):
    """CloudWatch alarms by name; one poller serves all Endpoints with the same credentials."""

    async def read(self, target: Target, names: tuple[str, ...], not_before: datetime) -> tuple[AlarmReading, ...]:
        """A reading of each name taken at or after not_before. Unreachable or denied: state Unreadable."""
        ...


class ClusterAlarms(Protocol):
    """The alarms of Endpoints in the cluster, from wherever they are; one poller reads for all Endpoints. Passes never
    wait for it: they tell what to watch and take the newest readings."""

    def watch(self, key: Key, watch: AlarmWatch | None) -> None:
        """Keep these alarms read from now on; None: no longer. The same watch again changes nothing."""
        ...

    def readings(self, key: Key) -> tuple[AlarmReading, ...]:
        """The newest reading of each watched alarm that has been read since it is watched. Unreachable or denied: state
        Unreadable; unknown to its source: Missing."""
        ...

    def on_moved(self, wake: Callable[[Key], None], fired: Callable[[Key], None]) -> None:
        """Call fired(key) when an alarm comes to be in ALARM, and wake(key) when a reading's state changes otherwise,
        and with the first reading of every alarm."""
        ...


class AlarmPlaces(Protocol):
    """Where the operator's own identity reads CloudWatch alarms. Passes never wait for it."""

    def now(self) -> AlarmPlace:
        """As far as it is known."""
        ...

    def ask(self) -> None:
        """Find out which account it is; who waits for it is woken."""
        ...
