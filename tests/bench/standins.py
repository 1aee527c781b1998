"""What kubelet and the controllers do for fleets in a bare control plane, so that their pods really answer: each pod
gets a model container (pod.py) at an address of its own, is Ready when that listens, and stands in its fleet's
EndpointSlice while it does."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.bench.routing import NAMESPACE, Routing, Started
from tests.operator.harness.kube import ApiError

from sluice.core.cluster.names import LABEL_FLEET

EVERY_SECONDS = 0.1
READY = {
    "phase": "Running",
    "conditions": [
        {"type": "PodScheduled", "status": "True"},
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:01:00Z"},
    ],
    "containerStatuses": [
        {
            "name": "model", "image": "registry.example/churn:1", "ready": True, "started": True, "restartCount": 0,
            "imageID": "registry.example/churn@sha256:" + "a" * 64,
            "state": {"running": {"startedAt": "2026-01-01T00:00:30Z"}},
        }
    ],
}  # fmt: skip
PRE_STOP_SECONDS = 5.0
"""From a pod's deletion to its SIGTERM: what its preStop hook sleeps, 15 s by default."""


class StandIns:
    """They work on a thread of their own until they are left; a failure there is raised by `check`."""

    def __init__(self, world: Routing, addresses: int) -> None:
        self._world = world
        self._free = list(range(1, addresses + 1))
        self._running: dict[str, tuple[int, Started]] = {}
        """By the pod's name."""
        self._leaving: list[tuple[float, int, Started]] = []
        """With the moment of the SIGTERM."""
        self._slices: dict[str, tuple[int, ...]] = {}
        self._records: dict[str, Path | None] = {}
        """By fleet."""
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="stand-ins", daemon=True)
        self.ready: dict[str, float] = {}
        """Fleet -> time.time() at which its last pod was about to be written as Ready."""
        self.record: Path | None = None
        """Fleets that come from now on are bad and write here; None: they are good."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join(60)
        for _, started in self._running.values():
            started.kill()
        for _, _, started in self._leaving:
            started.kill()

    def check(self) -> None:
        """Raises RuntimeError if they have stopped."""
        if self._error is not None:
            raise RuntimeError(f"the stand-ins of the pods ended: {self._error!r}") from self._error

    def _work(self) -> None:
        try:
            while not self._ended.wait(EVERY_SECONDS):
                self._round()
        except BaseException as error:  # noqa: BLE001 - raised again by check
            self._error = error

    def _round(self) -> None:
        pods = {
            str(pod["metadata"]["name"]): str(pod["metadata"]["labels"][LABEL_FLEET])
            for pod in self._world.kube.list("Pod", NAMESPACE, labelSelector=LABEL_FLEET)
        }
        for name in self._running.keys() - pods.keys():
            self._leaving.append((time.monotonic() + PRE_STOP_SECONDS, *self._running.pop(name)))
        self._publish(pods)  # before anything starts: who goes leaves at once
        starting: dict[str, tuple[int, Started]] = {}
        for name, fleet in pods.items():
            if name not in self._running:
                record = self._records.setdefault(fleet, self.record)
                number = self._free.pop(0)
                starting[name] = number, self._world.start_pod(number, fleet, record)
        for name, (number, started) in starting.items():
            self._world.until_listens(number)
            self._running[name] = number, started
            self.ready[pods[name]] = time.time()
            self._become_ready(name)
        self._publish(pods)
        for one in [one for one in self._leaving if one[0] <= time.monotonic()]:
            self._leaving.remove(one)
            _, number, started = one
            started.stop()
            self._free.append(number)

    def _become_ready(self, name: str) -> None:
        try:
            self._world.kube.patch("Pod", NAMESPACE, name, {"status": READY}, subresource="status")
        except ApiError as error:
            if error.status != 404:  # it is gone again
                raise

    def _publish(self, pods: dict[str, str]) -> None:
        """The slices of all fleets, as far as their pods run."""
        wanted: dict[str, tuple[int, ...]] = dict.fromkeys(self._slices, ())
        for name, (number, _) in self._running.items():
            wanted[pods[name]] = (*wanted.get(pods[name], ()), number)
        for fleet, numbers in wanted.items():
            if self._slices.get(fleet) != numbers:
                self._world.routes.put_pods(fleet, *numbers)
                self._slices[fleet] = numbers
