"""Watches one Endpoint and its events, and lets a step wait for what it should show, with a deadline."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from demo.picture import Picture, picture
from demo.surroundings import Api, DemoError, NotReachableError, Surroundings

LOOK_SECONDS = 0.25
EVENTS_EVERY = 4
FIRST_LOOK_SECONDS = 120
SHOWN_LOG_LINES = 25


class NotHappenedError(DemoError):
    """What a step waits for did not happen; carries what was seen instead."""


@dataclass(frozen=True, slots=True)
class Event:
    """One event on the Endpoint."""

    reason: str
    message: str
    warning: bool
    time: str


class Watcher:
    """Looks at an Endpoint four times a second in a thread of its own; `pictures` keeps each that differed."""

    def __init__(self, surroundings: Surroundings, namespace: str, name: str, *, operator_namespace: str) -> None:
        self.namespace, self.name = namespace, name
        self._surroundings, self._operator_namespace = surroundings, operator_namespace
        self._changed = threading.Condition()
        self._ending = threading.Event()
        self._looked = threading.Event()
        self._thread = threading.Thread(target=self._look, name="endpoint-watcher", daemon=True)
        self.pictures: list[Picture] = [Picture()]
        self.events: tuple[Event, ...] = ()
        self.trouble = ""

    @property
    def path(self) -> str:
        """The Endpoint's path in the API."""
        return f"/apis/sluice.dev/v1alpha1/namespaces/{self.namespace}/endpoints/{self.name}"

    @property
    def now(self) -> Picture:
        """What was seen last."""
        return self.pictures[-1]

    def until(self, what: str, condition: Callable[[Picture], bool], *, seconds: float) -> Picture:
        """Wait until the Endpoint shows it. Raises NotHappenedError with the last picture and the operator's log."""
        deadline = time.monotonic() + seconds
        with self._changed:
            while not condition(self.now):
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._changed.wait(left)
            else:
                return self.now
        raise NotHappenedError(self._explain(what, seconds))

    def mark(self) -> int:
        """A point in `pictures` from which `since` counts."""
        return len(self.pictures)

    def since(self, mark: int) -> tuple[Picture, ...]:
        """Every different picture since a mark."""
        return tuple(self.pictures[mark:])

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._looked.wait(FIRST_LOOK_SECONDS):
            raise DemoError(f"no answer within {FIRST_LOOK_SECONDS} s: {self.trouble or self.path}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join(15)

    def _look(self) -> None:
        api, turn = self._surroundings.api(), 0
        while not self._ending.is_set():
            try:
                seen = picture(api.get(self.path))
                events = self._events(api) if turn % EVENTS_EVERY == 0 else self.events
                self.trouble = ""
            except NotReachableError as error:
                self.trouble = str(error)
            else:
                with self._changed:
                    self.events = events
                    if seen != self.now:
                        self.pictures.append(seen)
                        self._changed.notify_all()
                self._looked.set()
            turn += 1
            self._ending.wait(LOOK_SECONDS)

    def _events(self, api: Api) -> tuple[Event, ...]:
        query = f"fieldSelector=involvedObject.kind%3DEndpoint%2CinvolvedObject.name%3D{self.name}"
        found = api.get(f"/api/v1/namespaces/{self.namespace}/events?{query}") or {}
        mine = [one for one in found.get("items", ()) if one["involvedObject"].get("uid") in ("", None, self.now.uid)]
        shown = [
            Event(one.get("reason", ""), one.get("message", ""), one.get("type") == "Warning", _time_of(one))
            for one in mine
        ]
        return tuple(sorted(shown, key=lambda one: one.time))

    def _explain(self, what: str, seconds: float) -> str:
        seen = self.now
        lines = [
            f"Endpoint {self.namespace}/{self.name}: waited {seconds:.0f} s in vain until {what}.",
            f"It shows: {seen.words()}",
        ]
        for type_, one in (("Ready", seen.ready), ("Reconciling", seen.reconciling), ("Stalled", seen.stalled)):
            lines.append(f"  {type_}={one.status} {one.reason}: {one.message}")
        if seen.failure_reason:
            lines.append(f"  failureReason: {seen.failure_reason}")
        if self.trouble:
            lines.append(f"  the API server did not answer: {self.trouble}")
        lines += ["The end of the operator's log:", operator_log(self._surroundings, self._operator_namespace)]
        return "\n".join(lines)


def operator_log(surroundings: Surroundings, namespace: str, lines: int = SHOWN_LOG_LINES) -> str:
    """The end of the operator's log, or why it cannot be had."""
    try:
        return surroundings.run_kubectl(
            "-n", namespace, "logs", "-l", "app.kubernetes.io/component=operator", f"--tail={lines}", seconds=15
        ).rstrip()
    except DemoError as error:
        return str(error)


def _time_of(event: dict[str, Any]) -> str:
    series = event.get("series") or {}
    return str(
        series.get("lastObservedTime") or event.get("lastTimestamp") or event.get("eventTime")
        or event["metadata"]["creationTimestamp"]
    )  # fmt: skip
