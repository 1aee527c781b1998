"""What a failed call to the API server means for an Endpoint."""

from collections.abc import Iterator

from sluice.api.reasons import Reason
from sluice.core.observation import CallProblem
from sluice.ports.kube import Gone, HeldByBudget
from sluice.ports.refusals import LATER_SECONDS, REFUSALS, SOON_SECONDS, Refusal, refused

Failure = Refusal | HeldByBudget | Gone
FAILURES = (*REFUSALS, HeldByBudget, Gone)


def leaves(group: BaseExceptionGroup[Failure]) -> Iterator[Failure]:
    """The failures in a group of groups."""
    for failure in group.exceptions:
        if isinstance(failure, BaseExceptionGroup):
            yield from leaves(failure)
        else:
            yield failure


def problem(operation: str, failure: Failure) -> CallProblem:
    """The failure of an operation (`ListFleets`, `EnsureFleet` ...), classified. All are tried again by themselves;
    what a person must mend is tried less often."""
    match failure:
        case HeldByBudget():
            return CallProblem(operation, Reason.ROUTER_NOT_CONVERGED, str(failure), retry_after_seconds=SOON_SECONDS)
        case Gone():
            text = f"{failure}; install the CRDs (crds/) of this version"
            return CallProblem(operation, Reason.BACKEND_NOT_AVAILABLE, text, retry_after_seconds=LATER_SECONDS)
        case _:
            return refused(operation, failure)
