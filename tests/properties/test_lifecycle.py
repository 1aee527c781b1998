"""Properties of an Endpoint's whole life: random edits, deletions, faults, clock steps, kills and lost statuses.

After every pass: no EndpointConfig or Model in use is deleted, Ready is never said of a revision that is not in
service, and a latched revision is not deployed again. When the faults stop, the endpoint comes to rest: no call, no
write, and a verdict. The run as a whole must have met every endpoint status, every kind of fault and every outcome."""

import asyncio
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.operator.harness.kube import Kube, install_crds
from tests.properties.world import INSTALLATION, World

from localcluster.controlplane import ControlPlane
from sagemaker_simulator.faults import FaultKind
from sagemaker_simulator.testing import Simulator
from sluice.api.reasons import Outcome
from sluice.api.status import EndpointStatus
from sluice.core.conditions import find
from sluice.core.identity import Owner
from sluice.core.requests import fleet_part, runs_fleet

STATUSES = (
    "Creating", "InService", "Updating", "SystemUpdating", "RollingBack", "Deleting", "Failed", "OutOfService",
    "UpdateRollbackFailed",
)  # fmt: skip
OUTCOMES = (Outcome.SUCCEEDED, Outcome.ROLLED_BACK, Outcome.UPDATE_ROLLBACK_FAILED, Outcome.FAILED)
CALL_FAULTS = (FaultKind.THROTTLING, FaultKind.SERVER_ERROR, FaultKind.LOST_RESPONSE, FaultKind.ACCESS_DENIED, FaultKind.LATENCY)  # fmt: skip # noqa: E501
OTHER_FAULTS = tuple(kind for kind in FaultKind if kind not in CALL_FAULTS)

events = st.one_of(
    st.tuples(st.just("image"), st.integers(1, 4)),
    st.tuples(st.just("image"), st.integers(1, 4)),
    st.tuples(st.just("weight"), st.sampled_from([0.5, 1, 2, 3])),
    st.tuples(st.just("count"), st.integers(1, 6)),
    st.tuples(st.just("tags"), st.integers(0, 3)),
    st.tuples(st.just("policy"), st.sampled_from(["none", "canary", "linear", "rolling", "alarms"])),
    st.tuples(st.just("command"), st.sampled_from(["retry", "redeploy", "pause", "rollback"])),
    st.tuples(st.just("alarm"), st.sampled_from(["OK", "ALARM", "INSUFFICIENT_DATA"])),
    st.tuples(st.just("call fault"), st.sampled_from(CALL_FAULTS)),
    st.tuples(st.just("fault"), st.sampled_from(OTHER_FAULTS)),
    st.tuples(st.just("fault"), st.sampled_from(OTHER_FAULTS)),
    st.tuples(st.just("outside"), st.sampled_from(["weights", "delete", "status", "counts"])),
    st.tuples(st.just("kill"), st.integers(0, 5)),
    st.tuples(st.just("lose status"), st.just(0)),
    st.tuples(st.just("delete"), st.just(0)),
    st.tuples(st.just("time"), st.sampled_from([5, 40, 200])),
    st.tuples(st.just("time"), st.sampled_from([5, 40, 200])),
)


@pytest.fixture(scope="module")
def people(control_plane: ControlPlane) -> Iterator[Kube]:
    """Somebody with kubectl, and the three CRDs."""
    kube = Kube(control_plane.kubeconfig)
    install_crds(kube, Path(__file__).parents[2] / "crds")
    yield kube
    kube.close()


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    """A simulator on a stepped clock; boto3 finds it by its own environment variables."""
    held = dict(os.environ)
    with Simulator() as started:
        os.environ.update(
            AWS_ENDPOINT_URL=started.url,
            AWS_ACCESS_KEY_ID="property",
            AWS_SECRET_ACCESS_KEY="property",
            AWS_DEFAULT_REGION="us-east-1",
            NO_PROXY="127.0.0.1",
        )
        yield started
    os.environ.clear()
    os.environ.update(held)


class Life:
    """One random life and what must hold in it."""

    def __init__(self, world: World, met: Counter[str]) -> None:
        self.world = world
        self.met = met
        self.image, self.count, self.weight, self.tags, self.policy = 1, 4, 1.0, 0, "none"
        self.commands = 0

    # Events -------------------------------------------------------------------------------------------------------

    async def apply(self) -> None:
        """The three objects as they should be; an Endpoint that is being deleted is left alone."""
        world = self.world
        await world.apply("Model", "churn", {"primaryContainer": {"image": f"repo/churn:{self.image}"}})
        variant = {
            "variantName": "a", "modelName": "churn", "instanceType": "ml.m5.large",
            "initialInstanceCount": self.count, "initialVariantWeight": self.weight,
        }  # fmt: skip
        await world.apply("EndpointConfig", "churn", {"productionVariants": [variant]})
        live = await world.endpoint()
        if live is not None and live["metadata"].get("deletionTimestamp"):
            return
        spec: dict[str, Any] = {
            "backend": "SageMaker", "endpointConfigName": "churn", "sagemaker": {"region": "us-east-1"},
            "driftPolicy": "Correct" if self.tags % 2 else "Report",
        }  # fmt: skip
        if self.tags:
            spec["tags"] = [{"key": "team", "value": str(self.tags)}]
        if self.policy != "none":
            spec["deploymentConfig"] = _policy(self.policy)
        await world.apply("Endpoint", "churn", spec)

    async def happen(self, event: str, value: Any) -> None:
        """One event."""
        world = self.world
        if event in {"image", "weight", "count", "tags", "policy"}:
            setattr(self, event, value)
            await self.apply()
        elif event == "command":
            self.commands += 1
            status = world.status()
            revision = status.previous_revision.name if status.previous_revision else "none"
            await world.annotate(**{value: revision if value == "rollback" else str(self.commands)})
        elif event == "alarm":
            world.alarms.set("churn-5xx", value)
        elif event == "call fault":
            self.met[value] += 1
            parameters = {"seconds": 0.01} if value is FaultKind.LATENCY else {}
            world.simulator.fault(value, count=3, probability=0.6, **parameters)
        elif event == "fault":
            self._fault(value)
        elif event == "outside":
            self._outside(value)
        elif event == "kill":
            await self._kill(value)
        elif event == "lose status":
            await world.lose_status()
        elif event == "delete":
            await world.delete()
        elif event == "time":
            await self.run(value)

    def _fault(self, kind: FaultKind) -> None:
        self.met[kind] += 1
        parameters: dict[str, Any] = {}
        if kind is FaultKind.EXTERNAL_CHANGE:
            parameters = {"counts": {"a": 3}}
        if kind is FaultKind.MAINTENANCE:
            parameters = {"seconds": 20}
        self.world.simulator.fault(kind, count=1, **parameters)

    def _outside(self, what: str) -> None:
        living = self.world.living()
        if living is None or living["status"] != "InService":
            return
        if what == "delete":
            self.world.simulator.delete_endpoint("churn", now=True)
        elif what == "status":
            self.world.simulator.change_endpoint("churn", status="OutOfService")
        elif living["weights"]:
            change = {"weights": {"a": 7}} if what == "weights" else {"counts": {"a": 5}}
            self.world.simulator.change_endpoint("churn", immediate=True, **change)

    async def _kill(self, actions: int) -> None:
        """The process dies after so many actions of its next pass; another one takes over."""
        self.world.fuse.left = actions
        await self.one_pass()
        self.world.restart()

    # Passes and what must hold ------------------------------------------------------------------------------------

    async def run(self, seconds: float) -> None:
        """Passes as they fall due for so many simulated seconds, at most 60 of them."""
        for _ in range(60):
            wait = min(max(await self.one_pass(), 0.5), 30.0, seconds)
            await self.world.advance(wait)
            seconds -= wait
            if seconds <= 0:
                return

    async def one_pass(self) -> float:
        """One pass between two looks."""
        world = self.world
        before, calls = world.status(), len(world.mutations())
        asked = world.known().get("metadata", {}).get("annotations") or {}
        again = await world.one_pass()
        after = world.status()
        self._note(before, after)
        made = world.mutations()[calls:]
        self._nothing_in_use_was_deleted(made)
        self._nothing_latched_was_deployed(before, after, made, asked)
        self._ready_is_true(after)
        return again

    def _note(self, before: EndpointStatus, after: EndpointStatus) -> None:
        if after.endpoint_status:
            self.met[after.endpoint_status] += 1
        if after.last_deployment and after.last_deployment != before.last_deployment:
            self.met[after.last_deployment.outcome] += 1
        living = self.world.living()
        if living:
            self.met[f"living {living['status']}"] += 1

    def _nothing_in_use_was_deleted(self, made: list[dict[str, Any]]) -> None:
        """After a rollback that failed, what was rolled back is in use as well."""
        living = self.world.living()
        deleted = {call["target"] for call in made if call["operation"] in {"DeleteEndpointConfig", "DeleteModel"}}
        assert living is None or not deleted & living["serving"], (deleted, living)

    def _nothing_latched_was_deployed(
        self, before: EndpointStatus, after: EndpointStatus, made: list[dict[str, Any]], annotations: dict[str, str]
    ) -> None:
        latch, intent = before.latch, after.intent
        updated = [call for call in made if call["operation"] == "UpdateEndpoint"]
        if latch is None or not updated or intent is None:
            return
        answered = {ack.command: ack.value for ack in before.commands}
        fresh = any(
            annotations.get(f"sluice.dev/{command}") not in (None, answered.get(command))
            for command in ("retry", "rollback")
        )
        part = fleet_part(_owner(self.world), latch.fleet_hash)
        deployed = (intent.endpoint_config_name or "").rsplit("-", 2)
        assert fresh or deployed[1] != part, f"latched {latch} was deployed again by {updated}"

    def _ready_is_true(self, after: EndpointStatus) -> None:
        ready = find(after.conditions, "Ready")
        if ready is None or ready.status != "True":
            return
        assert after.revision is not None
        assert after.desired_revision is not None
        assert after.revision.fleet_hash == after.desired_revision.fleet_hash
        assert after.deployment is None

    async def rest(self) -> None:
        """The faults stop: the endpoint comes to rest with a verdict, and a true one."""
        world = self.world
        world.simulator.clear_faults()
        world.alarms.set("churn-5xx", "OK")
        for turn in range(400):
            living = world.living()
            if turn == 40 and living is not None and living["status"] == "Creating":
                world.simulator.change_endpoint("churn", status="Failed")  # SageMaker gives a stuck creation up, late
            before, calls = world.status(), len(world.mutations())
            again = await self.one_pass()
            await world.advance(min(max(again, 1.0), 400.0))
            quiet = world.status() == before and len(world.mutations()) == calls
            if quiet and again >= 60.0:
                break
        else:
            raise AssertionError(f"no rest: {before.conditions}")
        await world.advance(400)  # past every listing's age
        for _ in range(3):
            calls = len(world.mutations())
            await self.one_pass()
            assert len(world.mutations()) == calls, world.mutations()[calls:]
            await world.advance(60)
        status = world.status()
        live = await world.endpoint()
        if live is None:
            living = world.living()
            assert living is None, f"the Endpoint is gone, its endpoint is not: {living}"
            return
        verdicts = {c.type: c for c in status.conditions}
        assert verdicts["Ready"].status == "True" or verdicts["Stalled"].status == "True", status.conditions
        if verdicts["Ready"].status == "True":
            living = world.living()
            assert living is not None
            assert living["status"] == "InService"
            assert status.desired_revision is not None
            assert runs_fleet(_owner(world), status.desired_revision.fleet_hash, living["endpointConfigName"])
            assert living["weights"]["a"] == self.weight or _retained(status)


def _retained(status: EndpointStatus) -> bool:
    return any(variant.retained_weight is not None for variant in status.production_variants)


def _owner(world: World) -> Any:
    return Owner(INSTALLATION, world.namespace, "churn")


def _policy(kind: str) -> dict[str, Any]:
    if kind == "rolling":
        size = {"type": "CAPACITY_PERCENT", "value": 50}
        return {"rollingUpdatePolicy": {"maximumBatchSize": size, "waitIntervalInSeconds": 10}}
    routing: dict[str, Any] = {"type": "ALL_AT_ONCE", "waitIntervalInSeconds": 0}
    if kind == "canary":
        routing = {"type": "CANARY", "canarySize": {"type": "CAPACITY_PERCENT", "value": 30}, "waitIntervalInSeconds": 20}  # fmt: skip # noqa: E501
    elif kind == "linear":
        routing = {"type": "LINEAR", "linearStepSize": {"type": "CAPACITY_PERCENT", "value": 50}, "waitIntervalInSeconds": 10}  # fmt: skip # noqa: E501
    made: dict[str, Any] = {
        "blueGreenUpdatePolicy": {"trafficRoutingConfiguration": routing, "terminationWaitInSeconds": 20}
    }
    if kind == "alarms":
        made["autoRollbackConfiguration"] = {"alarms": [{"alarmName": "churn-5xx"}]}
    return made


# Stories that chance meets too seldom: each ends in one of SageMaker's rarer statuses or outcomes.
TOLD: list[list[tuple[str, Any]]] = [
    [("policy", "rolling"), ("fault", FaultKind.UPDATE_ROLLBACK_FAILED), ("fault", FaultKind.HEALTH_FAILURE),
     ("image", 2), ("time", 200), ("time", 40), ("command", "retry"), ("time", 200)],
    [("policy", "rolling"), ("fault", FaultKind.UPDATE_ROLLBACK_FAILED), ("fault", FaultKind.HEALTH_FAILURE),
     ("image", 2), ("time", 200), ("image", 1), ("time", 200)],
    [("policy", "rolling"), ("fault", FaultKind.UPDATE_ROLLBACK_FAILED), ("image", 2), ("time", 200), ("time", 40),
     ("fault", FaultKind.HEALTH_FAILURE), ("image", 3), ("time", 200), ("time", 40)],
    [("fault", FaultKind.WEIGHT_UPDATE_FAILURE), ("count", 6), ("time", 40), ("count", 2), ("time", 40)],
    [("outside", "status"), ("time", 200), ("image", 2)],
    [("outside", "weights"), ("time", 200), ("tags", 1), ("time", 200), ("outside", "weights"), ("time", 200)],
    [("tags", 1), ("outside", "delete"), ("time", 200), ("time", 200)],
    [("delete", 0), ("time", 40), ("fault", FaultKind.FAILED_CREATION), ("image", 2), ("time", 40), ("image", 3),
     ("time", 200)],
    [("delete", 0), ("time", 40), ("fault", FaultKind.STUCK_CREATING), ("image", 2), ("time", 200), ("delete", 0)],
    [("policy", "alarms"), ("image", 2), ("time", 5), ("time", 5), ("alarm", "ALARM"), ("time", 40), ("alarm", "OK"),
     ("lose status", 0), ("time", 200), ("command", "retry"), ("time", 200)],
    [("policy", "canary"), ("image", 2), ("kill", 3), ("kill", 4), ("time", 200), ("command", "rollback"), ("kill", 4),
     ("time", 200), ("kill", 0)],
    [("call fault", FaultKind.THROTTLING), ("image", 2), ("time", 40), ("call fault", FaultKind.LOST_RESPONSE),
     ("image", 3), ("time", 200), ("call fault", FaultKind.LATENCY), ("weight", 3)],
    [("policy", "linear"), ("fault", FaultKind.SILENT_ROLLBACK), ("image", 2), ("time", 200), ("image", 1)],
    [("fault", FaultKind.MAINTENANCE), ("image", 2), ("time", 40), ("fault", FaultKind.EXTERNAL_CHANGE), ("time", 40)],
    *[[("fault", kind), ("image", 2), ("time", 200), ("command", "retry"), ("time", 40)]
      for kind in (FaultKind.CAPACITY_FAILURE, FaultKind.DOWNLOAD_FAILURE, FaultKind.ZONE_FAILURE,
                   FaultKind.INTERNAL_FAILURE, FaultKind.QUOTA)],
]  # fmt: skip


@pytest.mark.apiserver
def test_any_life(control_plane: ControlPlane, people: Kube, simulator: Simulator) -> None:
    met: Counter[str] = Counter()

    async def live(story: list[tuple[str, Any]]) -> None:
        world = await World.make(simulator, people, str(control_plane.kubeconfig))
        try:
            world.alarms.set("churn-5xx", "OK")
            life = Life(world, met)
            await life.apply()
            await life.run(40)
            for event, value in story:
                await life.happen(event, value)
                await life.run(8)
            await life.rest()
        finally:
            await world.close()

    @settings(
        max_examples=25,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],
    )
    @given(st.lists(events, min_size=4, max_size=14))
    def any_life(story: list[tuple[str, Any]]) -> None:
        asyncio.run(live(story))

    for story in TOLD:
        asyncio.run(live(story))
    any_life()
    unmet = [what for what in (*STATUSES, *FaultKind, *OUTCOMES) if not met[what]]
    assert not unmet, f"never met: {unmet}; met: {dict(met)}"
