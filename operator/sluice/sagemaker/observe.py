"""Looks at one endpoint in SageMaker and answers a pass' questions, each with as few calls as it takes.

Decides nothing about rollouts: it only says what stands there, or what kept it from seeing it."""

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, TypeVar

from sluice.api.reasons import Reason
from sluice.api.status import EndpointStatus
from sluice.core.identity import Target
from sluice.core.observation import (
    AlarmReading,
    CallProblem,
    Described,
    HostingContent,
    Listed,
    Observation,
    Presence,
    Questions,
)
from sluice.ports.aws import Account, Aws
from sluice.ports.backend import ActFailed, AlarmReader
from sluice.ports.clock import Clock
from sluice.sagemaker import shapes
from sluice.sagemaker.arns import arn
from sluice.sagemaker.errors import CallFailed, Fault
from sluice.sagemaker.recent import VISIBLE_AFTER_SECONDS, RecentWrites
from sluice.sagemaker.sweep import Sweep

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Answer(Generic[T]):
    """The answer to one question, or why there is none."""

    value: T | None = None
    problem: CallProblem | None = None


@dataclass(frozen=True, slots=True)
class _Sight:
    """Whether and how the endpoint stands there."""

    presence: Presence
    endpoint: Described | None = None
    problem: CallProblem | None = None


class Observer:
    """Answers Questions about one endpoint."""

    def __init__(self, aws: Aws, alarms: AlarmReader, recent: RecentWrites, clock: Clock) -> None:
        self._aws = aws
        self._alarms = alarms
        self._recent = recent
        self._clock = clock

    async def observe(self, target: Target, sweep: Sweep, status: EndpointStatus, questions: Questions) -> Observation:
        """See ports.backend.Backend.observe."""
        at = self._clock.now()
        alarms = asyncio.create_task(self._read_alarms(target, questions.alarms, at))
        try:
            observation = await self._look(target, sweep, status, questions, at)
            return replace(observation, alarms=await alarms)
        finally:
            alarms.cancel()

    async def _look(
        self, target: Target, sweep: Sweep, status: EndpointStatus, questions: Questions, at: datetime
    ) -> Observation:
        try:
            account = await self._aws.account(target.credentials)
        except ActFailed as failure:
            sweep.in_the_dark(target.endpoint_name)
            return Observation(Presence.UNKNOWN, at, problem=failure.problem)
        sight = await self._find(target, account, sweep, status, questions)
        seen = Observation(
            sight.presence, at, account_id=account.account_id, endpoint=sight.endpoint, problem=sight.problem
        )
        if sight.presence not in (Presence.DESCRIBED, Presence.UNCHANGED, Presence.OTHER_CASE):
            return seen
        tags, content, scalable = await asyncio.gather(
            _answer(self._tags(target, account) if questions.owner else None),
            _answer(self._content(target, sight.endpoint) if questions.content else None),
            _answer(self._scalable(target, sight.endpoint, status) if questions.scalable else None),
        )
        return replace(
            seen,
            tags=tags.value,
            content=content.value,
            scalable_variants=scalable.value,
            problem=seen.problem or tags.problem or content.problem or scalable.problem,
        )

    async def _find(
        self, target: Target, account: Account, sweep: Sweep, status: EndpointStatus, questions: Questions
    ) -> _Sight:
        name = target.endpoint_name
        if not questions.describe:
            problem = await sweep.ensure(name)
            if problem is not None:
                return _Sight(Presence.UNKNOWN, problem=problem)
            item = sweep.listing.get(name)
            if item is None and status.endpoint_arn is None and not self._just_created(target, account, status):
                return self._missing(target, sweep)
            # One that was there is missing only if DescribeEndpoint says so: listings are pages, and lag.
            if item is not None and _as_known(item, status) and not questions.content:
                sweep.told(name, item)
                return _Sight(Presence.UNCHANGED)
        return await self._describe(target, account, sweep, status)

    async def _describe(self, target: Target, account: Account, sweep: Sweep, status: EndpointStatus) -> _Sight:
        name = target.endpoint_name
        asked = self._clock.monotonic()
        try:
            answer = await self._aws.call(target.credentials, "sagemaker", "DescribeEndpoint", EndpointName=name)
        except CallFailed as failure:
            if failure.fault is not Fault.NOT_FOUND:
                if failure.fault is Fault.CREDENTIALS:
                    sweep.in_the_dark(name)
                return _Sight(Presence.UNKNOWN, problem=failure.problem)
            if self._just_created(target, account, status):
                return _Sight(Presence.UNKNOWN, problem=self._not_shown_yet(target, account))
            sweep.told(name, None, asked)
            await sweep.ensure(name)  # only to learn whether the name is taken in another case
            return self._missing(target, sweep)
        except ActFailed as failure:
            return _Sight(Presence.UNKNOWN, problem=failure.problem)
        if answer["EndpointStatus"] not in shapes.ENDPOINT_STATUSES:
            return _Sight(Presence.UNKNOWN, problem=_unknown_status(name, str(answer["EndpointStatus"])))
        self._recent.forget((account.account_id, target.credentials.region, "endpoint", name))
        endpoint = shapes.described(answer)
        sweep.told(name, Listed(endpoint.name, endpoint.status, endpoint.last_modified), asked)
        return _Sight(Presence.DESCRIBED, endpoint)

    def _missing(self, target: Target, sweep: Sweep) -> _Sight:
        name = target.endpoint_name
        sweep.told(name, None)
        return _Sight(Presence.OTHER_CASE if sweep.listing.other_case(name) else Presence.MISSING)

    def _just_created(self, target: Target, account: Account, status: EndpointStatus) -> bool:
        """We created it within the last minute, as this process or the stored intent remembers, and nobody saw it."""
        if (account.account_id, target.credentials.region, "endpoint", target.endpoint_name) in self._recent:
            return True
        intent = status.intent
        if intent is None or intent.operation != "CreateEndpoint" or intent.accepted is None:
            return False
        if status.last_modified_time is not None and status.last_modified_time >= intent.time:
            return False  # it was described since
        return (self._clock.now() - intent.accepted).total_seconds() <= VISIBLE_AFTER_SECONDS

    def _not_shown_yet(self, target: Target, account: Account) -> CallProblem:
        written = (account.account_id, target.credentials.region, "endpoint", target.endpoint_name)
        return CallProblem(
            operation="DescribeEndpoint",
            reason=Reason.WAITING_FOR_SAGEMAKER,
            message=f"endpoint {target.endpoint_name} was created just now and SageMaker's reads do not show it yet "
            f"(eventual consistency, up to {VISIBLE_AFTER_SECONDS:.0f} s)",
            code="EventualConsistency",
            retry_after_seconds=self._recent.retry_after(written) or 2.0,
        )

    async def _tags(self, target: Target, account: Account) -> Mapping[str, str]:
        resource = arn(account, target.credentials.region, f"endpoint/{target.endpoint_name}")
        return await list_tags(self._aws, target, resource)

    async def _content(self, target: Target, endpoint: Described | None) -> HostingContent | None:
        if endpoint is None or endpoint.endpoint_config_name is None:
            return None
        config = await self._aws.call(
            target.credentials,
            "sagemaker",
            "DescribeEndpointConfig",
            EndpointConfigName=endpoint.endpoint_config_name,
        )
        names = shapes.model_names(config)
        models = await asyncio.gather(
            *(self._aws.call(target.credentials, "sagemaker", "DescribeModel", ModelName=name) for name in names)
        )
        return HostingContent(
            endpoint_config=shapes.content(config),
            models={name: shapes.content(model) for name, model in zip(names, models, strict=True)},
        )

    async def _scalable(self, target: Target, endpoint: Described | None, status: EndpointStatus) -> frozenset[str]:
        variants = endpoint.variants if endpoint is not None else status.production_variants
        prefix = f"endpoint/{target.endpoint_name}/variant/"
        if not variants:
            return frozenset()
        answer = await self._aws.call(
            target.credentials,
            "application-autoscaling",
            "DescribeScalableTargets",
            ServiceNamespace="sagemaker",
            ResourceIds=[prefix + variant.variant_name for variant in variants],
            ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        )
        found = (str(item["ResourceId"]) for item in answer.get("ScalableTargets", ()))
        return frozenset(resource.removeprefix(prefix) for resource in found if resource.startswith(prefix))

    async def _read_alarms(self, target: Target, names: tuple[str, ...], at: datetime) -> tuple[AlarmReading, ...]:
        return await self._alarms.read(target, names, at) if names else ()


async def list_tags(aws: Aws, target: Target, resource_arn: str) -> dict[str, str]:
    """All tags of one AWS resource. Raises ActFailed."""
    tags: dict[str, str] = {}
    request: dict[str, Any] = {"ResourceArn": resource_arn}
    while True:
        answer = await aws.call(target.credentials, "sagemaker", "ListTags", **request)
        tags |= {str(tag["Key"]): str(tag["Value"]) for tag in answer.get("Tags", ())}
        if not answer.get("NextToken"):
            return tags
        request["NextToken"] = answer["NextToken"]


async def _answer(question: Awaitable[T] | None) -> _Answer[T]:
    if question is None:
        return _Answer()
    try:
        return _Answer(await question)
    except ActFailed as failure:
        return _Answer(problem=failure.problem)


def _as_known(item: Listed, status: EndpointStatus) -> bool:
    """The listing says what the Endpoint's status tells already."""
    return item.status == status.endpoint_status and item.last_modified == status.last_modified_time


def _unknown_status(name: str, found: str) -> CallProblem:
    return CallProblem(
        operation="DescribeEndpoint",
        reason=Reason.REJECTED_BY_SAGEMAKER,
        message=f"endpoint {name} has EndpointStatus {found!r}, which this version of Sluice does not know; known are "
        f"{', '.join(sorted(shapes.ENDPOINT_STATUSES))}. Upgrade the operator",
        code="UnknownEndpointStatus",
        retry_after_seconds=30.0,
    )
