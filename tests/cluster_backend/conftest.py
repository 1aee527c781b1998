"""The run's real API server, as tests/controller has it. There is no controller-manager and no kubelet: tests write
what those would."""

from tests.controller.conftest import kube, namespace, telemetry

__all__ = ["kube", "namespace", "telemetry"]
