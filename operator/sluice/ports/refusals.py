"""What a call that the API server refused, or did not answer, means for an Endpoint."""

from sluice.api.reasons import Reason
from sluice.core.observation import CallProblem
from sluice.ports.kube import Forbidden, KubeUnavailable, Rejected

SOON_SECONDS = 2.0
LATER_SECONDS = 30.0

Refusal = KubeUnavailable | Forbidden | Rejected
REFUSALS = (KubeUnavailable, Forbidden, Rejected)


def refused(operation: str, refusal: Refusal) -> CallProblem:
    """The refusal of an operation (`StoreRevision`, `EnsureFleet` ...), classified. All are tried again by themselves;
    what a person must mend is tried less often."""
    message = str(refusal)
    match refusal:
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
