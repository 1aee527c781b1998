"""Guardrail arithmetic over every size and policy, and the findings with their numbers."""

from typing import Any

import pytest

from sluice.core import guardrails


def _canary(kind: str, value: int, wait: int = 60, final: int = 30, timeout: int | None = None) -> dict[str, Any]:
    return _blue_green("CANARY", "canarySize", kind, value, wait, final, timeout)


def _linear(kind: str, value: int, wait: int = 60, final: int = 30, timeout: int | None = None) -> dict[str, Any]:
    return _blue_green("LINEAR", "linearStepSize", kind, value, wait, final, timeout)


def _blue_green(
    type_: str, member: str, kind: str, value: int, wait: int, final: int, timeout: int | None
) -> dict[str, Any]:
    routing = {"type": type_, member: {"type": kind, "value": value}, "waitIntervalInSeconds": wait}
    policy: dict[str, Any] = {"trafficRoutingConfiguration": routing, "terminationWaitInSeconds": final}
    if timeout is not None:
        policy["maximumExecutionTimeoutInSeconds"] = timeout
    return {"blueGreenUpdatePolicy": policy}


def _rolling(kind: str, value: int, wait: int = 60) -> dict[str, Any]:
    return {"rollingUpdatePolicy": {"maximumBatchSize": {"type": kind, "value": value}, "waitIntervalInSeconds": wait}}


@pytest.mark.parametrize("total", range(1, 101))
def test_linear_steps_are_monotonic_complete_and_bounded(total: int) -> None:
    for percent in range(10, 51):
        size = {"type": "CAPACITY_PERCENT", "value": percent}
        steps = guardrails.step_count(_linear("CAPACITY_PERCENT", percent), total)
        active = [guardrails.linear_active(size, total, step) for step in range(1, steps + 1)]
        assert active == sorted(set(active)), "every step moves traffic"
        assert active[-1] == total
        assert steps <= 10


@pytest.mark.parametrize("total", range(1, 101))
def test_rolling_batches_cover_the_fleet(total: int) -> None:
    for percent in range(5, 51):
        batch = guardrails.instances({"type": "CAPACITY_PERCENT", "value": percent}, total)
        steps = guardrails.step_count(_rolling("CAPACITY_PERCENT", percent), total)
        assert batch >= 1
        assert (steps - 1) * batch < total <= steps * batch


def test_the_one_documented_rounding() -> None:
    assert guardrails.instances({"type": "CAPACITY_PERCENT", "value": 33}, 3) == 1
    assert guardrails.step_count(_linear("CAPACITY_PERCENT", 33), 3) == 3


def test_linear_steps_round_up_so_that_ten_percent_takes_ten_steps_at_most() -> None:
    size = {"type": "CAPACITY_PERCENT", "value": 33}
    assert [guardrails.linear_active(size, 10, step) for step in (1, 2, 3)] == [4, 7, 10]


@pytest.mark.parametrize(
    ("config", "total", "seconds"),
    [
        (None, 4, 0),
        (_canary("CAPACITY_PERCENT", 25), 4, 90),
        (_canary("CAPACITY_PERCENT", 25), 1, 30),
        (_linear("CAPACITY_PERCENT", 25), 4, 3 * 60 + 30),
        (_linear("INSTANCE_COUNT", 2), 5, 2 * 60 + 30),
        (_rolling("INSTANCE_COUNT", 2), 5, 180),
    ],
)
def test_the_sum_of_the_waits(config: dict[str, Any] | None, total: int, seconds: int) -> None:
    assert guardrails.wait_seconds(config, total) == seconds


@pytest.mark.parametrize(
    ("config", "counts", "words"),
    [
        (_canary("INSTANCE_COUNT", 3), {"a": 4}, "found 3 instances for variant a of 4"),
        (_canary("INSTANCE_COUNT", 1), {"a": 1}, "use CAPACITY_PERCENT"),
        (_linear("INSTANCE_COUNT", 1), {"a": 20}, "here 2 to 10"),
        (_linear("INSTANCE_COUNT", 1), {"a": 15}, "here 2 to 7"),
        (_rolling("INSTANCE_COUNT", 6), {"a": 10}, "here 1 to 5"),
        (_rolling("INSTANCE_COUNT", 1), {"a": 30}, "here 2 to 15"),
        (_canary("INSTANCE_COUNT", 2), {"a": 4, "b": 2}, "variant b of 2"),
        (_linear("CAPACITY_PERCENT", 10, wait=100, timeout=900), {"a": 20}, "the waits alone take 930 s"),
        (
            _linear("CAPACITY_PERCENT", 10, wait=100, timeout=900),
            {"a": 20, "b": 2},
            "the waits alone take 930 s (variant a of 20 instances)",
        ),
        (_canary("CAPACITY_PERCENT", 10, wait=600, final=600, timeout=1200), {"a": 20}, "allowed is more than 1200"),
    ],
)
def test_findings_name_found_and_allowed(config: dict[str, Any], counts: dict[str, int], words: str) -> None:
    finding = guardrails.check(config, counts)
    assert finding is not None
    assert words in finding.text()
    assert finding.field.startswith("spec.deploymentConfig.")


@pytest.mark.parametrize(
    ("config", "counts"),
    [
        (_canary("INSTANCE_COUNT", 2), {"a": 4}),
        (_linear("INSTANCE_COUNT", 2), {"a": 20}),
        (_rolling("INSTANCE_COUNT", 5), {"a": 10}),
        (_canary("INSTANCE_COUNT", 3), {}),
        (_linear("CAPACITY_PERCENT", 10, wait=100, timeout=931), {"a": 20}),
    ],
)
def test_what_is_allowed(config: dict[str, Any], counts: dict[str, int]) -> None:
    assert guardrails.check(config, counts) is None


def test_rolling_takes_one_variant() -> None:
    finding = guardrails.check_variants(_rolling("INSTANCE_COUNT", 1), ["a", "b"], ["a", "b"])
    assert finding is not None
    assert "2 variants" in finding.message
