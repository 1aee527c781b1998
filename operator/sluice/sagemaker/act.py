"""Makes one change in SageMaker. Each is idempotent: what exists already or is gone already is success."""

from dataclasses import replace

from sluice.api.reasons import Reason
from sluice.core.actions import (
    AwsAction,
    CreateEndpoint,
    DeleteEndpoint,
    DeleteEndpointConfig,
    DeleteModel,
    EnsureEndpointConfig,
    EnsureModel,
    Request,
    SyncTags,
    UpdateEndpoint,
    UpdateWeightsAndCapacities,
)
from sluice.core.identity import Target
from sluice.ports.aws import Account, Aws
from sluice.sagemaker.arns import arn
from sluice.sagemaker.errors import CallFailed, Fault
from sluice.sagemaker.observe import list_tags
from sluice.sagemaker.recent import RecentWrites, Written


class Actor:
    """Makes AwsActions happen."""

    def __init__(self, aws: Aws, recent: RecentWrites) -> None:
        self._aws = aws
        self._recent = recent

    async def act(self, target: Target, action: AwsAction) -> None:
        """One action. Raises ActFailed (CallFailed)."""
        account = await self._aws.account(target.credentials)
        match action:
            case EnsureModel(request=request):
                await self._ensure(target, account, "model", str(request["ModelName"]), "CreateModel", request)
            case EnsureEndpointConfig(request=request):
                name = str(request["EndpointConfigName"])
                await self._ensure(target, account, "endpoint-config", name, "CreateEndpointConfig", request)
            case CreateEndpoint(request=request):
                await self._write(target, account, "CreateEndpoint", request)
                self._recent.created(_written(target, account, "endpoint", str(request["EndpointName"])))
            case UpdateEndpoint(request=request):
                await self._write(target, account, "UpdateEndpoint", request)
            case UpdateWeightsAndCapacities(request=request):
                await self._write(target, account, "UpdateEndpointWeightsAndCapacities", request)
            case DeleteEndpoint(endpoint_name=name):
                await self._delete(target, account, "endpoint", "DeleteEndpoint", {"EndpointName": name})
            case DeleteEndpointConfig(name=name):
                request = {"EndpointConfigName": name}
                await self._delete(target, account, "endpoint-config", "DeleteEndpointConfig", request)
            case DeleteModel(name=name):
                await self._delete(target, account, "model", "DeleteModel", {"ModelName": name})
            case SyncTags():
                await self._sync_tags(target, account, action)

    async def _ensure(
        self, target: Target, account: Account, kind: str, name: str, operation: str, request: Request
    ) -> None:
        written = _written(target, account, kind, name)
        if written in self._recent:
            return  # made or seen by this process within the minute
        try:
            await self._write(target, account, operation, request)
        except CallFailed as failure:
            if failure.fault is not Fault.ALREADY_EXISTS:
                raise
        self._recent.created(written)

    async def _write(self, target: Target, account: Account, operation: str, request: Request) -> None:
        try:
            await self._aws.call(target.credentials, "sagemaker", operation, **request)
        except CallFailed as failure:
            if failure.fault is Fault.NOT_FOUND:
                raise self._maybe_not_shown_yet(target, account, failure) from None
            raise

    def _maybe_not_shown_yet(self, target: Target, account: Account, failure: CallFailed) -> CallFailed:
        """A model, config or endpoint of ours that reads do not show yet: the next pass tries again, a little later
        each time. Anything else that is missing stays missing."""
        kind, problem = failure.missing or "", failure.problem
        written = self._recent.named_in(account.account_id, target.credentials.region, kind, problem.message)
        delay = None if written is None else self._recent.retry_after(written)
        if delay is None:
            return failure
        waiting = replace(
            problem,
            reason=Reason.WAITING_FOR_SAGEMAKER,
            message=f"{problem.message} It was created just now and SageMaker's reads do not show it yet "
            "(eventual consistency)",
            transient=True,
            retry_after_seconds=delay,
        )
        return CallFailed(failure.fault, waiting, failure.missing)

    async def _delete(self, target: Target, account: Account, kind: str, operation: str, request: Request) -> None:
        try:
            await self._aws.call(target.credentials, "sagemaker", operation, **request)
        except CallFailed as failure:
            if failure.fault is not Fault.NOT_FOUND or failure.missing != kind:
                raise
        (name,) = request.values()
        self._recent.forget(_written(target, account, kind, str(name)))

    async def _sync_tags(self, target: Target, account: Account, action: SyncTags) -> None:
        resource = arn(account, target.credentials.region, action.resource)
        try:
            present = await list_tags(self._aws, target, resource)
            surplus = [key for key in action.remove if key in present and key not in action.wanted]
            if surplus:  # first, or the new ones may not fit into SageMaker's 50
                await self._aws.call(
                    target.credentials, "sagemaker", "DeleteTags", ResourceArn=resource, TagKeys=surplus
                )
            differing = {key: value for key, value in action.wanted.items() if present.get(key) != value}
            if differing:
                tags = [{"Key": key, "Value": value} for key, value in sorted(differing.items())]
                await self._aws.call(target.credentials, "sagemaker", "AddTags", ResourceArn=resource, Tags=tags)
        except CallFailed as failure:
            if failure.fault is Fault.NOT_FOUND:
                raise self._maybe_not_shown_yet(target, account, failure) from None
            raise


def _written(target: Target, account: Account, kind: str, name: str) -> Written:
    return (account.account_id, target.credentials.region, kind, name)
