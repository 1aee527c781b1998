"""Which CloudWatch alarms can never tell anything of an Endpoint in the cluster, and in which words that is said."""

from collections.abc import Mapping
from typing import Any

import pytest

from sluice.alarms.fitness import DEEPEST, Fitness, children, judge

HERE = "arn:aws:cloudwatch:eu-west-1:111122223333"


def metric(space: str = "Shop", state: str = "OK", **rest: Any) -> dict[str, Any]:
    return {"Namespace": space, "StateValue": state, **rest}


def composite(rule: str, state: str = "OK", **rest: Any) -> dict[str, Any]:
    return {"AlarmArn": f"{HERE}:alarm:whatever", "AlarmRule": rule, "StateValue": state, **rest}


def judged(rule: str, **more: Mapping[str, Any] | None) -> Fitness:
    """Of an alarm `top`, beside `own`, which looks at the shop's metrics, and `theirs`, which looks at SageMaker's."""
    known = {"top": composite(rule), "own": metric(), "theirs": metric("AWS/SageMaker"), "gone": None, **more}
    return judge("top", known, "eu-west-1")


THEIRS = "alarm theirs looks at metrics of AWS/SageMaker, which SageMaker does not publish for Endpoints in the cluster"
GONE = "there is no alarm gone in eu-west-1"


@pytest.mark.parametrize(
    ("rule", "children"),
    [
        ("ALARM(theirs)", THEIRS),
        (f'ALARM("{HERE}:alarm:theirs")', THEIRS),
        ("ALARM(theirs) AND ALARM(own)", THEIRS),
        ("ALARM(own) AND OK(theirs)", THEIRS),  # It has no data, so it is not OK either.
        ("AT_LEAST(2, ALARM, (own, theirs))", THEIRS),
        ("ALARM(gone)", GONE),
        ("OK(gone) OR ALARM(theirs)", f"{GONE}; {THEIRS}"),
        ("FALSE", ""),
        ("ALARM(own) AND FALSE", ""),
        ("ALARM(own) AND NOT TRUE", ""),
    ],
)
def test_a_rule_that_can_never_be_true_is_unfit_and_says_by_whom(rule: str, children: str) -> None:
    unfit = judged(rule).unfit or ""
    assert unfit.startswith("its rule is false whatever happens, it would never fire")
    assert "Use kubernetes.alarms" in unfit
    assert children in unfit
    assert ("theirs" in unfit, "gone" in unfit) == ("theirs" in children, "gone" in children)


@pytest.mark.parametrize(
    ("rule", "note"),
    [
        ("ALARM(own)", None),
        ("ALARM(own) OR FALSE", None),
        ("NOT ALARM(own) AND TRUE", None),
        ("ALARM(theirs) OR ALARM(own)", f"a part of its rule tells nothing: {THEIRS}"),
        ("ALARM(own) AND NOT ALARM(theirs)", f"a part of its rule tells nothing: {THEIRS}"),
        ("ALARM(gone) OR ALARM(own)", f"a part of its rule tells nothing: {GONE}"),
        ("TRUE", "its rule is true whatever happens"),
        ("ALARM(own) OR TRUE", "its rule is true whatever happens"),
        ("INSUFFICIENT_DATA(theirs)", f"its rule is true whatever happens: {THEIRS}"),
    ],
)
def test_one_that_can_fire_is_not_and_what_tells_nothing_is_noted(rule: str, note: str | None) -> None:
    assert judged(rule) == Fitness(note=note)


@pytest.mark.parametrize(
    ("treats", "state", "fits"),
    [
        ("missing", "OK", "INSUFFICIENT_DATA"),
        (None, "OK", "INSUFFICIENT_DATA"),
        ("notBreaching", "INSUFFICIENT_DATA", "OK"),
        ("breaching", "INSUFFICIENT_DATA", "ALARM"),
        ("ignore", "OK", "OK"),
        ("ignore", "INSUFFICIENT_DATA", "INSUFFICIENT_DATA"),
    ],
)
def test_an_alarm_without_data_stays_what_it_makes_of_missing_data(treats: str | None, state: str, fits: str) -> None:
    theirs = metric("/aws/sagemaker/Endpoints", state, **({"TreatMissingData": treats} if treats else {}))
    able = {
        one for one in ("OK", "ALARM", "INSUFFICIENT_DATA") if judged(f"{one}(theirs)", theirs=theirs).unfit is None
    }
    assert able == {fits}


def test_metric_alarms() -> None:
    math = {"Metrics": [{"Expression": "m"}, {"MetricStat": {"Metric": {"Namespace": "/aws/sagemaker/Endpoints"}}}]}
    known = {"own": metric(), "theirs": metric("AWS/SageMaker"), "math": {"StateValue": "OK", **math}, "gone": None}
    assert judge("own", known, "r") == judge("gone", known, "r") == judge("unread", known, "r") == Fitness()
    for name, space in {"theirs": "AWS/SageMaker", "math": "/aws/sagemaker/Endpoints"}.items():
        unfit = judge(name, known, "r").unfit or ""
        assert unfit.startswith(f"it looks at metrics of {space}, which SageMaker does not publish")


def test_a_composite_alarm_in_a_composite_alarm() -> None:
    assert THEIRS in (judged("ALARM(below)", below=composite("ALARM(theirs)")).unfit or "")
    assert judged("OK(below)", below=composite("ALARM(theirs)")).note == f"its rule is true whatever happens: {THEIRS}"
    assert judged("ALARM(below)", below=composite("ALARM(theirs) OR ALARM(own)")).note is not None
    assert judged("ALARM(below)", below=composite("ALARM(own)")) == Fitness()
    unfit = judged("ALARM(below) AND ALARM(own)", below=composite("FALSE")).unfit
    assert "the rule of alarm below is false whatever happens" in (unfit or "")


def test_a_circle_is_evaluated_by_nobody() -> None:
    assert (judged("ALARM(top) OR ALARM(own)").unfit or "").endswith("leads back to itself: top -> top")
    way = {"b": composite("OK(own) OR ALARM(c)"), "c": composite("NOT ALARM(top)")}
    assert (judged("ALARM(own) OR ALARM(b)", **way).unfit or "").endswith("top -> b -> c -> top")
    apart = {"b": composite("ALARM(c)"), "c": composite("ALARM(b)")}
    line = "CloudWatch does not evaluate alarm b, whose rule leads back to itself: b -> c -> b"
    assert line in (judged("ALARM(b)", **apart).unfit or "")
    assert judged("ALARM(b) OR ALARM(own)", **apart).note == f"a part of its rule tells nothing: {line}"
    stuck = {"b": composite("ALARM(c)", "ALARM"), "c": composite("ALARM(b)")}
    assert judged("ALARM(b)", **stuck).unfit is None


@pytest.mark.parametrize(
    "rule",
    [
        "ALARM(unread)",
        'ALARM("arn:aws:cloudwatch:eu-west-1:999999999999:alarm:theirs")',
        'ALARM("arn:aws:cloudwatch:us-east-1:111122223333:alarm:theirs")',
        "UNHEARD_OF(theirs)",
        "",
    ],
)
def test_what_is_not_known_can_do_anything(rule: str) -> None:
    assert judged(rule) == Fitness()


def test_alarms_are_followed_so_deep_and_no_deeper() -> None:
    def chain(length: int) -> Fitness:
        steps = {f"s{n}": composite(f"ALARM(s{n + 1})") for n in range(length)}
        return judged("ALARM(s0)", **steps, **{f"s{length}": metric("AWS/SageMaker")})

    assert chain(DEEPEST - 1).unfit is not None
    assert chain(DEEPEST) == Fitness()
    assert chain(400) == Fitness()


def test_wide_and_deep_families_are_judged_at_once() -> None:
    """Each level asks twice for all of the next: without a memory that is 20 to the power of 8 looks."""
    names = {level: [f"l{level}-{n}" for n in range(10)] for level in range(1, DEEPEST)}
    rules = {level: " OR ".join(f"ALARM({name}) OR OK({name})" for name in names[level]) for level in names}
    known = {name: composite(rules.get(level + 1, "ALARM(own)")) for level in names for name in names[level]}
    assert judged(rules[1], **known) == Fitness()


def test_many_are_not_all_named() -> None:
    many = {f"m{n}": metric("AWS/SageMaker") for n in range(5)}
    unfit = judged(" OR ".join(f"ALARM({name})" for name in many), **many).unfit or ""
    assert [name for name in many if name in unfit] == ["m0", "m1", "m2"]
    assert "and 2 more" in unfit


def test_only_states_are_read_so_actions_do_not_matter() -> None:
    """Neither disabled ones nor a suppressor, which holds back actions and no state."""
    top = composite("ALARM(own)", ActionsEnabled=False, ActionsSuppressor="theirs", ActionsSuppressedBy="Alarm")
    known = {"top": top, "own": metric(ActionsEnabled=False), "theirs": metric("AWS/SageMaker")}
    assert judge("top", known, "eu-west-1") == Fitness()
    assert children(top) == ("own",)


def test_the_children_of_an_alarm() -> None:
    rule = f'ALARM(a) AND (OK("{HERE}:alarm:b c") OR ALARM(a)) AND NOT ALARM("arn:aws:cloudwatch:x:1:alarm:d")'
    assert children(composite(rule)) == ("a", "b c")
    assert children(composite("UNHEARD_OF(a)")) == children(metric()) == ()
