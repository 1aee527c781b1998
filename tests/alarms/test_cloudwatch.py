"""CloudWatch alarms by name: states, what is missing or unreadable, and how few calls it takes."""

import asyncio
import socket
from collections.abc import AsyncIterator, Collection, Mapping
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from botocore.session import Session
from tests.alarms.stepped import Stepped
from tests.sagemaker.world import OWN, TARGET, CountingTelemetry

from sluice.alarms.cloudwatch import OLDER_SECONDS, REFUSED_SECONDS, CloudWatchReader, CloudWatchSettings
from sluice.api.reasons import Reason
from sluice.core.identity import Credentials
from sluice.core.observation import CallProblem
from sluice.ports.aws import Account, Service
from sluice.ports.backend import ActFailed, AlarmReader
from sluice.ports.clock import SystemClock
from sluice.sagemaker.clients import AwsCalls

CLOCK = SystemClock()


@pytest.fixture
async def reader(calls: AwsCalls) -> AsyncIterator[CloudWatchReader]:
    reader = CloudWatchReader(calls, CLOCK, CloudWatchSettings(shortest_period_seconds=0.2))
    yield reader
    await reader.stop()


def alarm(cloudwatch: Any, name: str, state: str = "OK") -> None:
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace="AWS/SageMaker",
        MetricName="Invocation5XXErrors",
        Statistic="Average",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanOrEqualToThreshold",
        ActionsEnabled=False,
    )
    cloudwatch.set_alarm_state(AlarmName=name, StateValue=state, StateReason=f"{name} is {state}")


async def states(reader: AlarmReader, *names: str) -> dict[str, str]:
    return {reading.name: reading.state for reading in await reader.read(TARGET, names, CLOCK.now())}


async def test_the_three_states_and_missing(reader: CloudWatchReader, cloudwatch: Any) -> None:
    for name, state in {"fine": "OK", "firing": "ALARM", "young": "INSUFFICIENT_DATA"}.items():
        alarm(cloudwatch, name, state)
    readings = await reader.read(TARGET, ("fine", "firing", "young", "nowhere"), CLOCK.now())
    assert [(reading.name, reading.state) for reading in readings] == [
        ("fine", "OK"),
        ("firing", "ALARM"),
        ("young", "INSUFFICIENT_DATA"),
        ("nowhere", "Missing"),
    ]
    assert readings[1].message == "firing is ALARM"
    assert "no metric, composite or log alarm" in (readings[3].message or "")


async def test_a_reading_is_taken_after_the_moment_asked_for(reader: CloudWatchReader, cloudwatch: Any) -> None:
    alarm(cloudwatch, "fine")
    soon = CLOCK.now() + timedelta(seconds=0.6)
    (reading,) = await reader.read(TARGET, ("fine",), soon)
    assert reading.read_at >= soon
    again = CLOCK.now()
    (reading,) = await reader.read(TARGET, ("fine",), again)
    assert reading.read_at >= again


async def test_a_change_is_seen_by_the_next_reading(reader: CloudWatchReader, cloudwatch: Any) -> None:
    alarm(cloudwatch, "a", "OK")
    assert await states(reader, "a") == {"a": "OK"}
    alarm(cloudwatch, "a", "ALARM")
    assert await states(reader, "a") == {"a": "ALARM"}


async def test_many_endpoints_share_one_call(
    reader: CloudWatchReader, cloudwatch: Any, telemetry: CountingTelemetry
) -> None:
    for index in range(10):
        alarm(cloudwatch, f"a{index}")
    await states(reader, "a0")
    telemetry.calls.clear()
    answers = await asyncio.gather(*(states(reader, f"a{index % 10}", "shared") for index in range(40)))
    assert all(answer[f"a{index % 10}"] == "OK" for index, answer in enumerate(answers))
    assert telemetry.calls["DescribeAlarms", "ok"] <= 2


async def test_a_hundred_names_a_call(reader: CloudWatchReader, cloudwatch: Any, telemetry: CountingTelemetry) -> None:
    names = tuple(f"n{index}" for index in range(250))
    alarm(cloudwatch, "n0", "ALARM")
    alarm(cloudwatch, "n249", "ALARM")
    found = await states(reader, *names)
    assert len(found) == 250
    assert {name for name, state in found.items() if state == "ALARM"} == {"n0", "n249"}
    assert telemetry.calls["DescribeAlarms", "ok"] == 3
    assert reader.period_seconds(OWN) == pytest.approx(3 / 4.5)


async def test_nothing_is_polled_when_nobody_asks(
    reader: CloudWatchReader, cloudwatch: Any, telemetry: CountingTelemetry
) -> None:
    await states(reader, "a")
    telemetry.calls.clear()
    await states(reader, "a")
    await answered()
    assert telemetry.calls["DescribeAlarms", "ok"] == 1
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "cloudwatch alarms" and not task.done()]


async def test_the_period_is_kept(reader: CloudWatchReader, cloudwatch: Any) -> None:
    moments = []
    for _ in range(4):
        (reading,) = await reader.read(TARGET, ("a",), CLOCK.now())
        moments.append(reading.read_at)
    pauses = [(after - before).total_seconds() for before, after in pairwise(moments)]
    assert min(pauses) >= 0.19


async def test_a_reading_for_the_cluster_out_of_the_rhythm_is_as_soon_as_the_quota_allows(
    calls: AwsCalls, cloudwatch: Any
) -> None:
    alarm(cloudwatch, "a")
    settings = CloudWatchSettings(shortest_period_seconds=60, shortest_pause_seconds=0.2)
    reader = CloudWatchReader(calls, CLOCK, settings)
    moments = []
    for _ in range(3):
        (found,) = await reader.judge(TARGET.credentials, ("a",), CLOCK.now())
        moments.append(found.reading.read_at)
    await reader.stop()
    pauses = [(after - before).total_seconds() for before, after in pairwise(moments)]
    assert min(pauses) >= 0.19
    assert max(pauses) < 60
    assert reader.period_seconds(TARGET.credentials) == 60


async def test_out_of_reach_is_unreadable_with_the_reason(
    reader: CloudWatchReader, calls: AwsCalls, cloudwatch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    await calls.account(OWN)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDWATCH", f"http://127.0.0.1:{listener.getsockname()[1]}")
        (reading,) = await reader.read(TARGET, ("a",), CLOCK.now())
    assert reading.state == "Unreadable"
    assert "AWS_ENDPOINT_URL_CLOUDWATCH" in (reading.message or "")


async def test_no_credentials_is_unreadable(
    reader: CloudWatchReader, cloudwatch: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    (reading,) = await reader.read(TARGET, ("a",), CLOCK.now())
    assert reading.state == "Unreadable"
    assert "credentials" in (reading.message or "")


class Answers:
    """An AWS of its own: knows composite and log alarms, refuses one name, denies one role, is silent for another."""

    def __init__(self, *types: str) -> None:
        self.types = types or ("MetricAlarm", "CompositeAlarm", "LogAlarm")
        """Those that it knows."""
        self.asked: list[list[str]] = []
        self.asked_types: list[list[str]] = []

    async def account(self, credentials: Credentials) -> Account:
        return Account("111122223333", "aws")

    async def call(
        self, credentials: Credentials, service: Service, operation: str, /, **request: Any
    ) -> Mapping[str, Any]:
        names = request["AlarmNames"]
        self.asked.append(names)
        self.asked_types.append(request["AlarmTypes"])
        if credentials.role_arn == "silent":
            await asyncio.Event().wait()
        if credentials.role_arn == "denied":
            raise ActFailed(CallProblem(operation, Reason.ACCESS_DENIED, "cloudwatch:DescribeAlarms is denied"))
        if "bad" in names:
            problem = CallProblem(operation, Reason.REJECTED_BY_SAGEMAKER, "bad is no name", transient=False)
            raise ActFailed(problem)
        if not set(request["AlarmTypes"]) <= set(self.types):
            problem = CallProblem(operation, Reason.REJECTED_BY_SAGEMAKER, "alarmTypes: no such enum", transient=False)
            raise ActFailed(problem)
        answer: dict[str, list[dict[str, str]]] = {f"{type_}s": [] for type_ in self.types}
        for name in names:
            kind = {"composite": "CompositeAlarm", "log": "LogAlarm"}.get(name.partition("-")[0], "MetricAlarm")
            state = "OK" if kind == "MetricAlarm" else "ALARM"
            if kind in request["AlarmTypes"]:
                answer[f"{kind}s"].append({"AlarmName": name, "StateValue": state, "StateReason": f"of a {kind}"})
        return answer


async def test_composite_and_log_alarms_are_read_too() -> None:
    """The service returns them only where AlarmTypes asks for them; moto knows no log alarms, and heeds no types."""
    aws = Answers()
    readings = await CloudWatchReader(aws, CLOCK).read(TARGET, ("composite", "fine", "log"), CLOCK.now())
    assert [(reading.name, reading.state, reading.message) for reading in readings] == [
        ("composite", "ALARM", "of a CompositeAlarm"),
        ("fine", "OK", "of a MetricAlarm"),
        ("log", "ALARM", "of a LogAlarm"),
    ]
    assert len(aws.asked) == 1


async def test_every_type_that_the_api_knows_is_asked_for() -> None:
    """A newer botocore that tells of another type fails here, before an alarm of it looks missing."""
    aws = Answers()
    await states(CloudWatchReader(aws, CLOCK), "fine")
    known = Session().get_service_model("cloudwatch").shape_for("AlarmType").enum  # type: ignore[attr-defined]
    assert set(aws.asked_types[0]) == set(known)


async def test_where_cloudwatch_knows_no_log_alarms_the_others_are_read() -> None:
    aws = Answers("MetricAlarm", "CompositeAlarm")
    clock = Stepped()
    reader = CloudWatchReader(aws, clock)
    readings = await reader.read(TARGET, ("composite", "fine", "log"), clock.now())
    assert [(reading.name, reading.state) for reading in readings] == [
        ("composite", "ALARM"),
        ("fine", "OK"),
        ("log", "Missing"),
    ]
    assert "no metric or composite alarm (it knows no log alarms)" in (readings[2].message or "")
    log = ["MetricAlarm", "CompositeAlarm", "LogAlarm"]
    assert aws.asked_types == [log, log[:2]]
    clock.seconds += 5
    await reader.read(TARGET, ("fine",), clock.now())
    assert aws.asked_types[2:] == [log[:2]], "a refusal is not asked for at each reading"
    aws.types = tuple(log)  # an upgrade of whatever answers for CloudWatch there
    clock.seconds += OLDER_SECONDS
    (reading,) = await reader.read(TARGET, ("log",), clock.now())
    assert reading.state == "ALARM"


async def test_a_bad_name_is_not_taken_for_a_type_that_is_not_known() -> None:
    aws = Answers()
    found = await states(CloudWatchReader(aws, CLOCK), "bad", "log")
    assert found == {"bad": "Unreadable", "log": "ALARM"}


async def test_one_bad_name_does_not_blind_the_others() -> None:
    reader = CloudWatchReader(Answers(), CLOCK)
    found = await states(reader, *(f"n{index}" for index in range(60)), "bad")
    assert {name for name, state in found.items() if state != "OK"} == {"bad"}
    assert found["bad"] == "Unreadable"


async def test_a_bad_name_is_looked_for_once_in_a_while() -> None:
    """To find it among the others takes a dozen calls, and a few of them would use up the time that a reading has."""
    aws, clock = Answers(), Stepped()
    reader = CloudWatchReader(aws, clock)
    names = (*(f"n{index}" for index in range(60)), "bad")

    async def calls() -> int:
        before = len(aws.asked)
        found = {one.name: (one.state, one.message) for one in await reader.read(TARGET, names, clock.now())}
        assert {state for name, (state, _) in found.items() if name != "bad"} == {"OK"}
        assert found["bad"] == ("Unreadable", "bad is no name")
        clock.seconds += 5
        return len(aws.asked) - before

    assert await calls() > 10
    assert [await calls() for _ in range(3)] == [1, 1, 1]
    clock.seconds += REFUSED_SECONDS
    assert await calls() > 10


async def test_where_every_name_is_refused_it_is_not_the_names() -> None:
    """As by something between that refuses all calls for a moment."""
    aws, clock = Answers("none"), Stepped()
    reader = CloudWatchReader(aws, clock)
    (one, other) = await reader.read(TARGET, ("one", "other"), clock.now())
    assert (one.state, other.state) == ("Unreadable", "Unreadable")
    aws.types = ("MetricAlarm", "CompositeAlarm", "LogAlarm")
    clock.seconds += 5
    (one, other) = await reader.read(TARGET, ("one", "other"), clock.now())
    assert (one.state, other.state) == ("OK", "OK")


async def test_who_is_denied_does_not_borrow_the_permission_of_another() -> None:
    aws = Answers()
    reader = CloudWatchReader(aws, CLOCK)
    denied = type(TARGET)(TARGET.owner, Credentials("eu-west-1", "denied"), "churn")
    mine, theirs = await asyncio.gather(
        reader.read(TARGET, ("a",), CLOCK.now()), reader.read(denied, ("a",), CLOCK.now())
    )
    assert (mine[0].state, theirs[0].state) == ("OK", "Unreadable")
    assert "DescribeAlarms is denied" in (theirs[0].message or "")


async def test_silence_ends() -> None:
    reader = CloudWatchReader(Answers(), CLOCK, CloudWatchSettings(longest_read_seconds=0.3))
    silent = type(TARGET)(TARGET.owner, Credentials("eu-west-1", "silent"), "churn")
    (reading,) = await reader.read(silent, ("a",), CLOCK.now())
    assert reading.state == "Unreadable"
    assert "no answer within" in (reading.message or "")
    await reader.stop()


async def test_a_pass_that_goes_away_leaves_nothing_behind() -> None:
    reader = CloudWatchReader(Answers(), CLOCK)
    await states(reader, "a")
    gone = asyncio.create_task(states(reader, "b"))
    await asyncio.sleep(0)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    assert await states(reader, "c") == {"c": "OK"}


class Held(Answers):
    """Answers a call when the test lets it: `let` has a name of it. Some names it answers as nobody would think of, and
    for others it throttles."""

    def __init__(self, let: Collection[str] = (), strange: str = "", throttled: Collection[str] = ()) -> None:
        super().__init__()
        self._let = set(let)
        self._moved = asyncio.Condition()
        self._strange = strange
        self.throttled = throttled

    async def call(
        self, credentials: Credentials, service: Service, operation: str, /, **request: Any
    ) -> Mapping[str, Any]:
        answer = await super().call(credentials, service, operation, **request)
        async with self._moved:
            await self._moved.wait_for(lambda: self._let & set(request["AlarmNames"]))
        if set(self.throttled) & set(request["AlarmNames"]):
            raise ActFailed(CallProblem(operation, Reason.THROTTLED, "Rate exceeded"))
        if self._strange in request["AlarmNames"]:
            return {"MetricAlarms": [{"AlarmName": self._strange}]}
        return answer

    async def let(self, name: str) -> None:
        async with self._moved:
            self._let.add(name)
            self._moved.notify_all()


def of(endpoint: int, number: int = 100) -> tuple[str, ...]:
    """Names of one Endpoint's alarms. In the order of the alphabet they lie between those of others."""
    return tuple(f"n{index:03}-{endpoint}" for index in range(number))


async def answered(*asked: asyncio.Task[dict[str, str]]) -> list[bool]:
    """Which are, once everything that can go on has."""
    for _ in range(20):
        await asyncio.sleep(0)
    return [one.done() for one in asked]


async def asking(reader: AlarmReader, *names: tuple[str, ...]) -> list[asyncio.Task[dict[str, str]]]:
    """Requests of one round, one for each tuple, whose calls are out."""
    tasks = [asyncio.create_task(states(reader, *some)) for some in names]
    await answered(*tasks)
    return tasks


async def test_who_asks_is_answered_as_soon_as_its_own_alarms_are_known() -> None:
    """The calls of a round go out one after the other for as long as the quota takes: 5.6 s for 25 of them."""
    aws = Held()
    tasks = await asking(CloudWatchReader(aws, CLOCK), of(1), of(2), of(3, 50))
    assert [set(names) for names in aws.asked] == [set(of(1)), set(of(2)), set(of(3, 50))]
    assert await answered(*tasks) == [False, False, False]
    await aws.let("n007-2")
    assert await answered(*tasks) == [False, True, False]
    await aws.let("n007-1")
    await aws.let("n007-3")
    assert await answered(*tasks) == [True, True, True]
    assert [set(await task) for task in tasks] == [set(of(1)), set(of(2)), set(of(3, 50))]


async def test_an_alarm_that_several_ask_for_is_read_once_and_answered_to_each() -> None:
    aws = Held()
    first, second, third = await asking(
        CloudWatchReader(aws, CLOCK), of(1), (*of(2, 99), "n000-1"), ("n001-1", "n001-2")
    )
    assert sorted(name for names in aws.asked for name in names) == sorted((*of(1), *of(2, 99)))
    await aws.let("n050-2")
    assert await answered(first, second, third) == [False, False, False], "each has an alarm in the first call"
    await aws.let("n050-1")
    assert await answered(first, second, third) == [True, True, True]
    assert await second == dict.fromkeys((*of(2, 99), "n000-1"), "OK")
    assert await third == {"n001-1": "OK", "n001-2": "OK"}


async def test_who_comes_while_a_round_runs_is_of_the_next_one() -> None:
    aws = Held()
    reader = CloudWatchReader(aws, CLOCK, CloudWatchSettings(shortest_period_seconds=0, calls_per_second=1e6))
    first, second = await asking(reader, of(1), of(2))
    await aws.let("n007-1")
    (again,) = await asking(reader, of(1))
    assert await answered(first, second, again) == [True, False, False]
    assert len(aws.asked) == 2, "a reading from before it was asked for is no answer"
    await aws.let("n007-2")
    assert await second == dict.fromkeys(of(2), "OK")
    assert await again == dict.fromkeys(of(1), "OK")
    assert len(aws.asked) == 3


async def test_an_answer_that_nobody_thought_of_blinds_its_own_chunk_only() -> None:
    aws = Held(let=("n007-1", "n007-2"), strange="n007-1")
    reader = CloudWatchReader(aws, CLOCK)
    async with asyncio.timeout(5):
        bad, good, both = await asyncio.gather(
            reader.read(TARGET, of(1), CLOCK.now()),
            reader.read(TARGET, of(2), CLOCK.now()),
            reader.read(TARGET, ("n001-1", "n001-2"), CLOCK.now()),
        )
    assert {reading.state for reading in bad} == {"Unreadable"}
    assert "the operator's log says why" in (bad[0].message or "")
    assert {reading.state for reading in good} == {"OK"}
    assert [reading.state for reading in both] == ["Unreadable", "OK"]
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "cloudwatch alarms" and not task.done()]


async def test_who_is_refused_by_throttling_blinds_nobody_and_slows_a_round_once() -> None:
    aws = Held(let=("n007-1", "n007-2", "n007-3"), throttled=("n007-1", "n007-2"))
    reader = CloudWatchReader(aws, CLOCK, CloudWatchSettings(shortest_period_seconds=0.01, calls_per_second=100))
    tasks = await asking(reader, of(1), of(2), of(3))
    assert [set((await task).values()) for task in tasks] == [{"Unreadable"}, {"Unreadable"}, {"OK"}]
    assert reader.period_seconds(OWN) == pytest.approx(2 * 3 / 100)


async def test_whoever_still_waits_when_the_reader_stops_is_told_so() -> None:
    reader = CloudWatchReader(Held(let=("n007-1",)), CLOCK)
    first, second = await asking(reader, of(1), of(2))
    later = asyncio.create_task(reader.read(TARGET, ("a",), CLOCK.now() + timedelta(hours=1)))
    assert await answered(first, second) == [True, False]
    await reader.stop()
    async with asyncio.timeout(5):
        assert set((await second).values()) == {"Unreadable"}
        (reading,) = await later
    assert "stops" in (reading.message or "")


async def test_who_goes_away_in_mid_round_takes_nothing_from_the_others() -> None:
    aws = Held()
    gone, stays = await asking(CloudWatchReader(aws, CLOCK), of(1), of(2))
    gone.cancel()
    assert await answered(gone, stays) == [True, False]
    await aws.let("n007-2")
    assert await answered(stays) == [True]
    await aws.let("n007-1")
    assert await stays == dict.fromkeys(of(2), "OK")
    await answered()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "cloudwatch alarms" and not task.done()]
