"""New revisions under load: a canary takes its share, a model that does not start takes none."""

from collections.abc import Iterator

import pytest
from tests.cluster.chance import is_too_little, is_too_much
from tests.cluster.conftest import ModelServer
from tests.cluster.hosting import BODY, Hosting, Loads, ask, parrot, server
from tests.operator.harness.kube import Object

pytestmark = pytest.mark.cluster

ENDPOINT = "moult"
CANARY_PERCENT = 10
POLICY = {
    "blueGreenUpdatePolicy": {
        "trafficRoutingConfiguration": {
            "type": "CANARY",
            "canarySize": {"type": "CAPACITY_PERCENT", "value": CANARY_PERCENT},
            "waitIntervalInSeconds": 6,
        },
        "terminationWaitInSeconds": 2,
    }
}
CALLERS = 6
"""Of a load."""
LONG_SECONDS = 120
"""A bake that ends before its time."""
NO_POD, BROKEN_OFF = "503", "424"
"""What a caller gets where no pod of a variant is left, and where one dies with its request."""
CRASHES_SECONDS = 420.0
"""A server that starts several times, with pauses between that double, before nobody expects it any more."""


@pytest.fixture(scope="module", autouse=True)
def moult(hosting: Hosting) -> Iterator[None]:
    """One variant whose model is going to be replaced."""
    hosting.model("ara", hosting.upload("ara", parrot("ara")))
    hosting.endpoint(ENDPOINT, [{"variantName": "ara"}], deploymentConfig=POLICY)
    hosting.ready(ENDPOINT)
    yield
    hosting.delete(ENDPOINT)
    hosting.gone(ENDPOINT)


def by(loads: Loads, name: str) -> int:
    """The answers that one model gave."""
    return loads.answers().get(f'{{"predictions": ["{name}"]}}', 0)


def counted(loads: Loads) -> tuple[int, int]:
    """The answers of the old model and of the new one."""
    return by(loads, "ara"), by(loads, "moulted")


def stage_of(hosting: Hosting) -> str:
    """The stage of the deployment that runs; empty: none does."""
    return str((hosting.status(ENDPOINT).get("deployment") or {}).get("stage", ""))


def test_a_canary_takes_its_share_and_the_rest_follows(hosting: Hosting) -> None:
    before = hosting.status(ENDPOINT)["revision"]["name"]
    with hosting.load(ENDPOINT) as loads:
        hosting.model("ara", hosting.upload("moulted", parrot("moulted")))
        hosting.until(ENDPOINT, lambda: stage_of(hosting) == "Baking" or None)
        began = baked = counted(loads)
        # What is counted before a look that still sees the stage was answered in the stage.
        while (now := counted(loads)) and stage_of(hosting) == "Baking":
            baked = now
        hosting.ready(ENDPOINT, lambda status: status["revision"]["name"] != before)
        loads.more(50)
        last = by(loads, "ara")
        loads.more(100)

    loads.assert_none_lost()
    total, new, share = sum(baked) - sum(began), baked[1] - began[1], CANARY_PERCENT / 100
    assert not is_too_much(new, total, share, under_way=CALLERS), f"{new} of {total}"
    assert not is_too_little(new, total, share, under_way=CALLERS), f"{new} of {total}"
    assert by(loads, "ara") == last


def test_a_model_that_does_not_start_gets_no_traffic_and_is_rolled_back(hosting: Hosting, mlflow: ModelServer) -> None:
    before = hosting.status(ENDPOINT)["revision"]["name"]
    with hosting.load(ENDPOINT) as loads:
        hosting.model("ara", hosting.upload("incomplete", mlflow.archives["incomplete"].read_bytes()))
        stalled = hosting.until(
            ENDPOINT,
            lambda: next(
                (one for one in hosting.status(ENDPOINT)["conditions"] if one["reason"] == "RolledBack"), None
            ),
            CRASHES_SECONDS,
        )
        loads.more(100)

    loads.assert_none_lost()
    assert "model.pkl" in stalled["message"]
    status = hosting.status(ENDPOINT)
    assert status["revision"]["name"] == before
    assert status["endpointStatus"] == "InService"
    assert sum(loads.answers().values()) == by(loads, "moulted")


def test_a_model_that_dies_while_it_is_asked_is_rolled_back_and_costs_no_more_than_its_share(hosting: Hosting) -> None:
    """The only pod of the canary is killed in its bake, and takes long to come back."""
    routing = POLICY["blueGreenUpdatePolicy"]["trafficRoutingConfiguration"] | {"waitIntervalInSeconds": LONG_SECONDS}
    longer = {"blueGreenUpdatePolicy": POLICY["blueGreenUpdatePolicy"] | {"trafficRoutingConfiguration": routing}}
    hosting.endpoint(ENDPOINT, [{"variantName": "ara"}], deploymentConfig=longer)
    before = hosting.status(ENDPOINT)["revision"]["name"]

    def is_asked() -> bool | None:
        return (stage_of(hosting) == "Baking" and by(loads, "mayfly") > 0) or None

    def has_ended() -> Object | None:
        status = hosting.status(ENDPOINT)
        return status if status.get("deployment") is None else None

    with hosting.load(ENDPOINT, CALLERS) as loads:
        hosting.model("ara", hosting.upload("mayfly", parrot("mayfly")))
        hosting.until(ENDPOINT, is_asked)
        [pod] = [one for one in hosting.fleet(ENDPOINT, "ara") if ask(one, BODY)["predictions"] == ["mayfly"]]
        total = loads.total
        hosting.sigkill(pod, server(pod))
        status = hosting.until(ENDPOINT, has_ended)
        lost, last, total = loads.lost(), by(loads, "mayfly"), loads.total - total
        loads.more(200)

    assert (loads.lost(), by(loads, "mayfly")) == (lost, last), loads.samples()
    assert set(lost) <= {NO_POD, BROKEN_OFF}, loads.samples()
    assert not is_too_much(sum(lost.values()), total, CANARY_PERCENT / 100, under_way=CALLERS), f"{lost} of {total}"
    assert (status["lastDeployment"]["outcome"], status["lastDeployment"]["cause"]) == ("RolledBack", "Health")
    assert "variant ara" in status["lastDeployment"]["message"]
    assert (status["revision"]["name"], status["endpointStatus"]) == (before, "InService")


def test_batches_take_the_place_of_batches_with_one_to_spare(hosting: Hosting) -> None:
    policy = {
        "rollingUpdatePolicy": {
            "maximumBatchSize": {"type": "CAPACITY_PERCENT", "value": 50},
            "waitIntervalInSeconds": 3,
        }
    }
    hosting.model("wren", hosting.upload("wren", parrot("wren")))
    hosting.endpoint("flock", [{"variantName": "wren", "initialInstanceCount": 2}], deploymentConfig=policy)
    before = hosting.ready("flock")["revision"]["name"]
    most, shares = 0, set()

    def rolled() -> dict[str, object] | None:
        nonlocal most
        status = hosting.status("flock")
        most = max(most, len(hosting.pods("sluice.dev/endpoint=flock")))
        shares.add((status.get("deployment") or {}).get("trafficPercent"))
        ended = status.get("deployment") is None and status["revision"]["name"] != before
        return status if ended else None

    with hosting.load("flock") as loads:
        hosting.model("wren", hosting.upload("fledged", parrot("fledged")))
        status = hosting.until("flock", rolled)
        loads.more(50)
        last = by(loads, "wren")
        loads.more(100)

    loads.assert_none_lost()
    assert by(loads, "wren") == last
    assert status["lastDeployment"]["outcome"] == "Succeeded"
    assert most == 3, "two instances, and one batch to spare"
    assert {0.0, 50.0, 100.0} <= shares
    hosting.delete("flock")
    hosting.gone("flock")
