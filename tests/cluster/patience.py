"""Deployments that end only because their time is over: each takes its ten to twenty minutes, so they all begin with
the first cluster test, under a load of their own, and go on beside whatever the other tests break."""

import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import urllib3
from tests.cluster import pods
from tests.cluster.hosting import BUCKET, Hosting, Loads, is_ready, named
from tests.operator.harness.kube import ApiError, Object, T

NAMESPACE = "patience"
SLOT = "example.com/slot"
SLOTS = 2
"""As many instances as the fleet has that replaces its own."""
SOON_SECONDS = 600.0
"""Pods start beside those of all other tests."""
DEADLINE_SECONDS = 600
"""The shortest that SageMaker and the API allow."""
BUDGET_SECONDS = 1020
"""A fleet's time to start: a place on a node, download and start-up at their shortest."""
LATE_SECONDS = 300.0
"""The API server may be away for a minute when a time is over, and the operator with it."""
CORNERED_BAKE_SECONDS = 90
"""Long enough that somebody acts in it."""
BLIND_AFTER_SECONDS = 300
BLIND_BAKE_SECONDS = 400
"""Longer than until the alarm cannot be read any more, shorter than the deadline."""
TOO_MANY_REQUESTS = 429
SHORTEST = {"containerStartupHealthCheckTimeoutInSeconds": 60, "modelDataDownloadTimeoutInSeconds": 60}
SMALL = {"requests": {"cpu": "20m", "memory": "128Mi"}, "limits": {"memory": "768Mi"}}
HALF = {"type": "CAPACITY_PERCENT", "value": 50}


def canary(wait: int, **policy: Any) -> Object:
    """Half, then the rest; of one instance by the routers' weights."""
    routing = {"type": "CANARY", "canarySize": HALF, "waitIntervalInSeconds": wait}
    return {"blueGreenUpdatePolicy": {"trafficRoutingConfiguration": routing, "terminationWaitInSeconds": 5, **policy}}


class Patience:
    """The deployments that wait, each told by a thread; nobody waits for one that was not asked for."""

    def __init__(self, hosting: Hosting) -> None:
        self.hosting = hosting
        [operator] = pods.operator_pods(hosting.stage)
        self._node = operator["spec"]["nodeName"]
        self._ends: dict[str, Future[None]] = {}

    def begin(self) -> None:
        """Begin them all."""
        self.hosting.open()
        for name in STORIES:  # before the threads: who uploads first makes the bucket
            self.hosting.upload(name, named(name))
            self.hosting.upload(_new(name), named(_new(name)))
        for name in STORIES:
            self._ends[name] = Future()
            threading.Thread(target=self._tell, args=(name,), name=name, daemon=True).start()

    def ended(self, name: str) -> None:
        """Wait for one; raises what went wrong in it."""
        self._ends[name].result()

    def _tell(self, name: str) -> None:
        try:
            STORIES[name](self, name)
        except BaseException as error:  # noqa: BLE001 - the test that asks for it raises it
            self._ends[name].set_exception(error)
        else:
            self._ends[name].set_result(None)

    # The stories --------------------------------------------------------------------------------------------------

    def paused(self, name: str) -> None:
        """A person's pause that is forgotten: the deadline rolls back."""
        old = self._serves(name, canary(60, maximumExecutionTimeoutInSeconds=DEADLINE_SECONDS))
        with self._load(name) as loads:
            self._ship(name)
            baking = self._until(name, lambda: self._in(name, "Baking"))
            self._annotate(name, f"sluice.dev/pause={baking['deployment']['revision']}")
            self._until(name, lambda: "Paused" in self.hosting.says(name) or None)
            ended = self._until(name, lambda: self._over(name), DEADLINE_SECONDS + LATE_SECONDS)
            self._nothing_to_the_new(name, loads)
        loads.assert_none_lost()
        self._turned_back(ended, old, "Deadline", "not finished by")
        assert _time(ended["lastDeployment"]["endTime"]) >= _time(baking["deployment"]["deadline"])

    def blind(self, name: str) -> None:
        """An expression that Prometheus computes at first and later refuses, as with series that come to match twice:
        the deployment holds until its deadline rolls it back."""
        old = self._serves(name, canary(5))
        blind_at = datetime.now(UTC) + timedelta(seconds=BLIND_AFTER_SECONDS)
        second = f'label_replace(vector(1) and on() (vector(time()) > {blind_at.timestamp():.0f}), "a", "b", "", "")'
        alarm = {"expression": f"vector(0) + on() (vector(1) or {second})", "comparison": "GreaterThanThreshold"}
        self._endpoint(
            name,
            canary(BLIND_BAKE_SECONDS, maximumExecutionTimeoutInSeconds=DEADLINE_SECONDS),
            kubernetes={"alarms": [{"name": "matched", "promql": {**alarm, "threshold": 5}}]},
        )
        with self._load(name) as loads:
            self._ship(name)
            self._until(name, lambda: self._in(name, "Baking"))
            self._until(name, lambda: "AlarmsUnreadable" in self.hosting.says(name) or None)
            held = self._in(name, "Baking")
            assert held is not None, "it neither went on nor back"
            ended = self._until(name, lambda: self._over(name), DEADLINE_SECONDS + LATE_SECONDS)
            self._nothing_to_the_new(name, loads)
        loads.assert_none_lost()
        self._turned_back(ended, old, "AlarmsUnreadable", "PromQL alarm matched")

    def crowded(self, name: str) -> None:
        """Instances that no node has room for: rolled back when they have had their time, without any traffic."""
        old = self._serves(name, canary(5))
        with self._load(name) as loads:
            self._ship(name, resources={"requests": {"cpu": "640"}})
            self._until(name, lambda: "no node takes the pod" in self.hosting.says(name) or None)
            ended = self._until(name, lambda: self._over(name), BUDGET_SECONDS + LATE_SECONDS)
            self._nothing_to_the_new(name, loads)
        loads.assert_none_lost()
        assert _answers(loads, _new(name)) == 0
        self._turned_back(ended, old, "Capacity", "Insufficient cpu")

    def cornered(self, name: str) -> None:
        """Replace first, turned back when half of the pool's room is gone and all instances are new: the rollback has
        failed in SageMaker's words when its first instance has had its time, goes on, and ends when there is room."""
        self._slots(SLOTS)
        policy = {"rollingUpdatePolicy": {"maximumBatchSize": HALF, "waitIntervalInSeconds": CORNERED_BAKE_SECONDS}}
        slotted = {"requests": SMALL["requests"], "limits": {**SMALL["limits"], SLOT: "1"}}
        old = self._serves(name, policy, count=SLOTS, resources=slotted, kubernetes={"replaceFirst": True})
        with self._load(name) as loads:
            self._ship(name, resources=slotted)
            self._until(name, lambda: self._in(name, "FinalBaking"))
            self._until(name, lambda: self._slots(SLOTS - 1))
            self._annotate(name, f"sluice.dev/rollback={old}")
            failed = self._until(name, lambda: self._shows(name, "UpdateRollbackFailed"), BUDGET_SECONDS + LATE_SECONDS)
            assert f"Insufficient {SLOT}" in failed["failureReason"]
            self._until(name, lambda: self._slots(SLOTS))
            ended = self._until(name, lambda: self._over(name))
            self._until(name, lambda: len([*filter(is_ready, self.hosting.fleet(name, name))]) == SLOTS or None)
            self._nothing_to_the_new(name, loads)
        loads.assert_none_lost()
        self._turned_back(ended, old, "Person", "annotation sluice.dev/rollback")

    # Eyes and hands -----------------------------------------------------------------------------------------------

    def _serves(self, name: str, policy: Object, *, count: int = 1, resources: Any = SMALL, **spec: Any) -> str:
        """An Endpoint in service; its revision."""
        hosting = self.hosting
        hosting.model(name, _data(name), resources=resources)
        self._endpoint(name, policy, count, **spec)
        return str(hosting.until(name, lambda: self._is_in_service(name), SOON_SECONDS)["revision"]["name"])

    def _endpoint(self, name: str, policy: Object, count: int = 1, **spec: Any) -> None:
        variant = {"variantName": name, "initialInstanceCount": count, **SHORTEST}
        self.hosting.endpoint(name, [variant], deploymentConfig=policy, **spec)

    def _ship(self, name: str, resources: Any = SMALL) -> None:
        def shipped() -> bool:
            self.hosting.model(name, _data(_new(name)), resources=resources)
            return True

        self._until(name, shipped)

    @contextmanager
    def _load(self, name: str) -> Iterator[Loads]:
        """Constant, and light: it lasts for the whole run."""
        with self.hosting.load(name, callers=2, pause=0.25) as loads:
            yield loads

    def _slots(self, count: int | None) -> bool:
        """So many slots on the node, as if a device plugin had said so."""
        amount = None if count is None else str(count)
        status = {"status": {"capacity": {SLOT: amount}, "allocatable": {SLOT: amount}}}
        path = f"/api/v1/nodes/{self._node}/status"
        self.hosting.kube.request("PATCH", path, status, content_type="application/merge-patch+json")
        return True

    def end(self) -> None:
        """The namespace goes, with whoever still waits in it."""
        self._slots(None)
        self.hosting.close()

    def _annotate(self, name: str, *words: str) -> None:
        said = {"metadata": {"annotations": dict(word.split("=", 1) for word in words)}}
        self._until(name, lambda: self.hosting.kube.patch("Endpoint", self.hosting.namespace, name, said))

    def _until(self, name: str, look: Callable[[], T | None], seconds: float = SOON_SECONDS) -> T:
        """As Hosting's; an API server that is away shows nothing."""

        def tolerant() -> T | None:
            try:
                return look()
            except urllib3.exceptions.HTTPError:
                return None
            except ApiError as error:
                if error.status < TOO_MANY_REQUESTS:
                    raise
                return None

        return self.hosting.until(name, tolerant, seconds)

    def _is_in_service(self, name: str) -> Object | None:
        return self._shows(name, "InService")

    def _shows(self, name: str, word: str) -> Object | None:
        status = self.hosting.status(name)
        return status if status.get("endpointStatus") == word else None

    def _in(self, name: str, stage: str) -> Object | None:
        status = self.hosting.status(name)
        return status if (status.get("deployment") or {}).get("stage") == stage else None

    def _over(self, name: str) -> Object | None:
        status = self.hosting.status(name)
        return status if status.get("lastDeployment") and status.get("deployment") is None else None

    def _nothing_to_the_new(self, name: str, loads: Loads) -> None:
        """From now on the new model answers nothing, well or badly."""
        before = (_answers(loads, _new(name)), loads.lost())
        loads.more(50)
        assert (_answers(loads, _new(name)), loads.lost()) == before, "the revision that went was asked again"

    @staticmethod
    def _turned_back(status: Object, revision: str, cause: str, message: str) -> None:
        last, said = status["lastDeployment"], json.dumps(status, indent=1)
        assert (last["outcome"], last["cause"]) == ("RolledBack", cause), said
        assert message in last["message"], said
        assert (status["endpointStatus"], status["revision"]["name"]) == ("InService", revision), said


STORIES: dict[str, Callable[[Patience, str], None]] = {
    "paused": Patience.paused,
    "blind": Patience.blind,
    "crowded": Patience.crowded,
    "cornered": Patience.cornered,
}


def _new(name: str) -> str:
    return f"{name}-two"


def _data(model: str) -> str:
    return f"s3://{BUCKET}/{model}/model.tar.gz"


def _answers(loads: Loads, model: str) -> int:
    return loads.answers().get(json.dumps({"predictions": [model]}), 0)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
