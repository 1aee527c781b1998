"""Sees every change of every Endpoint when a client of Kubernetes sees it: one watch, in a thread of its own."""

from __future__ import annotations

import json
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import urllib3
from tests.operator.harness.kube import ApiError, Kube, path

_WATCH_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Shown:
    """What an Endpoint's status showed from a moment on."""

    at: float
    """time.time() of its arrival."""
    status: str
    ready: str
    reason: str
    weight: float | None


class EndpointWatch:
    """By name, every different state that was shown, oldest first."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self._kube, self._namespace = kube, namespace
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="endpoint-watch", daemon=True)
        self.shown: dict[str, list[Shown]] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()

    def until(self, condition: Callable[[], bool], *, seconds: float) -> bool:
        """Wait until it holds; whether it did."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not condition():
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 1.0))
        return True

    def count(self, condition: Callable[[Shown], bool]) -> int:
        """Endpoints whose latest state satisfies it."""
        return sum(1 for states in list(self.shown.values()) if states and condition(states[-1]))

    def first_after(self, name: str, moment: float, condition: Callable[[Shown], bool]) -> float | None:
        """When an Endpoint first showed it after a moment."""
        return next((one.at for one in self.shown.get(name, []) if one.at >= moment and condition(one)), None)

    def _run(self) -> None:
        context = ssl.create_default_context(cafile=str(self._kube.authority))
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        while not self._ending.is_set():
            try:
                version = self._list()
            except (OSError, urllib3.exceptions.HTTPError, ApiError):
                self._ending.wait(0.5)
                continue
            url = (
                f"{self._kube.server}{path('Endpoint', self._namespace)}?watch=1&timeoutSeconds={_WATCH_SECONDS}"
                f"&resourceVersion={version}"
            )
            request = urllib.request.Request(  # noqa: S310 - the address is the control plane's own
                url, headers={"Authorization": f"Bearer {self._kube.token}"}
            )
            try:
                with opener.open(request, timeout=_WATCH_SECONDS + 60) as stream:
                    for line in stream:
                        event = json.loads(line)
                        if self._ending.is_set() or event["type"] == "ERROR":
                            break
                        if event["type"] in ("ADDED", "MODIFIED"):
                            self._take(event["object"])
            except (OSError, urllib.error.URLError, ValueError):  # ValueError: a line that was cut off
                self._ending.wait(0.5)

    def _list(self) -> str:
        """Takes all that is there: the API server ends the watch of a client that is slow, and what happens between
        two watches is in neither. Returns the version to watch from."""
        listed = self._kube.request("GET", path("Endpoint", self._namespace))
        for found in listed["items"]:
            self._take(found)
        return str(listed["metadata"]["resourceVersion"])

    def _take(self, found: dict[str, Any]) -> None:
        status = found.get("status") or {}
        ready: dict[str, str] = next((one for one in status.get("conditions") or () if one["type"] == "Ready"), {})
        variants = status.get("productionVariants") or [{}]
        now = Shown(
            time.time(),
            status.get("endpointStatus", ""),
            ready.get("status", "Unknown"),
            ready.get("reason", ""),
            variants[0].get("currentWeight"),
        )
        with self._changed:
            states = self.shown.setdefault(found["metadata"]["name"], [])
            if not states or (states[-1].status, states[-1].ready, states[-1].reason, states[-1].weight) != (
                now.status, now.ready, now.reason, now.weight,
            ):  # fmt: skip
                states.append(now)
            self._changed.notify_all()
