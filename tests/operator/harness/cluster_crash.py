"""The crash test's way for the Cluster backend: record a scenario undisturbed, then run it once for each point with a
SIGKILL there. What counts is the end: the same statuses, revisions, fleets and routes, nothing lost and nothing twice.

In which stage a call is made can be chance: pods that are ready one after another are recorded before the Endpoint is
in service, those that are ready together after it. A run that never comes to its point must still come to the same end,
and few may."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.operator.harness.cluster_stage import BESIDE, EVERY_SECONDS, Crowd, Stage
from tests.operator.harness.killing import Crashes, End, Scenario, Undisturbed, at_each, reviving, without_moving
from tests.operator.harness.kube import Object
from tests.operator.harness.manifests import NAME
from tests.operator.harness.proxy import Point
from tests.operator.harness.world import Surroundings

from sluice.cluster.act import ROUTER_KINDS
from sluice.core.cluster.names import ANNOTATION_TEMPLATE, LABEL_FLEET, ROUTER, fleet_name

AT_ONCE = 12
"""Runs beside each other: most of a run is waiting."""
END_SECONDS = 180.0
"""What may still follow when the end that is waited for has come."""
MOST_LEFT_OUT = 0.4
"""The share of the points (but two of few) that a run may not come to."""


def undisturbed(surroundings: Surroundings, crowd: Crowd, directory: Path, scenario: Scenario[Stage]) -> Undisturbed:
    """Run the scenario once and record it."""
    stage = Stage(surroundings, directory, crowd)
    try:
        scenario.begin(stage)
        stage.proxies.record()
        scenario.set_off(stage)
        scenario.finish(stage)
        stage.quiet()
        assert not stage.wrongs, stage.wrongs
        # Policies stand until the pods are gone, and then until the sweep.
        assert all(left.startswith("NetworkPolicy ") for left in stage.leftovers())
        calls = stage.proxies.calls
        tried = {call.key for call in calls if not call.by_the_clock}
        points = [point for point in stage.proxies.points() if point.key in tried]
        return Undisturbed(end_state(stage), tuple(points), tuple(call.key for call in calls))
    finally:
        stage.close()


def of_each_kind(points: Sequence[Point], tried: set[tuple[str, str, str]]) -> list[Point]:
    """One point after each kind of write in each stage, once for all scenarios. Killed before a call, or at a read, the
    world is as it was after the write before; and what is written beside the Endpoint's passes moves nothing."""
    found: dict[tuple[str, str, str], Point] = {}
    for point in points:
        stage, _, words = point.key.partition(": ")
        verb, what = words.split()[:2]
        kind = (re.sub(r" \d+/\d+$", "", stage), verb, what)  # whichever step it is
        if verb != "GET" and stage != "beside" and point.side == "after" and kind not in tried:
            found.setdefault(kind, point)
    tried.update(found)
    return list(found.values())


def crash_everywhere(
    surroundings: Surroundings,
    crowd: Crowd,
    directory: Path,
    scenario: Scenario[Stage],
    record: Undisturbed,
    points: Sequence[Point],
    meanwhile: Callable[[Stage], None] = lambda _stage: None,
) -> Crashes:
    """Run the scenario once for each point. meanwhile: what happens before the operator is started again."""
    return at_each(
        points,
        directory,
        lambda home, point: _crash(surroundings, crowd, home, scenario, record, point, meanwhile),
        at_once=AT_ONCE,
        most_left_out=max(0, min(len(points) - 1, max(2, int(MOST_LEFT_OUT * len(points))))),
    )


def _crash(
    surroundings: Surroundings,
    crowd: Crowd,
    directory: Path,
    scenario: Scenario[Stage],
    record: Undisturbed,
    point: Point,
    meanwhile: Callable[[Stage], None],
) -> bool:
    """One run; whether it came to the point. Raises AssertionError: it ended otherwise."""
    stage = Stage(surroundings, directory, crowd)
    end = End(lambda: end_state(stage), record.end)

    def kill() -> None:
        stage.operator.signal_and_wait(signal.SIGKILL)
        meanwhile(stage)

    try:
        scenario.begin(stage)
        stage.proxies.arm(point, kill)
        with reviving(stage.operator, stage.proxies):
            scenario.set_off(stage)
            scenario.finish(stage)
            if not stage.proxies.fired.is_set():
                stage.quiet()
            end.awaited(stage, seconds=END_SECONDS, every=2 * EVERY_SECONDS)
            if stage.leftovers():
                stage.sweep()
                assert not stage.leftovers()
                assert end.same(), f"the sweep took too much: {end.differences}"
            assert not stage.wrongs, stage.wrongs
            return stage.proxies.fired.is_set()
    finally:
        stage.close()


# What a stage came to -------------------------------------------------------------------------------------------


def end_state(stage: Stage) -> Object:
    """All that lasts, without times, uids and the names that hash the namespace in. What stands beside no fleet any
    more is not in it: `leftovers` tells."""
    kube, space = stage.kube, stage.namespace
    deployments = kube.list("Deployment", space)
    fleets = [item for item in deployments if item["metadata"]["name"] != ROUTER]
    names = {item["metadata"]["name"] for item in fleets}
    found: Object = {
        "kinds": {
            kind: [
                {**_marks(item), "finalizers": item["metadata"].get("finalizers"), "status": item.get("status")}
                for item in kube.list(kind, space)
            ]
            for kind in ("Model", "EndpointConfig", "Endpoint")
        },
        "revisions": [{**_marks(r), "data": r["data"]} for r in stage.revisions()],
        "fleets": [{**_marks(item), "replicas": item["spec"]["replicas"]} for item in fleets],
        "beside": {
            kind: [
                {**_marks(item), "data": item.get("data")}
                for item in kube.list(kind, space)
                if (item["metadata"].get("labels") or {}).get(LABEL_FLEET) in names
            ]
            for kind in BESIDE
        },
        "routes": [{**_marks(item), "spec": item["spec"]} for item in kube.list("EndpointRoute", space)],
        "router": {
            kind: [_marks(item) for item in kube.list(kind, space) if item["metadata"]["name"] == ROUTER]
            for kind in ROUTER_KINDS
        },
    }
    text = json.dumps(found)
    for number, revision in enumerate(stage.revisions(), 1):
        fleet_hash = revision["data"]["fleetHash"]
        for variant in ("a", "b"):
            text = text.replace(fleet_name(NAME, variant, fleet_hash), f"fleet-{number}-{variant}")
        aws = revision["data"]["sagemaker"]
        text = text.replace(aws["endpointConfigName"], f"config-{number}")
        for i, name in enumerate(aws["modelNames"]):
            text = text.replace(name, f"model-{number}-{i}")
        text = text.replace(revision["metadata"]["name"], f"revision-{number}").replace(fleet_hash, f"hash-{number}")
    for item in found["kinds"]["Endpoint"]:
        desired = (item["status"] or {}).get("desiredRevision") or {}
        for field in ("name", "fleetHash", "endpointConfigName"):
            if desired.get(field):  # with edited weights it is stored nowhere
                text = text.replace(desired[field], f"desired-{field}")
    text = re.sub(r"\b\d+ pods?\b", "so many pods", text)  # how many had crashed when one was seen to
    settled: Object = without_moving(json.loads(text.replace(space, "NAMESPACE")))
    for item in settled["kinds"]["Endpoint"]:
        ((item["status"] or {}).get("route") or {}).pop("generation", None)
    for route in settled["routes"]:
        for fleet in route["spec"].get("fleets") or ():
            fleet.pop("requireReady", None)  # tells of the way that weights came, not of what is in force
    for kind in (settled["fleets"], *settled["beside"].values()):
        kind.sort(key=lambda item: str(item["name"]))
    return settled


def _marks(item: Object) -> Object:
    """Name and annotations, without the digest over what names the namespace."""
    metadata = item["metadata"]
    annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k != ANNOTATION_TEMPLATE}
    return {"name": metadata["name"], "annotations": annotations}
