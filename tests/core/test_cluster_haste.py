"""An alarm that fires while a pass still remembers what the one before it saw: only traffic goes back on a memory."""

from dataclasses import replace
from typing import Any

import pytest
from tests.core.cluster_stage import AlarmNow, ClusterStage, blue_green, rolling
from tests.core.watched import deployment, reach, watched

from sluice.api import names
from sluice.core.cluster import haste
from sluice.core.cluster.actions import WriteRoute
from sluice.core.cluster.names import fleet_name
from sluice.core.cluster.observation import ClusterObservation
from sluice.core.endpoint.decide import decide
from sluice.core.endpoint.draft import Pass
from sluice.core.observation import Observation, Presence


def given(stage: ClusterStage, seen: ClusterObservation, **changes: Any) -> Pass:
    """A pass that takes the alarms as they are and the cluster as it was."""
    observation = Observation(Presence.DESCRIBED, stage.now, alarms=stage._read_alarms())
    made = Pass(
        endpoint=stage.endpoint,
        status=stage.status,
        resolution=stage.resolution(),
        observation=observation,
        now=stage.now,
        stored=stage.stored(),
        settings=stage.settings,
        cluster=seen,
        remembered=True,
    )
    return replace(made, **changes)


def baking(policy: dict[str, Any] | None = None) -> Any:
    stage = watched(policy)
    stage.image("new:1")
    reach(stage, "Baking", 1)
    return stage


def test_traffic_goes_back_on_what_was_seen_and_nothing_else_is_done() -> None:
    stage = baking()
    seen = stage.observe()
    seen = replace(seen, router=replace(seen.router, complete=False))  # a pass that looks mends that
    stage.alarms["errors"] = AlarmNow("ALARM")
    made = given(stage, seen)
    assert len(decide(replace(made, remembered=False)).actions) > 1
    assert haste.is_due(made)
    decision = decide(made)
    assert decision.status.deployment is not None
    assert decision.status.deployment.stage == "RollingBack"
    (action,) = decision.actions
    assert isinstance(action, WriteRoute)
    assert action.resource_version == seen.route.resource_version, "void if the routes are others by now"
    serving = fleet_name("churn", "a", stage.status.revision.fleet_hash)
    assert [fleet.name for fleet in action.spec.fleets if fleet.weight] == [serving], "all to what is in service"


def test_a_pass_that_looks_brings_the_rest_to_its_end() -> None:
    stage = baking()
    stage.alarms["errors"] = AlarmNow("ALARM")
    decision = decide(given(stage, stage.observe()))
    stage.status = decision.status
    for action in decision.actions:
        stage.do(action)
    stage.until("RolledBack", type_="Stalled")


def test_what_was_seen_decides_nothing_else() -> None:
    stage = baking()
    seen = stage.observe()
    stage.tick(1000)  # the bake is over, and every alarm is OK
    made = given(stage, seen)
    assert decide(replace(made, remembered=False)).status.deployment != stage.status.deployment
    assert not haste.is_due(made)
    decision = decide(made)
    assert (decision.status, decision.actions, decision.events) == (stage.status, (), ())
    assert decision.look_again is not None
    assert decision.look_again <= stage.now, "the cluster is looked at, at once"


def test_routes_that_need_no_write_are_looked_at() -> None:
    stage = watched()
    before = stage.observe()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.alarms["errors"] = AlarmNow("ALARM")
    decision = decide(given(stage, replace(stage.observe(), route=before.route)))
    assert (decision.status, decision.actions) == (stage.status, ())


def test_who_may_not_write_looks_and_says_so() -> None:
    stage = baking()
    stage.alarms["errors"] = AlarmNow("ALARM")
    stage.endpoint["metadata"]["annotations"] = {names.RECONCILE: names.RECONCILE_DISABLED}
    decision = decide(given(stage, stage.observe()))
    assert (decision.status, decision.actions) == (stage.status, ())


@pytest.mark.parametrize("case", ["before traffic", "ignored", "deleted", "nothing deployed", "alarm OK"])
def test_only_an_alarm_that_counts_is_hurried_for(case: str) -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Provisioning" if case == "before traffic" else "Baking")
    stage.alarms["errors"] = AlarmNow("OK" if case == "alarm OK" else "ALARM")
    made = given(stage, stage.observe())
    status = stage.status
    if case == "ignored":
        alarms = tuple(alarm.model_copy(update={"ignored": True}) for alarm in deployment(stage).alarms)
        running = deployment(stage).model_copy(update={"alarms": alarms})
        made = replace(made, status=status.model_copy(update={"deployment": running}))
    elif case == "deleted":
        made = replace(
            made,
            endpoint={
                **stage.endpoint,
                "metadata": {**stage.endpoint["metadata"], "deletionTimestamp": "2026-01-01T00:00:00Z"},
            },
        )
    elif case == "nothing deployed":
        made = replace(made, status=status.model_copy(update={"deployment": None}))
    assert not haste.is_due(made)


def test_remembered_is_what_alarms_can_turn_back_at_once() -> None:
    assert haste.is_worth_remembering(baking().status)
    assert haste.is_worth_remembering(baking(blue_green("LINEAR", wait=60, final=60)).status)
    assert not haste.is_worth_remembering(baking(rolling()).status), "its old instances come back first"
    stage = baking()
    stage.alarms["errors"] = AlarmNow("ALARM")
    stage.step()
    assert deployment(stage).stage == "RollingBack"
    assert not haste.is_worth_remembering(stage.status)
    assert not haste.is_worth_remembering(watched().status)
