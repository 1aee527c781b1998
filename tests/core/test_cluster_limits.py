"""How many deployments run at once, whose turn it is, and the brake on an image that was rolled back in places."""

import copy
import random
from dataclasses import replace
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.cluster_stage import ClusterStage, blue_green
from tests.core.stage import EPOCH
from tests.core.watched import deployment, ended, reach, watched

from sluice.api.reasons import Cause, Outcome
from sluice.core.cluster import limits
from sluice.core.cluster.observation import PodTrouble
from sluice.core.cluster.peers import Bounds, Peer, image_key, peer_of, rollbacks_in

# The queue ------------------------------------------------------------------------------------------------------


def at(seconds: int) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


def runs(name: str, namespace: str = "a") -> Peer:
    return Peer(namespace, name, deploying=True)


def waits(name: str, seconds: int, namespace: str = "a") -> Peer:
    return Peer(namespace, name, waiting_since=at(seconds))


@pytest.mark.parametrize(
    ("peers", "bounds", "names"),
    [
        ([], Bounds(1), []),
        ([waits("x", 1)], Bounds(1), ["x"]),
        ([runs("r"), waits("x", 1)], Bounds(1), []),
        ([runs("r"), waits("y", 2), waits("x", 1)], Bounds(2), ["x"]),
        ([waits("y", 1), waits("x", 1)], Bounds(1), ["x"]),
        ([runs("r"), runs("s"), runs("t"), waits("x", 1)], Bounds(2), []),  # a person's ran beyond the limit
        ([waits("x", 1), waits("y", 2)], Bounds(0, 0), ["x", "y"]),
        ([runs("r"), waits("x", 1), waits("y", 2, "b")], Bounds(5, 1), ["y"]),  # a full namespace holds no other up
        ([waits("x", 1), waits("y", 2), waits("z", 3, "b")], Bounds(5, 1), ["x", "z"]),
        ([runs("r", "b"), waits("x", 1), waits("y", 2, "b")], Bounds(2, 2), ["x"]),
    ],
)
def test_who_waits_longest_and_has_room_is_next(peers: list[Peer], bounds: Bounds, names: list[str]) -> None:
    assert [peer.name for peer in limits.admitted(peers, bounds)] == names


PEERS = st.lists(
    st.builds(
        lambda name, namespace, state: replace(
            Peer(namespace, f"e{name}"), deploying=state < 0, waiting_since=at(state) if state >= 0 else None
        ),
        st.integers(0, 30),
        st.sampled_from("abc"),
        st.integers(-1, 3),
    ),
    unique_by=lambda peer: (peer.namespace, peer.name),
)


@given(PEERS, st.integers(0, 6), st.integers(0, 3))
def test_never_more_than_the_limits_and_nobody_is_passed_over(peers: list[Peer], most: int, in_each: int) -> None:
    bounds = Bounds(most, in_each)
    started = limits.admitted(peers, bounds)
    after = [peer for peer in peers if peer.deploying or peer in started]
    running = [peer for peer in peers if peer.deploying]
    assert not started or not most or len(after) <= most
    for namespace in "abc":
        mine = [peer for peer in after if peer.namespace == namespace]
        fresh = [peer for peer in started if peer.namespace == namespace]
        assert not fresh or not in_each or len(mine) <= in_each
    for left in (peer for peer in peers if peer.waiting_since is not None and peer not in started):
        full = bool(most) and len(after) >= most
        crowded = bool(in_each) and sum(peer.namespace == left.namespace for peer in after) >= in_each
        assert full or crowded, "a place stays empty while somebody waits"
        assert all(peer.order < left.order for peer in started if peer.namespace == left.namespace)
    for me in (peer for peer in peers if peer.waiting_since is not None):
        found = limits.turn(me, [peer for peer in peers if peer != me], bounds)
        assert found.now == (me in started), "everybody comes to the same answer"
        if not found.now:
            assert 1 <= found.place <= found.waiting
            assert found.limit
            assert found.running or len(running) < len(after), "it waits for somebody"


def test_what_waits_says_its_place_and_who_runs() -> None:
    stage = ClusterStage(deploymentConfig=blue_green())
    stage.settings = replace(stage.settings, bounds=Bounds(2))
    stage.in_service()
    stage.image("new:1")
    stage.peers = (runs("one", "b"), runs("two", "b"), Peer("b", "early", waiting_since=EPOCH))
    stage.until("DeploymentQueued")
    assert "place 2 of 2" in stage.message()
    assert "b/one, b/two" in stage.message()
    assert stage.status.deployment is None
    assert stage.status.endpoint_status == "InService"
    stage.run(300)
    assert stage.condition("Reconciling") == ("True", "DeploymentQueued")
    stage.peers = (runs("one", "b"), Peer("b", "early", waiting_since=EPOCH))
    stage.step(60)
    assert stage.condition("Reconciling") == ("True", "DeploymentQueued"), "the earlier one is next"
    stage.peers = (runs("early", "b"),)
    stage.step(60)
    assert stage.status.deployment is not None
    stage.in_service()


def test_a_further_edit_keeps_its_place() -> None:
    stage = ClusterStage(deploymentConfig=blue_green())
    stage.settings = replace(stage.settings, bounds=Bounds(1))
    stage.in_service()
    stage.peers = (runs("one"),)
    stage.image("new:1")
    stage.until("DeploymentQueued")
    peer = peer_of({**stage.endpoint, "status": stage.status.to_manifest()})
    stage.run(100)
    stage.image("new:2")
    stage.run(10)
    after = peer_of({**stage.endpoint, "status": stage.status.to_manifest()})
    assert peer is not None
    assert after == peer
    assert peer.waiting_since is not None


def test_a_rollback_and_what_a_person_brings_back_never_wait() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=600))
    stage.settings = replace(stage.settings, bounds=Bounds(1, 1, 1))
    stage.in_service()
    first = stage.status.revision.name  # type: ignore[union-attr]
    stage.image("new:1")
    stage.run(30)
    stage.peers = (runs("one"), runs("two"))
    stage.image("repo/churn:1")
    stage.in_service()
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.outcome is Outcome.SUPERSEDED
    stage.peers = ()
    stage.image("new:2")
    stage.edit("Endpoint", deploymentConfig=blue_green(final=0))
    stage.in_service()
    stage.peers = (runs("one"), runs("two"))
    stage.annotate(rollback=first)
    stage.step()
    assert stage.status.deployment is not None
    assert stage.status.deployment.revision == first


def test_a_creation_is_no_deployment() -> None:
    stage = ClusterStage()
    stage.settings = replace(stage.settings, bounds=Bounds(1))
    stage.peers = (runs("one"),)
    stage.run(4)
    assert peer_of({**stage.endpoint, "status": stage.status.to_manifest()}) is None
    stage.in_service()


# The brake ------------------------------------------------------------------------------------------------------


def rolled_back(
    *causes: Cause, image: str = "new:1", outcome: str = "RolledBack", since: datetime = EPOCH
) -> tuple[Peer, ...]:
    """Other Endpoints, each with a rollback of the image."""
    found = []
    for number, cause in enumerate(causes):
        history = [{"outcome": outcome, "cause": cause, "endTime": since.isoformat(), "images": [image]}]
        metadata = {"namespace": "b", "name": f"e{number}"}
        found.append(peer_of({"metadata": metadata, "status": {"history": history}}))
    return tuple(peer for peer in found if peer is not None)


def waiting(image: str = "new:1", *, now: timedelta = timedelta(), **model: object) -> ClusterStage:
    stage = ClusterStage(deploymentConfig=blue_green(final=0))
    stage.settings = replace(stage.settings, bounds=Bounds(0, 0, 3, 3600))
    stage.in_service()
    stage.edit("Model", primaryContainer={"image": image, **model})
    return stage


def test_an_image_that_was_rolled_back_three_times_starts_nowhere_else() -> None:
    stage = waiting()
    stage.peers = rolled_back(Cause.ALARM, Cause.HEALTH, Cause.ALARM, since=stage.now)
    stage.until("ImageBraked")
    assert stage.condition("Stalled") == ("True", "ImageBraked")
    for words in ("new:1", "b/e0, b/e1, b/e2", "sluice.dev/retry", "3 times"):
        assert words in stage.message("Stalled")
    stage.run(100)
    assert stage.status.deployment is None
    assert len(stage.cluster.fleets) == 1
    stage.image("new:2")
    stage.in_service()


def test_retry_lets_one_endpoint_pass() -> None:
    stage = waiting()
    stage.peers = rolled_back(*[Cause.ALARM] * 5, since=stage.now)
    stage.until("ImageBraked")
    stage.annotate(retry="1")
    stage.in_service()
    assert [fleet.image for fleet in stage.cluster.fleets.values()] == ["new:1"]
    again = waiting()
    again.peers = rolled_back(*[Cause.ALARM] * 5, since=again.now)
    again.until("ImageBraked")


def test_a_retry_that_was_refused_lets_nobody_pass() -> None:
    stage = waiting("bad:1")
    stage.cluster.troubles["bad:1"] = PodTrouble("CrashLoop", "exit code 1", 2, final=True)
    reach(stage, "RollingBack")
    stage.peers = rolled_back(*[Cause.ALARM] * 3, image="bad:1", since=stage.now)
    stage.annotate(retry="1")
    stage.step()
    assert [(ack.command, ack.result) for ack in stage.status.commands] == [("retry", "Refused")]
    stage.until("RolledBack", type_="Stalled")
    stage.edit("Model", primaryContainer={"image": "bad:1", "environment": {"TRY": "1"}})
    stage.until("ImageBraked")


def test_it_starts_by_itself_when_the_rollbacks_are_long_ago() -> None:
    stage = waiting()
    stage.peers = rolled_back(*[Cause.ALARM] * 3, since=stage.now)
    until = stage.now + timedelta(seconds=3600)
    stage.until("ImageBraked")
    assert stage.decision is not None
    assert stage.decision.look_again is not None
    assert stage.decision.look_again <= until
    while stage.now < until:
        assert stage.status.deployment is None
        stage.step(100)
    stage.in_service()


@pytest.mark.parametrize(
    ("peers", "why"),
    [
        (rolled_back(Cause.ALARM, Cause.HEALTH), "two are not three"),
        (rolled_back(*[Cause.PERSON] * 9), "a person's word tells nothing"),
        (rolled_back(*[Cause.CAPACITY] * 9), "no room"),
        (rolled_back(*[Cause.DEADLINE] * 9), "no time"),
        (rolled_back(*[Cause.ALARM] * 9, outcome="Superseded"), "another edit came"),
        (rolled_back(*[Cause.ALARM] * 9, image="new:2"), "another image"),
        (rolled_back(*[Cause.ALARM] * 9, since=EPOCH - timedelta(hours=2)), "long ago"),
    ],
)
def test_what_does_not_tell_against_an_image(peers: tuple[Peer, ...], why: str) -> None:
    stage = waiting()
    stage.peers = peers
    stage.in_service()
    assert [fleet.image for fleet in stage.cluster.fleets.values()] == ["new:1"], why


def test_it_waits_until_too_few_of_many_rollbacks_are_left() -> None:
    stage = waiting()
    first = stage.now
    peers = [rolled_back(Cause.ALARM, since=first + timedelta(seconds=100 * number)) for number in range(5)]
    stage.peers = tuple(replace(peer, name=f"e{number}") for number, [peer] in enumerate(peers))
    stage.step(500)
    stage.until("ImageBraked")
    third = first + timedelta(seconds=200 + 3600)
    assert f"before {third:%Y-%m-%d %H:%M:%S} UTC" in stage.message("Stalled"), "two that are left are not three"
    stage.step((third - stage.now).total_seconds() - 20)
    assert stage.condition("Stalled") == ("True", "ImageBraked")
    assert stage.decision is not None
    assert stage.decision.look_again == third
    stage.step(20)
    stage.in_service()


def test_its_own_rollbacks_count_too() -> None:
    stage = waiting("bad:1")
    stage.settings = replace(stage.settings, bounds=Bounds(0, 0, 2, 36000))
    for number in (1, 2):
        stage.cluster.troubles["bad:1"] = PodTrouble("CrashLoop", "exit code 1", 2, final=True)
        stage.until("RolledBack", type_="Stalled")
        stage.edit("Model", primaryContainer={"image": "bad:1", "environment": {"TRY": str(number)}})
    stage.until("ImageBraked")
    assert "rolled back 2 times (team-a/churn)" in stage.message("Stalled")


def test_an_image_that_serves_already_is_not_what_failed() -> None:
    """One server's image, many models: their data was rolled back elsewhere, not the server."""
    stage = waiting("repo/churn:1", modelDataUrl="s3://models/next.tar.gz")
    stage.peers = rolled_back(*[Cause.ALARM] * 9, image="repo/churn:1", since=stage.now)
    stage.in_service()
    assert stage.status.last_deployment is not None
    assert stage.status.last_deployment.cause is Cause.NONE


def test_a_digest_is_the_same_image_under_any_name() -> None:
    assert image_key("one.example/a@sha256:ab") == image_key("two.example/b:1@sha256:ab")
    assert image_key("one.example/a:1") != image_key("two.example/a:1")
    stage = waiting("mirror.example/churn@sha256:ab")
    stage.peers = rolled_back(*[Cause.ALARM] * 3, image="registry.example/churn@sha256:ab", since=stage.now)
    stage.until("ImageBraked")


def test_a_rollback_notes_what_it_brought_and_what_that_resolved_to() -> None:
    stage = ClusterStage(deploymentConfig=blue_green("CANARY", wait=600))
    stage.in_service()
    stage.image("new:1")
    stage.run(30)
    stage.cluster.troubles["new:1"] = PodTrouble("CrashLoop", "exit code 137", 2)
    stage.until("RolledBack", type_="Stalled")
    last = stage.status.last_deployment
    assert last is not None
    assert last.images == ("new:1", "new:1@sha256:1")


@pytest.mark.parametrize("under_traffic", [False, True])
def test_an_alarm_that_fired_before_the_first_traffic_tells_nothing_against_the_image(under_traffic: bool) -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking" if under_traffic else "Provisioning")
    stage.alarms["errors"].state = "ALARM"
    if not under_traffic:
        stage.run(30)
        stage.step((deployment(stage).deadline - stage.now).total_seconds())
    stage.until("RolledBack", type_="Stalled")
    assert ended(stage).cause is Cause.ALARM
    assert bool(ended(stage).images) == under_traffic
    assert bool(rollbacks_in([ended(stage).to_manifest()])) == under_traffic


def test_a_status_that_somebody_wrote_by_hand_counts_as_far_as_it_can_be_read() -> None:
    metadata = {"namespace": "b", "name": "e"}
    history = [{"outcome": "RolledBack", "cause": "Alarm", "endTime": "tomorrow", "images": ["a"]}, {}]
    assert peer_of({"metadata": metadata, "status": {"history": history, "settle": None}}) is None
    gone = {**metadata, "deletionTimestamp": "2026-01-01T00:00:00Z"}
    assert peer_of({"metadata": gone, "status": {"deployment": {"stage": "Baking"}}}) is None


# Two hundred at once --------------------------------------------------------------------------------------------


class Crowd:
    """Endpoints of one operator, edited at once. A pass sees of the others what their statuses say."""

    def __init__(self, count: int, bounds: Bounds, seed: int) -> None:
        first = ClusterStage(deploymentConfig=blue_green("CANARY", wait=5, final=5))
        first.cluster.start_seconds = 2.0
        first.settings = replace(first.settings, bounds=bounds)
        first.in_service()
        self.stages = [copy.deepcopy(first) for _ in range(count)]
        for number, stage in enumerate(self.stages):
            stage.endpoint["metadata"]["namespace"] = f"n{number:03}"
        self.now = first.now
        self.bounds = bounds
        self.random = random.Random(seed)  # noqa: S311 - an order of passes
        self.most = 0
        self.order: list[str] = []
        """Who started, in turn."""
        self.peers: dict[str, Peer] = {}

    def round(self, *, everybody: bool) -> None:
        """A second: everybody in any order, or who is on the way and who was woken because it is their turn."""
        self.now += timedelta(seconds=1)
        woken = {peer.namespace for peer in limits.admitted(self.peers.values(), self.bounds)}
        stages = list(self.stages)
        self.random.shuffle(stages)
        for stage in stages:
            namespace = stage.endpoint["metadata"]["namespace"]
            if not everybody and stage.status.deployment is None and namespace not in woken:
                continue
            self.peers.pop(namespace, None)
            stage.peers = tuple(self.peers.values())
            before = stage.status.deployment
            stage.step((self.now - stage.now).total_seconds())
            if before is None and stage.status.deployment is not None:
                self.order.append(namespace)
            after = peer_of({**stage.endpoint, "status": stage.status.to_manifest()})
            if after is not None:
                self.peers[namespace] = after
            self.most = max(self.most, sum(peer.deploying for peer in self.peers.values()))

    def ended(self, outcome: Outcome) -> int:
        """How many of the edits ended so."""
        lasts = (stage.status.last_deployment for stage in self.stages)
        first = self.stages[0].status.history[-1].fleet_hash
        return sum(last is not None and last.outcome is outcome and last.fleet_hash != first for last in lasts)


def test_two_hundred_edited_at_once_never_more_than_ten_and_in_their_order() -> None:
    crowd = Crowd(200, Bounds(10, 10, 3), seed=1)
    for first in (150, 100, 50, 0):
        for stage in crowd.stages[first : first + 50]:
            stage.image("new:1")
        crowd.round(everybody=True)
    for number in range(1000):
        crowd.round(everybody=number in {6, 200})  # all have settled; a restart: statuses are all that is remembered
        if crowd.ended(Outcome.SUCCEEDED) == 200:
            break
    assert crowd.ended(Outcome.SUCCEEDED) == 200
    assert crowd.most == 10
    fair = [f"n{number:03}" for first in (150, 100, 50, 0) for number in range(first, first + 50)]
    queue = [namespace for namespace in fair if namespace not in crowd.order[:10]]
    late = [abs(queue.index(namespace) - place) for place, namespace in enumerate(crowd.order[10:])]
    assert max(late) < 10, "who changed first starts first; ten at most start together"


def test_two_hundred_edited_at_once_with_a_bad_image_the_third_rollback_stops_the_rest() -> None:
    crowd = Crowd(200, Bounds(10, 10, 3), seed=2)
    for stage in crowd.stages:
        stage.image("new:1")
        stage.cluster.troubles["new:1"] = PodTrouble("CrashLoop", "exit code 1", 2, final=True)
    crowd.round(everybody=True)
    started_late = 0
    for number in range(130):
        rolled_back = crowd.ended(Outcome.ROLLED_BACK)
        before = len(crowd.order)
        crowd.round(everybody=number % 60 == 0)
        if rolled_back >= 3:
            started_late += len(crowd.order) - before
    assert crowd.most == 10
    assert started_late == 0, "nobody starts after the third rollback"
    assert crowd.ended(Outcome.ROLLED_BACK) == len(crowd.order) <= 12
    rest = [stage for stage in crowd.stages if stage.status.last_deployment.images == ()]  # type: ignore[union-attr]
    crowd.round(everybody=True)
    assert len(rest) == 200 - len(crowd.order)
    assert {stage.condition("Stalled") for stage in rest} == {("True", "ImageBraked")}
    assert {fleet.image for stage in rest for fleet in stage.cluster.fleets.values()} == {"repo/churn:1"}
    for stage in rest[:20]:
        stage.image("new:2")
    crowd.round(everybody=True)
    for number in range(100):
        crowd.round(everybody=number == 6)
    assert {fleet.image for stage in rest[:20] for fleet in stage.cluster.fleets.values()} == {"new:2"}
    assert crowd.most == 10
