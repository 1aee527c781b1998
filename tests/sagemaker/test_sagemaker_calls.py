"""The one door to AWS against the simulator: credentials, roles, limits, faults, and environments that are broken."""

import asyncio
import os
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from botocore.config import Config
from tests.sagemaker.world import OWN, QUICK, REGION, CountingTelemetry, Hosting, SteppedClock, aws

from sagemaker_simulator.testing import Simulator
from sluice.api.reasons import Reason
from sluice.core.identity import Credentials
from sluice.ports.aws import Account
from sluice.ports.backend import ActFailed
from sluice.sagemaker.clients import AwsCalls, AwsSettings
from sluice.sagemaker.errors import CallFailed, Fault

ROLE = "arn:aws:iam::444455556666:role/team-a"
ASSUMED = Credentials(REGION, ROLE, "prod-1/team-a")


async def failure(door: AwsCalls, credentials: Credentials = OWN, operation: str = "ListEndpoints") -> CallFailed:
    with pytest.raises(ActFailed) as caught:
        await door.call(credentials, "sagemaker", operation)
    assert isinstance(caught.value, CallFailed)
    return caught.value


async def test_the_operators_own_account_is_asked_for_once(calls: AwsCalls, telemetry: CountingTelemetry) -> None:
    accounts = await asyncio.gather(*(calls.account(OWN) for _ in range(20)))
    assert set(accounts) == {Account("111122223333", "aws")}
    assert telemetry.calls == {("GetCallerIdentity", "ok"): 1}


@pytest.fixture
def moving(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """An identity whose access key stays, so that botocore notices nothing: it is moved to another account."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "moving")
    simulator.introduce("moving", "111122223333")
    return lambda account: simulator.introduce("moving", account)


async def test_the_account_is_asked_for_again_after_minutes(
    moving: Callable[[str], None], telemetry: CountingTelemetry
) -> None:
    clock = SteppedClock()
    door = aws(telemetry, clock=clock)
    assert (await door.account(OWN)).account_id == "111122223333"
    moving("444455556666")
    clock.step(290)
    assert (await door.account(OWN)).account_id == "111122223333"
    assert telemetry.calls == {("GetCallerIdentity", "ok"): 1}
    clock.step(20)
    accounts = await asyncio.gather(*(door.account(OWN) for _ in range(20)))
    assert set(accounts) == {Account("444455556666", "aws")}
    assert telemetry.calls == {("GetCallerIdentity", "ok"): 2}
    door.close()


async def test_the_known_account_is_kept_while_sts_fails(
    moving: Callable[[str], None], simulator: Simulator, telemetry: CountingTelemetry
) -> None:
    clock = SteppedClock()
    door = aws(telemetry, clock=clock)
    await door.account(OWN)
    moving("444455556666")
    simulator.fault("access_denied", operation="GetCallerIdentity")
    clock.step(301)
    for _ in range(5):
        assert (await door.account(OWN)).account_id == "111122223333"
    assert telemetry.calls["GetCallerIdentity", "AccessDenied"] == 1, "a failing STS is left alone for a while"
    simulator.clear_faults()
    clock.step(31)
    assert (await door.account(OWN)).account_id == "444455556666"
    door.close()


async def test_the_known_account_is_kept_while_sts_hangs(
    moving: Callable[[str], None], simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = asyncio.Event()
    answers.set()

    async def get_caller_identity(request: web.Request) -> web.Response:
        await answers.wait()
        return web.Response(
            text="<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>arn:aws:iam::111122223333:user/o</Arn>"
            "<Account>111122223333</Account></GetCallerIdentityResult></GetCallerIdentityResponse>",
            content_type="text/xml",
        )

    app = web.Application()
    app.router.add_post("/", get_caller_identity)
    clock = SteppedClock()
    door = aws(settings=replace(QUICK, account_patience_seconds=0.1), clock=clock)
    async with TestServer(app) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", str(sts.make_url("/")))
        await door.account(OWN)
        answers.clear()
        clock.step(301)
        request = {"ModelName": "m", "PrimaryContainer": {"Image": "registry.example/churn:1"}}
        assert (await door.call(OWN, "sagemaker", "CreateModel", **request))["ModelArn"]
        answers.set()
    door.close()


async def test_a_write_is_not_made_in_another_account(moving: Callable[[str], None], simulator: Simulator) -> None:
    clock = SteppedClock()
    door = aws(clock=clock)
    request = {"ModelName": "m", "PrimaryContainer": {"Image": "registry.example/churn:1"}}
    await door.call(OWN, "sagemaker", "CreateModel", **request)
    moving("444455556666")
    clock.step(11)
    with pytest.raises(CallFailed) as caught:
        await door.call(OWN, "sagemaker", "DeleteModel", ModelName="m")
    assert (caught.value.problem.code, caught.value.problem.transient) == ("AccountChanged", True)
    assert "444455556666" in caught.value.problem.message
    assert "DeleteModel" not in simulator.counts()
    assert (await door.account(OWN)).account_id == "444455556666"
    door.close()


async def test_not_found_in_another_account_is_not_believed(
    moving: Callable[[str], None], simulator: Simulator, telemetry: CountingTelemetry
) -> None:
    clock = SteppedClock()
    door = aws(telemetry, clock=clock)

    async def look() -> CallFailed:
        with pytest.raises(CallFailed) as caught:
            await door.call(OWN, "sagemaker", "DescribeEndpoint", EndpointName="churn")
        return caught.value

    await door.account(OWN)
    clock.step(1)
    assert (await look()).fault is Fault.NOT_FOUND
    clock.step(1)
    simulator.fault("access_denied", operation="GetCallerIdentity")
    assert (await look()).problem.operation == "GetCallerIdentity", "nobody knows whether it is gone"
    simulator.clear_faults()
    moving("444455556666")
    assert (await look()).problem.code == "AccountChanged"
    clock.step(1)
    assert (await look()).fault is Fault.NOT_FOUND, "in the account that everybody knows now"
    door.close()


async def test_a_roles_account_stands_in_its_arn(calls: AwsCalls, telemetry: CountingTelemetry) -> None:
    chinese = Credentials("cn-north-1", "arn:aws-cn:iam::444455556666:role/path/team-a")
    assert await calls.account(chinese) == Account("444455556666", "aws-cn")
    assert not telemetry.calls


async def test_a_role_that_is_none_is_named(calls: AwsCalls) -> None:
    with pytest.raises(CallFailed, match="assumeRoleArn is 'team-a'; allowed is"):
        await calls.account(Credentials(REGION, "team-a"))


async def test_a_role_is_assumed_with_the_external_id_and_once(calls: AwsCalls, simulator: Simulator) -> None:
    simulator.require_external_id(ROLE, "prod-1/team-a")
    await asyncio.gather(*(calls.call(ASSUMED, "sagemaker", "ListEndpoints") for _ in range(10)))
    assert simulator.counts(role="team-a") == {"ListEndpoints": 10}
    assert {entry["account"] for entry in simulator.requests("ListEndpoints")} == {"444455556666"}
    assert simulator.counts()["AssumeRole"] == 1


async def test_a_roles_credentials_are_refreshed_before_they_expire(
    calls: AwsCalls, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    lifetimes = iter((timedelta(minutes=5), timedelta(hours=1)))
    asked: list[str] = []

    async def assume_role(request: web.Request) -> web.Response:
        asked.append(str((await request.post())["Action"]))
        until = (datetime.now(UTC) + next(lifetimes)).strftime("%Y-%m-%dT%H:%M:%SZ")
        session = simulator.core.callers.issue("444455556666", "team-a", "sluice")
        return web.Response(
            text=f"<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>{session.access_key}</AccessKeyId>"
            f"<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>{until}</Expiration>"
            "</Credentials></AssumeRoleResult></AssumeRoleResponse>",
            content_type="text/xml",
        )

    app = web.Application()
    app.router.add_post("/", assume_role)
    async with TestServer(app) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", str(sts.make_url("/")))
        for _ in range(4):
            await calls.call(ASSUMED, "sagemaker", "ListEndpoints")
    assert asked == ["AssumeRole", "AssumeRole"]
    assert len({entry["role"] for entry in simulator.requests("ListEndpoints")}) == 1


async def test_a_role_whose_trust_policy_asks_for_another_external_id(calls: AwsCalls, simulator: Simulator) -> None:
    role = ROLE.replace("team-a", "locked")
    simulator.require_external_id(role, "prod-1/locked")
    failed = await failure(calls, Credentials(REGION, role, "prod-1/team-a"))
    assert (failed.fault, failed.problem.operation) == (Fault.DENIED, "AssumeRole")
    assert role in failed.problem.message
    assert "prod-1/team-a" in failed.problem.message


async def test_access_denied_names_action_and_role(calls: AwsCalls, simulator: Simulator) -> None:
    simulator.fault("access_denied", operation="ListEndpoints", role="team-a")
    failed = await failure(calls, ASSUMED)
    assert failed.problem.reason is Reason.ACCESS_DENIED
    assert "sagemaker:ListEndpoints" in failed.problem.message
    assert ROLE in failed.problem.message
    assert simulator.counts()["ListEndpoints"] == 1


async def test_reads_are_tried_again_a_bounded_number_of_times(
    calls: AwsCalls, simulator: Simulator, telemetry: CountingTelemetry
) -> None:
    simulator.fault("throttling", operation="ListEndpoints", count=2)
    await calls.call(OWN, "sagemaker", "ListEndpoints")
    assert telemetry.calls["ListEndpoints", "ThrottlingException"] == 2
    simulator.fault("throttling", operation="ListEndpoints")
    failed = await failure(calls)
    assert failed.problem.reason is Reason.THROTTLED
    assert simulator.counts()["ListEndpoints"] == 3 + QUICK.read_attempts


async def test_throttling_lowers_the_rate_of_its_service_only(calls: AwsCalls, simulator: Simulator) -> None:
    simulator.fault("throttling", operation="ListEndpoints", count=1)
    await calls.call(OWN, "sagemaker", "ListEndpoints")
    assert calls.rate("111122223333", REGION, "sagemaker") < QUICK.calls_per_second
    assert calls.rate("111122223333", REGION, "application-autoscaling") == QUICK.calls_per_second


async def test_a_throttled_assume_role_is_not_the_services_throttling(
    calls: AwsCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others of that account and region, with other roles, would pay for it."""

    async def assume_role(request: web.Request) -> web.Response:
        text = "<ErrorResponse><Error><Code>Throttling</Code><Message>Rate exceeded</Message></Error></ErrorResponse>"
        return web.Response(status=400, text=text, content_type="text/xml")

    app = web.Application()
    app.router.add_post("/", assume_role)
    async with TestServer(app) as sts:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", str(sts.make_url("/")))
        failed = await failure(calls, ASSUMED)
    assert (failed.fault, failed.problem.operation) == (Fault.THROTTLED, "AssumeRole")
    assert calls.rate("444455556666", REGION, "sagemaker") == QUICK.calls_per_second


async def test_a_storm_under_throttling_makes_a_bounded_number_of_calls(
    simulator: Simulator, telemetry: CountingTelemetry
) -> None:
    simulator.fault("throttling", operation="ListEndpoints")
    door = aws(telemetry, AwsSettings(calls_per_second=20, longest_wait_for_read_seconds=0.5, read_attempts=3))
    started = time.monotonic()
    results = await asyncio.gather(
        *(door.call(OWN, "sagemaker", "ListEndpoints") for _ in range(200)), return_exceptions=True
    )
    assert all(isinstance(result, CallFailed) and result.fault is Fault.THROTTLED for result in results)
    # A burst of 20 and then at most 20 a second; the callers beyond were refused without a call.
    assert simulator.counts()["ListEndpoints"] <= 20 + 20 * (time.monotonic() - started) + 1
    door.close()


async def test_a_write_is_not_starved_by_looks_that_queue(simulator: Simulator, telemetry: CountingTelemetry) -> None:
    door = aws(telemetry, AwsSettings(calls_per_second=4, longest_wait_for_write_seconds=0.5))
    looks = [asyncio.create_task(door.call(OWN, "sagemaker", "ListEndpoints")) for _ in range(26)]
    await asyncio.wait(looks, return_when=asyncio.FIRST_COMPLETED)
    request = {"ModelName": "m", "PrimaryContainer": {"Image": "registry.example/churn:1"}}
    assert (await door.call(OWN, "sagemaker", "CreateModel", **request))["ModelArn"]
    assert not all(look.done() for look in looks)
    await asyncio.gather(*looks)
    door.close()


async def test_a_write_that_waited_behind_calls_that_hang_is_not_made(
    simulator: Simulator, telemetry: CountingTelemetry
) -> None:
    door = aws(telemetry, AwsSettings(threads=2, longest_wait_for_write_seconds=0.5))
    request = {"ModelName": "m", "PrimaryContainer": {"Image": "registry.example/churn:1"}}
    account = await door.account(OWN)
    await door.call(OWN, "sagemaker", "ListEndpoints")
    simulator.fault("latency", operation="ListEndpoints", seconds=3.0)
    looks = [asyncio.create_task(door.call(OWN, "sagemaker", "ListEndpoints")) for _ in range(2)]
    await asyncio.sleep(0.2)
    with pytest.raises(CallFailed) as caught:
        await door.call(OWN, "sagemaker", "CreateModel", **request)
    assert (caught.value.problem.reason, caught.value.problem.transient) == (Reason.THROTTLED, True)
    await asyncio.gather(*looks)
    assert "CreateModel" not in simulator.counts()
    assert door.rate(account.account_id, REGION, "sagemaker") == AwsSettings().calls_per_second, "nobody throttles"
    assert (await door.call(OWN, "sagemaker", "CreateModel", **request))["ModelArn"]
    door.close()


async def test_a_write_goes_out_once_even_if_its_answer_is_lost(
    calls: AwsCalls, hosting: Hosting, simulator: Simulator
) -> None:
    simulator.fault("lost_response", operation="CreateModel", count=1)
    request = {"ModelName": "m", "PrimaryContainer": {"Image": "registry.example/churn:1"}}
    with pytest.raises(CallFailed) as caught:
        await calls.call(OWN, "sagemaker", "CreateModel", **request)
    assert (caught.value.fault, caught.value.problem.transient) == (Fault.UNREACHABLE, True)
    assert simulator.counts()["CreateModel"] == 1
    assert hosting.boto.describe_model(ModelName="m")["ModelName"] == "m"


async def test_a_server_error_is_transient(calls: AwsCalls, simulator: Simulator) -> None:
    simulator.fault("server_error", operation="ListEndpoints")
    assert (await failure(calls)).fault is Fault.UNREACHABLE


async def test_calls_run_side_by_side(calls: AwsCalls, simulator: Simulator) -> None:
    await calls.call(OWN, "sagemaker", "ListEndpoints")
    simulator.fault("latency", operation="ListEndpoints", seconds=2.0)
    started = time.monotonic()
    await asyncio.gather(*(calls.call(OWN, "sagemaker", "ListEndpoints") for _ in range(16)))
    assert time.monotonic() - started < 24  # one after another: 32 s


async def test_an_answer_that_does_not_come_ends_at_the_deadline(
    simulator: Simulator, telemetry: CountingTelemetry
) -> None:
    simulator.fault("latency", operation="ListEndpoints", seconds=30)
    door = aws(telemetry, AwsSettings(deadline_seconds=0.5, read_attempts=1))
    await door.account(OWN)
    started = time.monotonic()
    failed = await failure(door)
    assert failed.problem.code == "DeadlineExceeded"
    assert time.monotonic() - started < 25
    simulator.clear_faults()
    door.close()


async def test_no_credentials_at_all(calls: AwsCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    for credentials in (OWN, ASSUMED):
        failed = await failure(calls, credentials)
        assert failed.problem.reason is Reason.NO_CREDENTIALS
        assert "EKS Pod Identity" in failed.problem.message


async def test_credentials_that_arrive_later_are_found_without_a_restart(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, telemetry: CountingTelemetry
) -> None:
    door = aws(telemetry, AwsSettings(credentials_retry_seconds=0.0))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert (await failure(door)).fault is Fault.CREDENTIALS
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "operator")
    await door.call(OWN, "sagemaker", "ListEndpoints")
    door.close()


async def test_rotated_credentials_are_taken_up_when_the_old_ones_are_refused(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A Secret mounted as a credentials file: botocore reads it once, the operator lives for months."""

    async def list_endpoints(request: web.Request) -> web.Response:
        if "Credential=new/" in request.headers["Authorization"]:
            return web.json_response({"Endpoints": []})
        return web.json_response({"__type": "UnrecognizedClientException", "message": "token is invalid"}, status=400)

    file = tmp_path / "credentials"
    file.write_text("[default]\naws_access_key_id = old\naws_secret_access_key = s\n")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    app = web.Application()
    app.router.add_post("/", list_endpoints)
    door = aws(settings=AwsSettings(credentials_retry_seconds=0.0))
    async with TestServer(app) as sagemaker:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER", str(sagemaker.make_url("/")))
        assert (await failure(door)).problem.code == "UnrecognizedClientException"
        file.write_text(file.read_text().replace("old", "new"))
        await door.call(OWN, "sagemaker", "ListEndpoints")
    door.close()


async def test_missing_credentials_are_not_looked_for_in_a_storm(
    calls: AwsCalls, monkeypatch: pytest.MonkeyPatch, telemetry: CountingTelemetry
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    for _ in range(20):
        assert (await failure(calls)).fault is Fault.CREDENTIALS
    assert sum(telemetry.calls.values()) == 1


async def test_an_absent_instance_metadata_service_is_no_hang(calls: AwsCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_EC2_METADATA_DISABLED")
    monkeypatch.setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    started = time.monotonic()
    assert (await failure(calls)).problem.reason is Reason.NO_CREDENTIALS
    assert time.monotonic() - started < 40


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_PROFILE", "nobody"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", "/nonexistent/token"),
    ],
)
async def test_an_identity_that_cannot_be_had_is_named(
    calls: AwsCalls, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_ROLE_ARN", ROLE)
    monkeypatch.setenv(variable, value)
    failed = await failure(calls)
    assert failed.problem.reason is Reason.NO_CREDENTIALS
    assert value in failed.problem.message


async def test_a_broken_configuration_file(calls: AwsCalls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "config"
    broken.write_text("[default\nregion=")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(broken))
    assert (await failure(calls)).problem.reason is Reason.NO_CREDENTIALS


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:{port}"}, "AWS_ENDPOINT_URL_STS"),
        ({"AWS_ENDPOINT_URL": "https://127.0.0.1:{listening}", "AWS_CA_BUNDLE": "/nonexistent.pem"}, "AWS_CA_BUNDLE"),
        ({"AWS_ENDPOINT_URL": "https://127.0.0.1:{listening}", "AWS_CA_BUNDLE": __file__}, "AWS_CA_BUNDLE"),
        ({"AWS_ENDPOINT_URL": "https://127.0.0.1:{listening}"}, "AWS_CA_BUNDLE"),
        ({"AWS_ENDPOINT_URL": "not a url"}, "endpoint"),
        ({"HTTP_PROXY": "http://user:hunter2@127.0.0.1:{port}"}, "HTTP_PROXY"),
        ({"AWS_STS_REGIONAL_ENDPOINTS": "wrong"}, "STS regional endpoints option"),
    ],
)
async def test_a_broken_environment_is_a_problem_and_no_crash(
    calls: AwsCalls, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, settings: dict[str, str], remedy: str
) -> None:
    listening = simulator.url.rsplit(":", 1)[1]
    for name, value in settings.items():
        monkeypatch.setenv(name, value.format(port=free_port(), listening=listening))
    started = time.monotonic()
    failed = await failure(calls)
    assert failed.problem.reason is Reason.UNREACHABLE
    assert remedy in failed.problem.message
    assert "hunter2" not in failed.problem.message
    assert time.monotonic() - started < 60


async def test_a_region_that_is_no_region(calls: AwsCalls) -> None:
    with pytest.raises(CallFailed) as caught:
        await calls.call(Credentials("not a region!"), "sagemaker", "ListEndpoints")
    assert caught.value.problem.reason is Reason.UNREACHABLE
    assert "region" in caught.value.problem.message


async def test_what_is_behind_the_endpoint_url_need_not_be_aws(
    calls: AwsCalls, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    await calls.account(OWN)
    monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER", f"{simulator.url}/_simulator/nothing-here")
    assert not (await failure(calls)).problem.message.startswith("Traceback")


async def test_a_request_that_boto3_refuses_is_not_transient(calls: AwsCalls) -> None:
    failed = await failure(calls, operation="DescribeEndpoint")
    assert (failed.fault, failed.problem.transient) == (Fault.REJECTED, False)
    assert "EndpointName" in failed.problem.message


async def test_no_client_retries_on_its_own(simulator: Simulator) -> None:
    """What the other tests count on: one call is one request."""
    client = simulator.client("sagemaker", config=Config(retries={"mode": "standard", "total_max_attempts": 1}))
    simulator.fault("throttling", operation="ListEndpoints", count=1)
    with pytest.raises(client.exceptions.ClientError):
        client.list_endpoints()
    assert simulator.counts()["ListEndpoints"] == 1


def free_port() -> int:
    """A port of the loopback interface on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_the_environment_of_the_machine_is_out_of_reach(bare: None) -> None:
    assert not {name for name in os.environ if name.startswith("AWS_")} - {
        "AWS_EC2_METADATA_DISABLED",
        "AWS_CONFIG_FILE",
        "AWS_SHARED_CREDENTIALS_FILE",
    }
