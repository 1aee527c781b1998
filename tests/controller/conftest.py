"""A client of the run's real API server, with the CRDs installed and a namespace of its own for each test; and passes
in memory."""

import os
import uuid
from collections.abc import AsyncIterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.controller.pass_world import ALLOWED, World
from tests.controller.waiting import until

from localcluster.controlplane import ControlPlane
from sluice.kube.client import KubeClient
from sluice.kube.configuration import load_configuration
from sluice.kube.resources import RESOURCES, Resource

CRDS = Path(__file__).parents[2] / "crds"


class Telemetry:
    """Counts calls."""

    def __init__(self) -> None:
        self.kube: list[tuple[str, str, str]] = []

    def aws_call(self, operation: str, code: str, seconds: float) -> None:
        raise AssertionError("no AWS here")

    def kube_call(self, verb: str, kind: str, code: str, seconds: float) -> None:
        self.kube.append((verb, kind, code))


@pytest.fixture
def world() -> World:
    """One Endpoint's passes, in memory; everything is permitted."""
    return World(ALLOWED)


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
async def kube(control_plane: ControlPlane, telemetry: Telemetry) -> AsyncIterator[KubeClient]:
    """The adapter under test."""
    client = KubeClient(
        await load_configuration({**os.environ, "KUBECONFIG": str(control_plane.kubeconfig)}),
        identity="test",
        telemetry=telemetry,
    )
    yield client
    await client.close()


@pytest.fixture
async def namespace(control_plane: ControlPlane, kube: KubeClient) -> str:
    """A new namespace; the CRDs are there."""
    await install_crds(kube)
    name = f"ns-{uuid.uuid4().hex[:12]}"  # conftests are loaded under several names, so no counter is the only one
    await kube.create("Namespace", "", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    return name


@cache
def definitions() -> tuple[Any, ...]:
    """The generated CRDs; parsing them takes longer than most tests."""
    return tuple(yaml.safe_load(path.read_text()) for path in sorted(CRDS.glob("*.yaml")))


async def install_crds(kube: KubeClient) -> None:
    """Install the generated CRDs and wait until they are served."""
    kind = "CustomResourceDefinition"
    RESOURCES.setdefault(kind, Resource("apiextensions.k8s.io/v1", kind, "customresourcedefinitions", namespaced=False))
    names = [body["metadata"]["name"] for body in definitions()]
    for name, body in zip(names, definitions(), strict=True):
        if await kube.get(kind, "", name) is None:
            await kube.create(kind, "", body)
    for name in names:
        await until(lambda name=name: _served(kube, name), 120)


async def _served(kube: KubeClient, name: str) -> bool:
    crd = await kube.get("CustomResourceDefinition", "", name) or {}
    conditions = {c["type"]: c["status"] for c in (crd.get("status") or {}).get("conditions") or ()}
    return conditions.get("Established") == "True"
