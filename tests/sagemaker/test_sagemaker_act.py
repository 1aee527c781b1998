"""Each change in SageMaker: done, done twice, refused, and done without an answer."""

import pytest
from tests.sagemaker.world import REGION, ROLE, TARGET, Hosting, NoAlarms, SteppedClock, variant

from sagemaker_simulator.testing import Simulator
from sluice.api.reasons import Reason
from sluice.core.actions import (
    AwsAction,
    CreateEndpoint,
    DeleteEndpoint,
    DeleteEndpointConfig,
    DeleteModel,
    EnsureEndpointConfig,
    EnsureModel,
    SyncTags,
    UpdateEndpoint,
    UpdateWeightsAndCapacities,
)
from sluice.core.observation import CallProblem
from sluice.ports.backend import ActFailed
from sluice.ports.clock import SystemClock
from sluice.sagemaker.backend import SageMakerBackend
from sluice.sagemaker.clients import AwsCalls

MODEL = EnsureModel(
    {"ModelName": "m", "PrimaryContainer": {"Image": "registry.example/churn:1"}, "ExecutionRoleArn": ROLE}
)
CONFIG = EnsureEndpointConfig({"EndpointConfigName": "c", "ProductionVariants": [variant()]})
NEXT = EnsureEndpointConfig({"EndpointConfigName": "next", "ProductionVariants": [variant()]})
CREATE = CreateEndpoint({"EndpointName": "churn", "EndpointConfigName": "c"})
UPDATE = UpdateEndpoint({"EndpointName": "churn", "EndpointConfigName": "next"})
WEIGHTS = UpdateWeightsAndCapacities(
    {"EndpointName": "churn", "DesiredWeightsAndCapacities": [{"VariantName": "a", "DesiredWeight": 2.0}]}
)
DELETE = DeleteEndpoint("churn")
ARN = f"arn:aws:sagemaker:{REGION}:111122223333:endpoint/churn"


@pytest.fixture
def backend(calls: AwsCalls) -> SageMakerBackend:
    return SageMakerBackend(calls, NoAlarms(), SystemClock())


async def act(backend: SageMakerBackend, *actions: AwsAction) -> None:
    for action in actions:
        await backend.act(TARGET, action)


async def problem(backend: SageMakerBackend, action: AwsAction) -> CallProblem:
    with pytest.raises(ActFailed) as caught:
        await backend.act(TARGET, action)
    return caught.value.problem


async def test_create_update_weights_delete(backend: SageMakerBackend, hosting: Hosting, simulator: Simulator) -> None:
    def status() -> str:
        return str(hosting.boto.describe_endpoint(EndpointName="churn")["EndpointStatus"])

    await act(backend, MODEL, CONFIG, CREATE)
    assert status() == "Creating"
    simulator.advance(60)
    await act(backend, NEXT, UPDATE)
    assert status() == "Updating"
    simulator.advance(600)
    await act(backend, WEIGHTS)
    simulator.advance(60)
    endpoint = hosting.boto.describe_endpoint(EndpointName="churn")
    assert endpoint["EndpointConfigName"] == "next"
    assert endpoint["ProductionVariants"][0]["CurrentWeight"] == 2.0
    await act(backend, DELETE)
    simulator.advance(60)
    await act(backend, DELETE, DeleteEndpointConfig("c"), DeleteEndpointConfig("next"), DeleteModel("m"))
    assert hosting.boto.list_models()["Models"] == []
    assert hosting.boto.list_endpoint_configs()["EndpointConfigs"] == []


@pytest.mark.parametrize("action", [DELETE, DeleteEndpointConfig("c"), DeleteModel("m")])
async def test_what_is_gone_is_deleted(backend: SageMakerBackend, action: AwsAction) -> None:
    await act(backend, action)


async def test_what_exists_is_ensured(backend: SageMakerBackend, hosting: Hosting, calls: AwsCalls) -> None:
    hosting.model()
    hosting.config()
    await act(backend, MODEL, CONFIG)


async def test_what_this_process_ensured_within_the_minute_is_not_asked_for_again(
    backend: SageMakerBackend, simulator: Simulator
) -> None:
    await act(backend, MODEL, CONFIG, MODEL, CONFIG)
    assert (simulator.counts()["CreateModel"], simulator.counts()["CreateEndpointConfig"]) == (1, 1)
    await act(backend, DeleteEndpointConfig("c"), CONFIG)
    assert simulator.counts()["CreateEndpointConfig"] == 2


@pytest.mark.parametrize("lost", ["CreateModel", "CreateEndpointConfig"])
async def test_a_lost_answer_to_an_ensure_is_made_good_by_the_next_pass(
    backend: SageMakerBackend, hosting: Hosting, simulator: Simulator, lost: str
) -> None:
    simulator.fault("lost_response", operation=lost, count=1)
    with pytest.raises(ActFailed) as caught:
        await act(backend, MODEL, CONFIG)
    assert (caught.value.problem.reason, caught.value.problem.transient) == (Reason.UNREACHABLE, True)
    await act(backend, MODEL, CONFIG)
    assert len(hosting.boto.list_models()["Models"]) == 1
    assert len(hosting.boto.list_endpoint_configs()["EndpointConfigs"]) == 1


async def test_a_lost_answer_to_create_endpoint_shows_as_a_name_conflict_of_our_own(
    backend: SageMakerBackend, simulator: Simulator
) -> None:
    await act(backend, MODEL, CONFIG)
    simulator.fault("lost_response", operation="CreateEndpoint", count=1)
    assert (await problem(backend, CREATE)).reason is Reason.UNREACHABLE
    again = await problem(backend, CREATE)
    assert (again.reason, again.transient) == (Reason.NAME_CONFLICT, True)
    assert simulator.counts()["CreateEndpoint"] == 2


@pytest.mark.parametrize("action", [UPDATE, WEIGHTS, DELETE])
async def test_an_endpoint_that_moves_is_waited_for(
    backend: SageMakerBackend, hosting: Hosting, action: AwsAction
) -> None:
    hosting.everything(in_service=False)
    hosting.config("next")
    refused = await problem(backend, action)
    assert (refused.reason, refused.transient) == (Reason.WAITING_FOR_SAGEMAKER, True)


async def test_a_missing_endpoint_is_a_matter_for_the_next_look(backend: SageMakerBackend, hosting: Hosting) -> None:
    hosting.model()
    hosting.config("next")
    refused = await problem(backend, UPDATE)
    assert refused.transient
    assert refused.retry_after_seconds == 1


async def test_our_own_config_that_reads_do_not_show_yet_is_waited_for_a_minute(
    calls: AwsCalls, simulator: Simulator
) -> None:
    clock = SteppedClock()
    backend = SageMakerBackend(calls, NoAlarms(), clock)
    simulator.settings(use_after_create_seconds=1000)
    await act(backend, MODEL)
    simulator.advance(1001)
    await act(backend, CONFIG)
    delays = []
    for _ in range(6):
        refused = await problem(backend, CREATE)
        assert (refused.reason, refused.transient) == (Reason.WAITING_FOR_SAGEMAKER, True)
        delays.append(refused.retry_after_seconds)
    assert delays == [1, 2, 4, 8, 15, 30]
    clock.step(61)
    refused = await problem(backend, CREATE)
    assert (refused.reason, refused.transient) == (Reason.REJECTED_BY_SAGEMAKER, False)
    simulator.advance(1001)
    await act(backend, CREATE)


async def test_our_own_model_that_reads_do_not_show_yet(backend: SageMakerBackend, simulator: Simulator) -> None:
    simulator.settings(use_after_create_seconds=5)
    await act(backend, MODEL)
    assert (await problem(backend, CONFIG)).reason is Reason.WAITING_FOR_SAGEMAKER
    simulator.advance(6)
    await act(backend, CONFIG)


async def test_somebody_elses_missing_model_is_rejected(backend: SageMakerBackend) -> None:
    refused = await problem(backend, CONFIG)
    assert (refused.reason, refused.transient) == (Reason.REJECTED_BY_SAGEMAKER, False)


async def test_a_deleted_serving_config_is_rejected_even_right_after_our_own_create(
    backend: SageMakerBackend, hosting: Hosting
) -> None:
    hosting.everything()
    await act(backend, NEXT)
    hosting.boto.delete_endpoint_config(EndpointConfigName="c")
    refused = await problem(backend, UPDATE)
    assert (refused.reason, refused.transient) == (Reason.REJECTED_BY_SAGEMAKER, False)
    assert "endpoint-config/c" in refused.message


async def test_a_quota_is_retried_in_minutes(backend: SageMakerBackend, simulator: Simulator) -> None:
    await act(backend, MODEL, CONFIG)
    simulator.settings(quotas={"ml.m5.large": 0})
    refused = await problem(backend, CREATE)
    assert refused.reason is Reason.QUOTA_EXCEEDED
    assert 300 <= (refused.retry_after_seconds or 0) <= 600


async def test_tags_are_brought_in_step_with_differences_only(
    backend: SageMakerBackend, hosting: Hosting, simulator: Simulator
) -> None:
    hosting.model()
    hosting.config()
    hosting.endpoint("Churn", tags={"keep": "1", "change": "old", "drop": "x", "foreign": "theirs"})
    action = SyncTags("endpoint/Churn", {"keep": "1", "change": "new", "add": "2"}, remove=("drop", "not-there"))
    await act(backend, action)
    assert hosting.tags(ARN) == {"keep": "1", "change": "new", "add": "2", "foreign": "theirs"}
    simulator.clear_requests()
    await act(backend, action)
    assert simulator.counts() == {"ListTags": 1}


async def test_a_tag_that_is_wanted_is_never_removed(backend: SageMakerBackend, hosting: Hosting) -> None:
    hosting.everything()
    await act(backend, SyncTags("endpoint/churn", {"team": "a"}, remove=("team",)))
    assert hosting.tags(ARN) == {"team": "a"}


@pytest.mark.parametrize("resource", ["model/m", "endpoint-config/c"])
async def test_tags_of_models_and_configs(backend: SageMakerBackend, hosting: Hosting, resource: str) -> None:
    hosting.everything()
    await act(backend, SyncTags(resource, {"team": "a"}))
    assert hosting.tags(ARN.replace("endpoint/churn", resource)) == {"team": "a"}
