"""The rights that the chart grants suffice: a real operator with a token of the chart's ServiceAccount does everything
it has to do for an Endpoint, cluster-wide and in watched namespaces only, without being refused once.

The control plane is one of its own, because an operator that watches all namespaces would meet other tests' objects."""

import asyncio
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.chart import helm
from tests.cluster_backend.declared import VARIANTS, Declared
from tests.cluster_backend.hands import Hands
from tests.controller.waiting import until
from tests.operator.harness import manifests
from tests.operator.harness.kube import Kube
from tests.operator.harness.nursery import Nursery
from tests.operator.harness.world import Surroundings, World

from localcluster.controlplane import ControlPlane
from sluice.core.cluster.names import ROUTER
from sluice.kube.client import KubeClient
from sluice.kube.configuration import load_configuration

pytestmark = pytest.mark.apiserver

ROOT = helm.CHARTS.parent
TEAM = "team-a"
CASES = {"default": None, "namespaced": f"{TEAM},team-b"}
"""Golden case -> SLUICE_WATCH_NAMESPACES."""
UNUSED_CLOUDWATCH = "http://127.0.0.1:9"
"""No alarm is named in these scenarios, so nobody calls."""


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Starts operators."""
    started = Nursery([ROOT / "operator"])
    yield started
    started.close()


def _kubectl(control_plane: ControlPlane, *arguments: str, objects: list[helm.Object] | None = None) -> str:
    argv: list[str | Path] = [control_plane.kubectl, "--kubeconfig", control_plane.kubeconfig, *arguments]
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}) if objects is not None else None
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False, timeout=240)  # noqa: S603  our own kubectl
    assert done.returncode == 0, done.stderr
    return done.stdout


def _install(control_plane: ControlPlane, name: str) -> None:
    """The kinds, the namespaces, and what of the chart concerns rights."""
    crds = helm.objects("sluice-crds", "sluice-crds")
    _kubectl(control_plane, "apply", "--server-side", "--filename=-", objects=crds)
    _kubectl(
        control_plane, "wait", "--for=condition=Established", "--timeout=180s",
        *(f"crd/{item['metadata']['name']}" for item in crds),
    )  # fmt: skip
    wanted = (helm.NAMESPACE, TEAM, "team-b")
    spaces = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": space}} for space in wanted]
    _kubectl(control_plane, "apply", "--filename=-", objects=spaces)
    values = {**helm.case(name), "permissions": {"create": True}}
    kinds = {"ServiceAccount", "ConfigMap", "Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"}
    rendered = [item for item in helm.objects(values=values) if item["kind"] in kinds]
    _kubectl(control_plane, "apply", "--filename=-", objects=rendered)


def _kubeconfig(control_plane: ControlPlane, directory: Path) -> Path:
    """The administrator's kubeconfig with the ServiceAccount's token in it."""
    token = _kubectl(control_plane, "create", "token", "sluice", f"--namespace={helm.NAMESPACE}").strip()
    config = json.loads(control_plane.kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token}
    file = directory / "operator.kubeconfig"
    file.write_text(json.dumps(config))
    return file


@pytest.mark.parametrize("name", CASES)
def test_the_chart_grants_what_the_operator_needs(name: str, nursery: Nursery, tmp_path: Path) -> None:
    with ControlPlane(tmp_path / "control-plane") as control_plane:
        _install(control_plane, name)
        kube = Kube(control_plane.kubeconfig)
        surroundings = Surroundings(kube, control_plane.kubeconfig, nursery, UNUSED_CLOUDWATCH)
        world = World(surroundings, tmp_path, namespace=TEAM, policy=None)
        try:
            world.operator = world.installation(
                kubeconfig=_kubeconfig(control_plane, tmp_path),
                environment={"SLUICE_OPERATOR_NAMESPACE": helm.NAMESPACE},
            )
            # Without an installation id the operator reads kube-system, which only the cluster-wide chart allows.
            world.operator.start(
                SLUICE_WATCH_NAMESPACES=CASES[name],
                SLUICE_INSTALLATION_ID=helm.case(name).get("installationId"),
                SLUICE_ROUTER_CLUSTER_ROLE="sluice-system-sluice-router",
            )
            _live(world)
            asyncio.run(_live_in_the_cluster(control_plane))
            world.operator.stop()
            log = world.operator.log.read_text().lower()
            assert "forbidden" not in log, world.operator.tail()
            assert " 403 " not in log, world.operator.tail()
            lease = kube.get("Lease", helm.NAMESPACE, "sluice-operator")
            assert lease is not None
            assert lease["spec"]["holderIdentity"] == "", "given back at the end"
        finally:
            world.close()
            kube.close()


async def _live_in_the_cluster(control_plane: ControlPlane) -> None:
    """The same on the cluster's own nodes. Hands of an administrator stand in for controllers, kubelet and routers."""
    configuration = await load_configuration({**os.environ, "KUBECONFIG": str(control_plane.kubeconfig)})
    kube = KubeClient(configuration, identity="test")
    hands = Hands(kube, TEAM)
    hands.work()
    try:
        people = Declared(kube, TEAM, hands)
        await people.declare()
        await people.ready()
        edited = [{**VARIANTS[0], "initialInstanceCount": 3, "initialVariantWeight": 3}, VARIANTS[1]]
        await people.apply("EndpointConfig", {"productionVariants": edited})

        async def followed() -> bool:
            return (await people.fleets())["a"] == 3 and (await people.weights())["a"] == 750_000

        await until(followed, 20)
        binding = await kube.get("RoleBinding", TEAM, ROUTER)
        assert binding is not None
        assert binding["roleRef"]["name"] == "sluice-system-sluice-router"
        await kube.delete("Endpoint", TEAM, "churn")
        await people.gone()
        for kind in ("ServiceAccount", "RoleBinding"):
            assert await kube.get(kind, TEAM, ROUTER) is None
    finally:
        await hands.rest()
        await kube.close()


def _live(world: World) -> None:
    """The life of an Endpoint: every right is needed once."""
    world.apply(manifests.model(), manifests.config(), manifests.endpoint())
    world.ready(seconds=40)
    for tag in (2, 3, 4):  # the fourth revision makes the first one go
        world.apply(manifests.model(f"registry.example/churn:{tag}"))
        world.deployed(f"registry.example/churn:{tag}")
    world.wait(lambda: len(world.revisions()) == 2, "two revisions are kept: serving and previous")
    world.expect(kind="Model", Ready="True Accepted", RolledOut="True RolledOut")
    assert {reason for _, reason in world.events()} >= {"Ready", "DeploymentStarted"}
    world.delete()
    world.gone()
    assert world.revisions() == []
    assert world.standing() == {"endpoints": [], "endpointConfigs": [], "models": []}
