"""What a person sees of every Endpoint of a namespace, one after the other, by a watch: nothing short is missed."""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator

import urllib3
from tests.operator.harness.kube import Kube, Object, path

Look = Callable[[list[Object]], bool]
"""Whether what was seen so far (statuses, oldest first) has what is waited for."""


class Recorder:
    """Keeps the statuses of all Endpoints of a namespace, in order."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube = kube
        self._namespace = namespace
        self._changed = threading.Condition()
        self._seen: dict[str, list[Object]] = {}
        self._pool = urllib3.PoolManager(num_pools=1, maxsize=1, ca_certs=str(kube.authority), retries=False)
        self._ended = False
        self.failure: BaseException | None = None
        version = kube.request("GET", path("Endpoint", namespace))["metadata"]["resourceVersion"]
        self._thread = threading.Thread(target=self._record, args=(version,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """No more is kept; who still waits is told."""
        with self._changed:
            self._ended = True
            self.failure = self.failure or RuntimeError("the recorder was closed")
            self._changed.notify_all()
        self._pool.clear()

    def seen(self, name: str) -> list[Object]:
        """Objects so far, oldest first."""
        with self._changed:
            return list(self._seen.get(name, ()))

    def mark(self, name: str) -> int:
        """Where the record of an Endpoint stands now."""
        with self._changed:
            return len(self._seen.get(name, ()))

    def until(self, name: str, look: Look, what: str, seconds: float, since: int = 0) -> list[Object]:
        """Wait for what is seen; returns all since `since`. Raises AssertionError with the newest status."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not look(found := self._seen.get(name, [])[since:]):
                if self.failure is not None:
                    raise AssertionError(f"{name}: the watch ended: {self.failure!r}")
                left = deadline - time.monotonic()
                if left <= 0:
                    last = json.dumps((found or self._seen.get(name) or [{}])[-1].get("status"))
                    raise AssertionError(f"{name}: {what} not within {seconds:g} s\nseen: {last}")
                self._changed.wait(left)
            return list(found)

    def _record(self, version: str) -> None:
        try:
            while not self._ended:
                for event in self._events(version):
                    if event["type"] == "ERROR":
                        raise RuntimeError(str(event["object"]))
                    item = event["object"]
                    version = item["metadata"]["resourceVersion"]
                    if event["type"] == "BOOKMARK":
                        continue
                    with self._changed:
                        self._seen.setdefault(item["metadata"]["name"], []).append(item)
                        self._changed.notify_all()
        except Exception as error:  # noqa: BLE001 - told to whoever waits
            if not self._ended:
                with self._changed:
                    self.failure = error
                    self._changed.notify_all()

    def _events(self, version: str) -> Iterator[Object]:
        url = f"{self._kube.server}{path('Endpoint', self._namespace)}?watch=1&resourceVersion={version}"
        headers = {"Authorization": f"Bearer {self._kube.token}", "Accept": "application/json"}
        answer = self._pool.request("GET", url, headers=headers, preload_content=False, timeout=600.0)
        assert answer.status == 200, answer.data
        rest = b""
        with contextlib.closing(answer):
            for part in answer.stream(1 << 16):
                *lines, rest = (rest + part).split(b"\n")
                for line in lines:
                    yield json.loads(line)
