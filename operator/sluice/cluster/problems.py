"""What a failed call to the API server means for an Endpoint."""

from collections.abc import Iterator

from sluice.api.reasons import Reason
from sluice.core.observation import CallProblem
from sluice.ports.kube import Forbidden, Gone, HeldByBudget, KubeUnavailable, Rejected

Failure = KubeUnavailable | Forbidden | Rejected | HeldByBudget | Gone
FAILURES = (KubeUnavailable, Forbidden, Rejected, HeldByBudget, Gone)

SOON_SECONDS = 2.0
LATER_SECONDS = 30.0


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
    message = str(failure)
    match failure:
        case HeldByBudget():
            return CallProblem(operation, Reason.ROUTER_NOT_CONVERGED, message, retry_after_seconds=SOON_SECONDS)
        case Gone():
            text = f"{message}; install the CRDs (crds/) of this version"
            return CallProblem(operation, Reason.BACKEND_NOT_AVAILABLE, text, retry_after_seconds=LATER_SECONDS)
        case Forbidden() if "exceeded quota" in message:
            return CallProblem(operation, Reason.QUOTA_EXCEEDED, message, retry_after_seconds=LATER_SECONDS)
        case Forbidden() if "being terminated" in message:
            return CallProblem(operation, Reason.DELETING, message, retry_after_seconds=SOON_SECONDS)
        case Forbidden():
            return CallProblem(operation, Reason.ACCESS_DENIED, message, retry_after_seconds=LATER_SECONDS)
        case Rejected():
            return CallProblem(
                operation, Reason.REJECTED_BY_KUBERNETES, message, transient=False, retry_after_seconds=LATER_SECONDS
            )
        case _:
            return CallProblem(operation, Reason.UNREACHABLE, message, retry_after_seconds=SOON_SECONDS)
