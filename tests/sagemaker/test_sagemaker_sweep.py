"""When a sweep lists, whom it wakes, and how many calls that makes: the simulator and the sweep on stepped clocks."""

import math
from dataclasses import replace

import pytest
from tests.sagemaker.world import OWN, QUICK, REGION, Hosting, SteppedClock, aws

from sagemaker_simulator.testing import Simulator
from sluice.api.reasons import Reason
from sluice.core.identity import Key
from sluice.core.observation import Listed
from sluice.sagemaker.clients import AwsCalls
from sluice.sagemaker.recent import RecentWrites
from sluice.sagemaker.sweep import Sweep, SweepSettings

SETTINGS = SweepSettings()


def key(name: str) -> Key:
    return Key("Endpoint", "team-a", name)


class World:
    """A sweep and its clock; the simulator's clock moves with it."""

    def __init__(
        self,
        simulator: Simulator,
        calls: AwsCalls,
        settings: SweepSettings = SETTINGS,
        clock: SteppedClock | None = None,
    ) -> None:
        self.simulator = simulator
        self.clock = clock or SteppedClock()
        self.recent = RecentWrites(self.clock.monotonic)
        self.sweep = Sweep(OWN, calls, self.recent, self.clock, settings)
        self.woken: list[str] = []
        self.sweep.on_moved(lambda woken: self.woken.append(woken.name))

    async def run(self, seconds: float) -> None:
        """What Sweep.run does, without waiting."""
        end = self.clock.monotonic() + seconds
        while True:
            pause = await self.sweep.tick()
            if self.clock.monotonic() + pause > end:
                break
            self.step(pause)
        self.step(max(0.0, end - self.clock.monotonic()))

    def step(self, seconds: float) -> None:
        self.clock.step(seconds)
        self.simulator.advance(seconds)

    def look(self, name: str) -> Listed | None:
        """What a pass does that finds the listing unchanged."""
        item = self.sweep.listing.get(name)
        self.sweep.told(name, item)
        return item

    def taken_woken(self) -> list[str]:
        woken, self.woken = self.woken, []
        return woken


@pytest.fixture
def world(simulator: Simulator, calls: AwsCalls) -> World:
    return World(simulator, calls)


async def watch(world: World, *names: str) -> None:
    for name in names:
        assert await world.sweep.ensure(name) is None
        world.look(name)
        world.sweep.watch(key(name), name, moving=False)


async def test_nothing_is_listed_while_nothing_is_watched(world: World) -> None:
    await world.run(3600)
    assert world.simulator.counts() == {}


async def test_the_first_listing_comes_before_the_first_look_and_once(world: World) -> None:
    await watch(world, "a", "b", "c")
    assert world.simulator.counts()["ListEndpoints"] == 1


async def test_a_change_is_told_within_one_period_and_once(world: World, hosting: Hosting) -> None:
    hosting.everything("churn")
    await watch(world, "churn", "other")
    world.simulator.change_endpoint("churn", region=REGION, weights={"a": 2.0})
    await world.run(31)
    assert world.taken_woken() == ["churn"]
    assert world.look("churn") is not None
    await world.run(3600)
    assert world.taken_woken() == []


async def test_who_does_not_look_is_woken_again_at_every_whole_listing(world: World, hosting: Hosting) -> None:
    hosting.everything("churn")
    await watch(world, "churn")
    world.simulator.change_endpoint("churn", region=REGION, weights={"a": 2.0}, immediate=True)
    await world.run(600)
    assert world.taken_woken() == ["churn"] * 3


async def test_a_deletion_outside_is_told_within_five_minutes_and_ten_seconds(world: World, hosting: Hosting) -> None:
    hosting.everything("churn")
    await watch(world, "churn")
    await world.run(7)
    world.simulator.delete_endpoint("churn", region=REGION, now=True)
    await world.run(310)
    assert world.taken_woken() == ["churn"]
    assert world.sweep.listing.get("churn") is None


async def test_a_creation_outside_is_told(world: World, hosting: Hosting) -> None:
    await watch(world, "churn")
    hosting.everything("churn", in_service=False)
    await world.run(31)
    assert world.taken_woken() == ["churn"]


async def test_every_endpoint_that_claims_the_name_is_woken(world: World, hosting: Hosting) -> None:
    hosting.everything("churn")
    await watch(world, "churn")
    world.sweep.watch(key("rival"), "churn", moving=False)
    world.simulator.change_endpoint("churn", region=REGION, weights={"a": 2.0}, immediate=True)
    await world.run(31)
    assert sorted(world.taken_woken()) == ["churn", "rival"]


async def test_the_forgotten_are_left_alone(world: World, hosting: Hosting) -> None:
    hosting.everything("churn")
    await watch(world, "churn")
    world.sweep.forget(key("churn"))
    world.simulator.change_endpoint("churn", region=REGION, weights={"a": 2.0}, immediate=True)
    await world.run(3600)
    assert world.taken_woken() == []
    assert world.simulator.counts()["ListEndpoints"] == 1


async def test_while_one_moves_the_sweep_is_quick_and_the_mover_gets_close_looks(
    world: World, hosting: Hosting
) -> None:
    hosting.everything("churn")
    await watch(world, "churn", "other")
    world.sweep.watch(key("churn"), "churn", moving=True)
    before = world.simulator.counts()["ListEndpoints"]
    await world.run(60)
    assert world.simulator.counts()["ListEndpoints"] - before == pytest.approx(60 / 2.5, abs=1)
    looks = world.taken_woken()
    assert set(looks) == {"churn"}
    assert 60 / 6 - 1 <= len(looks) <= 60 / 4 + 1
    world.sweep.watch(key("churn"), "churn", moving=False)
    before = world.simulator.counts()["ListEndpoints"]
    await world.run(60)
    assert world.simulator.counts()["ListEndpoints"] - before <= 3
    assert world.taken_woken() == []


async def test_the_end_of_a_move_is_told_within_a_quick_period(world: World, hosting: Hosting) -> None:
    hosting.everything("churn", in_service=False)
    await watch(world, "churn")
    world.sweep.watch(key("churn"), "churn", moving=True)
    await world.run(19)
    world.taken_woken()
    await world.run(3.6)  # InService after 20 s
    item = world.sweep.listing.get("churn")
    assert item is not None
    assert item.status == "InService"
    assert "churn" in world.taken_woken()


async def test_close_looks_at_very_many_are_bounded(simulator: Simulator, calls: AwsCalls) -> None:
    world = World(simulator, calls, SweepSettings(looks_per_second=10))
    names = [f"e{index}" for index in range(200)]
    await watch(world, *names)
    for name in names:
        world.sweep.watch(key(name), name, moving=True)
    await world.run(60)
    assert 60 * 10 * 0.7 <= len(world.taken_woken()) <= 60 * 10 * 1.3


async def test_a_close_look_just_made_is_not_asked_for_again(world: World, hosting: Hosting) -> None:
    hosting.everything("churn")
    await watch(world, "churn")
    world.sweep.watch(key("churn"), "churn", moving=True)
    for _ in range(10):
        await world.run(3)
        world.sweep.told("churn", world.sweep.listing.get("churn"), asked=world.clock.monotonic())
    assert world.taken_woken() == []


@pytest.mark.parametrize(("endpoints", "most"), [(200, 0.75), (1000, 0.25)])
async def test_steady_endpoints_cost_almost_nothing(
    world: World, hosting: Hosting, endpoints: int, most: float
) -> None:
    hosting.model()
    hosting.config()
    names = [f"e{index}" for index in range(endpoints)]
    for name in names:
        hosting.endpoint(name)
    world.step(60)
    await watch(world, *names)
    await world.run(300)
    world.simulator.clear_requests()
    await world.run(3600)
    assert world.simulator.counts()["ListEndpoints"] / endpoints <= most
    assert set(world.simulator.counts()) == {"ListEndpoints"}
    assert world.taken_woken() == []


async def test_changes_that_reads_show_late_are_not_missed(world: World, hosting: Hosting) -> None:
    hosting.everything("old")
    await watch(world, "old", "late")
    await world.run(20)
    world.simulator.settings(read_after_create_seconds=12, create_seconds=1000)
    hosting.endpoint("late")
    world.step(5)
    world.simulator.change_endpoint("old", region=REGION, weights={"a": 2.0}, immediate=True)
    await world.run(6)  # this sweep sees the newer change of "old", and not "late"
    assert world.taken_woken() == ["old"]
    await world.run(30)
    assert "late" in world.taken_woken()


async def test_a_second_change_is_told_although_nobody_looked_at_the_first(world: World, hosting: Hosting) -> None:
    hosting.everything("churn")
    await watch(world, "churn")
    for weight in (2.0, 3.0):
        world.simulator.change_endpoint("churn", region=REGION, weights={"a": weight}, immediate=True)
        await world.run(31)
        assert world.taken_woken() == ["churn"]


@pytest.mark.parametrize("fault", ["throttling", "server_error", "access_denied"])
async def test_a_sweep_that_fails_keeps_what_it_knows_and_backs_off(
    simulator: Simulator, hosting: Hosting, fault: str
) -> None:
    calls = aws(settings=replace(QUICK, read_attempts=1))
    world = World(simulator, calls)
    hosting.everything("churn")
    await watch(world, "churn")
    known = world.sweep.listing.get("churn")
    world.simulator.fault(fault, operation="ListEndpoints", target="*")
    world.simulator.clear_requests()
    await world.run(40)
    assert await world.sweep.ensure("churn") is None  # young enough to go by
    await world.run(560)
    problem = await world.sweep.ensure("churn")
    assert problem is not None
    assert problem.operation == "ListEndpoints"
    assert (problem.retry_after_seconds or math.inf) <= 360
    assert world.sweep.listing.get("churn") == known
    assert world.simulator.counts()["ListEndpoints"] <= 16
    calls.close()


async def test_who_was_in_the_dark_is_woken_when_the_listing_comes_back(world: World, hosting: Hosting) -> None:
    hosting.everything("churn")
    world.simulator.fault("access_denied", operation="ListEndpoints")
    problem = await world.sweep.ensure("churn")
    assert problem is not None
    assert problem.reason is Reason.ACCESS_DENIED
    world.sweep.watch(key("churn"), "churn", moving=False)
    await world.run(100)
    assert world.taken_woken() == []
    world.simulator.clear_faults()
    await world.run(300)
    assert world.taken_woken() == ["churn"]


async def test_an_identity_that_is_moved_to_another_account_and_back_wakes_everybody(
    simulator: Simulator, hosting: Hosting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "moving")
    simulator.introduce("moving", "111122223333")
    clock = SteppedClock()
    calls = aws(clock=clock)
    world = World(simulator, calls, clock=clock)
    hosting.everything("churn")
    await watch(world, "churn", "fraud")
    for account, names in (("444455556666", []), ("111122223333", ["churn"])):
        simulator.introduce("moving", account)
        world.taken_woken()
        await world.run(340)
        assert set(world.taken_woken()) == {"churn", "fraud"}
        assert [name for name in ("churn", "fraud") if world.sweep.listing.get(name)] == names
        for name in ("churn", "fraud"):
            world.look(name)
    calls.close()


async def test_our_own_creation_survives_a_whole_listing_that_does_not_show_it_yet(
    world: World, hosting: Hosting
) -> None:
    await watch(world, "churn")
    await world.run(290)
    world.simulator.settings(read_after_create_seconds=30)
    hosting.everything("churn", in_service=False)
    world.recent.created(("111122223333", REGION, "endpoint", "churn"))
    shown = Listed("churn", "Creating", world.clock.now())
    world.sweep.told("churn", shown, asked=world.clock.monotonic())
    await world.run(15)
    assert world.sweep.listing.get("churn") == shown
    assert world.taken_woken() == []
