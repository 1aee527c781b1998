"""Routers of many namespaces, some of which do not answer. The agents are stand-ins: nothing is counted here."""

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

from aiohttp import web
from tests.alarms.test_windows import ERRORS

from sluice.alarms.subjects import Traffic, VariantFleets
from sluice.alarms.traffic import FLEETS_PER_CALL, TrafficSettings, TrafficSource
from sluice.ports.clock import SystemClock
from sluice.ports.kube import KubeUnavailable
from sluice.ports.routers import RouterAddress

GOOD, FROZEN = "127.0.0.2", "127.0.0.3"


class Routers:
    """One router of each namespace, at the address of those that answer or of those that do not."""

    def __init__(self, *frozen: str, takes_seconds: float = 0.0) -> None:
        self._frozen = frozen
        self._takes_seconds = takes_seconds
        self.answered: list[datetime] = []
        self.requests = 0
        """That have ended, each with an error."""
        self.most_at_once = self._at_once = 0
        self.uptimes = itertools.repeat(9000)
        """With each answer."""

    async def __call__(self, namespace: str) -> tuple[RouterAddress, ...]:
        address = FROZEN if namespace in self._frozen else GOOD
        return (RouterAddress(f"router-{namespace}", f"uid-{namespace}", address),)

    def thaw(self) -> None:
        """All answer, at the address of those that do."""
        self._frozen = ()

    async def answer(self, request: web.Request) -> web.Response:
        self.answered.append(SystemClock().now())
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        await asyncio.sleep(self._takes_seconds)
        self._at_once -= 1
        number = self.requests
        each = {"requests": number, "errors4xx": 0, "errors5xx": number, "timedOut": 0, "latency": []}
        fleets = request.query.getall("fleet")
        return web.json_response({"uptimeSeconds": next(self.uptimes), "fleets": dict.fromkeys(fleets, each)})


@asynccontextmanager
async def source(routers: Routers, **settings: Any) -> AsyncIterator[TrafficSource]:
    app = web.Application()
    app.add_routes([web.get("/traffic", routers.answer)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    with socket.socket() as frozen:
        frozen.bind((FROZEN, 0))
        frozen.listen(1000)  # the kernel takes connections; nobody reads them
        port = frozen.getsockname()[1]
        await web.TCPSite(runner, GOOD, port).start()
        made = TrafficSource(SystemClock(), routers, TrafficSettings(port=port, **settings))
        try:
            yield made
        finally:
            await made.close()
            await runner.cleanup()


def asked(namespace: str) -> Traffic:
    return replace(ERRORS, namespace=namespace, variants=(VariantFleets("a", "churn-a-1"),))


async def test_routers_that_do_not_answer_keep_nobody_else_from_being_asked() -> None:
    """As when a zone is lost: its pods are listed for minutes more."""
    frozen = [f"lost-{number}" for number in range(40)]
    subjects = [asked(name) for name in (*frozen, "team-a")]
    async with source(Routers(*frozen)) as made:
        found = await made.read(subjects)
    assert found[subjects[-1]].state == "INSUFFICIENT_DATA", found[subjects[-1]].message
    assert {found[subject].state for subject in subjects[:-1]} == {None}


async def test_only_so_many_routers_are_asked_at_once() -> None:
    """Each of a cluster's routers took a connection and memory for its answer, all of them in the same moment."""
    subjects = [asked(f"team-{number}") for number in range(150)]
    routers = Routers(takes_seconds=0.2)
    async with source(routers, call_seconds=10.0, round_seconds=30.0) as made:
        found = await made.read(subjects)
    assert {found[subject].state for subject in subjects} == {"INSUFFICIENT_DATA"}
    assert 1 < routers.most_at_once <= 64


async def test_routers_that_do_not_answer_have_their_turn_and_leave_others_theirs() -> None:
    frozen = {f"lost-{number}" for number in range(20)}
    subjects = [asked(name) for name in (*frozen, "team-a")]
    routers = Routers(*frozen)
    async with (
        source(routers, concurrency=4, call_seconds=1.0, round_seconds=1.5, listed_seconds=0.0) as made,
        asyncio.timeout(60),
    ):
        while (await made.read(subjects))[subjects[-1]].state is None:
            pass  # it has not had its turn
        # Some of those that did not answer come first, and there are more of them than a round has room for.
        for _ in range(3):
            found = await made.read(subjects)
            assert found[subjects[-1]].state == "INSUFFICIENT_DATA", found[subjects[-1]].message
        routers.thaw()
        left = set(subjects)
        while left:
            found = await made.read(subjects)
            left -= {subject for subject in subjects if found[subject].state is not None}


async def test_a_reading_is_no_younger_than_what_it_says() -> None:
    """One that was asked before the end of a bake must not pass for one from after it, however long others take."""

    class Two(Routers):
        async def __call__(self, namespace: str) -> tuple[RouterAddress, ...]:
            return RouterAddress("one", "1", GOOD), RouterAddress("other", "2", FROZEN)

    routers = Two()
    async with source(routers) as made:
        found = await made.read([asked("team-a")])
    assert len(routers.answered) == 1
    assert found[asked("team-a")].at <= routers.answered[0]


async def test_what_came_while_nothing_was_watched_is_not_new() -> None:
    routers = Routers()
    async with source(routers) as made:
        assert (await made.read([asked("team-a")]))[asked("team-a")].state == "INSUFFICIENT_DATA"
        assert await made.read(()) == {}
        routers.requests = 1000
        assert (await made.read([asked("team-a")]))[asked("team-a")].state == "INSUFFICIENT_DATA"
        routers.requests = 1001
        assert (await made.read([asked("team-a")]))[asked("team-a")].state == "ALARM"


async def test_all_fleets_of_a_namespace_are_asked_for_however_many() -> None:
    subjects = [
        replace(ERRORS, namespace="team-a", variants=(VariantFleets("a", f"churn-{number}-a-1"),))
        for number in range(FLEETS_PER_CALL + 20)
    ]
    routers = Routers()
    async with source(routers) as made:
        assert {sight.state for sight in (await made.read(subjects)).values()} == {"INSUFFICIENT_DATA"}
        routers.requests = 1000
        assert {sight.state for sight in (await made.read(subjects)).values()} == {"ALARM"}


def many() -> list[Traffic]:
    """Of more fleets than two questions hold."""
    fleets = (f"churn-{number}-a-1" for number in range(2 * FLEETS_PER_CALL + 1))
    return [replace(ERRORS, namespace="team-a", variants=(VariantFleets("a", fleet),)) for fleet in fleets]


async def test_a_router_that_starts_anew_between_two_answers_has_said_nothing() -> None:
    """What it had counted before would be taken for what came since."""
    routers = Routers()
    async with source(routers) as made:
        await made.read(many())
        routers.requests, routers.uptimes = 1000, iter((9001, 3, 4))
        found = await made.read(many())
        assert {sight.state for sight in found.values()} == {None}
        assert all("started anew" in (sight.message or "") for sight in found.values())
        routers.requests, routers.uptimes = 0, itertools.repeat(9)
        assert {sight.state for sight in (await made.read(many())).values()} == {"INSUFFICIENT_DATA"}


async def test_a_router_whose_answers_take_too_long_together_holds_nobody_up() -> None:
    async with source(Routers(takes_seconds=0.5), call_seconds=10.0, patience_seconds=0.8) as made:
        found = await made.read(many())
    assert {sight.state for sight in found.values()} == {None}
    assert all((sight.message or "").endswith("no answer within 0.8 s") for sight in found.values())


async def test_while_a_listing_takes_long_the_routers_that_were_there_are_asked() -> None:
    class Listed(Routers):
        def __init__(self) -> None:
            super().__init__()
            self.listings, self.free = 0, asyncio.Event()
            self.free.set()

        async def __call__(self, namespace: str) -> tuple[RouterAddress, ...]:
            self.listings += 1
            await self.free.wait()
            return await super().__call__(namespace)

    routers = Listed()
    async with source(routers, listed_seconds=0.0, call_seconds=0.5) as made, asyncio.timeout(30):
        await made.read([asked("team-a")])
        routers.free.clear()
        routers.requests = 1000
        assert (await made.read([asked("team-a")]))[asked("team-a")].state == "ALARM"
        assert (await made.read([asked("team-a")]))[asked("team-a")].state == "ALARM"
        assert routers.listings == 2, "one listing is under way, and no second one beside it"
        (new,) = (await made.read([asked("team-b")])).values()
        assert new.message == "the routers of namespace team-b have not been listed yet", (
            "nor does a new one hold it up"
        )
        routers.free.set()
        await made.read([asked("team-a")])
        await made.read([asked("team-a")])
        assert routers.listings == 5


async def test_while_the_api_server_is_away_the_routers_that_were_there_are_asked() -> None:
    class Listed(Routers):
        is_away = False

        async def __call__(self, namespace: str) -> tuple[RouterAddress, ...]:
            if self.is_away:
                raise KubeUnavailable("list pods: connection refused")
            return await super().__call__(namespace)

    routers = Listed()
    async with source(routers, listed_seconds=0.0) as made:
        await made.read([asked("team-a")])
        routers.is_away, routers.requests = True, 1000
        assert (await made.read([asked("team-a")]))[asked("team-a")].state == "ALARM"
