"""The plans of deployments, for every instance count from 1 to 100, every size and every policy: steps add up, grow,
stay within SageMaker's limits and end complete. What is expected is said anew here, not taken from the code."""

import math
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

import pytest
from tests.core.cluster_stage import blue_green, rolling

from sluice.api.status import PlanStep
from sluice.core import guardrails
from sluice.core.cluster import batches, plans

COUNTS = range(1, 101)
PERCENTS = {"CANARY": range(1, 51), "LINEAR": range(10, 51), "ROLLING": range(5, 51)}
LEAST_PERCENT = {"CANARY": 0, "LINEAR": 10, "ROLLING": 5}


def policy(kind: str, *, type_: str = "CAPACITY_PERCENT", value: int = 25, wait: int = 7, final: int = 11) -> Any:
    if kind == "ROLLING":
        return rolling(value, wait=wait, type=type_)
    return blue_green(kind, wait=wait, final=final, type=type_, value=value)


def planned(config: Mapping[str, Any], *totals: int) -> tuple[PlanStep, ...]:
    counts = dict(zip("abc", totals, strict=False))
    return plans.plan(config, counts, counts)


def sizes(kind: str, total: int) -> Iterator[tuple[str, int]]:
    """Every size that SageMaker takes for a variant of so many instances."""
    yield from (("CAPACITY_PERCENT", value) for value in PERCENTS[kind])
    least = max(1, math.ceil(total * LEAST_PERCENT[kind] / 100))
    yield from (("INSTANCE_COUNT", value) for value in range(least, total // 2 + 1))


def instances(step: PlanStep, total: int) -> float:
    return step.traffic_percent * total / 100


def linear_parts(value: int) -> list[int]:
    """The shares of equal steps, as they are asked for."""
    return [min(100, value * step) for step in range(1, math.ceil(100 / value) + 1)]


def linear_counts(type_: str, value: int, total: int) -> list[int]:
    """The instances with traffic after each linear step: a number of them more each time; of a share the next whole
    number up from what the steps have come to, and one more at least."""
    active = [0]
    while active[-1] < total:
        step = len(active)
        if type_ == "INSTANCE_COUNT":
            asked = active[-1] + value
        else:
            asked = next(count for count in range(step, 200) if 100 * count >= step * value * total)
        active.append(min(total, asked))
    return active[1:]


@pytest.mark.parametrize("total", COUNTS)
@pytest.mark.parametrize("kind", ["CANARY", "LINEAR", "ROLLING"])
def test_every_plan_of_one_variant(kind: str, total: int) -> None:
    for type_, value in sizes(kind, total):
        config = policy(kind, type_=type_, value=value)
        steps = planned(config, total)
        shares = [step.traffic_percent for step in steps]
        where = f"{kind} {type_} {value} of {total}: {shares}"
        assert shares == sorted(set(shares)), f"each step moves more: {where}"
        assert shares[0] > 0, where
        assert shares[-1] == 100, f"it ends complete: {where}"
        moves = [after - before for before, after in zip([0.0, *shares], shares, strict=False)]
        assert sum(moves) == pytest.approx(100), where
        if total > 1:
            for step in steps:
                assert instances(step, total) == pytest.approx(round(instances(step, total)), abs=1e-3), (
                    f"whole instances: {where}"
                )
        if kind != "ROLLING":
            stored = [batches.new_of(step) for step in steps]
            assert stored == [{"a": max(1, round(instances(step, total)))} for step in steps], where
            assert not any(batches.old_of(step) for step in steps), where
        asked = total * value // 100 if type_ == "CAPACITY_PERCENT" else value
        if kind == "CANARY":
            assert len(steps) == 2, where
            if total > 1:
                assert instances(steps[0], total) == pytest.approx(max(1, asked), abs=1e-3), where
                assert shares[0] <= 50, where
            else:
                assert shares[0] == value, "one instance is split by weight"
            assert [step.wait_seconds for step in steps] == [7, 11], where
        elif kind == "LINEAR":
            assert len(steps) <= 10, f"10 % takes at most 10 steps: {where}"
            whole = [round(instances(step, total)) for step in steps]
            if total > 1:
                most = math.ceil(total * value / 100) if type_ == "CAPACITY_PERCENT" else value
                assert max(b - a for a, b in zip([0, *whole], whole, strict=False)) <= max(1, most), where
                assert whole == linear_counts(type_, value, total), where
            else:
                assert shares == linear_parts(value), "one instance is split by weight"
            assert [step.wait_seconds for step in steps] == [7] * (len(steps) - 1) + [11], where
        else:
            batch = max(1, asked)
            assert len(steps) == math.ceil(total / batch), where
            assert [step.wait_seconds for step in steps] == [7] * len(steps), "it bakes after the last batch too"
            for before, after in zip([0, *(batches.new_of(s)["a"] for s in steps)], steps, strict=False):
                assert 0 < batches.new_of(after)["a"] - before <= batch, where
                assert batches.new_of(after)["a"] + batches.old_of(after)["a"] == total, where
            if total > 1:
                replaced = plans.plan(config, {"a": total}, {"a": total}, replace_first=True)
                assert replaced == steps, f"the same batches where they go before their successors come: {where}"


@pytest.mark.parametrize("total", COUNTS)
def test_linear_steps_have_the_instances_that_are_said_of_them(total: int) -> None:
    for type_, value in sizes("LINEAR", total):
        counts, size = linear_counts(type_, value, total), {"type": type_, "value": value}
        steps = range(1, len(counts) + 1)
        assert [guardrails.linear_active(size, total, step) for step in steps] == counts, f"{size} of {total}"


@pytest.mark.parametrize("total", COUNTS)
@pytest.mark.parametrize("kind", ["CANARY", "LINEAR", "ROLLING"])
def test_admission_counts_the_same_waits(kind: str, total: int) -> None:
    """MaximumExecutionTimeout is judged by the waits that the plan really has."""
    for type_, value in sizes(kind, total):
        config = policy(kind, type_=type_, value=value)
        waits = sum(step.wait_seconds for step in planned(config, total))
        if total > 1 or kind == "ROLLING":
            assert guardrails.wait_seconds(config, total) == waits, f"{kind} {type_} {value} of {total}"


@pytest.mark.parametrize("totals", [(1,), (2, 3), (1, 1), (4, 100)])
@pytest.mark.parametrize("kind", ["CANARY", "LINEAR"])
def test_a_start_counts_the_waits_of_shares_that_weights_split(kind: str, totals: tuple[int, ...]) -> None:
    """One instance, or several variants: more steps than whole instances would take, and a deadline before their end
    would turn back whatever is deployed."""
    counts = dict(zip("abc", totals, strict=False))
    config = policy(kind, value=10, wait=600, final=0)
    waits = sum(step.wait_seconds for step in planned(config, *totals))
    for timeout, fits in ((waits, False), (waits + 1, True)):
        config["blueGreenUpdatePolicy"]["maximumExecutionTimeoutInSeconds"] = timeout
        found = plans.too_long(config, counts)
        assert (found is None) == fits, found
    assert found is None
    assert plans.too_long(policy(kind, value=10, wait=3600), counts) is None, "no deadline of its own"


@pytest.mark.parametrize("total", COUNTS)
def test_all_at_once_is_one_step(total: int) -> None:
    [step] = planned(blue_green(final=11), total)
    assert (step.traffic_percent, step.wait_seconds) == (100, 11)
    [step] = planned({}, total)
    assert (step.traffic_percent, step.wait_seconds) == (100, 0)


@pytest.mark.parametrize("second", [1, 2, 3, 7, 50, 100])
@pytest.mark.parametrize("kind", ["CANARY", "LINEAR", "ROLLING"])
def test_variants_move_in_lock_step_within_the_asked_share(kind: str, second: int) -> None:
    for first in COUNTS:
        for value in (PERCENTS[kind][0], 13, 33, 50):
            steps = planned(policy(kind, value=value), first, second)
            shares = [step.traffic_percent for step in steps]
            assert shares == sorted(set(shares)), (first, second, value, shares)
            assert shares[-1] == 100
            if kind == "CANARY":
                assert shares[0] == value, "asked for by share, and several variants are split by weight"
            if kind == "LINEAR":
                assert shares == linear_parts(value), "so is each of equal steps"
                for step, share in zip(steps, shares, strict=True):
                    stored = {"a": math.ceil(first * share / 100), "b": math.ceil(second * share / 100)}
                    assert batches.new_of(step) == stored, (first, second, value)


def back_sizes(total: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Every size of a batch back that makes a difference to a variant of so many, and its instances."""
    yield from (({"type": "CAPACITY_PERCENT", "value": value}, max(1, total * value // 100)) for value in range(1, 101))
    yield from (({"type": "INSTANCE_COUNT", "value": value}, value) for value in range(1, total + 1))


def way_back(size: Mapping[str, Any], total: int, *, share: float = 100.0, replace_first: bool = False) -> list[float]:
    """The shares of the traffic of a rollback to so many instances, from the first to the last. With `replace_first`
    the size is that of a batch forward, which holds where none is said for the way back."""
    policy = {"maximumBatchSize" if replace_first else "rollbackMaximumBatchSize": size}
    shares = [share]
    while shares[-1] > 0:
        shares.append(batches.back_percent(policy, shares[-1], {"a": total}, replace_first=replace_first))
        assert shares[-1] < shares[-2], f"{size} of {total}: {shares}"
    return shares


@pytest.mark.parametrize("total", COUNTS)
def test_a_rolling_rollback_ends_at_nothing_in_its_batches(total: int) -> None:
    for size, batch in back_sizes(total):
        expected = [100 * max(0, total - batch * step) / total for step in range(math.ceil(total / batch) + 1)]
        for replace_first in (False, True):
            shares = way_back(size, total, replace_first=replace_first)
            assert shares == pytest.approx(expected, abs=0.01), f"{size} of {total}"
    assert batches.back_percent({}, 100.0, {"a": total}) == 0.0


@pytest.mark.parametrize(("new", "old"), [(5, 5), (30, 30), (4, 2), (9, 2), (2, 9), (100, 3), (3, 20), (100, 30)])
def test_the_old_instances_that_come_back_at_once_are_within_the_batch(new: int, old: int) -> None:
    """From each step forward, also to another count than the new one."""
    forward = [step.traffic_percent for step in batches.plan(rolling(5)["rollingUpdatePolicy"], {"a": new}, {"a": old})]
    for size, batch in back_sizes(old):
        for share in forward:
            back = way_back(size, old, share=share)
            stand = [batches.remaining({"a": old}, part / 100)["a"] for part in back]
            where = f"{size} of {old}: {stand}"
            assert stand[-1] == old, f"all of them come: {where}"
            assert all(0 <= after - before <= batch for before, after in pairwise(stand)), where
            rest = [old * (1 - part / 100) for part in back]
            assert all(there >= least - 0.01 for there, least in zip(stand, rest, strict=True)), f"enough: {where}"
            assert len(stand) - 1 == math.ceil(round(old * share / 100, 3) / batch), f"in no more batches: {where}"


@pytest.mark.parametrize("total", [*range(2, 21), 50, 99, 100])
def test_a_way_back_without_room_lets_a_batch_go_for_one_that_comes(total: int) -> None:
    for size, batch in back_sizes(total):
        back = way_back(size, total, replace_first=True)
        new = [batches.parts({"a": total}, share / 100)["a"] for share in back]
        old = [batches.remaining({"a": total}, share / 100, {"a": n})["a"] for share, n in zip(back, new, strict=True)]
        where = f"{size} of {total}: {new} {old}"
        assert (new[-1], old[-1]) == (0, total), where
        assert all(here + there == total for here, there in zip(new, old, strict=True)), where
        assert all(0 < before - after <= batch for before, after in pairwise(new)), where


def test_a_number_of_instances_is_the_smallest_share_that_it_is_of_a_variant() -> None:
    shares = [step.traffic_percent for step in planned(policy("CANARY", type_="INSTANCE_COUNT", value=1), 4, 10)]
    assert shares == [10, 100]
    shares = [step.traffic_percent for step in planned(policy("LINEAR", type_="INSTANCE_COUNT", value=3), 4, 10)]
    assert shares == [30, 60, 90, 100]


def test_a_batch_back_keeps_within_its_size_of_every_variant() -> None:
    held = {"rollbackMaximumBatchSize": {"type": "CAPACITY_PERCENT", "value": 50}}
    assert batches.back_percent(held, 100.0, {"a": 4, "b": 3}) == pytest.approx(66.6667), "one of three"
