"""The plans of deployments, for every instance count from 1 to 100, every size and every policy: steps add up, grow,
stay within SageMaker's limits and end complete. What is expected is said anew here, not taken from the code."""

import math
from collections.abc import Iterator, Mapping
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
            assert [step.wait_seconds for step in steps] == [7] * (len(steps) - 1) + [11], where
        else:
            batch = max(1, asked)
            assert len(steps) == math.ceil(total / batch), where
            assert [step.wait_seconds for step in steps] == [7] * len(steps), "it bakes after the last batch too"
            for before, after in zip([0, *(batches.new_of(s)["a"] for s in steps)], steps, strict=False):
                assert 0 < batches.new_of(after)["a"] - before <= batch, where
                assert batches.new_of(after)["a"] + batches.old_of(after)["a"] == total, where


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
                assert len(steps) == math.ceil(100 / value)


@pytest.mark.parametrize("total", COUNTS)
def test_a_rolling_rollback_ends_at_nothing_in_its_batches(total: int) -> None:
    for value in (1, 5, 10, 33, 50, 99, 100):
        held = {"rollbackMaximumBatchSize": {"type": "CAPACITY_PERCENT", "value": value}}
        percent, steps = 100.0, 0
        while percent > 0:
            after = batches.back_percent(held, percent, {"a": total})
            assert after < percent, (total, value, percent)
            assert (percent - after) * total / 100 <= max(1, total * value // 100) + 0.01, (total, value)
            percent, steps = after, steps + 1
            assert steps <= total
    assert batches.back_percent({}, 100.0, {"a": total}) == 0.0


def test_a_number_of_instances_is_the_smallest_share_that_it_is_of_a_variant() -> None:
    shares = [step.traffic_percent for step in planned(policy("CANARY", type_="INSTANCE_COUNT", value=1), 4, 10)]
    assert shares == [10, 100]


def test_a_batch_back_keeps_within_its_size_of_every_variant() -> None:
    held = {"rollbackMaximumBatchSize": {"type": "CAPACITY_PERCENT", "value": 50}}
    assert batches.back_percent(held, 100.0, {"a": 4, "b": 3}) == pytest.approx(66.6667), "one of three"
