"""Creation: three manifests become an endpoint, in any order of arrival, and what cannot be made says why."""

from tests.operator.harness.manifests import config, endpoint, model, variant
from tests.operator.harness.world import World


def test_three_manifests_become_an_endpoint(world: World) -> None:
    world.apply(model(), config(variant(count=2)), endpoint())

    made = world.ready()

    assert world.writes() == ["CreateModel", "CreateEndpointConfig", "CreateEndpoint"]
    status = made["status"]
    assert status["endpointArn"] == "arn:aws:sagemaker:us-east-1:111122223333:endpoint/churn"
    assert status["address"] == "https://runtime.sagemaker.us-east-1.amazonaws.com/endpoints/churn/invocations"
    assert status["lastDeployment"]["outcome"] == "Succeeded"
    assert status["revision"]["name"] == status["desiredRevision"]["name"] == world.revisions()[0]["metadata"]["name"]
    assert status["revision"]["endpointConfigName"] == world.described()["EndpointConfigName"]
    [shown] = status["productionVariants"]
    assert (shown["variantName"], shown["currentInstanceCount"], shown["currentWeight"]) == ("a", 2, 1)
    world.expect(kind="Model", Ready="True Accepted", RolledOut="True RolledOut")
    world.expect(kind="EndpointConfig", Ready="True Accepted", RolledOut="True RolledOut")


def test_a_steady_endpoint_costs_nothing_but_the_sweep(world: World) -> None:
    world.apply(model(), config(), endpoint())
    version = world.ready()["metadata"]["resourceVersion"]
    world.steady()
    version = world.endpoint()["metadata"]["resourceVersion"]
    world.mark()

    world.steady(4)

    assert set(world.calls()) == {"ListEndpoints"}
    assert world.endpoint()["metadata"]["resourceVersion"] == version
