"""The way to AWS, with the simulator in the account's place: no account is needed to know that it can be gone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conformance import aws
from tests.conformance.table import TABLE

from sagemaker_simulator.testing import Simulator

ARGUMENTS = [
    *("--region", "us-east-1"),
    *("--role", "arn:aws:iam::111122223333:role/churn"),
    *(word for image in ("old", "new", "third", "unhealthy") for word in (f"--{image}-image", f"churn:{image}")),
    *("--instance-type", "ml.m5.large"),
    *("--dollars-per-instance-hour", "0.115"),
]


@pytest.fixture
def account(cloudwatch_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulator]:
    """What the usual credentials lead to."""
    with Simulator(speed=60, cloudwatch_endpoint=cloudwatch_url) as simulator:
        monkeypatch.chdir(tmp_path)  # where the operator's log goes
        for name, value in {
            "AWS_ACCESS_KEY_ID": "person",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_ENDPOINT_URL_SAGEMAKER": simulator.url,
            "AWS_ENDPOINT_URL_STS": simulator.url,
            "AWS_ENDPOINT_URL_APPLICATION_AUTO_SCALING": simulator.url,
            "AWS_ENDPOINT_URL_CLOUDWATCH": cloudwatch_url,
        }.items():
            monkeypatch.setenv(name, value)
        yield simulator


def _standing(simulator: Simulator) -> list[str]:
    sagemaker = simulator.client("sagemaker")
    return [
        *(one["EndpointName"] for one in sagemaker.list_endpoints()["Endpoints"]),
        *(one["EndpointConfigName"] for one in sagemaker.list_endpoint_configs()["EndpointConfigs"]),
        *(one["ModelName"] for one in sagemaker.list_models()["Models"]),
    ]


@pytest.mark.apiserver
@pytest.mark.timeout(300)
def test_scenarios_run_there_and_leave_nothing(account: Simulator, capsys: pytest.CaptureFixture[str]) -> None:
    wanted = ["alarm-absent", "rolling-with-two-variants"]  # of which no stage can be missed at this speed
    code = aws.main([*ARGUMENTS, "--cap-dollars", "10", "--only", *wanted])
    told = capsys.readouterr().out
    assert code == 0, told
    assert [line for line in told.splitlines() if line.startswith("same")] == [f"same   {name}" for name in wanted]
    assert account.counts()["CreateEndpoint"] == 2
    assert _standing(account) == []
    assert "NOT DELETED" not in told


def test_nothing_starts_that_could_cost_more_than_was_said(
    account: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    assert aws.main([*ARGUMENTS, "--cap-dollars", "1"]) == 2
    assert "nothing was started" in capsys.readouterr().out
    assert account.counts() == {}


def test_the_bound_counts_what_a_change_and_events_add() -> None:
    by_name = {scenario.name: scenario for scenario in TABLE}
    plain, larger, edited = (
        by_name[name] for name in ("canary-percent", "sizes-with-a-revision", "rollback-after-the-end")
    )
    assert aws.dollars((plain,), 1.0) == (4 + 4 + 2) * aws.HOURS
    assert aws.dollars((larger,), 1.0) == (4 + 6 + 2) * aws.HOURS
    assert aws.dollars((edited,), 1.0) == (3 + 3 + 4) * aws.HOURS
