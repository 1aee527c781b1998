"""What a pass sees of an endpoint, question by question, and what it costs."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from tests.sagemaker.world import OWN, OWNER, REGION, ROLE, TARGET, Hosting, NoAlarms, variant

from sagemaker_simulator.testing import Simulator
from sluice.api.reasons import Reason
from sluice.api.status import EndpointStatus, Intent
from sluice.core.actions import CreateEndpoint, EnsureEndpointConfig, EnsureModel
from sluice.core.identity import Credentials, Target
from sluice.core.observation import AlarmReading, Observation, Presence, Questions
from sluice.ports.clock import SystemClock
from sluice.sagemaker import shapes
from sluice.sagemaker.backend import SageMakerBackend
from sluice.sagemaker.clients import AwsCalls

DESCRIBE = Questions(describe=True)
EMPTY = EndpointStatus()


@pytest.fixture
async def backend(calls: AwsCalls) -> AsyncIterator[SageMakerBackend]:
    backend = SageMakerBackend(calls, NoAlarms(), SystemClock())
    await backend.start()
    yield backend
    await backend.stop()


def known(observation: Observation) -> EndpointStatus:
    """The status that a pass would have written."""
    assert observation.endpoint is not None
    return EndpointStatus(
        endpoint_status=observation.endpoint.status,
        last_modified_time=observation.endpoint.last_modified,
        production_variants=observation.endpoint.variants,
    )


async def test_a_name_that_is_not_listed_is_missing_for_one_listing(
    backend: SageMakerBackend, simulator: Simulator
) -> None:
    for name in ("churn", "fraud", "rank"):
        seen = await backend.observe(Target(OWNER, OWN, name), EMPTY, Questions())
        assert (seen.presence, seen.problem, seen.account_id) == (Presence.MISSING, None, "111122223333")
    assert simulator.counts() == {"GetCallerIdentity": 1, "ListEndpoints": 1}


async def test_describe_finds_what_the_listing_did_not(backend: SageMakerBackend, hosting: Hosting) -> None:
    await backend.observe(TARGET, EMPTY, Questions())
    hosting.everything()
    assert (await backend.observe(TARGET, EMPTY, DESCRIBE)).presence is Presence.DESCRIBED
    assert backend.listed(TARGET) is not None


async def test_an_endpoint_in_sluices_shapes(backend: SageMakerBackend, hosting: Hosting) -> None:
    hosting.everything()
    seen = await backend.observe(TARGET, EMPTY, DESCRIBE)
    endpoint = seen.endpoint
    assert endpoint is not None
    assert (endpoint.name, endpoint.status, endpoint.endpoint_config_name) == ("churn", "InService", "c")
    assert endpoint.arn == f"arn:aws:sagemaker:{REGION}:111122223333:endpoint/churn"
    assert (endpoint.failure_reason, endpoint.pending) == (None, None)
    (shown,) = endpoint.variants
    assert (shown.variant_name, shown.current_weight, shown.current_instance_count) == ("a", 1.0, 1)
    assert shown.deployed_images[0].specified_image == "registry.example/churn:1"
    assert "@sha256:" in (shown.deployed_images[0].resolved_image or "")
    assert endpoint.last_modified.tzinfo is UTC
    assert endpoint.last_modified.microsecond % 1000 == 0


async def test_a_deployment_that_is_pending(backend: SageMakerBackend, hosting: Hosting) -> None:
    hosting.everything()
    hosting.config("next", count=2)
    hosting.boto.update_endpoint(EndpointName="churn", EndpointConfigName="next")
    endpoint = (await backend.observe(TARGET, EMPTY, DESCRIBE)).endpoint
    assert endpoint is not None
    assert (endpoint.status, endpoint.endpoint_config_name) == ("Updating", "c")
    assert endpoint.pending is not None
    assert endpoint.pending.endpoint_config_name == "next"
    assert endpoint.pending.variants[0].desired_instance_count == 2
    assert endpoint.pending.variants[0].variant_status[0].status == "Creating"


async def test_a_failed_creation_has_its_reason(
    backend: SageMakerBackend, hosting: Hosting, simulator: Simulator
) -> None:
    simulator.fault("health_failure", target="churn")
    hosting.everything()
    endpoint = (await backend.observe(TARGET, EMPTY, DESCRIBE)).endpoint
    assert endpoint is not None
    assert endpoint.status == "Failed"
    assert "ping" in (endpoint.failure_reason or "")


async def test_nothing_moved_and_nothing_is_described(
    backend: SageMakerBackend, hosting: Hosting, simulator: Simulator
) -> None:
    hosting.everything()
    status = known(await backend.observe(TARGET, EMPTY, DESCRIBE))
    before = simulator.counts()["DescribeEndpoint"]
    seen = await backend.observe(TARGET, status, Questions())
    assert (seen.presence, seen.endpoint) == (Presence.UNCHANGED, None)
    assert simulator.counts()["DescribeEndpoint"] == before
    assert (await backend.observe(TARGET, status, DESCRIBE)).presence is Presence.DESCRIBED


async def test_what_differs_from_the_listing_is_described_unasked(backend: SageMakerBackend, hosting: Hosting) -> None:
    hosting.everything()
    status = known(await backend.observe(TARGET, EMPTY, DESCRIBE))
    older = status.model_copy(update={"last_modified_time": datetime(2020, 1, 1, tzinfo=UTC)})
    assert (await backend.observe(TARGET, older, Questions())).presence is Presence.DESCRIBED
    other = status.model_copy(update={"endpoint_status": "Updating"})
    assert (await backend.observe(TARGET, other, Questions())).presence is Presence.DESCRIBED


@pytest.mark.parametrize("questions", [Questions(), DESCRIBE])
async def test_the_name_is_taken_in_another_case(
    backend: SageMakerBackend, hosting: Hosting, questions: Questions
) -> None:
    hosting.everything("Churn")
    assert (await backend.observe(TARGET, EMPTY, questions)).presence is Presence.OTHER_CASE


async def test_a_deleted_endpoint_is_missing_when_described(
    backend: SageMakerBackend, hosting: Hosting, simulator: Simulator
) -> None:
    hosting.everything()
    status = known(await backend.observe(TARGET, EMPTY, DESCRIBE))
    simulator.delete_endpoint("churn", region=REGION, now=True)
    assert (await backend.observe(TARGET, status, DESCRIBE)).presence is Presence.MISSING
    assert backend.listed(TARGET) is None


async def test_the_owner_is_read_from_the_tags(backend: SageMakerBackend, hosting: Hosting) -> None:
    hosting.model()
    hosting.config()
    hosting.endpoint("Churn", tags={"sluice.dev/owner": str(OWNER), "team": "a"})
    seen = await backend.observe(Target(OWNER, OWN, "Churn"), EMPTY, Questions(describe=True, owner=True))
    assert seen.tags == {"sluice.dev/owner": "prod-1/team-a/churn", "team": "a"}


async def test_content_is_the_config_and_its_models_without_names_and_times(
    backend: SageMakerBackend, hosting: Hosting
) -> None:
    hosting.everything()
    seen = await backend.observe(TARGET, EMPTY, Questions(describe=True, content=True))
    assert seen.content is not None
    (shown,) = seen.content.endpoint_config["ProductionVariants"]
    assert shown == variant() | {key: shown[key] for key in shown.keys() - variant().keys()}
    assert seen.content.models["m"]["ExecutionRoleArn"] == ROLE
    assert seen.content.models["m"]["PrimaryContainer"]["Image"] == "registry.example/churn:1"
    for part in (seen.content.endpoint_config, *seen.content.models.values()):
        assert not {"EndpointConfigName", "EndpointConfigArn", "ModelName", "ModelArn", "CreationTime"} & part.keys()


def test_the_models_of_instance_pools_are_read_too() -> None:
    pools = [{"InstanceType": "ml.m5.large"}, {"InstanceType": "ml.g5.xlarge", "ModelNameOverride": "gpu"}]
    variants = [{"VariantName": "a", "ModelName": "m", "InstancePools": pools}, {"VariantName": "b", "ModelName": "m"}]
    assert shapes.model_names({"ProductionVariants": variants}) == ("m", "gpu")


async def test_variants_with_a_scalable_target(
    backend: SageMakerBackend, hosting: Hosting, simulator: Simulator
) -> None:
    hosting.everything()
    asked = Questions(describe=True, scalable=True)
    assert (await backend.observe(TARGET, EMPTY, asked)).scalable_variants == frozenset()
    simulator.client("application-autoscaling", region=REGION).register_scalable_target(
        ServiceNamespace="sagemaker",
        ResourceId="endpoint/churn/variant/a",
        ScalableDimension="sagemaker:variant:DesiredInstanceCount",
        MinCapacity=1,
        MaxCapacity=4,
    )
    assert (await backend.observe(TARGET, EMPTY, asked)).scalable_variants == frozenset({"a"})


async def test_what_we_just_created_is_not_missing(backend: SageMakerBackend, simulator: Simulator) -> None:
    simulator.settings(read_after_create_seconds=30)
    await create(backend)
    for questions in (DESCRIBE, Questions()):
        seen = await backend.observe(TARGET, EMPTY, questions)
        assert seen.presence is Presence.UNKNOWN
        assert seen.problem is not None
        assert (seen.problem.code, seen.problem.transient) == ("EventualConsistency", True)
    simulator.advance(31)
    assert (await backend.observe(TARGET, EMPTY, Questions())).presence is Presence.DESCRIBED
    # Once seen, "not found" means what it says.
    simulator.delete_endpoint("churn", region=REGION, now=True)
    assert (await backend.observe(TARGET, EMPTY, DESCRIBE)).presence is Presence.MISSING


async def test_after_a_restart_the_stored_intent_remembers_the_creation(
    backend: SageMakerBackend, simulator: Simulator
) -> None:
    now = SystemClock().now()
    intent = Intent(operation="CreateEndpoint", time=now, accepted=now)
    seen = await backend.observe(TARGET, EndpointStatus(intent=intent), DESCRIBE)
    assert seen.presence is Presence.UNKNOWN
    long_ago = now - timedelta(seconds=61)
    old = EndpointStatus(intent=intent.model_copy(update={"time": long_ago, "accepted": long_ago}))
    assert (await backend.observe(TARGET, old, DESCRIBE)).presence is Presence.MISSING


async def test_a_denied_describe_is_unknown_and_named(backend: SageMakerBackend, simulator: Simulator) -> None:
    simulator.fault("access_denied", operation="DescribeEndpoint")
    seen = await backend.observe(TARGET, EMPTY, DESCRIBE)
    assert seen.presence is Presence.UNKNOWN
    assert seen.problem is not None
    assert seen.problem.reason is Reason.ACCESS_DENIED
    assert "sagemaker:DescribeEndpoint" in seen.problem.message


@pytest.mark.parametrize(
    ("operation", "questions"),
    [
        ("ListTags", Questions(describe=True, owner=True)),
        ("DescribeEndpointConfig", Questions(describe=True, content=True)),
        ("DescribeModel", Questions(describe=True, content=True)),
        ("DescribeScalableTargets", Questions(describe=True, scalable=True)),
    ],
)
async def test_a_question_without_an_answer_leaves_the_rest(
    backend: SageMakerBackend, hosting: Hosting, simulator: Simulator, operation: str, questions: Questions
) -> None:
    hosting.everything()
    simulator.fault("access_denied", operation=operation)
    seen = await backend.observe(TARGET, EMPTY, questions)
    assert seen.presence is Presence.DESCRIBED
    assert (seen.tags, seen.content, seen.scalable_variants) == (None, None, None)
    assert seen.problem is not None
    assert seen.problem.operation == operation


async def test_no_listing_is_unknown_and_no_second_listing_is_tried_at_once(
    backend: SageMakerBackend, simulator: Simulator
) -> None:
    simulator.fault("access_denied", operation="ListEndpoints")
    for _ in range(5):
        seen = await backend.observe(TARGET, EMPTY, Questions())
        assert seen.presence is Presence.UNKNOWN
        assert seen.problem is not None
        assert seen.problem.operation == "ListEndpoints"
        assert (seen.problem.retry_after_seconds or 0) > 1
    assert simulator.counts()["ListEndpoints"] == 1


async def test_no_credentials_is_a_problem_of_the_pass(
    backend: SageMakerBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    seen = await backend.observe(TARGET, EMPTY, DESCRIBE)
    assert (seen.presence, seen.account_id) == (Presence.UNKNOWN, None)
    assert seen.problem is not None
    assert seen.problem.reason is Reason.NO_CREDENTIALS


async def test_alarms_are_read_even_where_sagemaker_is_out_of_reach(calls: AwsCalls, simulator: Simulator) -> None:
    simulator.fault("server_error", operation="DescribeEndpoint")
    asked: list[tuple[str, ...]] = []

    class Reader:
        async def read(self, target: Target, names: tuple[str, ...], not_before: datetime) -> tuple[AlarmReading, ...]:
            asked.append(names)
            return tuple(AlarmReading(name, "OK", not_before) for name in names)

    backend = SageMakerBackend(calls, Reader(), SystemClock())
    seen = await backend.observe(TARGET, EMPTY, Questions(describe=True, alarms=("5xx",)))
    assert seen.presence is Presence.UNKNOWN
    assert [reading.state for reading in seen.alarms] == ["OK"]
    assert seen.alarms[0].read_at >= seen.at
    assert asked == [("5xx",)]


async def test_a_role_per_endpoint_sees_its_own_account(backend: SageMakerBackend, hosting: Hosting) -> None:
    hosting.everything()
    other = Target(OWNER, Credentials(REGION, "arn:aws:iam::444455556666:role/team-b"), "churn")
    seen = await backend.observe(other, EMPTY, Questions())
    assert (seen.presence, seen.account_id) == (Presence.MISSING, "444455556666")


async def create(backend: SageMakerBackend) -> None:
    container = {"Image": "registry.example/churn:1"}
    await backend.act(TARGET, EnsureModel({"ModelName": "m", "PrimaryContainer": container, "ExecutionRoleArn": ROLE}))
    await backend.act(TARGET, EnsureEndpointConfig({"EndpointConfigName": "c", "ProductionVariants": [variant()]}))
    await backend.act(TARGET, CreateEndpoint({"EndpointName": "churn", "EndpointConfigName": "c"}))


async def test_a_listing_that_does_not_show_it_makes_no_known_endpoint_missing(
    backend: SageMakerBackend, hosting: Hosting
) -> None:
    assert (await backend.observe(TARGET, EMPTY, Questions())).presence is Presence.MISSING
    hosting.everything()  # the listing is still young, and knows nothing of it
    status = EndpointStatus(
        endpoint_arn="arn:aws:sagemaker:us-east-1:111122223333:endpoint/churn", endpoint_status="InService"
    )
    assert (await backend.observe(TARGET, status, Questions())).presence is Presence.DESCRIBED
