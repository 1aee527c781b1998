"""For how long a condition with forSeconds has held: by Prometheus' own history, whoever asks and since when."""

import time
from typing import Any

import pytest
from aiohttp import web
from tests.alarms.stepped import Stepped
from tests.alarms.test_prometheus import ABOVE, Served

from localcluster.prometheus import Prometheus
from sluice.alarms.prometheus import PrometheusSettings, PrometheusSource, held_for
from sluice.alarms.subjects import Query, Sight


def held_since(seconds_ago: float, for_seconds: int) -> Query:
    """A condition that has held for so long."""
    return Query("vector(time())", ABOVE, time.time() - seconds_ago, for_seconds)


class Operator:
    """A process that reads one condition."""

    def __init__(self, url: str, asked: Query) -> None:
        self._clock = Stepped()
        self._asked = asked
        self._source = PrometheusSource(self._clock, PrometheusSettings(url))

    async def after(self, seconds: float) -> Sight:
        self._clock.seconds += seconds
        return (await self._source.read({self._asked}))[self._asked]

    async def states(self, *after: float) -> list[str | None]:
        return [(await self.after(seconds)).state for seconds in after]

    async def close(self) -> None:
        await self._source.close()


async def test_it_counts_on_from_what_is_known(prometheus: Prometheus) -> None:
    operator = Operator(prometheus.url, held_since(0.5, 600))
    assert "pending since" in ((await operator.after(0)).message or "")
    assert await operator.states(*[9] * 65, 9, 9) == ["OK"] * 65 + ["OK", "ALARM"]
    await operator.close()


@pytest.mark.parametrize(("ago", "state"), [(300, "OK"), (620, "ALARM"), (90_000, "ALARM")])
async def test_a_restart_does_not_make_it_count_anew(prometheus: Prometheus, ago: float, state: str) -> None:
    asked = held_since(ago, 600)
    for _ in range(3):
        operator = Operator(prometheus.url, asked)
        assert (await operator.after(0)).state == state
        await operator.close()


async def test_a_restarted_operator_counts_on(prometheus: Prometheus) -> None:
    operator = Operator(prometheus.url, held_since(300, 600))
    assert await operator.states(0, 9) == ["OK", "OK"]
    await operator.close()
    again = Operator(prometheus.url, held_since(300, 600))
    assert (await again.after(0)).state == "OK"
    assert await again.states(*[9] * 25) == ["OK"] * 25, "225 s more are not yet 600"
    assert (await again.states(*[9] * 10))[-1] == "ALARM"
    await again.close()


async def test_after_a_time_without_answers_the_history_tells(prometheus: Prometheus) -> None:
    operator = Operator(prometheus.url, held_since(120, 600))
    assert await operator.states(0, *[9] * 50) == ["OK"] * 51
    prometheus.stop()
    assert (await operator.after(200)).state is None
    prometheus.start()
    assert await operator.states(1, *[9] * 45) == ["OK"] * 46, "by Prometheus' own clock it has held for 120 s only"
    assert (await operator.states(*[9] * 10))[-1] == "ALARM"
    await operator.close()


@pytest.mark.parametrize("history", [{"status": 503, "text": "away"}, {"text": '{"status": "success", "data": 3}'}])
async def test_without_a_history_it_counts_from_now(history: dict[str, Any]) -> None:
    async def answer(request: web.Request) -> web.Response:
        if request.path.endswith("query_range"):
            return web.Response(**history)
        return web.json_response({"status": "success", "data": {"resultType": "scalar", "result": [0, "2"]}})

    async with Served(answer) as url:
        operator = Operator(url, Query("x", ABOVE, 1.0, 30))
        assert await operator.states(0, 9, 9, 9, 2, 1) == ["OK"] * 5 + ["ALARM"]
        assert await operator.states(60, 9) == ["OK", "OK"], "after a gap, too"
        await operator.close()


async def test_a_history_that_fails_for_a_moment_is_asked_for_again() -> None:
    """An operator that starts anew in the midst, while Prometheus has much to do: the alarm must not come later."""
    failures = 2

    async def answer(request: web.Request) -> web.Response:
        nonlocal failures
        if not request.path.endswith("query_range"):
            return web.json_response({"status": "success", "data": {"resultType": "scalar", "result": [0, "2"]}})
        failures -= 1
        if failures >= 0:
            return web.Response(status=503, text="away")
        form = await request.post()
        start, end, step = (float(str(form[key])) for key in ("start", "end", "step"))
        points = [[end - back * step, "2"] for back in range(round((end - start) / step) + 1)]
        return web.json_response({"status": "success", "data": {"result": [{"values": points}]}})

    async with Served(answer) as url:
        operator = Operator(url, Query("x", ABOVE, 1.0, 120))
        assert await operator.states(0, 1, 1, 1) == ["OK", "OK", "ALARM", "ALARM"]
        await operator.close()


@pytest.mark.parametrize("for_seconds", [1, 59, 60, 61, 3600])
async def test_the_history_is_asked_for_once_and_in_few_points(for_seconds: int) -> None:
    asked: list[float] = []

    async def answer(request: web.Request) -> web.Response:
        form = await request.post()
        if request.path.endswith("query_range"):
            start, end, step = (float(str(form[key])) for key in ("start", "end", "step"))
            asked.append((end - start) / step)
            assert end - start >= for_seconds - 0.01
            points = [[start + index * step, "2"] for index in range(round(asked[-1]) + 1)]
            return web.json_response({"status": "success", "data": {"result": [{"values": points}]}})
        return web.json_response({"status": "success", "data": {"resultType": "scalar", "result": [0, "2"]}})

    async with Served(answer) as url:
        operator = Operator(url, Query("x", ABOVE, 1.0, for_seconds))
        assert await operator.states(0, 1, 1) == ["ALARM"] * 3
        await operator.close()
    assert len(asked) == 1
    assert asked[0] <= 60.01


@pytest.mark.parametrize(
    ("series", "seconds"),
    [
        ([], 0),
        ([[(100, "2"), (98, "2"), (96, "2")]], 4),
        ([[(100, "2"), (98, "1"), (96, "2")]], 0),
        ([[(100, "2"), (98, "NaN"), (96, "2")]], 0),
        ([[(100, "2"), (96, "2")]], 0),
        ([[(98, "2"), (96, "2")]], 0),
        ([[(100, "2"), (98, "2")], [(96, "2"), (94, "2")]], 6),
        ([[(100, "2"), (98, "2")], [(98, "2"), (96, "2")]], 0),
        ([[(100.04, "+Inf"), (98.04, "2")]], 2),
    ],
)
def test_a_break_is_any_moment_without_one_value_that_holds(
    series: list[list[tuple[float, str]]], seconds: float
) -> None:
    data = {"result": [{"values": values} for values in series]}
    assert held_for(data, Query("x", ABOVE, 1.0, 60), 100.0, 2.0) == seconds
