"""The deployment algorithms as pure plans: what the guide's diagrams show, and what holds for every size and policy."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagemaker_simulator import blue_green, rolling
from sagemaker_simulator.blue_green import BlueGreen, Routing
from sagemaker_simulator.rolling import Rolling
from sagemaker_simulator.stages import Capacity, Durations, Plan, Side, Size, StageKind, Standing

QUICK = Durations(provision=10, flip=2, cleanup=5)


def shares(plan: Plan) -> list[tuple[str, int, int]]:
    """Each stage's kind and how many old and new instances of variant a take traffic."""
    return [(stage.kind.value, stage.old["a"].active, stage.new["a"].active) for stage in plan]


def waits(plan: Plan) -> float:
    return sum(stage.seconds for stage in plan if stage.kind is StageKind.BAKE)


def test_all_at_once() -> None:
    plan = blue_green.plan(BlueGreen(termination_wait_seconds=60), {"a": 4}, {"a": 4}, QUICK)
    assert shares(plan) == [
        ("Creating", 4, 0),
        ("ActivatingTraffic", 0, 4),
        ("Baking", 0, 4),
        ("Deleting", 0, 4),
    ]
    assert [stage.old["a"].up for stage in plan] == [4, 4, 4, 4]


def test_canary_of_one_in_four_is_a_quarter_of_the_traffic() -> None:
    policy = BlueGreen(Routing.CANARY, wait_seconds=30, size=Size(1, percent=False), termination_wait_seconds=60)
    plan = blue_green.plan(policy, {"a": 4}, {"a": 4}, QUICK)
    assert shares(plan) == [
        ("Creating", 4, 0),
        ("ActivatingTraffic", 3, 1),
        ("Baking", 3, 1),
        ("ActivatingTraffic", 0, 4),
        ("Baking", 0, 4),
        ("Deleting", 0, 4),
    ]
    assert [stage.scope for stage in plan[1:5]] == ["canary", "canary", "full", "full"]


def test_linear_by_a_third_of_three() -> None:
    policy = BlueGreen(Routing.LINEAR, wait_seconds=30, size=Size(33, percent=True), termination_wait_seconds=60)
    plan = blue_green.plan(policy, {"a": 3}, {"a": 3}, QUICK)
    assert [row for row in shares(plan) if row[0] == "ActivatingTraffic"] == [
        ("ActivatingTraffic", 2, 1),
        ("ActivatingTraffic", 1, 2),
        ("ActivatingTraffic", 0, 3),
    ]


def test_rolling_two_by_two() -> None:
    plan = rolling.plan(Rolling(Size(2, percent=False), wait_seconds=30), "a", 4, 4, QUICK)
    assert [(stage.kind.value, stage.old["a"], stage.new["a"]) for stage in plan] == [
        ("Creating", Capacity(4, 4), Capacity(0, 0)),
        ("ActivatingTraffic", Capacity(4, 2), Capacity(2, 2)),
        ("Baking", Capacity(4, 2), Capacity(2, 2)),
        ("Deleting", Capacity(4, 2), Capacity(2, 2)),
        ("Creating", Capacity(2, 2), Capacity(2, 2)),
        ("ActivatingTraffic", Capacity(2, 0), Capacity(4, 4)),
        ("Baking", Capacity(2, 0), Capacity(4, 4)),
        ("Deleting", Capacity(2, 0), Capacity(4, 4)),
    ]


@pytest.mark.parametrize(
    ("size", "total", "steps"),
    [
        (Size(10, percent=True), 19, [2, 4, 6, 8, 10, 12, 14, 16, 18, 19]),
        (Size(10, percent=True), 1, [1]),
        (Size(50, percent=True), 3, [2, 3]),
        (Size(33, percent=True), 4, [2, 3, 4]),
        (Size(2, percent=False), 5, [2, 4, 5]),
    ],
)
def test_linear_steps(size: Size, total: int, steps: list[int]) -> None:
    assert blue_green.shift(BlueGreen(Routing.LINEAR, size=size), total) == steps


counts = st.integers(1, 60)
seconds = st.integers(0, 3600)


@st.composite
def linear_or_canary(draw: st.DrawFn) -> BlueGreen:
    routing = draw(st.sampled_from(list(Routing)))
    least = 10 if routing is Routing.LINEAR else 1
    size = Size(draw(st.integers(least, 50)), percent=True)
    if draw(st.booleans()):
        size = Size(draw(st.integers(1, 30)), percent=False)
    return BlueGreen(routing, draw(seconds), None if routing is Routing.ALL_AT_ONCE else size, draw(seconds))


@given(linear_or_canary(), st.dictionaries(st.sampled_from("abc"), st.tuples(counts, counts), min_size=1))
def test_every_blue_green_plan(policy: BlueGreen, variants: dict[str, tuple[int, int]]) -> None:
    old = {name: pair[0] for name, pair in variants.items()}
    new = {name: pair[1] for name, pair in variants.items()}
    plan = blue_green.plan(policy, old, new, QUICK)
    assert plan[0].kind is StageKind.CREATE
    assert plan[-1].kind is StageKind.CLEAN
    for before, after in itertools.pairwise(plan):
        for name in variants:
            assert before.new[name].active <= after.new[name].active
            assert before.old[name].active >= after.old[name].active
    for stage in plan[1:]:
        for name in variants:
            assert 0 <= stage.new[name].active <= stage.new[name].up == new[name]
            assert 0 <= stage.old[name].active <= stage.old[name].up == old[name]
            assert stage.new[name].active + stage.old[name].active > 0
            assert len(stage.message(name)) <= 1024
    assert all(plan[-1].new[name].active == new[name] and plan[-1].old[name].active == 0 for name in variants)
    flips = [stage for stage in plan if stage.kind is StageKind.ACTIVATE]
    steps = max(len(blue_green.shift(policy, total)) for total in new.values())
    assert len(flips) == steps
    assert waits(plan) == (steps - 1) * policy.wait_seconds + policy.termination_wait_seconds
    if policy.routing is Routing.LINEAR and policy.size is not None and policy.size.percent:
        assert steps <= -(-100 // policy.size.value)
    if policy.routing is Routing.CANARY and policy.size is not None and policy.size.percent:
        for name, total in new.items():
            assert flips[0].new[name].active <= max(1, total * policy.size.value / 100)


@given(linear_or_canary(), counts, counts, st.data())
def test_blue_green_goes_back_in_one_step_from_everywhere(
    policy: BlueGreen, old: int, new: int, data: st.DataObject
) -> None:
    plan = blue_green.plan(policy, {"a": old}, {"a": new}, QUICK)
    at = data.draw(st.sampled_from(plan[1:-1]))
    back = blue_green.way_back(Standing(at.old, at.new), QUICK)
    assert [stage.kind for stage in back] == [StageKind.ACTIVATE, StageKind.CLEAN]
    for stage in back:
        assert stage.old["a"] == Capacity(old, old)
        assert stage.new["a"] == Capacity(new, 0)
    assert waits(back) == 0


@st.composite
def batches(draw: st.DrawFn) -> Rolling:
    def size(most: int) -> Size:
        if draw(st.booleans()):
            return Size(draw(st.integers(1, 30)), percent=False)
        return Size(draw(st.integers(5, most)), percent=True)

    return Rolling(size(50), draw(seconds), size(100) if draw(st.booleans()) else None)


@given(batches(), counts, counts)
def test_every_rolling_plan(policy: Rolling, old: int, new: int) -> None:
    plan = rolling.plan(policy, "a", old, new, QUICK)
    batch = policy.batch.instances(new)
    creations = [stage for stage in plan if stage.kind is StageKind.CREATE]
    assert len(creations) == -(-new // batch)
    assert sum(stage.amounts["a"] for stage in creations) == new
    assert sum(stage.amounts["a"] for stage in plan if stage.kind is StageKind.CLEAN) == old
    assert waits(plan) == len(creations) * policy.wait_seconds
    for before, after in itertools.pairwise(plan):
        assert before.new["a"].active <= after.new["a"].active
        assert before.old["a"].active >= after.old["a"].active
    for stage in plan:
        launching = stage.amounts["a"] if stage.kind is StageKind.CREATE else 0
        assert stage.old["a"].up + stage.new["a"].up + launching <= max(old, new) + batch + (old != new) * old
        if old == new:
            assert stage.old["a"].up + stage.new["a"].up + launching <= new + batch
            assert stage.old["a"].active + stage.new["a"].active == new
        assert stage.old["a"].active + stage.new["a"].active > 0
    assert plan[-1].old["a"].active == 0
    assert plan[-1].new["a"] == Capacity(new, new)


@given(batches(), counts, counts, st.data())
def test_rolling_goes_back_in_batches_from_everywhere(policy: Rolling, old: int, new: int, data: st.DataObject) -> None:
    plan = rolling.plan(policy, "a", old, new, QUICK)
    at = data.draw(st.sampled_from(plan))
    standing = Standing(at.old, at.new)
    if at.kind is StageKind.CREATE:
        standing = Standing(at.old, {"a": Capacity(at.new["a"].up + at.amounts["a"], at.new["a"].active)})
    elif at.kind is StageKind.CLEAN:
        standing = Standing({"a": Capacity(at.old["a"].active, at.old["a"].active)}, at.new)
    back = rolling.way_back(policy, "a", old, standing, QUICK)
    batch = policy.rollback_batch.instances(old) if policy.rollback_batch else old
    old_active, new_active = standing.old["a"].active, standing.new["a"].active
    for stage in back:
        assert stage.kind is not StageKind.BAKE
        if stage.kind is StageKind.CREATE:
            assert stage.side is Side.OLD
            assert stage.amounts["a"] <= batch
        assert stage.old["a"].active >= old_active
        assert stage.new["a"].active <= new_active
        assert stage.old["a"].active + stage.new["a"].active > 0
        old_active, new_active = stage.old["a"].active, stage.new["a"].active
    last = back[-1]
    gone = last.amounts["a"] if last.kind is StageKind.CLEAN else 0
    assert last.old["a"] == Capacity(old, old)
    assert last.new["a"].up - gone == 0
    if standing.old["a"].up > standing.old["a"].active:
        assert back[0].kind is StageKind.ACTIVATE, "idle old instances come first"
