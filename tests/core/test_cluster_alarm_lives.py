"""Random lives of an Endpoint in the cluster whose deployments heed alarms: alarms that fire, flap, vanish and fall
silent, a provider that is away, clocks that jump, pauses, promotions and whatever else happens to an Endpoint. What
must hold of every pass is checked by the stage (tests.core.cluster_invariants)."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test
from tests.core.cluster_stage import AlarmNow, ClusterStage, blue_green, rolling
from tests.core.test_cluster_properties import IMAGES, Life
from tests.core.watched import NO_DATA, NO_ROOM

from sluice.api.reasons import Cause, Outcome
from sluice.core.cluster.observation import PodTrouble

SEEN: Counter[str] = Counter()
STATES = st.sampled_from(("OK", "OK", "ALARM", "INSUFFICIENT_DATA", "Unreadable", "Unfit"))
POLICIES = (
    blue_green(final=10),
    blue_green("CANARY", wait=10, final=10),
    blue_green("LINEAR", wait=5, final=5, value=50),
    rolling(50, wait=5),
    rolling(34, wait=5, back=34),
)
OWN = [
    {"name": "slow", "promql": {"expression": "x", "comparison": "GreaterThanThreshold", "threshold": 1}},
    {"name": "errors", "traffic": {"metric": "Invocation5XXErrors", "threshold": 0.05}, "onInsufficientData": "Hold"},
    {"name": "alert", "prometheusAlert": {"alertName": "Bad"}, "onInsufficientData": "RollBack"},
]
NAMES = ("metric", "errors", "slow", "alert")
TROUBLES = {"bad:full": NO_ROOM, "bad:data": NO_DATA, "bad:moved": PodTrouble("SourceMoved", "another ETag", 3)}
"""Images whose pods never get ready, and why."""


class WatchedLife(Life):
    """One Endpoint with alarms. Two of them have one name, at different sources."""

    @initialize(
        policy=st.sampled_from(POLICIES),
        several=st.booleans(),
        served=st.just(True),
        retained=st.booleans(),
        own=st.integers(0, 3),
        first=st.booleans(),
    )
    def begin(self, policy: dict[str, Any], several: bool, served: bool, retained: bool, own: int, first: bool) -> None:
        made = [{"variantName": "a", "initialInstanceCount": 3}, {"variantName": "b", "initialInstanceCount": 1}]
        self.config = {
            **policy,
            "autoRollbackConfiguration": {"alarms": [{"alarmName": "metric"}, {"alarmName": "errors"}]},
        }
        spec: dict[str, Any] = {"retainAllVariantProperties": True} if retained else {}
        self.stage = ClusterStage(
            *(made if several else made[:1]),
            deploymentConfig=self.config,
            kubernetes={"alarms": OWN[:own], **({"replaceFirst": True} if first and not several else {})},
            **spec,
        )
        self.stage.alarms = {name: AlarmNow() for name in NAMES}
        self.stage.cluster.start_seconds = 4.0
        self.stage.cluster.troubles |= TROUBLES
        self.stage.image("good:1")
        self.stage.in_service()

    def pass_(self, seconds: float) -> None:
        super().pass_(seconds)
        status = self.stage.status
        if status.deployment is not None:
            SEEN[f"stage {status.deployment.stage}"] += 1
            if status.deployment.replace_first:
                SEEN[f"replaced first, {status.deployment.stage}"] += 1
        if status.last_deployment is not None:
            SEEN[f"outcome {status.last_deployment.outcome}"] += 1
            SEEN[f"cause {status.last_deployment.cause}"] += 1
        for condition in status.conditions:
            SEEN[f"reason {condition.reason}"] += 1
        for ack in status.commands:
            SEEN[f"{ack.command} {ack.result}"] += 1
        if status.endpoint_status == "UpdateRollbackFailed":
            SEEN["rollback failed"] += 1

    @rule(name=st.sampled_from(NAMES), state=STATES, passes=st.integers(0, 4))
    def an_alarm_changes(self, name: str, state: str, passes: int) -> None:
        self.stage.alarms[name] = AlarmNow(state)
        for _ in range(passes):
            self.pass_(1.0)

    @rule(name=st.sampled_from(NAMES))
    def an_alarm_flaps(self, name: str) -> None:
        if name in self.stage.alarms:
            self.stage.alarms[name].flapped = True
            self.pass_(1.0)

    @rule(name=st.sampled_from(NAMES))
    def an_alarm_is_deleted(self, name: str) -> None:
        self.stage.alarms.pop(name, None)

    @rule(name=st.sampled_from(NAMES), stuck=st.booleans())
    def an_alarm_is_not_read(self, name: str, stuck: bool) -> None:
        if name in self.stage.alarms:
            self.stage.alarms[name].stuck = stuck

    @rule()
    def all_alarms_are_ok(self) -> None:
        self.stage.provider_is_away = False
        self.stage.alarms = {name: AlarmNow() for name in NAMES}

    @rule(image=st.sampled_from(IMAGES[:3]), passes=st.integers(10, 40))
    def a_deployment_has_its_time(self, image: str, passes: int) -> None:
        self.all_alarms_are_ok()
        self.stage.image(image)
        for _ in range(passes):
            self.pass_(1.0)

    @rule(away=st.booleans(), passes=st.integers(0, 15))
    def the_provider_is_away(self, away: bool, passes: int) -> None:
        self.stage.provider_is_away = away
        for _ in range(passes):
            self.pass_(3.0)

    @precondition(lambda self: self.stage.status.deployment)
    @rule()
    def the_provider_is_away_past_the_deadline(self) -> None:
        self.stage.provider_is_away = True
        for seconds in (*[2.0] * 12, 9000.0, 1.0, 1.0, 1.0):
            self.pass_(seconds)
        SEEN["provider away for long"] += 1

    @precondition(lambda self: self.stage.status.endpoint_status == "InService")
    @rule()
    def the_provider_goes_away_in_a_deployment(self) -> None:
        self.a_deployment_has_its_time(IMAGES[1], 14)
        self.the_provider_is_away_past_the_deadline()

    @rule(seconds=st.sampled_from((-3600.0, -30.0, -1.0, 45.0, 600.0)))
    def the_clock_jumps(self, seconds: float) -> None:
        self.pass_(seconds)
        SEEN["clock back" if seconds < 0 else "clock forward"] += 1

    @rule(value=st.sampled_from(("true", "", "else")), passes=st.integers(0, 10))
    def a_person_says_pause(self, value: str, passes: int) -> None:
        self.stage.annotate(pause=value)
        for _ in range(passes):
            self.pass_(2.0)

    @precondition(lambda self: self.stage.status.deployment)
    @rule()
    def a_pause_lasts_past_the_deadline(self) -> None:
        self.all_alarms_are_ok()
        self.stage.annotate(pause="true")
        for seconds in (*[2.0] * 12, 9000.0, 1.0, 1.0, 1.0):
            self.pass_(seconds)
        self.stage.annotate(pause="")

    @precondition(lambda self: self.stage.status.endpoint_status == "InService")
    @rule(
        image=st.sampled_from(IMAGES[:3]),
        passes=st.integers(8, 25),
        said=st.sampled_from(("{revision}", "{revision}/{step}", "{revision}/9", "x")),
    )
    def a_person_promotes(self, image: str, passes: int, said: str) -> None:
        self.all_alarms_are_ok()
        self.stage.image(image)
        for _ in range(passes):
            self.pass_(1.0)
        running = self.stage.status.deployment
        name, step = (running.revision, running.step) if running is not None else ("churn-none", 0)
        self.stage.annotate(promote=said.format(revision=name, step=step))
        for _ in range(3):
            self.pass_(1.0)

    @precondition(lambda self: self.stage.status.endpoint_status == "InService")
    @rule(image=st.sampled_from(IMAGES[:3]), state=st.sampled_from(("ALARM", "ALARM", "Unfit")), ignore=st.booleans())
    def an_alarm_is_not_ok_before_the_start(self, image: str, state: str, ignore: bool) -> None:
        self.all_alarms_are_ok()
        self.stage.alarms["metric"] = AlarmNow(state)
        self.stage.image(image)
        for _ in range(8):
            self.pass_(1.0)
        if ignore:
            desired = self.stage.resolution().revision
            assert desired is not None
            self.stage.annotate(ignore_firing=desired.name)
        for _ in range(8):
            self.pass_(1.0)

    @rule(fewer=st.booleans())
    def the_policy_is_edited(self, fewer: bool) -> None:
        alarms = [{"alarmName": "metric"}, *([] if fewer else [{"alarmName": "errors"}])]
        self.config = {**self.config, "autoRollbackConfiguration": {"alarms": alarms}}
        self.stage.edit("Endpoint", deploymentConfig=self.config)

    @precondition(lambda self: self.stage.status.endpoint_status == "InService")
    @rule(image=st.sampled_from(sorted(TROUBLES)))
    def an_image_comes_to_nothing(self, image: str) -> None:
        self.all_alarms_are_ok()
        self.stage.image(image)
        for seconds in (*[1.0] * 10, 2000.0, *[1.0] * 10):
            self.pass_(seconds)

    @precondition(lambda self: self.stage.status.endpoint_status == "InService")
    @rule(image=st.sampled_from(IMAGES[:3]), name=st.sampled_from(NAMES), room=st.booleans(), baked=st.integers(0, 12))
    def an_alarm_fires_under_traffic(self, image: str, name: str, room: bool, baked: int) -> None:
        """Without room, a rolling deployment does not get its old instances back."""
        self.all_alarms_are_ok()
        stage = self.stage
        stage.image(image)
        for _ in range(40):
            self.pass_(1.0)
            if stage.status.deployment is not None and stage.status.deployment.traffic_since is not None:
                break
        for _ in range(baked):
            self.pass_(1.0)
        stage.alarms[name] = AlarmNow("ALARM", "too many")
        self.pass_(1.0)
        if not room and stage.status.deployment is not None and stage.status.deployment.policy == "ROLLING":
            for fleet in stage.cluster.fleets.values():
                if fleet.fleet_hash != stage.status.deployment.fleet_hash:
                    stage.capped[fleet.name] = max(1, fleet.ready)
            for seconds in (*[1.0] * 4, 3000.0, 1.0):
                self.pass_(seconds)

    @precondition(
        lambda self: "rollingUpdatePolicy" in self.config and self.stage.status.endpoint_status == "InService"
    )
    @rule(image=st.sampled_from(IMAGES[:2]), baked=st.integers(6, 12))
    def a_batch_that_is_turned_back_finds_no_room(self, image: str, baked: int) -> None:
        """Past the first bake, so that old instances have gone."""
        self.an_alarm_fires_under_traffic(image, "metric", False, baked)

    @precondition(lambda self: self.stage.status.endpoint_status == "InService")
    @rule(image=st.sampled_from(IMAGES[:3]))
    def an_alarm_is_of_no_use_before_the_start(self, image: str) -> None:
        self.all_alarms_are_ok()
        self.stage.alarms["metric"] = AlarmNow("Unfit")
        self.stage.image(image)
        for _ in range(8):
            self.pass_(1.0)

    @precondition(lambda self: self.stage.status.endpoint_status == "InService")
    @rule()
    def an_alarm_is_missing_before_the_start(self) -> None:
        self.all_alarms_are_ok()
        self.an_alarm_is_deleted("metric")
        self.image_is_edited(IMAGES[1], 8)

    @rule()
    def there_is_room_again(self) -> None:
        self.stage.capped.clear()

    def teardown(self) -> None:
        stage = self.stage
        stage.capped.clear()
        stage.cluster.troubles.clear()
        self.all_alarms_are_ok()
        stage.annotate(pause="")
        super().teardown()


CANARY, ROLLING = POLICIES[1], POLICIES[4]
TOLD: dict[str, tuple[dict[str, Any], bool, Callable[[WatchedLife], None]]] = {
    "cause ModelData": (CANARY, False, lambda life: life.an_image_comes_to_nothing("bad:data")),
    "cause Capacity": (CANARY, False, lambda life: life.an_image_comes_to_nothing("bad:full")),
    "cause AlarmsUnreadable": (CANARY, False, lambda life: life.the_provider_goes_away_in_a_deployment()),
    "reason AlarmMissing": (CANARY, False, lambda life: life.an_alarm_is_missing_before_the_start()),
    "ignore-firing Done": (
        CANARY,
        False,
        lambda life: life.an_alarm_is_not_ok_before_the_start(IMAGES[1], "ALARM", ignore=True),
    ),
    "promote Done": (CANARY, False, lambda life: life.a_person_promotes(IMAGES[1], 14, "{revision}/{step}")),
    "clock forward": (CANARY, False, lambda life: life.the_clock_jumps(45.0)),
    "rollback failed": (ROLLING, False, lambda life: life.a_batch_that_is_turned_back_finds_no_room(IMAGES[1], 8)),
    "replaced first, RollingBack": (
        ROLLING,
        True,
        lambda life: life.an_alarm_fires_under_traffic(IMAGES[1], "metric", room=True, baked=8),
    ),
}
"""What is rare -> its policy, whether batches are replaced first, and what happens."""
ROUNDS = 8
"""Which lives a seed gives depends on what else the run has imported, so something may take another round."""


def tell(what: str) -> None:
    """A life in which this happens, and nothing else."""
    policy, first, happens = TOLD[what]
    life = WatchedLife()
    life.begin(policy, several=False, served=True, retained=False, own=3, first=first)
    happens(life)
    life.teardown()


def test_random_lives_with_alarms_keep_the_invariants() -> None:
    for what in TOLD:
        SEEN.pop(what, None)
        tell(what)
        assert what in SEEN
    for number in range(ROUNDS):
        run_state_machine_as_test(
            seed(number)(WatchedLife),
            settings=settings(
                max_examples=50,
                database=None,
                phases=[Phase.generate],  # making a failing life shorter takes minutes; take the line away for that
                stateful_step_count=30,
                deadline=None,
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
            ),
        )
        if number and not _missing():
            return
    assert not _missing(), f"each stage, trigger, hold, command and outcome occurs, not so {_missing()}"


def _missing() -> list[str]:
    """What has not occurred yet."""
    wanted = {f"stage {s}" for s in ("Provisioning", "Shifting", "Baking", "FinalBaking", "CleaningUp", "RollingBack")}
    wanted |= {f"outcome {o}" for o in (Outcome.SUCCEEDED, Outcome.ROLLED_BACK, Outcome.SUPERSEDED)}
    wanted |= {f"cause {c}" for c in set(Cause) - {Cause.NONE, Cause.SILENT, Cause.UNKNOWN}}
    reasons = (
        "AlarmFiring",
        "AlarmsUnreadable",
        "AlarmMissing",
        "AlarmUnfit",
        "Paused",
        "RolledBack",
        "HeldByRollback",
    )
    wanted |= {f"reason {r}" for r in reasons}
    wanted |= {f"pause {r}" for r in ("Done", "Queued", "Refused")}
    wanted |= {f"promote {r}" for r in ("Done", "Refused")} | {"ignore-firing Done", "rollback Done", "retry Done"}
    wanted |= {"clock back", "clock forward", "provider away for long", "rollback failed"}
    wanted |= {"replaced first, Provisioning", "replaced first, RollingBack"}
    return sorted(wanted - set(SEEN))
