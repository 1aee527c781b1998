"""How other progressive-delivery controllers fail at a metrics provider, as tests; see tests/core/test_peer_defects.py.
AR is argoproj/argo-rollouts."""

from aiohttp import web
from tests.alarms.stepped import Stepped, key
from tests.alarms.test_prometheus import Served

from sluice.alarms.poller import AlarmPoller
from sluice.alarms.prometheus import PrometheusSettings, PrometheusSource
from sluice.core.observation import AlarmQuestion, AlarmReading, AlarmWatch

CONDITION = {"promql": {"expression": "errors", "comparison": "GreaterThanThreshold", "threshold": 1}}
ENDPOINTS = 50


async def test_ar_2578_a_provider_that_said_429_was_asked_by_each_and_again_until_their_canaries_failed() -> None:
    """There each analysis asks for itself, and a few answers of 429 fail it. Here all ask once in a round, which no
    refusal makes more of, and none of them is a verdict. What CloudWatch refuses makes the rounds rarer:
    test_cloudwatch_source.py."""
    calls: list[str] = []
    refuses = False

    async def answer(request: web.Request) -> web.Response:
        calls.append(request.path)
        if refuses:
            said = {"status": "error", "errorType": "too_many_requests", "error": "too many requests"}
            return web.json_response(said, status=429, headers={"Retry-After": "1"})
        data = {"resultType": "vector", "result": [{"metric": {}, "value": [0, "0"]}]}
        return web.json_response({"status": "success", "data": data})

    clock = Stepped()
    async with Served(answer) as url:
        source = PrometheusSource(clock, PrometheusSettings(url))
        poller = AlarmPoller(clock, (source,))
        for number in range(ENDPOINTS):
            name = f"e{number}"
            poller.watch(key(name), AlarmWatch((AlarmQuestion("PromQL", "errors", CONDITION),), "team-a", name))

        async def readings() -> set[AlarmReading]:
            """Of all Endpoints, a second later."""
            clock.seconds += 1
            calls.clear()
            await poller.poll(source)
            assert len(calls) == 1
            found = [poller.readings(key(f"e{number}")) for number in range(ENDPOINTS)]
            assert {len(one) for one in found} == {1}
            return {reading for one in found for reading in one}

        try:
            [good] = await readings()
            assert good.state == "OK"
            refuses = True
            for _ in range(9):
                assert await readings() == {good}, "the last one stays, with its time"
            for _ in range(60):
                [reading] = await readings()
                assert reading.state == "Unreadable"
                assert "429 too many requests" in (reading.message or "")
            refuses = False
            [reading] = await readings()
            assert (reading.state, reading.read_at) == ("OK", clock.now())
        finally:
            await source.close()
