"""Asks a pod that fails the sample invocation what it answers: of a failed health check, Envoy keeps neither the status
nor the body.

One pod of a fleet, once in half a minute, a few fleets at a time. What it answers is told as words, and decides
nothing: whether a pod gets requests is Envoy's to say."""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import aiohttp

from sluice.api.routes import RouteFleet, RouteSample
from sluice.router.admin import EnvoyUnavailable
from sluice.router.clusters import cluster_names
from sluice.router.standing import PodsOf

logger = logging.getLogger(__name__)

AGAIN_SECONDS: Final = 30.0
LOOK_AGAIN_SECONDS: Final = 3.0
"""Where no pod has failed yet: a new one is still being asked by Envoy."""
MOST_BYTES: Final = 200
"""Of an answer's body that are told."""
_AT_ONCE: Final = 4

Host = tuple[str, int]
"""An address and a port."""
Failing = Callable[[], Awaitable[Mapping[str, frozenset[Host]]]]
"""The pods of each cluster that fail the sample invocation. Raises EnvoyUnavailable."""


class Samples:
    """What the failing pods of fleets answer."""

    def __init__(
        self,
        failing: Failing,
        pods: PodsOf,
        changed: Callable[[], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failing, self._pods, self._changed, self._monotonic = failing, pods, changed, monotonic
        self._fleets: Mapping[str, RouteFleet] = {}
        self._due_at: dict[str, float] = {}
        self._words: dict[str, str] = {}
        self._news = asyncio.Event()

    @property
    def words(self) -> Mapping[str, str]:
        """What a pod of a fleet answered."""
        return self._words

    def follow(self, fleets: Mapping[str, RouteFleet]) -> None:
        """The fleets of which not all pods pass, by name. Called again and again while there are some."""
        for name in self._due_at.keys() - fleets.keys():
            del self._due_at[name]
            self._words.pop(name, None)
        self._fleets = fleets
        if self._due():
            self._news.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            await self._news.wait()
            self._news.clear()
            await self.ask_due()

    def _due(self) -> list[RouteFleet]:
        now = self._monotonic()
        return [fleet for name, fleet in self._fleets.items() if self._due_at.get(name, -math.inf) <= now]

    async def ask_due(self) -> None:
        """One round: a pod of each fleet whose time has come."""
        due = self._due()
        if not due:
            return
        try:
            failing = await self._failing()
        except EnvoyUnavailable as error:
            logger.warning("Envoy does not answer: %s", error)
            failing = {}
        gate = asyncio.Semaphore(_AT_ONCE)

        async def one(fleet: RouteFleet) -> None:
            # A sample invocation names no container: it goes to the first.
            cluster = cluster_names(fleet)[0]
            hosts = sorted(failing.get(cluster, ()))
            if not hosts or fleet.sample is None:
                self._due_at[fleet.name] = self._monotonic() + LOOK_AGAIN_SECONDS
                return
            async with gate:
                answer = await ask(hosts[0], cluster, fleet.sample)
            if fleet.name not in self._fleets:
                return
            self._due_at[fleet.name] = self._monotonic() + AGAIN_SECONDS
            pod = next((pod.name for pod in self._pods(fleet.name) if pod.address == hosts[0][0]), hosts[0][0])
            if answer:
                self._words[fleet.name] = f"{pod} {answer}"
            else:
                self._words.pop(fleet.name, None)

        before = dict(self._words)
        await asyncio.gather(*(one(fleet) for fleet in due))
        if self._words != before:
            self._changed()


async def ask(host: Host, authority: str, sample: RouteSample) -> str:
    """Send the sample invocation as Envoy's health check does, and say what came back; empty: what was expected."""
    headers = {"content-type": sample.content_type, "accept-encoding": "identity", "host": authority}
    address, port = host
    url = f"http://{f'[{address}]' if ':' in address else address}:{port}/invocations"
    limit = aiohttp.ClientTimeout(total=sample.timeout_seconds)
    try:
        async with (
            aiohttp.ClientSession(timeout=limit, auto_decompress=False, headers=headers) as session,
            session.post(url, data=sample.body.encode(), allow_redirects=False) as answer,
        ):
            if answer.status == sample.expected_status:
                return ""
            return f"answers {answer.status}: {printable(await _beginning(answer))}".removesuffix(": ")
    except TimeoutError:
        return f"does not answer within {sample.timeout_seconds} s"
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return f"cannot be asked: {printable(str(error).encode()) or type(error).__name__}"


async def _beginning(answer: aiohttp.ClientResponse) -> bytes:
    """What came of the body before it was enough, or its time was over, or the connection broke."""
    body = b""
    try:
        while len(body) <= MOST_BYTES and (part := await answer.content.read(MOST_BYTES + 1)):
            body += part
    except (aiohttp.ClientError, TimeoutError, OSError):
        return body
    return body


def printable(body: bytes) -> str:
    """The first bytes on one line, without what no terminal should get."""
    text = body[:MOST_BYTES].decode(errors="ignore")
    line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return line + "..." if line and len(body) > MOST_BYTES else line
