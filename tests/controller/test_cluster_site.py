"""The site of Endpoints in the cluster and their alarms: what is watched when, what a pass gets to see, and what is
forgotten."""

from typing import Any

from prometheus_client import CollectorRegistry
from tests.controller.clock import SteppedClock
from tests.controller.objects import endpoint
from tests.core.cluster_stage import AlarmNow, ClusterStage, blue_green
from tests.core.watched import reach

from sluice.api import names
from sluice.api.reasons import Reason
from sluice.controller.cache import Cache, Source
from sluice.controller.cluster_metrics import ClusterMetrics
from sluice.controller.sites import ClusterSite
from sluice.controller.slots import Slots
from sluice.controller.wakes import Wakes
from sluice.core.cluster.actions import ScaleFleet
from sluice.core.cluster.peers import Bounds
from sluice.core.cluster.rights import AlarmPlace
from sluice.core.endpoint.draft import Pass
from sluice.core.identity import Key
from sluice.core.observation import AlarmReading, AlarmWatch, CallProblem, Observation, Presence
from sluice.core.permission import Policy, Rule
from sluice.ports.backend import ClusterSight

KEY = Key(names.ENDPOINT, "team-a", "churn")
ALARM = {"autoRollbackConfiguration": {"alarms": [{"alarmName": "errors"}]}}


class Nodes:
    """What stands is the stage's; asking for it is when the alarms must be watched already."""

    def __init__(self, stage: ClusterStage, readers: "Readers | None") -> None:
        self._stage = stage
        self._readers = readers
        self.looks = 0
        self.acts: list[Any] = []
        self.watched_when_asked: AlarmWatch | None = None

    async def observe(self, *_: Any) -> ClusterSight:
        self.looks += 1
        self.watched_when_asked = self._readers.watches.get(KEY) if self._readers is not None else None
        return ClusterSight(self._stage.observe())

    async def act(self, _owner: Any, action: Any, _seen: Any) -> None:
        self.acts.append(action)


class Readers:
    """Reads at once, and everything is OK, or as `state` says."""

    def __init__(self, clock: SteppedClock) -> None:
        self._clock = clock
        self.state = "OK"
        self.watches: dict[Key, AlarmWatch] = {}

    def watch(self, key: Key, watch: AlarmWatch | None) -> None:
        self.watches.pop(key, None)
        if watch is not None:
            self.watches[key] = watch

    def readings(self, key: Key) -> tuple[AlarmReading, ...]:
        questions = self.watches[key].alarms if key in self.watches else ()
        return tuple(AlarmReading(q.name, self.state, self._clock.now(), None, q.source) for q in questions)

    def on_moved(self, wake: Any, fired: Any) -> None:
        raise AssertionError("the operator's wiring, not the site")


class Places:
    """Says in which account alarms are read, once it was asked."""

    def __init__(self) -> None:
        self.place = AlarmPlace("eu-west-1")
        self.asked = 0

    def now(self) -> AlarmPlace:
        return self.place

    def ask(self) -> None:
        self.asked += 1


class Place:
    """A stage's Endpoint and its site."""

    def __init__(self, *, reads: bool = True) -> None:
        self.clock = SteppedClock()
        self.policy = Policy((Rule(namespaces=("*",)),))
        self.places = Places()
        self.stage = ClusterStage(deploymentConfig={**blue_green(final=60), **ALARM})
        self.stage.in_service()
        self.cache = cache = Cache()
        bounds = Bounds()
        self.readers = Readers(self.clock) if reads else None
        self.nodes = Nodes(self.stage, self.readers)
        self.site = ClusterSite(
            self.nodes,
            cache,
            self.clock,
            Wakes(cache, lambda key: None, lambda key, seconds: None),
            Slots(cache, bounds, lambda key: None),
            ClusterMetrics(CollectorRegistry(), self.clock),
            self.readers,
            self.places,
        )

    def given(self) -> Pass:
        return Pass(
            endpoint=self.stage.endpoint,
            status=self.stage.status,
            resolution=self.stage.resolution(),
            observation=Observation(Presence.UNKNOWN, self.clock.now()),
            now=self.clock.now(),
            policy=self.policy,
        )

    async def look(self, problem: CallProblem | None = None) -> Pass:
        return await self.site.look(KEY, self.given(), problem)

    async def baking(self) -> None:
        """A deployment bakes, and a pass has seen it."""
        self.stage.alarms["errors"] = AlarmNow()
        self.stage.image("new:1")
        reach(self.stage, "FinalBaking")
        self.clock.skip((self.stage.now - self.clock.now()).total_seconds())
        await self.look()

    def fire(self) -> None:
        """The alarm goes off."""
        assert self.readers is not None
        self.clock.skip(1.0)
        self.readers.state = "ALARM"


async def test_alarms_are_watched_from_the_pass_that_sees_the_change() -> None:
    place = Place()
    assert (await place.look()).observation.alarms == ()
    assert place.nodes.watched_when_asked is None
    place.stage.image("new:1")
    seen = await place.look()
    assert place.nodes.watched_when_asked is not None, "watched before the cluster is looked at: both take a while"
    assert [(r.name, r.state) for r in seen.observation.alarms] == [("errors", "OK")]


async def test_what_was_decided_is_what_is_watched_next() -> None:
    place = Place()
    assert place.readers is not None
    place.stage.alarms["errors"] = AlarmNow()
    place.stage.image("new:1")
    before = place.given()
    while place.stage.status.deployment is None:
        place.stage.step()
    place.site.decided(KEY, before, place.stage.status)
    assert len(place.readers.watches[KEY].new) == 1, "the new fleet, without waiting for the next pass"
    place.stage.in_service()
    place.site.decided(KEY, before, place.stage.status)
    assert place.readers.watches == {}


async def test_an_endpoint_that_is_gone_is_not_watched() -> None:
    place = Place()
    assert place.readers is not None
    place.stage.image("new:1")
    await place.look()
    assert list(place.readers.watches) == [KEY]
    place.site.forget(KEY)
    assert place.readers.watches == {}


async def test_without_anything_that_reads_alarms_each_is_unfit() -> None:
    place = Place(reads=False)
    place.stage.image("new:1")
    [reading] = (await place.look()).observation.alarms
    assert (reading.name, reading.state) == ("errors", "Unfit")
    place.site.forget(KEY)


async def test_an_alarm_that_the_policy_refuses_is_never_read() -> None:
    place = Place()
    assert place.readers is not None
    place.policy = Policy((Rule(namespaces=("*",), cloud_watch_alarms=("{namespace}-*",)),))
    place.stage.image("new:1")
    [reading] = (await place.look()).observation.alarms
    assert (reading.name, reading.state, reading.source) == ("errors", "Refused", "CloudWatch")
    assert place.readers.watches == {}
    place.stage.alarms["errors"] = AlarmNow()
    reach(place.stage, "Provisioning")
    place.site.decided(KEY, place.given(), place.stage.status)
    assert place.readers.watches == {}, "nor while it runs"


async def test_one_that_is_refused_is_told_beside_those_that_are_read() -> None:
    place = Place()
    assert place.readers is not None
    place.policy = Policy((Rule(namespaces=("*",), cloud_watch_alarms=("{namespace}-*",)),))
    config = place.stage.endpoint["spec"]["deploymentConfig"]
    config["autoRollbackConfiguration"] = {"alarms": [{"alarmName": "errors"}, {"alarmName": "team-a-slow"}]}
    place.stage.image("new:1")
    found = (await place.look()).observation.alarms
    assert {reading.name: reading.state for reading in found} == {"errors": "Refused", "team-a-slow": "OK"}


async def test_who_asks_for_the_same_name_is_a_rival_in_whatever_case() -> None:
    """As with SageMaker, names that differ in case alone are the same."""
    place = Place()
    for number, (name, asked, namespace) in enumerate(
        (("one", "CHURN", "team-a"), ("two", "churn-2", "team-a"), ("three", "churn", "team-b"))
    ):
        item = endpoint(name, namespace=namespace, version=100 + number)
        item["spec"] |= {"backend": names.BACKEND_CLUSTER, "endpointName": asked}
        place.cache.apply(item, Source.WATCH)
    assert [rival["metadata"]["name"] for rival in (await place.look()).rivals] == ["one"]


async def test_where_the_account_matters_it_is_known_before_anything_is_read() -> None:
    place = Place()
    assert place.readers is not None
    place.policy = Policy((Rule(namespaces=("*",), accounts=("111122223333",)),))
    place.stage.image("new:1")
    assert (await place.look()).observation.alarms == ()
    assert (place.readers.watches, place.places.asked) == ({}, 1)
    place.places.place = AlarmPlace("eu-west-1", problem="no credentials")
    [reading] = (await place.look()).observation.alarms
    assert (reading.state, place.readers.watches) == ("Unreadable", {})
    place.places.place = AlarmPlace("eu-west-1", "999988887777")
    [reading] = (await place.look()).observation.alarms
    assert (reading.state, place.readers.watches) == ("Refused", {})
    place.places.place = AlarmPlace("eu-west-1", "111122223333")
    [reading] = (await place.look()).observation.alarms
    assert (reading.state, list(place.readers.watches), place.places.asked) == ("OK", [KEY], 2)


async def test_a_policy_for_every_account_asks_for_none() -> None:
    place = Place()
    place.stage.image("new:1")
    await place.look()
    assert place.places.asked == 0


async def test_an_alarm_that_fires_waits_for_no_look_and_the_pass_after_it_looks() -> None:
    place = Place()
    await place.baking()
    seen = await place.look()
    assert (seen.remembered, place.nodes.looks) == (False, 2), "as long as nothing fires every pass looks"
    place.fire()
    hasty = await place.look()
    assert (hasty.remembered, place.nodes.looks) == (True, 2)
    assert hasty.cluster == seen.cluster
    assert [reading.state for reading in hasty.observation.alarms] == ["ALARM"]
    again = await place.look()
    assert (again.remembered, place.nodes.looks) == (False, 3), "a memory serves one pass"


async def test_what_was_seen_before_something_was_done_is_no_memory() -> None:
    place = Place()
    await place.baking()
    await place.site.act(await place.look(), ScaleFleet("churn-a-0", 1))
    place.fire()
    assert not (await place.look()).remembered


async def test_after_an_action_that_failed_the_cluster_is_looked_at() -> None:
    place = Place()
    await place.baking()
    place.fire()
    problem = CallProblem("WriteRoute", Reason.THROTTLED, "away", transient=True)
    assert not (await place.look(problem)).remembered


async def test_nothing_is_remembered_of_an_endpoint_that_is_gone() -> None:
    place = Place()
    await place.baking()
    place.site.forget(KEY)
    place.fire()
    assert not (await place.look()).remembered
