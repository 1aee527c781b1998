"""Changes in the cluster that a process may be killed in the midst of, without an API server: in which order."""

import pytest
from tests.cluster_backend.world import World
from tests.controller.memory_kube import MemoryKube

from sluice.cluster.act import FLEET_KINDS, ROUTER_KINDS, delete_fleet, remove_router
from sluice.cluster.labels import endpoint_labels
from sluice.core.cluster.names import ANNOTATION_OWNER, LABEL_FLEET, ROUTER, record_name
from sluice.core.identity import Owner
from sluice.core.revision import LABEL_MANAGED_BY, MANAGED_BY
from sluice.ports.kube import Conflict, Object

OWNER = Owner("prod", "team", "churn")


def put(kube: MemoryKube, kind: str, name: str, **metadata: object) -> None:
    labels = {LABEL_MANAGED_BY: MANAGED_BY}
    item: Object = {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "team", "labels": labels}}
    item["metadata"] |= {"uid": f"uid-{kind}", **metadata}
    kube.put(item)


async def test_a_removal_of_the_router_that_is_cut_off_anywhere_finds_it_again() -> None:
    """A namespace's router is known by its Deployment."""
    kube = MemoryKube()
    for kind in ROUTER_KINDS:
        put(kube, kind, ROUTER)
    await remove_router(kube, "team")
    assert {kind for _, kind, _ in kube.writes()} == set(ROUTER_KINDS)
    assert kube.writes()[-1] == ("delete", "Deployment", ROUTER)


async def test_what_goes_already_is_not_deleted_again_and_somebody_elses_not_at_all() -> None:
    kube = MemoryKube()
    put(kube, "Deployment", ROUTER, deletionTimestamp="2026-01-01T00:00:00Z")
    put(kube, "Service", ROUTER, labels={"app": "mine"})
    await remove_router(kube, "team")
    assert kube.writes() == []


def marks(fleet: str) -> dict[str, object]:
    """The marks of an object of this fleet of OWNER's."""
    return {
        "labels": {**endpoint_labels(OWNER.name), LABEL_FLEET: fleet},
        "annotations": {ANNOTATION_OWNER: str(OWNER)},
    }


async def test_of_a_fleet_what_costs_nodes_goes_first() -> None:
    """What is left beside it is found by the sweep for orphans."""
    kube = MemoryKube()
    for kind in ("Deployment", *FLEET_KINDS):
        put(kube, kind, "churn-a", **marks("churn-a"))
    put(kube, "ConfigMap", record_name("churn-a"), **marks("churn-a"))
    with pytest.raises(Conflict):
        await delete_fleet(kube, OWNER, "churn-a", "another-one-of-the-same-name")
    assert len(kube.objects) == 2 + len(FLEET_KINDS)
    kube.calls.clear()
    await delete_fleet(kube, OWNER, "churn-a", "uid-Deployment")
    assert kube.writes()[0] == ("delete", "Deployment", "churn-a")
    assert set(kube.objects) == {("NetworkPolicy", "team", "churn-a")}, (
        "its pods run on for the better part of a minute"
    )


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"labels": {LABEL_MANAGED_BY: MANAGED_BY}},
        {**marks("guard"), "annotations": {ANNOTATION_OWNER: "prod/team/another"}},
        {**marks("guard"), "annotations": {ANNOTATION_OWNER: "prod/elsewhere/churn"}},
        marks("another"),
    ],
    ids=["unmarked", "a label", "another Endpoint's", "another namespace's", "another fleet's"],
)
async def test_what_only_has_a_fleets_name_is_none_of_the_fleet(others: dict[str, object]) -> None:
    """Who may make Deployments would else have the operator delete whatever it names: policies, Services, settings."""
    kube = MemoryKube()
    put(kube, "Deployment", "guard", **marks("guard"))
    for kind in FLEET_KINDS:
        put(kube, kind, "guard", **{"labels": {}, **others})
    put(kube, "ConfigMap", record_name("guard"), **{"labels": {}, **others})
    await delete_fleet(kube, OWNER, "guard", "uid-Deployment")
    assert kube.writes() == [("delete", "Deployment", "guard")]


async def test_what_is_made_anew_while_a_fleet_goes_stays() -> None:
    """Between the look and the deletion somebody puts a Service of their own there."""
    kube = MemoryKube()
    put(kube, "Deployment", "churn-a", **marks("churn-a"))
    put(kube, "Service", "churn-a", **marks("churn-a"))

    def deployment_went() -> None:
        kube.before["delete"] = [lambda: put(kube, "Service", "churn-a", uid="theirs", labels={})]

    kube.before["delete"] = [deployment_went]
    with pytest.raises(Conflict):
        await delete_fleet(kube, OWNER, "churn-a", "uid-Deployment")
    assert kube.objects["Service", "team", "churn-a"]["metadata"]["uid"] == "theirs"


@pytest.fixture
def again() -> tuple[MemoryKube, World]:
    """A fleet of which only the policy is left, as its pods still run."""
    kube = MemoryKube()
    world = World(kube, "team")  # type: ignore[arg-type] # in memory: between two calls of the real one nothing is put
    name = world.fleet().name
    put(kube, "NetworkPolicy", name, **{**marks(name), "uid": "before"})
    return kube, world


async def test_a_fleet_that_is_made_again_has_a_policy_of_its_own(again: tuple[MemoryKube, World]) -> None:
    """The sweep may be about to delete the one that it found, and nobody would miss it."""
    kube, world = again
    name = world.fleet().name
    await world.act(world.fleet())
    made = kube.objects["NetworkPolicy", "team", name]
    assert made["metadata"]["uid"] != "before"
    assert made["spec"]["podSelector"] == {"matchLabels": {LABEL_FLEET: name}}
    kinds = [kind for verb, kind, _ in kube.writes() if verb == "create"]
    assert kinds.index("NetworkPolicy") < kinds.index("Deployment"), "no pod runs before its policy stands"
    kube.calls.clear()
    await world.act(world.fleet())
    assert not [call for call in kube.writes() if call[0] == "delete"], "of a fleet that stands it stays"


async def test_a_policy_that_goes_while_its_fleet_is_made_again_is_missed(again: tuple[MemoryKube, World]) -> None:
    kube, world = again
    place = ("NetworkPolicy", "team", world.fleet().name)
    kube.before["get"] = [lambda: kube.objects.pop(place)]
    with pytest.raises(Conflict):
        await world.act(world.fleet())
    assert ("Deployment", *place[1:]) not in kube.objects
    await world.act(world.fleet())
    assert {place, ("Deployment", *place[1:])} <= set(kube.objects)
