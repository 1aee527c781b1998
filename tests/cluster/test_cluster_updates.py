"""New revisions under load: a canary takes its share, a model that does not start takes none."""

import json
from collections.abc import Iterator

import pytest
from tests.cluster.chance import is_too_little, is_too_much
from tests.cluster.conftest import ModelServer
from tests.cluster.hosting import BODY, Hosting, Loads, ask, named, parrot, server
from tests.operator.harness.kube import Object

from localcluster import Cluster

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
HALF_PERCENT = 50
WEIGHTS = {"tern": 3, "skua": 1}
"""Of the variants of one Endpoint."""
SICK = json.dumps({"ping": 500, "inputs": [["word"]]}).encode()
"""It answers on, but its /ping fails from now on."""
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


def test_variants_move_in_lock_step_and_one_that_is_not_well_takes_all_back(
    hosting: Hosting, cluster: Cluster, contrary_image: str
) -> None:
    """Weights hold within each share; once no new pod of one variant is ready any more the other's go, too."""
    quick = Hosting(hosting.stage, cluster, hosting.kube, contrary_image, hosting.namespace)
    routing = POLICY["blueGreenUpdatePolicy"]["trafficRoutingConfiguration"]
    half = {"type": "CAPACITY_PERCENT", "value": HALF_PERCENT}
    canary = {"canarySize": half, "waitIntervalInSeconds": LONG_SECONDS}
    blue_green = POLICY["blueGreenUpdatePolicy"] | {"trafficRoutingConfiguration": routing | canary}

    def declare(prefix: str) -> None:
        """Both Models first: one edit of the EndpointConfig takes both variants along."""
        for name in WEIGHTS:
            data = quick.upload(f"{prefix}{name}", named(f"{prefix}{name}"))
            quick.model(f"{prefix}{name}", data)
        variants = [
            {"variantName": name, "modelName": prefix + name, "initialInstanceCount": 2, "initialVariantWeight": weight}
            for name, weight in WEIGHTS.items()
        ]
        quick.endpoint("colony", variants, deploymentConfig={"blueGreenUpdatePolicy": blue_green})

    def deployment() -> Object:
        return dict(quick.status("colony").get("deployment") or {})

    def answers(loads: Loads) -> dict[str, int]:
        return {name: by(loads, name) for one in WEIGHTS for name in (one, f"new-{one}")}

    def has_ended() -> Object | None:
        status = quick.status("colony")
        return None if status.get("deployment") else status

    declare("")
    before = quick.ready("colony")["revision"]["name"]
    with quick.load("colony", CALLERS) as loads:
        declare("new-")
        quick.until("colony", lambda: deployment().get("stage") == "Baking" or None)
        began = answers(loads)
        loads.more(600)
        baked = {name: count - began[name] for name, count in answers(loads).items()}
        assert deployment()["stage"] == "Baking"
        for pod in [one for one in quick.fleet("colony", "skua") if ask(one, BODY)["predictions"] == ["new-skua"]]:
            ask(pod, SICK)
        assert not loads.lost(), loads.samples()
        asked = loads.total
        status = quick.until("colony", has_ended)
        last, lost, asked = answers(loads), loads.lost(), loads.total - asked
        loads.more(200)
        after = answers(loads)

    # Between the moment when nobody of that variant is ready and the routes that take its share away.
    assert loads.lost() == lost, loads.samples()
    assert set(lost) <= {NO_POD}, loads.samples()
    lone = WEIGHTS["skua"] / sum(WEIGHTS.values()) * HALF_PERCENT / 100
    assert not is_too_much(sum(lost.values()), asked, lone, under_way=CALLERS), f"{lost} of {asked}"
    total = sum(baked.values())
    for name, weight in WEIGHTS.items():
        share = weight / sum(WEIGHTS.values()) * HALF_PERCENT / 100
        assert not is_too_much(baked[f"new-{name}"], total, share, under_way=CALLERS), baked
        assert not is_too_little(baked[f"new-{name}"], total, share, under_way=CALLERS), baked
        assert after[f"new-{name}"] == last[f"new-{name}"]
    assert (status["lastDeployment"]["outcome"], status["lastDeployment"]["cause"]) == ("RolledBack", "Health")
    assert "variant skua" in status["lastDeployment"]["message"]
    assert (status["revision"]["name"], status["endpointStatus"]) == (before, "InService")
    quick.delete("colony")
    quick.gone("colony")
