"""No request is lost: under constant load, models, routers and the operator come and go, and each answer is counted."""

from collections.abc import Iterator

import pytest
from tests.cluster import pods
from tests.cluster.hosting import BODY, JSON, ROUTERS, Hosting, is_ready, parrot, server
from tests.operator.harness.kube import Object

pytestmark = pytest.mark.cluster

ENDPOINT = "flock"
AFTER = 150
"""Answers that are waited for once a disturbance is over."""
CALLERS = 6
CUT = "ClientPayloadError"
"""The connection ended within the answer: the model had begun to write it when its process went."""


@pytest.fixture(scope="module", autouse=True)
def flock(hosting: Hosting) -> Iterator[None]:
    """Two variants, one of them with two instances."""
    for name in ("ara", "budgie"):
        hosting.model(name, hosting.upload(name, parrot(name)))
    hosting.endpoint(ENDPOINT, [{"variantName": "ara", "initialInstanceCount": 2}, {"variantName": "budgie"}])
    hosting.ready(ENDPOINT)
    yield
    hosting.delete(ENDPOINT)
    hosting.gone(ENDPOINT)


def may_be_evicted(hosting: Hosting, pod: Object) -> bool | None:
    """Whether the controller of disruption budgets has counted the pod's fleet: it does so after the pods are ready."""
    fleet = {"sluice.dev/fleet": pod["metadata"]["labels"]["sluice.dev/fleet"]}
    [budget] = [
        one
        for one in hosting.kube.list("PodDisruptionBudget", hosting.namespace)
        if one["spec"]["selector"]["matchLabels"] == fleet
    ]
    return (budget.get("status") or {}).get("disruptionsAllowed", 0) > 0 or None


def test_a_model_pod_is_evicted(hosting: Hosting) -> None:
    with hosting.load(ENDPOINT) as loads:
        old = hosting.fleet(ENDPOINT, "ara")
        hosting.until(ENDPOINT, lambda: may_be_evicted(hosting, old[0]))
        hosting.remove_pod(old[0], evict=True)
        hosting.replaced(lambda: hosting.fleet(ENDPOINT, "ara"), old[:1], 2)
        loads.more(AFTER)

    loads.assert_none_lost()


def test_a_model_process_is_killed_and_at_most_what_was_in_it_is_lost(hosting: Hosting) -> None:
    with hosting.load(ENDPOINT) as loads:
        victim = hosting.fleet(ENDPOINT, "ara")[0]
        hosting.sigkill(victim, server(victim))
        hosting.restarted(victim, server(victim))
        loads.more(AFTER)

    assert sum(loads.lost().values()) <= CALLERS, f"{loads.lost()} of {loads.total}: {loads.samples()}"
    assert set(loads.lost()) <= {"424", CUT}, loads.samples()


@pytest.mark.parametrize("how", ["one router is deleted", "the routers are rolled"])
def test_routers_go(hosting: Hosting, how: str) -> None:
    with hosting.load(ENDPOINT) as loads:
        old = hosting.pods(ROUTERS)
        if how == "one router is deleted":
            old = old[:1]
            hosting.remove_pod(old[0])
        else:
            hosting.roll_routers()
        hosting.replaced(lambda: hosting.pods(ROUTERS), old, 2)
        loads.more(AFTER)

    loads.assert_none_lost()


def test_an_agent_is_killed_while_weights_change(hosting: Hosting) -> None:
    with hosting.load(ENDPOINT) as loads:
        router = hosting.pods(ROUTERS)[0]
        hosting.sigkill(router, "agent")
        hosting.edit_variant(ENDPOINT, 1, initialVariantWeight=2.0)
        hosting.weighed(ENDPOINT, {"ara": 1.0, "budgie": 2.0})
        hosting.restarted(router, "agent")
        loads.more(AFTER)

    loads.assert_none_lost()


def test_a_router_with_a_frozen_agent_is_evicted_and_the_edit_comes_into_force(hosting: Hosting) -> None:
    frozen, other = hosting.pods(ROUTERS)

    def ready() -> set[str]:
        return {one["metadata"]["uid"] for one in hosting.pods(ROUTERS) if is_ready(one)}

    with hosting.load(ENDPOINT) as loads:
        hosting.signal(frozen, "agent", "SIGSTOP")
        hosting.edit_variant(ENDPOINT, 1, initialVariantWeight=3.0)
        hosting.weighed(ENDPOINT, {"ara": 1.0, "budgie": 3.0})
        hosting.until(
            ENDPOINT,
            lambda: all(one["metadata"]["uid"] != frozen["metadata"]["uid"] for one in hosting.pods(ROUTERS)) or None,
        )
        # Stopped, it would end by SIGKILL alone, and whatever is to go would wait for it until then.
        hosting.signal(frozen, "agent", "SIGCONT")
        now = hosting.until(ENDPOINT, lambda: found if len(found := ready()) == 2 else None)
        loads.more(AFTER)

    loads.assert_none_lost()
    assert other["metadata"]["uid"] in now, "the one that has confirmed stays"


def test_the_operator_is_killed_and_a_fleet_grows_and_shrinks_after_it(hosting: Hosting) -> None:
    with hosting.load(ENDPOINT) as loads:
        [operator] = pods.operator_pods(hosting.stage)
        hosting.edit_variant(ENDPOINT, 1, initialInstanceCount=2)
        hosting.sigkill(operator, server(operator))
        hosting.replaced(lambda: hosting.fleet(ENDPOINT, "budgie"), [], 2)
        hosting.ready(ENDPOINT)
        grown = hosting.fleet(ENDPOINT, "budgie")
        hosting.edit_variant(ENDPOINT, 1, initialInstanceCount=1)
        left = hosting.until(ENDPOINT, lambda: hosting.shrunk(ENDPOINT, "budgie", 1))
        loads.more(AFTER)

    loads.assert_none_lost()
    assert {one["metadata"]["uid"] for one in left} < {one["metadata"]["uid"] for one in grown}


def test_another_endpoint_comes_and_goes(hosting: Hosting) -> None:
    with hosting.load(ENDPOINT) as loads:
        hosting.endpoint("stray", [{"variantName": "budgie"}])
        hosting.ready("stray")
        answer = hosting.runtime().invoke_endpoint(EndpointName="stray", Body=BODY, ContentType=JSON)
        assert answer["InvokedProductionVariant"] == "budgie"
        hosting.delete("stray")
        hosting.gone("stray")
        loads.more(AFTER)

    loads.assert_none_lost()
