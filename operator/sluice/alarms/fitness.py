"""Decides whether a CloudWatch alarm can ever tell anything of an Endpoint in the cluster. Pure.

SageMaker publishes its metrics for its own endpoints only, so an alarm on them never fires here. A composite alarm is
judged by what its rule can still come to when such alarms stay as they are: only one that can never be true is unfit.
One that is always true is not: it fires, which stops a deployment, and its message says why. What is not known (an
alarm of another account, one that could not be read, a rule of another grammar) is taken to be able to do anything.

Only states are read, so whether actions are enabled or suppressed does not matter."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sluice.alarms import rules
from sluice.alarms.subjects import ALARM, INSUFFICIENT_DATA, OK

Alarm = Mapping[str, Any]
"""As DescribeAlarms has it."""

DEEPEST: Final = 8
"""Composite alarms in composite alarms are followed so far."""
_MOST_NAMED: Final = 3
_SAGEMAKERS: Final = ("AWS/SageMaker", "/aws/sagemaker/")
"""What the namespaces of SageMaker's own metrics begin with."""
_WITHOUT_DATA: Final[Mapping[str, str]] = {"breaching": ALARM, "notBreaching": OK, "missing": INSUFFICIENT_DATA}
"""TreatMissingData -> the state of an alarm whose metric never has data; with `ignore` it stays what it is."""
_ADVICE: Final = "Use kubernetes.alarms, or an alarm on metrics that the cluster publishes"


@dataclass(frozen=True, slots=True)
class Fitness:
    """What is to be known of an alarm beside its state."""

    unfit: str | None = None
    """Why it can never fire."""
    note: str | None = None
    """What of it tells nothing, although it can fire."""


@dataclass(frozen=True, slots=True)
class _Outlook:
    """The states in which an alarm can come to be, and what in it or below it tells nothing, each with its name."""

    states: frozenset[str] = rules.STATES
    silent: tuple[str, ...] = ()


_ANYTHING: Final = _Outlook()


def judge(name: str, known: Mapping[str, Alarm | None], region: str) -> Fitness:
    """`known`: the alarms that were read, by name; None: CloudWatch has no such alarm in this region."""
    alarm = known.get(name)
    if alarm is None:
        return Fitness()
    if not is_composite(alarm):
        silent = _foreign(alarm)
        return Fitness(f"it {silent}: it would never fire. {_ADVICE}" if silent else None)
    family = _Family(known, region)
    circle = family.circle(name)
    if circle:
        return Fitness(f"CloudWatch evaluates no alarm whose rule leads back to itself: {circle}")
    outlook = family.composite(name, alarm, 0)
    children = _listed(outlook.silent)
    if ALARM not in outlook.states:
        return Fitness(
            f"its rule is false whatever happens, it would never fire{children and f': {children}'}. {_ADVICE}"
        )
    if outlook.states == {ALARM}:
        return Fitness(note=f"its rule is true whatever happens{children and f': {children}'}")
    return Fitness(note=f"a part of its rule tells nothing: {children}" if children else None)


def is_composite(alarm: Alarm) -> bool:
    """Whether it has a rule in place of a metric."""
    return "AlarmRule" in alarm


def children(alarm: Alarm) -> tuple[str, ...]:
    """The names of the alarms of its own account and region that its rule asks for; none for a metric alarm, or if the
    rule is not understood."""
    try:
        named = rules.references(rules.parse(str(alarm["AlarmRule"]))) if is_composite(alarm) else ()
        return tuple(dict.fromkeys(name for name in (_name(one, alarm) for one in named) if name is not None))
    except rules.NotUnderstood:
        return ()


class _Family:
    """The alarms that are known, and what has been found of them."""

    def __init__(self, known: Mapping[str, Alarm | None], region: str) -> None:
        self._known = known
        self._region = region
        self._found: dict[str, _Outlook] = {}

    def circle(self, name: str) -> str:
        """How the rules lead from this alarm back to it, in names; empty: they do not."""
        came_from: dict[str, str] = {}
        ahead = [name]
        while ahead:
            here = ahead.pop()
            for child in children(self._known.get(here) or {}):
                if child == name:
                    return " -> ".join((*reversed(tuple(_back(here, came_from))), name))
                if child not in came_from:
                    came_from[child] = here
                    ahead.append(child)
        return ""

    def composite(self, name: str, alarm: Alarm, depth: int) -> _Outlook:
        """Of an alarm that is in no circle."""
        try:
            rule = rules.parse(str(alarm["AlarmRule"]))
        except rules.NotUnderstood:
            return _ANYTHING
        silent = tuple(dict.fromkeys(line for child in children(alarm) for line in self._outlook(child, depth).silent))

        def states(reference: str) -> frozenset[str]:
            child = _name(reference, alarm)
            return rules.STATES if child is None else self._outlook(child, depth).states

        outcomes = rules.outcomes(rule, states)
        if len(outcomes) == 2:
            return _Outlook(silent=silent)
        (value,) = outcomes
        if depth and not silent:
            silent = (f"the rule of alarm {name} is {str(value).lower()} whatever happens",)
        return _Outlook(frozenset({ALARM if value else OK}), silent)

    def _outlook(self, name: str, depth: int) -> _Outlook:
        if name not in self._found:
            self._found[name] = self._look(name, depth + 1)
        return self._found[name]

    def _look(self, name: str, depth: int) -> _Outlook:
        if name not in self._known or depth > DEEPEST:
            return _ANYTHING
        alarm = self._known[name]
        if alarm is None:
            return _Outlook(frozenset(), (f"there is no alarm {name} in {self._region}",))
        if not is_composite(alarm):
            silent = _foreign(alarm)
            return _Outlook(frozenset({_settled(alarm)}), (f"alarm {name} {silent}",)) if silent else _ANYTHING
        circle = self.circle(name)
        if circle:
            line = f"CloudWatch does not evaluate alarm {name}, whose rule leads back to itself: {circle}"
            return _Outlook(frozenset({str(alarm["StateValue"])}), (line,))
        return self.composite(name, alarm, depth)


def _name(reference: str, parent: Alarm) -> str | None:
    """The name in a name or an ARN; None: of another account or region."""
    if not reference.startswith("arn:"):
        return reference
    place, _, name = reference.partition(":alarm:")
    return name if place == str(parent.get("AlarmArn")).partition(":alarm:")[0] else None


def _back(name: str, came_from: Mapping[str, str]) -> Iterator[str]:
    while True:
        yield name
        if name not in came_from:
            return
        name = came_from[name]


def _foreign(alarm: Alarm) -> str:
    """What of it is SageMaker's, in words; empty: nothing."""
    of_math = (metric.get("MetricStat", {}).get("Metric", {}).get("Namespace") for metric in alarm.get("Metrics", ()))
    spaces = sorted({str(space) for space in (alarm.get("Namespace"), *of_math) if space})
    foreign = next((space for space in spaces if space.startswith(_SAGEMAKERS)), None)
    if foreign is None:
        return ""
    return f"looks at metrics of {foreign}, which SageMaker does not publish for Endpoints in the cluster"


def _settled(alarm: Alarm) -> str:
    """The state in which an alarm without data stays."""
    return _WITHOUT_DATA.get(str(alarm.get("TreatMissingData") or "missing"), str(alarm["StateValue"]))


def _listed(lines: Sequence[str]) -> str:
    more = f" and {len(lines) - _MOST_NAMED} more" if len(lines) > _MOST_NAMED else ""
    return "; ".join(lines[:_MOST_NAMED]) + more
