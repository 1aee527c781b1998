"""Draws how one deployment went as an SVG: its stages, who answered, and the instances that stood ready. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import groupby

WIDTH, LEFT, RIGHT = 960, 112, 16
STAGES_AT, STAGES_HIGH = 44, 24
TRAFFIC_AT, TRAFFIC_HIGH = 84, 130
INSTANCES_AT, INSTANCES_HIGH = 240, 70
HEIGHT = 372
BIN_SECONDS = 0.5
"""Answers are counted over so long for one point of the picture."""
OLD, NEW, ERRORS, INK = "#4c78a8", "#f58518", "#d62728", "#222222"
FILLS = {
    "": "#ececec",
    "Provisioning": "#dfe7f1",
    "Shifting": "#ffe0b8",
    "Baking": "#ffefb8",
    "FinalBaking": "#e6f3c8",
    "CleaningUp": "#d9ead9",
    "RollingBack": "#f8c8c8",
}
LETTER = 6.4
"""The width of a letter of the labels, about."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What was seen at one moment."""

    seconds: float
    """Since the recording began."""
    stage: str
    """Empty: nothing is deployed."""
    new_percent: float
    """The new revision's share by the Endpoint's status."""
    old_ready: int
    new_ready: int
    """Ready instances."""
    old_answers: int
    new_answers: int
    errors: int
    """Answers since the sample before; errors are the new revision's."""


@dataclass(frozen=True, slots=True)
class Point:
    """Shares of the answers within a span of seconds, each 0 to 1."""

    began: float
    ended: float
    old: float
    new: float
    errors: float


def draw(title: str, samples: Sequence[Sample]) -> str:
    """The picture. There is at least one sample."""
    end = max(samples[-1].seconds, 1.0)

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / end

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'font-family="sans-serif" font-size="12" fill="{INK}">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(LEFT, 24, title, size=15),
        *_stages(samples, x, end),
        *_traffic(samples, x),
        *_instances(samples, x, end),
        *_seconds(x, end),
        *_legend(any(one.errors for one in samples)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def stages(samples: Sequence[Sample], end: float) -> Iterator[tuple[str, float, float]]:
    """Each stage with its first second and the first of the next one."""
    runs = [(stage, next(iter(group)).seconds) for stage, group in groupby(samples, key=lambda one: one.stage)]
    for place, (stage, began) in enumerate(runs):
        yield stage, began, runs[place + 1][1] if place + 1 < len(runs) else end


def shares(samples: Sequence[Sample]) -> Iterator[Point]:
    """The answers' shares, one point for each span in which there were any."""
    for number, group in groupby(samples, key=lambda one: int(one.seconds / BIN_SECONDS)):
        members = list(group)
        old, new, errors = (
            sum(getattr(one, name) for one in members) for name in ("old_answers", "new_answers", "errors")
        )
        total = old + new + errors
        if total:
            began = number * BIN_SECONDS
            ended = min(began + BIN_SECONDS, samples[-1].seconds)
            yield Point(began, ended, old / total, new / total, errors / total)


def _stages(samples: Sequence[Sample], x: Callable[[float], float], end: float) -> Iterator[str]:
    yield _text(LEFT - 8, STAGES_AT + 16, "stage", anchor="end")
    for stage, began, ended in stages(samples, end):
        wide, label = x(ended) - x(began), stage or "in service"
        yield (
            f'<rect x="{x(began):.1f}" y="{STAGES_AT}" width="{wide:.1f}" height="{STAGES_HIGH}" '
            f'fill="{FILLS[stage]}" stroke="#ffffff"><title>{label}, {ended - began:.1f} s</title></rect>'
        )
        if wide > len(label) * LETTER:
            yield _text((x(began) + x(ended)) / 2, STAGES_AT + 16, label, anchor="middle", size=11)


def _traffic(samples: Sequence[Sample], x: Callable[[float], float]) -> Iterator[str]:
    def y(share: float) -> float:
        return TRAFFIC_AT + TRAFFIC_HIGH * (1 - share)

    yield from _scale("answers", [("0 %", y(0)), ("50 %", y(0.5)), ("100 %", y(1))])
    points = list(shares(samples))
    for colour, low, high in (
        (OLD, lambda point: 0.0, lambda point: point.old),
        (NEW, lambda point: point.old, lambda point: point.old + point.new),
        (ERRORS, lambda point: point.old + point.new, lambda point: 1.0),
    ):
        above = [(x(at), y(high(point))) for point in points for at in (point.began, point.ended)]
        below = [(x(at), y(low(point))) for point in reversed(points) for at in (point.ended, point.began)]
        corners = " ".join(f"{across:.1f},{down:.1f}" for across, down in (*above, *below))
        yield f'<polygon points="{corners}" fill="{colour}" fill-opacity="0.55"/>'
    # What the status says, as the border that it should make: the old revision below, the new one above.
    border = _steps([(one.seconds, 1 - one.new_percent / 100) for one in samples], x, y)
    yield f'<polyline points="{border}" fill="none" stroke="{INK}" stroke-width="1.3" stroke-dasharray="4 3"/>'


def _instances(samples: Sequence[Sample], x: Callable[[float], float], end: float) -> Iterator[str]:
    most = max(max(one.old_ready, one.new_ready) for one in samples) or 1

    def y(count: float) -> float:
        return INSTANCES_AT + INSTANCES_HIGH * (1 - count / most)

    yield from _scale("ready", [("0", y(0)), (str(most), y(most))])
    for colour, counts in (
        (OLD, [(one.seconds, float(one.old_ready)) for one in samples]),
        (NEW, [(one.seconds, float(one.new_ready)) for one in samples]),
    ):
        line = _steps([*counts, (end, counts[-1][1])], x, y)
        yield f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2.2"/>'


def _seconds(x: Callable[[float], float], end: float) -> Iterator[str]:
    every = next(step for step in (2, 5, 10, 20, 60, 120, 600) if end / step <= 14 or step == 600)
    bottom = INSTANCES_AT + INSTANCES_HIGH
    for second in range(0, int(end) + 1, every):
        yield _line((x(second), bottom), (x(second), bottom + 5), "")
        yield _text(x(second), bottom + 18, f"{second} s", anchor="middle", size=11)


def _legend(has_errors: bool) -> Iterator[str]:
    at, down = float(LEFT), HEIGHT - 16
    entries = [
        (OLD, "old revision"),
        (NEW, "new revision"),
        *([(ERRORS, "errors of the new one")] if has_errors else []),
    ]
    for colour, words in entries:
        yield f'<rect x="{at:.1f}" y="{down - 10}" width="12" height="12" fill="{colour}" fill-opacity="0.7"/>'
        yield _text(at + 17, down, words)
        at += 40 + len(words) * LETTER
    yield _line((at, down - 4), (at + 22, down - 4), 'stroke-dasharray="4 3"')
    yield _text(at + 28, down, "the split by status.deployment.trafficPercent")


def _scale(what: str, marks: Sequence[tuple[str, float]]) -> Iterator[str]:
    yield _text(4, sum(down for _, down in marks) / len(marks) + 4, what)
    for label, down in marks:
        yield _line((LEFT, down), (WIDTH - RIGHT, down), 'stroke-opacity="0.2"')
        yield _text(LEFT - 8, down + 4, label, anchor="end", size=11)


def _steps(values: Sequence[tuple[float, float]], x: Callable[[float], float], y: Callable[[float], float]) -> str:
    """A line that stays level until a value changes."""
    corners: list[str] = []
    for place, (seconds, value) in enumerate(values):
        if place and value != values[place - 1][1]:
            corners.append(f"{x(seconds):.1f},{y(values[place - 1][1]):.1f}")
        if not place or value != values[place - 1][1] or place == len(values) - 1:
            corners.append(f"{x(seconds):.1f},{y(value):.1f}")
    return " ".join(corners)


def _line(start: tuple[float, float], end: tuple[float, float], more: str) -> str:
    (x1, y1), (x2, y2) = start, end
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{INK}" {more}/>'


def _text(across: float, down: float, words: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{across:.1f}" y="{down:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(words)}</text>'
