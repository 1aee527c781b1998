"""Alerts and conditions in a real Prometheus."""

import asyncio
import tracemalloc
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from localcluster.prometheus import Prometheus
from sluice.alarms.prometheus import PrometheusSettings, PrometheusSource, judge_alert
from sluice.alarms.subjects import Alert, Query, Sight, Subject
from sluice.ports.clock import SystemClock

ABOVE = "GreaterThanThreshold"


def source(url: str | None, **rest: Any) -> PrometheusSource:
    return PrometheusSource(SystemClock(), PrometheusSettings(url, **rest))


async def read(url: str | None, *subjects: Subject, **rest: Any) -> list[Sight]:
    made = source(url, **rest)
    try:
        found = await made.read(frozenset(subjects))
    finally:
        await made.close()
    return [found[subject] for subject in subjects]


async def states(url: str | None, *subjects: Subject, **rest: Any) -> list[str | None]:
    return [sight.state for sight in await read(url, *subjects, **rest)]


def above(expression: str, threshold: float = 1.0, for_seconds: int = 0) -> Query:
    return Query(expression, ABOVE, threshold, for_seconds)


RULES = [
    {"alert": "Firing", "expr": "vector(1)", "labels": {"severity": "page", "endpoint": "churn"}},
    {"alert": "Quiet", "expr": "vector(1) > 2"},
    {"alert": "Pending", "expr": "vector(1)", "for": "1h"},
]


async def test_alerts_by_name_and_labels(prometheus: Prometheus) -> None:
    prometheus.configure(rules=RULES[:3])
    asked = (
        Alert("Firing"),
        Alert("Firing", (("endpoint", "churn"), ("severity", "page"))),
        Alert("Firing", (("endpoint", "other"),)),
        Alert("Quiet"),
        Alert("Pending"),
        Alert("Nowhere"),
    )
    evaluated = source(prometheus.url)
    found: list[Sight] = []
    async with asyncio.timeout(60):  # until Prometheus has evaluated all of them
        while not found or any(sight.state == "INSUFFICIENT_DATA" for sight in found):
            sights = await evaluated.read(asked)
            found = [sights[subject] for subject in asked]
    await evaluated.close()
    assert [sight.state for sight in found] == ["ALARM", "ALARM", "OK", "OK", "OK", "Missing"]
    assert "endpoint=churn" in (found[0].message or "")


async def test_conditions(prometheus: Prometheus) -> None:
    asked = {
        above("vector(2)"): "ALARM",
        above("vector(1)"): "OK",
        above("2"): "ALARM",  # a scalar
        above("vector(1) / 0"): "ALARM",  # +Inf
        above("vector(0) / 0"): "INSUFFICIENT_DATA",
        above("nobody_counts_this"): "INSUFFICIENT_DATA",
        Query("vector(2)", "LessThanThreshold", 1.0): "OK",
        above("vector(1) or label_replace(vector(2), 'a', 'b', '', '')"): "Unfit",
        above("up["): "Unfit",
        above("prometheus_build_info[1m]"): "Unfit",
        above("'text'"): "Unfit",
    }
    found = await read(prometheus.url, *asked)
    assert [sight.state for sight in found] == list(asked.values())
    messages = [sight.message or "" for sight in found]
    assert messages[0] == "2 (alarm: > 1)"
    assert "aggregate it" in messages[7]
    assert "refuses it" in messages[8]


async def test_a_query_of_many_is_made_once_and_all_alerts_are_one_call() -> None:
    calls: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        calls.append(request.path)
        if request.path.endswith("rules"):
            return web.json_response({"status": "success", "data": {"groups": []}})
        return web.json_response({"status": "success", "data": {"resultType": "scalar", "result": [0, "1"]}})

    async with Served(answer) as url:
        many = [Query("x", ABOVE, threshold) for threshold in range(50)]
        alerts = [Alert(f"a{index}") for index in range(50)]
        assert set(await states(url, *many, *alerts)) == {"ALARM", "OK", "Missing"}
    assert sorted(calls) == ["/prefix/api/v1/query", "/prefix/api/v1/rules"]


@pytest.mark.parametrize("filters", [True, False])
async def test_of_many_alerts_a_hundred_are_a_call_and_one_that_fails_blinds_its_own(filters: bool) -> None:
    """A server that does not filter sends all rules whatever is asked for."""
    calls: list[list[str]] = []
    every = [f"a{index:03}" for index in range(250)]

    async def answer(request: web.Request) -> web.Response:
        names = request.query.getall("rule_name[]", [])
        calls.append(names)
        if "a200" in names:
            return web.Response(status=503)
        now = SystemClock().now().isoformat()
        rules = [{"name": name, "health": "ok", "lastEvaluation": now} for name in (names if filters else every)]
        return web.json_response({"status": "success", "data": {"groups": [{"interval": 1, "rules": rules}]}})

    async with Served(answer) as url:
        found = await states(url, *(Alert(name) for name in every))
    assert found == ["OK"] * 200 + [None] * 50
    assert sorted(calls) == [every[:100], every[100:200], every[200:]]


async def test_out_of_reach_is_not_read_and_says_where(prometheus: Prometheus) -> None:
    prometheus.stop()
    (alert, query) = await read(prometheus.url, Alert("Firing"), above("vector(1)"))
    assert (alert.state, query.state) == (None, None)
    assert prometheus.url in (alert.message or "")


async def test_a_frozen_server_holds_nobody_up(prometheus: Prometheus) -> None:
    prometheus.freeze()
    asked = [above(f"vector({index})") for index in range(100)]
    found = await read(prometheus.url, *asked, call_seconds=0.2, round_seconds=0.4)
    assert {sight.state for sight in found} == {None}
    assert all("no answer within" in (sight.message or "") for sight in found)
    assert any("all calls together" in (sight.message or "") for sight in found), "and not a hundred in turn"


async def test_a_reading_is_no_younger_than_what_it_says() -> None:
    """One that was asked before the end of a bake must not pass for one from after it, however long others take."""
    answered: list[datetime] = []

    async def answer(request: web.Request) -> web.Response:
        if (await request.post()).get("query") == "slow":
            await asyncio.sleep(60)
        answered.append(SystemClock().now())
        if request.path.endswith("rules"):
            return web.json_response({"status": "success", "data": {"groups": []}})
        return web.json_response({"status": "success", "data": {"resultType": "scalar", "result": [0, "1"]}})

    async with Served(answer) as url:
        found = await read(url, above("quick"), Alert("A"), above("slow"), call_seconds=0.5)
    assert [sight.state for sight in found] == ["OK", "Missing", None]
    assert len(answered) == 2
    assert max(sight.at for sight in found[:2]) <= min(answered)


@pytest.mark.parametrize(
    ("rest", "told"),
    [
        ({"warnings": ["receive StoreAPI of 10.0.0.7: unavailable"]}, "10.0.0.7"),
        ({"isPartial": True}, "isPartial"),
        ({"warnings": ["PromQL warning: quantile value should be between 0 and 1, got 2"]}, None),
        ({"warnings": None}, None),
    ],
)
async def test_an_answer_of_a_part_is_none(rest: dict[str, Any], told: str | None) -> None:
    """What federates several servers answers by those that it reached. An alert that fires there does fire."""

    async def answer(request: web.Request) -> web.Response:
        data: dict[str, Any] = {"resultType": "scalar", "result": [0, "1"]}
        if request.path.endswith("rules"):
            just_now = {"lastEvaluation": SystemClock().now().isoformat()}
            data = {"groups": [{"rules": [rule(**just_now), rule(name="B", alerts=[FIRING], **just_now)]}]}
        return web.json_response({"status": "success", "data": data, **rest})

    async with Served(answer) as url:
        found = await read(url, above("x"), above("x", 0.5), Alert("A"), Alert("B"))
    assert [sight.state for sight in found] == ([None] * 3 if told else ["OK", "ALARM", "OK"]) + ["ALARM"]
    assert told is None or all(told in (sight.message or "") for sight in found[:3])


async def test_queries_that_hang_keep_no_other_from_its_turn() -> None:
    async def answer(request: web.Request) -> web.Response:
        if str((await request.post())["query"]).startswith("hangs"):
            await asyncio.sleep(60)
        return web.json_response({"status": "success", "data": {"resultType": "scalar", "result": [0, "1"]}})

    asked = [above(f"hangs{index}") for index in range(60)]
    async with Served(answer) as url:
        made = source(url, call_seconds=0.2, round_seconds=0.5)
        await made.read([*asked, above("quick")])
        for _ in range(3):
            assert (await made.read([*asked, above("quick")]))[above("quick")].state == "OK"
        await made.close()


async def test_queries_that_fill_the_round_keep_no_alert_from_its_turn() -> None:
    """Of more alerts than one call asks for the last ones were read in no round."""
    names = [f"a{index:03}" for index in range(250)]

    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("query"):
            await asyncio.sleep(60)
        now = SystemClock().now().isoformat()
        asked = request.query.getall("rule_name[]", [])
        rules = [{"name": name, "health": "ok", "lastEvaluation": now} for name in asked]
        return web.json_response({"status": "success", "data": {"groups": [{"interval": 1, "rules": rules}]}})

    async with Served(answer) as url:
        made = source(url, call_seconds=5.0, round_seconds=1.5)
        found = await made.read([*(above(f"hangs{index}") for index in range(60)), *(Alert(name) for name in names)])
        await made.close()
    assert {found[Alert(name)].state for name in names} == {"OK"}


async def test_calls_for_alerts_of_which_a_round_has_room_for_one_take_turns() -> None:
    names = [f"a{index:03}" for index in range(250)]
    room = 0

    async def answer(request: web.Request) -> web.Response:
        nonlocal room
        if not room:
            await asyncio.sleep(60)
        room -= 1
        now = SystemClock().now().isoformat()
        rules = [{"name": name, "health": "ok", "lastEvaluation": now} for name in request.query.getall("rule_name[]")]
        return web.json_response({"status": "success", "data": {"groups": [{"interval": 1, "rules": rules}]}})

    read: set[str] = set()
    async with Served(answer) as url:
        made = source(url, call_seconds=5.0, round_seconds=1.0)
        for _ in range(3):
            room = 1
            found = await made.read([Alert(name) for name in names])
            read |= {name for name in names if found[Alert(name)].state == "OK"}
        await made.close()
    assert read == set(names)


async def test_more_queries_than_a_round_has_room_for_take_turns() -> None:
    served = Room()
    asked = {above(f"x{index}") for index in range(60)}
    async with Served(served.answer) as url, asyncio.timeout(60):
        made = source(url, call_seconds=5.0, round_seconds=1.0)
        await until_all_were_read(made, asked, served)
        await made.close()


async def test_queries_that_failed_once_have_their_turn_where_a_round_has_no_room_for_all() -> None:
    """After a restart of Prometheus those that were read first filled every round that followed."""
    served = Room(is_up=False)
    asked = {above(f"x{index}") for index in range(26)}
    async with Served(served.answer) as url, asyncio.timeout(60):
        made = source(url, call_seconds=5.0, round_seconds=1.0)
        await made.read(asked)
        served.is_up = True
        await until_all_were_read(made, asked, served)
        await made.close()


class Room:
    """A Prometheus that answers the first queries of a round at once and keeps all others waiting: how many it has room
    for does not depend on how fast this machine is."""

    def __init__(self, *, is_up: bool = True) -> None:
        self.is_up = is_up
        self.left = 0

    async def answer(self, _: web.Request) -> web.Response:
        if not self.is_up:
            return web.Response(status=503)
        if self.left <= 0:
            await asyncio.Event().wait()  # the client gives up
        self.left -= 1
        return web.json_response({"status": "success", "data": {"resultType": "scalar", "result": [0, "1"]}})


async def until_all_were_read(made: PrometheusSource, asked: set[Query], served: Room) -> None:
    """Never ends where some never have their turn."""
    left = set(asked)
    while left:
        served.left = 20
        found = await made.read(frozenset(asked))
        left -= {query for query in asked if found[query].state == "OK"}


async def test_no_address_names_the_setting() -> None:
    (found,) = await read(None, above("vector(1)"))
    assert (found.state, "SLUICE_PROMETHEUS_URL" in (found.message or "")) == ("Unreadable", True)


class Served:
    """A server that answers as the test says, where a real one would not."""

    def __init__(self, answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> None:
        app = web.Application()
        app.add_routes([web.route("*", "/{any:.*}", answer)])
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)

    async def __aenter__(self) -> str:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        return f"http://{host}:{port}/prefix/"

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()


def text(status: int, body: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, text=body, headers={"Location": "http://127.0.0.1:1/"})

    return answer


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, "hello", "no answer of a Prometheus"),
        (200, "[" * 100_000, "no answer of a Prometheus"),
        (200, '{"status": "success"}', "not understood"),
        (200, '{"status": "success", "data": {"resultType": "vector", "result": [{}]}}', "not understood"),
        (200, '{"status": "success", "data": {"resultType": "scalar", "result": [0, "x"]}}', "not understood"),
        (200, '{"status": "success", "data": {"resultType": "scalar", "result": [0, 1%s]}}' % ("0" * 400), "Overflow"),
        (302, "", "302"),
        (403, "", "SLUICE_PROMETHEUS_TOKEN_FILE"),
        (422, '{"status": "error", "error": "too many samples"}', "too many samples"),
        (503, "", "503"),
    ],
)
async def test_an_answer_that_is_none_is_not_read(status: int, body: str, told: str) -> None:
    async with Served(text(status, body)) as url:
        (query, alert) = await read(url, above("vector(1)"), Alert("Firing"))
    assert (query.state, alert.state) == (None, None)
    assert told in (query.message or "")


async def test_an_endless_answer_ends() -> None:
    async def endless(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(bytes(1 << 16))

    async with Served(endless) as url:
        (query, alert) = await read(url, above("vector(1)"), Alert("Firing"), longest_answer_bytes=2 << 20)
    assert (query.state, query.message) == (None, "/prefix/api/v1/query: the answer is longer than 1 MiB")
    assert (alert.state, alert.message) == (None, "/prefix/api/v1/rules: the answer is longer than 2 MiB")


async def test_of_an_answer_no_more_is_kept_than_its_value() -> None:
    """All wait for the end of the round, and anybody may ask for nearly a megabyte."""
    held: list[int] = []
    long = {"metric": {"label": "x" * 900_000}, "value": [0, "2"]}

    async def answer(_: web.Request) -> web.Response:
        held.append(tracemalloc.get_traced_memory()[0])
        return web.json_response({"status": "success", "data": {"resultType": "vector", "result": [long]}})

    tracemalloc.start()
    try:
        async with Served(answer) as url:
            found = await read(url, *(above(f"vector({number})") for number in range(12)), concurrency=1)
    finally:
        tracemalloc.stop()
    assert {sight.state for sight in found} == {"ALARM"}
    assert max(held) - held[1] < 5_000_000


async def test_the_token_is_read_anew_and_a_missing_one_is_told(tmp_path: Path) -> None:
    seen: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(request.headers["Authorization"])
        return web.json_response({"status": "success", "data": {"resultType": "scalar", "result": [0, "1"]}})

    token = tmp_path / "token"
    async with Served(answer) as url:
        made = source(url, token_file=token)
        assert "No such file" in ((await made.read({above("1")}))[above("1")].message or "")
        token.write_bytes(b"\xff\xfe")
        assert "decode" in ((await made.read({above("1")}))[above("1")].message or "")
        for value in ("first", "second"):
            token.write_text(value + "\n")
            await made.read({above("1")})
        await made.close()
    assert seen == ["Bearer first", "Bearer second"]


NOW = SystemClock().now()


def rule(**rest: Any) -> dict[str, Any]:
    return {"name": "A", "health": "ok", "lastEvaluation": NOW.isoformat(), "alerts": [], **rest}


FIRING = {"state": "firing", "labels": {"alertname": "A", "e": "churn"}, "activeAt": "2026-01-01T00:00:00Z"}


@pytest.mark.parametrize(
    ("rules", "state", "told"),
    [
        ([rule()], "OK", ""),
        ([rule(health="err", lastError="many-to-many")], None, "many-to-many"),
        ([rule(health="unknown")], "INSUFFICIENT_DATA", "not evaluated"),
        ([rule(health="paused")], "INSUFFICIENT_DATA", "(health paused)"),
        ([rule(health=None)], "INSUFFICIENT_DATA", "not evaluated"),
        ([rule(lastEvaluation="")], None, "does not say how long ago"),
        ([rule(lastEvaluation="2026-01-01T00:00:00.123456789Z")], None, "has not evaluated the rule for"),
        ([rule(), rule(alerts=[FIRING])], "ALARM", "e=churn"),
        ([rule(health="err"), rule(alerts=[FIRING])], "ALARM", "e=churn"),
        ([rule(alerts=[{**FIRING, "state": "pending"}])], "OK", ""),
        ([], "Missing", "no alerting rule"),
    ],
)
def test_rules(rules: list[dict[str, Any]], state: str | None, told: str) -> None:
    found = judge_alert(Alert("A"), [(15.0, rule) for rule in rules], NOW)
    assert found[0] == state
    assert told in (found[1] or "")


def test_an_answer_without_a_date_is_not_taken_to_be_fresh() -> None:
    state, told = judge_alert(Alert("A"), [(15.0, rule())], None)
    assert state is None
    assert "does not say how long ago" in str(told)
