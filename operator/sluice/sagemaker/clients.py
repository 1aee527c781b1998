"""Owns every call to AWS: the one door to SageMaker, STS, Application Auto Scaling and CloudWatch.

A call waits for the limiter of its account, region and service, runs in that account and region's threads, is measured,
and ends in an answer or in a CallFailed. Reads are tried again a few times here; writes never are, because a write
whose answer was lost is settled by the next pass from what stands in SageMaker. botocore's own retries are off: they
would go around the limiter and the counters."""

import asyncio
import math
import random
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

from botocore import xform_name
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from botocore.parsers import ResponseParserError

from sluice.core.identity import Credentials
from sluice.ports.aws import Account, Service
from sluice.ports.clock import Clock
from sluice.ports.telemetry import Telemetry
from sluice.sagemaker.errors import (
    Call,
    CallFailed,
    Fault,
    account_changed,
    classify,
    no_thread_in_time,
    over_own_rate,
    role_not_an_arn,
    unreachable,
)
from sluice.sagemaker.limiter import RateLimiter
from sluice.sagemaker.sessions import Sessions

_ROLE_ARN = re.compile(r"^arn:(aws[a-z-]*):iam::(\d{12}):role/.+$")
_READS: Final = ("Describe", "List", "Get")
_RETRIED: Final = (Fault.THROTTLED, Fault.UNREACHABLE)

# DescribeAlarms is granted 9 calls per second per account and region; half of it is left to others. After a quiet time
# the other half may go out at once: with what the first second fills in, that is the quota and no more.
CLOUDWATCH_CALLS_PER_SECOND: Final = 4.5
CLOUDWATCH_BURST: Final = 4.5


@dataclass(frozen=True, slots=True)
class AwsSettings:
    """How calls are made. Seconds, calls per second."""

    calls_per_second: float = 100.0
    """Highest rate per account, region and service; throttling lowers it."""
    threads: int = 32
    """Calls in flight per account and region."""
    read_attempts: int = 3
    connect_timeout_seconds: float = 5.0
    read_timeout_seconds: float = 15.0
    deadline_seconds: float = 45.0
    """The longest a call may take in all, name resolution and credentials included."""
    longest_wait_for_write_seconds: float = 3.0
    """A write goes out within 5 s of the persisted status or not at all."""
    longest_wait_for_read_seconds: float = 20.0
    credentials_retry_seconds: float = 5.0
    """Missing or refused credentials are looked for again after this time; until then calls fail at once."""
    account_seconds: float = 300.0
    """Our own identity can be moved to another account while we run: its account is asked for again after this time."""
    account_before_write_seconds: float = 10.0
    """Before a write it was asked for no longer ago."""
    account_patience_seconds: float = 1.0
    """The account that is known is kept where STS takes longer than this, or fails."""
    account_retry_seconds: float = 30.0
    """STS is then asked again after this time."""
    session_name: str = "sluice"


@dataclass(slots=True)
class _Lane:
    """One account and region: its threads and its limiters."""

    threads: ThreadPoolExecutor
    limiters: dict[Service, RateLimiter] = field(default_factory=dict)


@dataclass(slots=True)
class _Own:
    """What is known of the account of our own identity in one region. Times are monotonic seconds."""

    account: Account | None = None
    asked: float = -math.inf
    """When the question was put that the account is the answer to."""
    asking: asyncio.Task[None] | None = None
    not_before: float = -math.inf
    """STS did not answer: it is left alone until then."""


@dataclass(frozen=True, slots=True)
class _Refused:
    until: float
    failure: CallFailed


class AwsCalls:
    """Implements ports.aws.Aws with boto3. Used from one event loop."""

    def __init__(self, settings: AwsSettings, telemetry: Telemetry, clock: Clock) -> None:
        self._settings = settings
        self._telemetry = telemetry
        self._clock = clock
        config = Config(
            retries={"mode": "standard", "total_max_attempts": 1},
            connect_timeout=settings.connect_timeout_seconds,
            read_timeout=settings.read_timeout_seconds,
            max_pool_connections=settings.threads,
            tcp_keepalive=True,
            user_agent_extra="sluice",
        )
        self._sessions = Sessions(config, settings.session_name)
        self._bootstrap = ThreadPoolExecutor(4, thread_name_prefix="sts")
        self._lanes: dict[tuple[str, str], _Lane] = {}
        self._own: dict[Credentials, _Own] = {}
        self._refused: dict[Credentials, _Refused] = {}

    async def account(self, credentials: Credentials) -> Account:
        """Whose account it is: a role's stands in its ARN, our own identity's is asked for every few minutes."""
        if credentials.role_arn is not None:
            found = _ROLE_ARN.match(credentials.role_arn)
            if found is None:
                raise role_not_an_arn(Call("sts", "AssumeRole", credentials))
            return Account(account_id=found.group(2), partition=found.group(1))
        return await self._own_account(credentials, self._settings.account_seconds)

    async def call(
        self, credentials: Credentials, service: Service, operation: str, /, **request: Any
    ) -> Mapping[str, Any]:
        """See ports.aws.Aws. Where our own identity turns out to be of another account than the one that is known, a
        write is not made, and "not found" is not believed."""
        account = await self.account(credentials)
        lane = self._lane(account.account_id, credentials.region)
        limiter = self._limiter(lane, service)
        reads = operation.startswith(_READS)
        own = credentials.role_arn is None
        if own and not reads:
            found = await self._own_account(credentials, self._settings.account_before_write_seconds)
            if found != account:
                raise account_changed(Call(service, operation, credentials), account, found)
        attempts = self._settings.read_attempts if reads else 1
        for attempt in range(1, attempts + 1):
            await self._wait_for(limiter, Call(service, operation, credentials), reads=reads)
            latest = math.inf if reads else time.monotonic() + self._settings.longest_wait_for_write_seconds
            begun = self._clock.monotonic()
            try:
                return await self._run(lane.threads, Call(service, operation, credentials), request, latest)
            except CallFailed as failure:
                # Of another operation: AssumeRole, which is no news of this service, nor of others' roles.
                if failure.fault is Fault.THROTTLED and failure.problem.operation == operation:
                    limiter.throttled(self._clock.monotonic())
                if own and reads and failure.fault is Fault.NOT_FOUND:
                    found = await self._ask(credentials, self._own.setdefault(credentials, _Own()), begun)
                    if found != account:
                        raise account_changed(Call(service, operation, credentials), account, found) from None
                if attempt == attempts or failure.fault not in _RETRIED:
                    raise
            await asyncio.sleep(random.uniform(0.1, 0.5) * 2 ** (attempt - 1))  # noqa: S311 - spreads, hides nothing
        raise AssertionError("the last attempt returned or raised")

    def rate(self, account_id: str, region: str, service: Service) -> float:
        """Calls per second that the limiter allows now."""
        return self._limiter(self._lane(account_id, region), service).rate

    def close(self) -> None:
        """Stop the threads; calls in flight end by their own timeouts."""
        for pool in (self._bootstrap, *(lane.threads for lane in self._lanes.values())):
            pool.shutdown(wait=False, cancel_futures=True)

    async def _own_account(self, credentials: Credentials, oldest_seconds: float) -> Account:
        """The account of our own identity, asked for no longer ago than that; the one that is known where STS does not
        answer. Raises CallFailed."""
        now = self._clock.monotonic()
        own = self._own.setdefault(credentials, _Own())
        known = own.account
        if known is None:
            return await self._ask(credentials, own, now - oldest_seconds)
        if now - own.asked <= oldest_seconds or now < own.not_before:
            return known
        try:
            async with asyncio.timeout(self._settings.account_patience_seconds):
                return await self._ask(credentials, own, now - oldest_seconds)
        except TimeoutError:
            pass
        except CallFailed:
            if self._own.get(credentials) is not own:
                raise  # there are no credentials any more, and nothing is known of the next ones
        own.not_before = now + self._settings.account_retry_seconds
        return known

    async def _ask(self, credentials: Credentials, own: _Own, since: float) -> Account:
        """The account as it was asked for at `since` (monotonic) or later; all who ask at once ask together. Raises
        CallFailed."""
        while own.account is None or own.asked < since:
            if own.asking is None or own.asking.done():
                own.asking = asyncio.create_task(self._caller_account(credentials, own))
                own.asking.add_done_callback(_take_note)
            await asyncio.shield(own.asking)
        return own.account

    async def _caller_account(self, credentials: Credentials, own: _Own) -> None:
        asked = self._clock.monotonic()
        answer = await self._run(self._bootstrap, Call("sts", "GetCallerIdentity", credentials), {})
        own.account = Account(account_id=str(answer["Account"]), partition=str(answer["Arn"]).split(":")[1])
        own.asked = asked

    def _lane(self, account_id: str, region: str) -> _Lane:
        lane = self._lanes.get((account_id, region))
        if lane is None:
            pool = ThreadPoolExecutor(self._settings.threads, thread_name_prefix=f"aws-{region}")
            lane = self._lanes[account_id, region] = _Lane(pool)
        return lane

    def _limiter(self, lane: _Lane, service: Service) -> RateLimiter:
        limiter = lane.limiters.get(service)
        if limiter is None:
            highest = self._settings.calls_per_second
            limiter = lane.limiters[service] = (
                RateLimiter(min(highest, CLOUDWATCH_CALLS_PER_SECOND), burst=CLOUDWATCH_BURST)
                if service == "cloudwatch"
                else RateLimiter(highest)
            )
        return limiter

    async def _wait_for(self, limiter: RateLimiter, call: Call, *, reads: bool) -> None:
        settings = self._settings
        longest = settings.longest_wait_for_read_seconds if reads else settings.longest_wait_for_write_seconds
        now = self._clock.monotonic()
        wait = limiter.reserve(now, longest, ahead=not reads)
        if wait is None:
            raise over_own_rate(call, limiter.free_in(now, ahead=not reads), limiter.rate)
        if wait > 0:
            await asyncio.sleep(wait)

    async def _run(
        self, pool: ThreadPoolExecutor, call: Call, request: Mapping[str, Any], latest: float = math.inf
    ) -> Mapping[str, Any]:
        refused = self._refused.get(call.credentials)
        if refused is not None and self._clock.monotonic() < refused.until:
            failure = refused.failure
            raise CallFailed(failure.fault, failure.problem, failure.missing)
        loop = asyncio.get_running_loop()
        deadline = self._settings.deadline_seconds
        try:
            # Not wait_for: in Python 3.11 it may swallow the cancellation of a caller whose answer has just come.
            async with asyncio.timeout(deadline):
                answer = await loop.run_in_executor(pool, self._invoke, call, request, latest)
        except TimeoutError:
            raise unreachable(call, "DeadlineExceeded", f"nothing within {deadline:.0f} s") from None
        except CallFailed as failure:
            if failure.fault is Fault.CREDENTIALS:
                self._forget(call.credentials, failure)
            raise
        self._refused.pop(call.credentials, None)
        return answer

    def _forget(self, credentials: Credentials, failure: CallFailed) -> None:
        """Look for credentials anew, but not more often than every few seconds."""
        until = self._clock.monotonic() + self._settings.credentials_retry_seconds
        self._refused[credentials] = _Refused(until, failure)
        self._sessions.drop(credentials)
        self._own.pop(credentials, None)

    def _invoke(self, call: Call, request: Mapping[str, Any], latest: float) -> Mapping[str, Any]:
        """In a worker thread, which may have been long in coming: not after `latest` (time.monotonic)."""
        started = time.monotonic()
        code = "ok"
        try:
            try:
                client = self._sessions.client(call.credentials, call.service)
            except ValueError as error:  # a setting in the environment that botocore cannot read
                raise unreachable(call, type(error).__name__, f"the AWS settings are not usable: {error}") from None
            if time.monotonic() > latest:
                raise no_thread_in_time(call, self._settings.longest_wait_for_write_seconds)
            method: Callable[..., Mapping[str, Any]] = getattr(client, xform_name(call.operation))
            return method(**request)
        except CallFailed as failure:
            code = failure.problem.code or failure.fault
            raise
        except (BotoCoreError, ClientError, ResponseParserError, OSError, RuntimeError) as error:
            # `from None`: botocore's exception holds the whole response; the classified one holds what may be shown.
            failed = classify(error, call, spread=random.random())  # noqa: S311 - spreads, hides nothing
            code = failed.problem.code or failed.fault
            raise failed from None
        finally:
            self._telemetry.aws_call(call.operation, code, time.monotonic() - started)


def _take_note(task: asyncio.Task[None]) -> None:
    """Whoever waited may have gone: the failure is told to nobody then, and asyncio would complain."""
    if not task.cancelled():
        task.exception()
