"""CloudWatch alarms of Endpoints in the cluster: moto's server, behind a proxy that throttles like AWS."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any
from unittest.mock import ANY

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from tests.alarms.quota import Counted, Quota
from tests.alarms.stepped import Stepped, key, watch
from tests.alarms.test_cloudwatch import Held, alarm, answered
from tests.sagemaker.world import REGION, TARGET, CountingTelemetry

from sluice.alarms.cloudwatch import CloudWatchReader, CloudWatchSettings, CloudWatchSource, OwnPlace
from sluice.alarms.poller import AlarmPoller
from sluice.alarms.subjects import NamedAlarm, Sight
from sluice.api.reasons import Reason
from sluice.core.cluster.rights import AlarmPlace
from sluice.core.identity import Credentials
from sluice.core.observation import CallProblem
from sluice.ports import aws
from sluice.ports.backend import ActFailed
from sluice.ports.clock import SystemClock
from sluice.sagemaker.clients import AwsCalls, AwsSettings

CLOCK = SystemClock()
UNLIMITED = 1e9


@pytest.fixture
async def reader(calls: AwsCalls) -> AsyncIterator[CloudWatchReader]:
    made = CloudWatchReader(calls, CLOCK, CloudWatchSettings(shortest_period_seconds=0.2))
    yield made
    await made.stop()


@pytest.fixture
def source(reader: CloudWatchReader) -> CloudWatchSource:
    return CloudWatchSource(reader, CLOCK, REGION)


async def sights(source: CloudWatchSource, *names: str) -> dict[str, Sight]:
    found = await source.read({NamedAlarm(name) for name in names})
    return {name: found[NamedAlarm(name)] for name in names}


async def sight(source: CloudWatchSource, name: str) -> Sight:
    return (await sights(source, name))[name]


def own(cloudwatch: Any, name: str, state: str, **rest: Any) -> None:
    """An alarm on a metric of the cluster's."""
    metric = rest or {"Namespace": "Models", "MetricName": "errors", "Statistic": "Sum", "Period": 60}
    cloudwatch.put_metric_alarm(
        AlarmName=name, EvaluationPeriods=1, Threshold=1, ComparisonOperator="GreaterThanThreshold", **metric
    )
    cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason=f"{name} is {state}")


@pytest.mark.parametrize("state", ["OK", "ALARM", "INSUFFICIENT_DATA"])
async def test_states(source: CloudWatchSource, cloudwatch: Any, state: str) -> None:
    own(cloudwatch, "a", state)
    found = await sight(source, "a")
    assert (found.state, found.message) == (state, f"a is {state}")
    assert (await sight(source, "nowhere")).state == "Missing"


async def test_an_alarm_on_sagemakers_metrics_would_never_fire_here(source: CloudWatchSource, cloudwatch: Any) -> None:
    alarm(cloudwatch, "sagemakers", "ALARM")
    math = {
        "Metrics": [
            {
                "Id": "m",
                "MetricStat": {
                    "Metric": {"Namespace": "/aws/sagemaker/Endpoints", "MetricName": "CPUUtilization"},
                    "Period": 60,
                    "Stat": "Average",
                },
                "ReturnData": False,
            },
            {"Id": "e", "Expression": "m * 2", "ReturnData": True},
        ]
    }
    own(cloudwatch, "math", "OK", **math)
    for name, space in {"sagemakers": "AWS/SageMaker", "math": "/aws/sagemaker/Endpoints"}.items():
        found = await sight(source, name)
        assert found.state == "Unfit"
        assert space in (found.message or "")


class Sts:
    """Whose account the operator's own credentials are of."""

    def __init__(self) -> None:
        self.account = "111122223333"
        self.asked = 0

    async def answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        return web.Response(
            text=f"<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::{self.account}:user/o</Arn>"
            f"<Account>{self.account}</Account></GetCallerIdentityResult></GetCallerIdentityResponse>",
            content_type="text/xml",
        )


@pytest.fixture
async def sts(cloudwatch: Any, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Sts]:
    app, made = web.Application(), Sts()
    app.router.add_post("/", made.answer)
    async with TestServer(app) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", str(server.make_url("/")))
        yield made


class Account:
    """An AWS with composite alarms, which moto makes none of: what DescribeAlarms answers is in `alarms`, by name."""

    def __init__(self, **alarms: dict[str, Any]) -> None:
        self.alarms = alarms
        self.asked: list[tuple[list[str], bool]] = []
        """The names of each call, and whether it was about the alarms that others ask for."""
        self.refused: Reason | None = None
        """For what others ask for."""
        self.failure: Exception | None = None
        """For the same, of a kind that no port promises."""

    async def account(self, credentials: Credentials) -> aws.Account:
        return aws.Account("111122223333", "aws")

    async def call(
        self, credentials: Credentials, service: aws.Service, operation: str, /, **request: Any
    ) -> Mapping[str, Any]:
        rules = [str(alarm.get("AlarmRule")).replace('"', "") for alarm in self.alarms.values()]
        of_children = all(any(f"ALARM({name})" in rule for rule in rules) for name in request["AlarmNames"])
        self.asked.append((request["AlarmNames"], of_children))
        if self.refused is not None and of_children:
            raise ActFailed(CallProblem(operation, self.refused, "no"))
        if self.failure is not None and of_children:
            raise self.failure
        answer: dict[str, list[dict[str, Any]]] = {"MetricAlarms": [], "CompositeAlarms": [], "LogAlarms": []}
        for name in request["AlarmNames"]:
            alarm = self.alarms.get(name)
            kind = (
                "" if alarm is None else "CompositeAlarm" if "AlarmRule" in alarm else alarm.get("kind", "MetricAlarm")
            )
            if alarm is not None and kind in request["AlarmTypes"]:
                arn = f"arn:aws:cloudwatch:{REGION}:111122223333:alarm:{name}"
                answer[f"{kind}s"].append({"AlarmName": name, "AlarmArn": arn, "StateValue": "OK", **alarm})
        return answer

    def source(self, **settings: float) -> CloudWatchSource:
        settings = {"shortest_period_seconds": 0.01, **settings}
        return CloudWatchSource(CloudWatchReader(self, CLOCK, CloudWatchSettings(**settings)), CLOCK, REGION)


THEIRS = {"Namespace": "AWS/SageMaker"}
OWN = {"Namespace": "Shop"}


async def test_a_composite_alarm_that_can_never_fire_here_is_unfit_and_names_the_child() -> None:
    account = Account(
        top={"AlarmRule": "ALARM(middle) AND ALARM(own)"},
        middle={"AlarmRule": 'ALARM("too many 5xx")', "StateReason": "fine"},
        half={"AlarmRule": 'ALARM("too many 5xx") OR ALARM(own)', "StateValue": "ALARM", "StateReason": "own fired"},
        always={"AlarmRule": "TRUE", "StateValue": "ALARM"},
        never={"AlarmRule": "FALSE"},
        lost={"AlarmRule": "ALARM(nowhere)"},
        circle={"AlarmRule": "ALARM(circle)"},
        logs={"AlarmRule": "ALARM(log)"},
        own=OWN,
        log={"kind": "LogAlarm", "StateValue": "ALARM", "StateReason": "seen in the log"},
        **{"too many 5xx": THEIRS},
    )
    names = ("top", "half", "always", "never", "lost", "circle", "logs", "own", "log")
    found = await sights(account.source(), *names)
    assert {name: (seen.state, seen.message) for name, seen in found.items()} == {
        "top": ("Unfit", ANY),
        "half": ("ALARM", ANY),
        "always": ("ALARM", "its rule is true whatever happens"),
        "never": ("Unfit", ANY),
        "lost": ("Unfit", ANY),
        "circle": ("Unfit", ANY),
        "logs": ("OK", None),
        "own": ("OK", None),
        "log": ("ALARM", "seen in the log"),
    }
    messages = {name: seen.message or "" for name, seen in found.items()}
    assert "alarm too many 5xx looks at metrics of AWS/SageMaker" in messages["top"]
    assert "a part of its rule tells nothing: alarm too many 5xx" in messages["half"]
    assert messages["half"].endswith("; own fired")
    assert "there is no alarm nowhere in" in messages["lost"]
    assert "circle -> circle" in messages["circle"]


async def test_what_composite_alarms_ask_for_is_looked_up_by_the_hundred_now_and_then_and_paid_from_the_quota() -> None:
    """60 alarms of 3 children each: 2 calls more, once. A changed rule brings only what is new of it."""
    account = Account(**{f"c{n}-{m}": OWN for n in range(60) for m in range(3)})
    for n in range(60):
        account.alarms[f"top{n}"] = {"AlarmRule": " OR ".join(f"ALARM(c{n}-{m})" for m in range(3))}
    tops = [f"top{n}" for n in range(60)]
    source = account.source(calls_per_second=10)
    await sights(source, *tops)
    assert [(len(names), of_children) for names, of_children in account.asked] == [(60, False), (100, True), (80, True)]
    assert source.period_seconds == pytest.approx(3 / 10)
    await sights(source, *tops)
    assert [(len(names), of_children) for names, of_children in account.asked[3:]] == [(60, False)]
    assert source.period_seconds == pytest.approx(1 / 10)
    account.alarms["top7"] = {"AlarmRule": "ALARM(theirs)"}
    account.alarms["theirs"] = THEIRS
    found = await sights(source, *tops)
    assert account.asked[4:] == [(ANY, False), (["theirs"], True)]
    assert {name for name, seen in found.items() if seen.state == "Unfit"} == {"top7"}


async def test_a_child_that_was_mended_is_seen() -> None:
    account = Account(top={"AlarmRule": "ALARM(child)"}, child=THEIRS)
    source = account.source(children_seconds=0)
    assert (await sight(source, "top")).state == "Unfit"
    account.alarms["child"] = OWN
    assert (await sight(source, "top")).state == "OK"
    del account.alarms["child"]
    assert "there is no alarm child" in ((await sight(source, "top")).message or "")


async def test_children_that_cannot_be_read_blind_nobody_and_stay_what_they_were() -> None:
    account = Account(
        top={"AlarmRule": "ALARM(child)"}, new={"AlarmRule": "ALARM(theirs)"}, child=THEIRS, theirs=THEIRS
    )
    source = account.source(children_seconds=0)
    assert (await sight(source, "top")).state == "Unfit"
    account.refused = Reason.ACCESS_DENIED
    found = await sights(source, "top", "new")
    assert {name: seen.state for name, seen in found.items()} == {"top": "Unfit", "new": "OK"}
    account.refused = None
    assert (await sight(source, "new")).state == "Unfit"


async def test_throttled_look_ups_make_the_poller_slower_and_come_again() -> None:
    account = Account(top={"AlarmRule": "ALARM(child)"}, child=THEIRS)
    source = account.source(calls_per_second=100)
    account.refused = Reason.THROTTLED
    assert (await sight(source, "top")).state == "OK"
    assert source.period_seconds == pytest.approx(2 * 2 / 100)
    account.refused = None
    assert (await sight(source, "top")).state == "Unfit"


async def test_only_an_alarm_whose_children_are_not_known_waits_for_them() -> None:
    """Two requests of one round: what rules ask for is looked up by the hundred at the end of it."""
    account = Account(top={"AlarmRule": "ALARM(child)"}, child=THEIRS, own=OWN)
    reader = CloudWatchReader(account, CLOCK, CloudWatchSettings(shortest_period_seconds=0.01))
    told: list[str] = []

    async def ask(*names: str) -> list[str | None]:
        found = await reader.judge(Credentials(REGION), names, CLOCK.now())
        told.append(f"{names[0]} after {sum(of_children for _, of_children in account.asked)}")
        return [one.fitness.unfit for one in found]

    top, own = await asyncio.gather(ask("top"), ask("own"))
    assert "AWS/SageMaker" in (top[0] or "")
    assert own == [None]
    assert told == ["own after 0", "top after 1"]
    told.clear()
    assert await asyncio.gather(ask("top"), ask("own")) == [top, own]
    assert told == ["top after 1", "own after 1"], "they are known for a while, and both go at once"


async def test_a_child_that_another_asks_for_by_name_is_read_once() -> None:
    account = Account(top={"AlarmRule": "ALARM(child)"}, child=THEIRS)
    reader = CloudWatchReader(account, CLOCK, CloudWatchSettings(shortest_period_seconds=0.01))
    place = Credentials(REGION)
    found = await asyncio.gather(*(reader.judge(place, (name,), CLOCK.now()) for name in ("top", "child")))
    assert ["AWS/SageMaker" in (one.fitness.unfit or "") for (one,) in found] == [True, True]
    assert account.asked == [(["top", "child"], False)]


async def test_a_look_up_that_fails_as_nobody_thought_of_leaves_nobody_waiting() -> None:
    account = Account(top={"AlarmRule": "ALARM(child)"}, child={"StateValue": "OK"}, own=OWN)
    reader = CloudWatchReader(account, CLOCK, CloudWatchSettings(shortest_period_seconds=0.01))

    async def seen() -> list[str]:
        asked = (reader.judge(Credentials(REGION), (name,), CLOCK.now()) for name in ("top", "own"))
        return [one.reading.state for (one,) in await asyncio.gather(*asked)]

    account.failure = OSError("of a library below")
    async with asyncio.timeout(5):
        assert await seen() == ["Unreadable", "OK"]
    account.failure = None
    assert await seen() == ["OK", "OK"]


async def test_endpoints_on_sagemaker_cost_no_look_up() -> None:
    """There SageMaker's metrics are what an alarm should look at."""
    account = Account(top={"AlarmRule": "ALARM(child)"}, child=THEIRS)
    (reading,) = await CloudWatchReader(account, CLOCK).read(TARGET, ("top",), CLOCK.now())
    assert (reading.state, len(account.asked)) == ("OK", 1)


async def test_without_a_region_the_setting_is_named(reader: CloudWatchReader) -> None:
    found = await sight(CloudWatchSource(reader, CLOCK, None), "a")
    assert (found.state, "AWS_REGION" in (found.message or "")) == ("Unreadable", True)


async def test_under_throttling_the_period_widens_states_stay_and_it_recovers(
    calls: AwsCalls, cloudwatch: Any, moto_url: str, telemetry: CountingTelemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 alarms are 3 calls a round. The quota falls to one call in ten seconds: the poller gives way instead of
    hammering, nothing that was read turns into anything else, and it finds back to its own period."""
    names = [f"n{index}" for index in range(300)]
    own(cloudwatch, "n0", "ALARM")
    own(cloudwatch, "n299", "OK")
    quota = Quota(moto_url, UNLIMITED)
    async with quota as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", url)
        reader = CloudWatchReader(calls, CLOCK, CloudWatchSettings(shortest_period_seconds=0.1, calls_per_second=30))
        source = CloudWatchSource(reader, CLOCK, REGION)
        poller = AlarmPoller(Stepped(), (source,))  # no time passes in which it would lose its patience
        for index in range(100):
            poller.watch(key(f"e{index}"), watch(*names[3 * index : 3 * index + 3], endpoint=f"e{index}"))
        await poller.poll(source)
        assert quota.counted == Counted(passed=3)
        assert source.period_seconds == pytest.approx(0.1)

        quota.calls_per_second = 0.1
        await poller.poll(source)
        await poller.poll(source)
        assert quota.counted.refused > 0
        assert source.period_seconds == pytest.approx(0.4)
        states = {reading.name: reading.state for index in (0, 99) for reading in poller.readings(key(f"e{index}"))}
        assert (states["n0"], states["n1"], states["n299"]) == ("ALARM", "Missing", "OK")

        quota.calls_per_second = UNLIMITED
        async with asyncio.timeout(120):
            while source.period_seconds > 0.11:
                await poller.poll(source)
        cloudwatch.set_alarm_state(AlarmName="n299", StateValue="ALARM", StateReason="now")
        await poller.poll(source)
        assert [reading.state for reading in poller.readings(key("e99"))][-1] == "ALARM"
        await reader.stop()


async def test_five_hundred_endpoints_of_five_alarms_are_25_calls_a_round(
    calls: AwsCalls, cloudwatch: Any, moto_url: str, telemetry: CountingTelemetry, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As its quota allows: half of 9 calls a second gives a round every 5.6 s, and says so. The first one, after a
    quiet time, is not refused anything either."""
    quota = Quota(moto_url)
    async with quota as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", url)
        reader = CloudWatchReader(calls, CLOCK)
        source = CloudWatchSource(reader, CLOCK, REGION)
        poller = AlarmPoller(CLOCK, (source,))
        own(cloudwatch, "a7-3", "ALARM")
        for index in range(500):
            poller.watch(key(f"e{index}"), watch(*(f"a{index}-{n}" for n in range(5)), endpoint=f"e{index}"))
        await poller.poll(source)
        await reader.stop()
    assert quota.counted == Counted(passed=25, refused=0)
    assert telemetry.calls["DescribeAlarms", "ok"] == 25
    assert poller.periods()["CloudWatch"] >= 25 / 4.5
    assert {r.name: r.state for r in poller.readings(key("e7"))}["a7-3"] == "ALARM"
    assert "read every 6 s" in (poller.readings(key("e7"))[3].message or "")


async def test_an_endpoint_is_told_when_its_alarms_are_known_not_when_the_round_is_over() -> None:
    """At 25 calls a round the last one is back 5.6 s after the first."""
    aws = Held()
    source = CloudWatchSource(CloudWatchReader(aws, CLOCK), CLOCK, REGION)
    poller, woken = AlarmPoller(CLOCK, (source,)), set[str]()
    poller.on_moved(lambda key: woken.add(key.name), lambda key: woken.add(key.name))
    for index in range(40):
        poller.watch(key(f"e{index}"), watch(*(f"a{n}-{index}" for n in range(5)), endpoint=f"e{index}"))
    round_ = asyncio.create_task(poller.poll(source))
    await answered()
    assert [len(names) for names in aws.asked] == [100, 100]
    await aws.let("a0-30")
    await answered()
    assert woken == {f"e{index}" for index in range(20, 40)}
    assert [reading.state for reading in poller.readings(key("e39"))] == ["OK"] * 5
    assert not round_.done()
    await aws.let("a0-10")
    await round_
    assert woken == {f"e{index}" for index in range(40)}
    assert len(aws.asked) == 2


async def test_the_operators_own_credentials_are_used(source: CloudWatchSource, reader: CloudWatchReader) -> None:
    await sight(source, "a")
    assert reader.period_seconds(Credentials(REGION)) == source.period_seconds


async def test_the_account_of_alarms_is_asked_for_once_when_it_matters(calls: AwsCalls) -> None:
    woken = asyncio.Event()
    place = OwnPlace(calls, REGION, woken.set)
    assert place.now() == AlarmPlace(REGION)
    place.ask()
    place.ask()
    await asyncio.wait_for(woken.wait(), 60)
    assert place.now() == AlarmPlace(REGION, "123456789012")
    woken.clear()
    place.ask()
    assert not woken.is_set()
    nowhere = OwnPlace(calls, None, woken.set)
    nowhere.ask()
    assert nowhere.now() == AlarmPlace()


async def test_the_account_of_alarms_follows_an_identity_that_moves(telemetry: CountingTelemetry, sts: Sts) -> None:
    """Else the policy would go on judging by an account in which nothing is read any more."""
    clock, woken = Stepped(), asyncio.Event()
    door = AwsCalls(AwsSettings(), telemetry, clock)
    place = OwnPlace(door, REGION, woken.set)

    async def look() -> AlarmPlace:
        place.now()
        for _ in range(3):
            await asyncio.sleep(0)  # the task begins, and ends if nothing has to be asked
        return place.now()

    assert await look() == AlarmPlace(REGION)
    assert sts.asked == 0, "it does not matter yet"
    place.ask()
    await asyncio.wait_for(woken.wait(), 60)
    sts.account = "444455556666"
    clock.seconds += 299
    assert (await look(), sts.asked) == (AlarmPlace(REGION, "111122223333"), 1)
    clock.seconds += 2
    woken.clear()
    place.now()
    await asyncio.wait_for(woken.wait(), 60)
    assert (place.now(), sts.asked) == (AlarmPlace(REGION, "444455556666"), 2)
    door.close()
