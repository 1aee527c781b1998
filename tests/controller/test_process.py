"""The operator as a process: it starts without AWS, stands by, takes over, stops in order, and says how it is."""

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from tests.controller.objects import endpoint, endpoint_config, model
from tests.controller.process import ROOT, OperatorProcess
from tests.controller.waiting import until

from localcluster.controlplane import ControlPlane
from sluice.kube.client import KubeClient
from sluice.ports.kube import Object

pytestmark = pytest.mark.apiserver
Start = Callable[..., Awaitable[OperatorProcess]]


@pytest.fixture
async def start(control_plane: ControlPlane, namespace: str, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts operators for this test's namespace, which holds their Lease too, and ends them."""
    started: list[OperatorProcess] = []

    async def begin(identity: str, *, ready: bool = True, **settings: str) -> OperatorProcess:
        settings = {
            "SLUICE_IDENTITY": identity,
            "SLUICE_OPERATOR_NAMESPACE": namespace,
            "SLUICE_WATCH_NAMESPACES": namespace,
            "SLUICE_LEASE_SECONDS": "4",
            "SLUICE_PERMISSIONS_SECONDS": "1",
            **settings,
        }
        process = OperatorProcess(control_plane.kubeconfig, tmp_path / f"{identity}-{len(started)}.log", **settings)
        started.append(process)
        await process.start(ready=ready)
        return process

    yield begin
    for process in started:
        await process.end()


@pytest.fixture
async def trio(kube: KubeClient, namespace: str) -> str:
    """A Model, an EndpointConfig and an Endpoint that nobody has looked at; returns the namespace."""
    for item in (model(namespace=namespace), endpoint_config(namespace=namespace), endpoint(namespace=namespace)):
        for field in ("uid", "resourceVersion", "generation"):
            item["metadata"].pop(field)
        await kube.create(item["kind"], namespace, item)
    return namespace


async def test_a_user_without_a_name_is_no_obstacle(
    start: Start, kube: KubeClient, namespace: str, tmp_path: Path
) -> None:
    """A pod's user is a number without an entry in /etc/passwd."""
    (tmp_path / "sitecustomize.py").write_text(
        "import getpass\n\ndef getuser():\n    raise OSError('no user name')\n\ngetpass.getuser = getuser\n"
    )
    await start("nameless", PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT / 'operator'}")
    item = model(namespace=namespace)
    for field in ("uid", "resourceVersion", "generation"):
        item["metadata"].pop(field)
    await kube.create("Model", namespace, item)

    async def accepted() -> bool:
        found = await kube.get("Model", namespace, item["metadata"]["name"])
        return bool((found or {}).get("status"))

    await until(accepted, 120)


async def permit(kube: KubeClient, namespace: str) -> None:
    rules = {"rules": [{"namespaces": [namespace], "executionRoles": ["*"]}]}
    metadata = {"name": "sluice-permissions", "namespace": namespace}
    body: Object = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
    await kube.create("ConfigMap", namespace, {**body, "data": {"policy.yaml": json.dumps(rules)}})


async def reason(kube: KubeClient, namespace: str, type_: str = "Ready") -> str:
    item = await kube.get("Endpoint", namespace, "churn") or {}
    conditions = (item.get("status") or {}).get("conditions") or ()
    return next((str(c["reason"]) for c in conditions if c["type"] == type_), "")


async def test_without_credentials_it_says_so_on_the_endpoint_and_stays_up(
    kube: KubeClient, trio: str, start: Start
) -> None:
    await permit(kube, trio)
    operator = await start("a", AWS_REGION="eu-west-1")
    await until(lambda: _has(kube, trio, "NoCredentials"), 120)
    status, text = await operator.ask("/healthz")
    assert (status, json.loads(text)) == (200, {"ok": True, "problems": []})
    _, metrics = await operator.ask("/metrics")
    assert "sluice_lease_held 1.0" in metrics
    assert f'sluice_endpoint_state{{name="churn",namespace="{trio}",state=' in metrics
    assert await operator.stop() == 0


async def _has(kube: KubeClient, namespace: str, wanted: str) -> bool:
    return await reason(kube, namespace) == wanted


async def test_permission_that_comes_later_is_noticed(kube: KubeClient, trio: str, start: Start) -> None:
    operator = await start("a", AWS_REGION="eu-west-1")
    await until(lambda: _has(kube, trio, "NotPermitted"), 120)
    await permit(kube, trio)
    await until(lambda: _has(kube, trio, "NoCredentials"), 120)
    assert operator.said("NotPermitted")


async def test_a_second_process_stands_by_and_takes_over_when_the_first_stops(
    kube: KubeClient, namespace: str, start: Start
) -> None:
    first = await start("a")
    second = await start("b")
    await until(lambda: second.said("waiting for the lease, which a holds"), 120)
    assert await second.is_ready()
    assert not second.said("working")
    assert await first.stop() == 0
    await until(lambda: second.said("working"), 10)
    lease = await kube.get("Lease", namespace, "sluice-operator") or {}
    assert lease["spec"]["holderIdentity"] == "b"


async def test_a_killed_process_is_waited_out_but_its_own_pod_comes_back_at_once(
    kube: KubeClient, namespace: str, start: Start
) -> None:
    first = await start("a", SLUICE_LEASE_SECONDS="300")
    await until(lambda: first.said("working"), 120)
    await first.stop(signal.SIGKILL)
    again = await start("a", SLUICE_LEASE_SECONDS="300")
    await until(lambda: again.said("working"), 120)
    stranger = await start("b", SLUICE_LEASE_SECONDS="300")
    await until(lambda: stranger.said("waiting for the lease, which a holds"), 120)
    assert not stranger.said("working")


async def test_a_process_whose_lease_another_took_ends_at_once(kube: KubeClient, namespace: str, start: Start) -> None:
    operator = await start("a")
    await until(lambda: operator.said("working"), 120)

    async def rob() -> bool:
        from sluice.ports.kube import Conflict

        lease = await kube.get("Lease", namespace, "sluice-operator") or {}
        lease["spec"]["holderIdentity"] = "robber"
        try:
            await kube.replace("Lease", namespace, lease)
        except Conflict:
            return False
        return True

    await until(rob, 120)
    async with asyncio.timeout(120):
        assert await operator.process.wait() == 3
    assert operator.said("was taken by robber")


async def test_objects_are_seen_wherever_their_change_comes_from(kube: KubeClient, trio: str, start: Start) -> None:
    await start("a", AWS_REGION="eu-west-1")
    await until(lambda: _has(kube, trio, "NotPermitted"), 120)
    await kube.delete("Model", trio, "model")
    await until(lambda: _has(kube, trio, "MissingReference"), 25)
    item = model(namespace=trio)
    for field in ("uid", "resourceVersion", "generation"):
        item["metadata"].pop(field)
    await kube.create("Model", trio, item)
    await until(lambda: _has(kube, trio, "NotPermitted"), 25)


async def test_crds_that_come_later_are_waited_for(
    control_plane: ControlPlane, kube: KubeClient, start: Start, namespace: str
) -> None:
    operator = await start("a", SLUICE_OPERATOR_NAMESPACE=namespace, SLUICE_WATCH_NAMESPACES="nowhere-yet")
    await until(lambda: operator.said("working"), 120)


async def test_an_api_server_restart_is_outlived(
    control_plane: ControlPlane, kube: KubeClient, trio: str, start: Start
) -> None:
    # What goes while no watch is open is the sweep's to see: by default within a minute.
    operator = await start("a", AWS_REGION="eu-west-1", SLUICE_SWEEP_SECONDS="5")
    await until(lambda: _has(kube, trio, "NotPermitted"), 120)
    control_plane.stop()
    await until(lambda: operator.said("the lease was not renewed"), 120)
    control_plane.start()
    await until(lambda: _missing_after_delete(kube, trio), 60)
    assert operator.process.returncode is None


async def _missing_after_delete(kube: KubeClient, namespace: str) -> bool:
    from sluice.ports.kube import KubeUnavailable

    try:
        await kube.delete("Model", namespace, "model")
        return await reason(kube, namespace) == "MissingReference"
    except KubeUnavailable:
        return False


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("SLUICE_WORKERS", "0", "SLUICE_WORKERS: found '0'; allowed is"),
        ("SLUICE_X", "1", "SLUICE_X: unknown; known are"),
    ],
)
async def test_wrong_settings_end_it_with_their_names(start: Start, variable: str, value: str, said: str) -> None:
    operator = await start("a", ready=False, **{variable: value})
    assert await operator.stop(0) == 2
    assert said in operator.log.read_text()
