"""What the rooms that make calls report about them; the controller turns it into metrics."""

from typing import Protocol


class Telemetry(Protocol):
    """Both methods are cheap, never raise, and may be called from any thread."""

    def aws_call(self, operation: str, code: str, seconds: float) -> None:
        """One call to AWS ended. operation: `DescribeEndpoint` ...; code: `ok`, or the service's or client's error
        code (`ThrottlingException`, `EndpointConnectionError` ...); seconds: how long it took."""
        ...

    def kube_call(self, verb: str, kind: str, code: str, seconds: float) -> None:
        """One call to the Kubernetes API ended. verb: `get`, `list` ...; code: the HTTP status, or `error`."""
        ...


class NoTelemetry:
    """Telemetry that nobody reads."""

    def aws_call(self, operation: str, code: str, seconds: float) -> None:
        """Nothing."""

    def kube_call(self, verb: str, kind: str, code: str, seconds: float) -> None:
        """Nothing."""
