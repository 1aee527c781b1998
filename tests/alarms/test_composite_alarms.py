"""Composite alarms on the wire: moto's server answers DescribeAlarms as botocore's model of the service has it.

moto (5.2) has no PutCompositeAlarm, so that a composite alarm is put into its store beside the API, and it evaluates no
rule: the state of a composite alarm is what SetAlarmState makes it. It knows no log alarms."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from botocore.session import Session
from moto.cloudwatch.models import cloudwatch_backends
from moto.core import DEFAULT_ACCOUNT_ID
from tests.alarms.test_cloudwatch import Answers
from tests.sagemaker.world import REGION, TARGET

from sluice.alarms.cloudwatch import CloudWatchReader, CloudWatchSettings, CloudWatchSource
from sluice.alarms.subjects import NamedAlarm, Sight
from sluice.ports.clock import SystemClock
from sluice.sagemaker.clients import AwsCalls

CLOCK = SystemClock()


@pytest.fixture
async def reader(calls: AwsCalls) -> AsyncIterator[CloudWatchReader]:
    made = CloudWatchReader(calls, CLOCK, CloudWatchSettings(shortest_period_seconds=0.05))
    yield made
    await made.stop()


def metric(cloudwatch: Any, name: str, namespace: str) -> None:
    """In state OK."""
    cloudwatch.put_metric_alarm(
        AlarmName=name,
        Namespace=namespace,
        MetricName="errors",
        Statistic="Sum",
        Period=60,
        EvaluationPeriods=1,
        Threshold=1,
        ComparisonOperator="GreaterThanThreshold",
    )


def composite(name: str, rule: str) -> None:
    """In state OK."""
    of_metrics: dict[str, Any] = dict.fromkeys(
        ("namespace", "metric_name", "statistic", "period", "threshold", "comparison_operator", "evaluation_periods")
    )
    cloudwatch_backends[DEFAULT_ACCOUNT_ID][REGION].put_metric_alarm(
        name=name, rule=rule, description="", dimensions=[], alarm_actions=[], **of_metrics
    )


async def test_a_metric_and_a_composite_alarm_are_read_and_followed(reader: CloudWatchReader, cloudwatch: Any) -> None:
    metric(cloudwatch, "errors", "Shop")
    composite("any", 'ALARM("errors") OR ALARM("late")')
    listed = cloudwatch.describe_alarms(AlarmTypes=["MetricAlarm", "CompositeAlarm"])
    assert [[one["AlarmName"] for one in listed[f"{type_}Alarms"]] for type_ in ("Metric", "Composite")] == [
        ["errors"],
        ["any"],
    ]

    async def states() -> dict[str, str]:
        return {one.name: one.state for one in await reader.read(TARGET, ("errors", "any"), CLOCK.now())}

    assert await states() == {"errors": "OK", "any": "OK"}
    for state in ("ALARM", "INSUFFICIENT_DATA", "OK"):
        cloudwatch.set_alarm_state(AlarmName="any", StateValue=state, StateReason=f"any is {state}")
        assert await states() == {"errors": "OK", "any": state}
    cloudwatch.set_alarm_state(AlarmName="errors", StateValue="ALARM", StateReason="many")
    assert await states() == {"errors": "ALARM", "any": "OK"}
    cloudwatch.delete_alarms(AlarmNames=["any"])
    assert await states() == {"errors": "ALARM", "any": "Missing"}


async def test_for_the_cluster_its_rule_and_what_it_rests_on_are_read(
    reader: CloudWatchReader, cloudwatch: Any
) -> None:
    metric(cloudwatch, "errors", "Shop")
    metric(cloudwatch, "theirs", "AWS/SageMaker")
    composite("mine", 'ALARM("errors")')
    composite("never", 'ALARM("errors") AND ALARM("theirs")')
    source = CloudWatchSource(reader, CLOCK, REGION)
    cloudwatch.set_alarm_state(AlarmName="mine", StateValue="ALARM", StateReason="errors fired")

    async def sight(name: str) -> Sight:
        return (await source.read({NamedAlarm(name)}))[NamedAlarm(name)]

    mine, never = await sight("mine"), await sight("never")
    assert (mine.state, mine.message) == ("ALARM", "errors fired")
    assert never.state == "Unfit"
    assert "alarm theirs looks at metrics of AWS/SageMaker" in (never.message or "")


def test_the_keys_that_are_read_are_the_services() -> None:
    """For all kinds of alarm, log alarms too: those of test_cloudwatch.py answer under these keys, and no other."""
    output = Session().get_service_model("cloudwatch").operation_model("DescribeAlarms").output_shape
    kinds = {key: shape.member.members for key, shape in output.members.items() if shape.type_name == "list"}
    assert set(kinds) == {f"{type_}s" for type_ in Answers().types}
    for members in kinds.values():
        assert {"AlarmName", "AlarmArn", "StateValue", "StateReason"} <= members.keys()
    assert [key for key, members in kinds.items() if "AlarmRule" in members] == ["CompositeAlarms"]
