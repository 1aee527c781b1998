"""The operator as it is put together: an alarm that fires sends its Endpoint past all that wait for a pass."""

import pytest
from kubernetes.aio.client import Configuration
from prometheus_client import CollectorRegistry
from tests.alarms.stepped import Says, key, watch

from sluice.controller.metrics import Metrics
from sluice.kube.client import KubeClient
from sluice.main.settings import Settings
from sluice.main.wiring import Operator
from sluice.ports.clock import SystemClock


@pytest.mark.parametrize(("state", "passes"), [("ALARM", ["guarded", "other"]), ("OK", ["other", "guarded"])])
async def test_only_an_alarm_that_fires_goes_first(state: str, passes: list[str]) -> None:
    kube = KubeClient(Configuration(), identity="test")
    operator = Operator(Settings(), kube, Metrics(CollectorRegistry(), "test"), "prod", in_cluster=True)
    try:
        assert operator._cluster is not None
        alarms, source = operator._cluster.alarms, Says(SystemClock())
        operator._queue.add(key("other"))
        alarms.watch(key("guarded"), watch("errors", endpoint="guarded"))
        source.states = {"errors": state}
        await alarms.poll(source)
        taken = [operator._queue._schedule.take(0.0) for _ in passes]
        assert [found.name for found in taken if found is not None] == passes
    finally:
        await kube.close()
