"""The run's real API server, as tests/controller has it. There is no controller-manager and no kubelet: tests write
what those would."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.cluster_backend.declared import Declared, operated
from tests.controller.conftest import kube, namespace, telemetry

from localcluster.controlplane import ControlPlane
from sluice.kube.client import KubeClient

__all__ = ["kube", "namespace", "telemetry"]


@pytest.fixture
async def world(
    control_plane: ControlPlane,
    kube: KubeClient,
    namespace: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Declared]:
    """A real operator process in a namespace of its own, with the settings that the module names in SETTINGS."""
    log = tmp_path / "operator.log"
    async with operated(control_plane.kubeconfig, kube, namespace, log, **request.module.SETTINGS) as operating:
        yield operating
