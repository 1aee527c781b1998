"""What a person looks at: one table that changes in place, or plain lines where there is no terminal."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from rich import box
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from demo.caller import Tally
from demo.picture import STAGES, Picture
from demo.watcher import Event

WIDTH = 100
BAR = 40
ANSWERS_BAR = 32
"""Beside it stand names and shares of those who answer."""
SHOWN_EVENTS = 6
VARIANTS = ("blue", "yellow", "magenta", "cyan")
FILLS = ("█", "▒", "▓", "░")
COLOURS = {
    "InService": "green",
    "Failed": "red",
    "UpdateRollbackFailed": "red",
    "OK": "green",
    "ALARM": "bold white on red",
}


@dataclass(slots=True)
class Chapter:
    """One step of the story and how far it is."""

    title: str
    began: float | None = None
    took: float | None = None
    failed: bool = False


@dataclass(slots=True)
class Show:
    """Everything the screen is drawn from. The story writes it, the screen reads it."""

    title: str
    chapters: list[Chapter]
    look: Callable[[], Picture]
    look_at_events: Callable[[], Iterable[Event]]
    seconds_until: Callable[[datetime], float]
    tally: Callable[[], Tally] | None = None
    """Who answers, where somebody asks."""
    command: str = ""
    began: float = field(default_factory=time.monotonic)
    longest_bake: dict[datetime, float] = field(default_factory=dict)

    def draw(self) -> RenderableType:
        """The whole screen as it is now."""
        seen = self.look()
        return Group(
            self._head(),
            Panel(self._endpoint(seen), title="Endpoint", title_align="left", box=box.ROUNDED, border_style="cyan"),
            self._story(),
            Panel(self._events(), title="Events", title_align="left", box=box.ROUNDED, border_style="bright_black"),
        )

    def _head(self) -> RenderableType:
        line = Table.grid(expand=True)
        line.add_column(ratio=1)
        line.add_column(justify="right")
        passed = int(time.monotonic() - self.began)
        line.add_row(Text(self.title, "bold"), Text(f"{passed // 60:02d}:{passed % 60:02d}", "bright_black"))
        return line

    def _endpoint(self, seen: Picture) -> RenderableType:
        rows = Table.grid(padding=(0, 2), expand=True)
        rows.add_column(style="bright_black", width=10)
        rows.add_column(ratio=1)
        rows.add_row("status", self._status(seen))
        rows.add_row(
            "serves", Text(f"{seen.revision or '-'}   {', '.join(seen.images)}", overflow="ellipsis", no_wrap=True)
        )
        rows.add_row("deploys", self._deploys(seen))
        rows.add_row("stage", self._stage(seen))
        rows.add_row("traffic", self._traffic(seen))
        rows.add_row("bake", self._bake(seen))
        if self.tally is not None:
            rows.add_row("weights", _weights(seen))
            rows.add_row("answers", _answers(self.tally()))
        alarms = Text("  ").join(Text.assemble(name, " ", _coloured(state)) for name, state in seen.alarms)
        rows.add_row("alarms", alarms if seen.alarms else Text("-"))
        message = seen.ready.message or seen.reconciling.message or seen.stalled.message
        # Two lines, whatever the message is: a table that jumps is no pleasure to watch.
        rows.add_row("message", _lines(message, 2, WIDTH - 20))
        return rows

    def _status(self, seen: Picture) -> Text:
        if not seen.exists:
            return Text("not there yet", "bright_black")
        word = Text(f"{seen.endpoint_status or '-':<15}", COLOURS.get(seen.endpoint_status, "yellow") + " bold")
        ready = Text(
            f"Ready {seen.ready.status:<6}", {"True": "green", "False": "red"}.get(seen.ready.status, "yellow")
        )
        reason = Text(f"{seen.ready.reason:<20}")
        serving = Text(f"Serving {seen.serving.status:<6}", "green" if seen.serving.status == "True" else "yellow")
        stalled = Text("Stalled", "bold red") if seen.stalled.status == "True" else Text("")
        return Text("  ").join([word, ready, reason, serving, stalled])

    def _deploys(self, seen: Picture) -> Text:
        if seen.deployment is None:
            last = Text("-")
            if seen.outcome:
                cause = f" by {seen.cause}" if seen.cause not in ("", "None") else ""
                last = Text(f"-   (the last one: {seen.outcome}{cause})", "bright_black")
            return last
        images = ", ".join(seen.deployment.images)
        return Text(f"{seen.deployment.revision}   {images}", "yellow", overflow="ellipsis", no_wrap=True)

    def _stage(self, seen: Picture) -> Text:
        going = seen.deployment
        if going is None:
            return Text(" > ".join(STAGES), "bright_black")
        if going.stage not in STAGES:
            return Text(going.stage, "bold red")
        at = STAGES.index(going.stage)
        words = [
            Text(name, "green" if place < at else "bold black on yellow" if place == at else "bright_black")
            for place, name in enumerate(STAGES)
        ]
        return Text.assemble(Text(" > ", "bright_black").join(words), f"   {going.policy} {going.step}")

    def _traffic(self, seen: Picture) -> Text:
        if not seen.revision:
            return Text("-")
        new = seen.deployment.traffic_percent if seen.deployment else 0.0
        cells = round(BAR * new / 100)
        bar = Text.assemble(("█" * (BAR - cells), "blue"), ("▒" * cells, "yellow"))
        if seen.deployment is None:
            return Text.assemble(bar, ("  all on the serving revision", "blue"))
        return Text.assemble(bar, (f"  old {100 - new:g} %", "blue"), "  ", (f"new {new:g} %", "yellow"))

    def _bake(self, seen: Picture) -> Text:
        until = seen.deployment.bake_until if seen.deployment else None
        if until is None:
            return Text("-")
        left = max(0.0, self.seconds_until(until))
        whole = self.longest_bake.setdefault(until, max(left, 1.0))
        cells = round(BAR * min(1.0, 1 - left / whole))
        return Text.assemble(("█" * cells, "green"), ("░" * (BAR - cells), "bright_black"), f"  {left:.0f} s left")

    def _story(self) -> RenderableType:
        rows = Table.grid(padding=(0, 1))
        for chapter in self.chapters:
            if chapter.failed:
                mark, style = "✘", "red"
            elif chapter.took is not None:
                mark, style = "✔", "green"
            elif chapter.began is not None:
                mark, style = "▸", "bold yellow"
            else:
                mark, style = "·", "bright_black"
            took = f"{chapter.took:.0f} s" if chapter.took is not None else ""
            rows.add_row(Text(f" {mark}", style), Text(chapter.title, style), Text(took, "bright_black"))
        return Group(rows, self._command())

    def _command(self) -> Text:
        """The command that was run last, in two lines."""
        words = f"$ {self.command}" if self.command else ""
        wide = WIDTH - 6
        return Text(f"   {words[:wide]}\n     {_cut(words[wide:], wide - 2).plain}", "cyan")

    def _events(self) -> RenderableType:
        recent = list(self.look_at_events())[-SHOWN_EVENTS:]
        rows = Table.grid(padding=(0, 2))
        for event in recent:
            rows.add_row(
                Text(event.time[11:19], "bright_black"),
                Text(event.reason, "red" if event.warning else "green"),
                _cut(event.message, WIDTH - 44),
            )
        for _ in range(SHOWN_EVENTS - len(recent)):
            rows.add_row("", "", "")
        return rows

    def frame(self) -> str:
        """The screen as plain text."""
        output = io.StringIO()
        console = Console(file=output, width=WIDTH, color_system=None, force_terminal=False, legacy_windows=False)
        console.print(self.draw())
        return "\n".join(line.rstrip() for line in output.getvalue().splitlines())


class LiveScreen:
    """Draws the show in place, eight times a second."""

    def __init__(self, console: Console, show: Show) -> None:
        self._live = Live(
            console=console, get_renderable=show.draw, refresh_per_second=8, transient=False, vertical_overflow="crop"
        )

    def __enter__(self) -> LiveScreen:
        self._live.start(refresh=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()


class Lines:
    """Writes a line whenever what a person would see has changed, and calls `changed` with it."""

    def __init__(self, show: Show, write: Callable[[str], None], changed: Callable[[Picture], None]) -> None:
        self._show, self._write, self._changed = show, write, changed
        self._last = ""
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="lines", daemon=True)

    def say(self, text: str) -> None:
        """A line of the story itself, after all that could be seen before it."""
        self._look()
        with self._lock:
            self._write(self._stamped(text))

    def __enter__(self) -> Lines:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(5)

    def _follow(self) -> None:
        while not self._ending.wait(0.1):
            self._look()

    def _look(self) -> None:
        seen = self._show.look()
        words = seen.words()
        with self._lock:
            if words != self._last:
                self._last = words
                self._write(self._stamped(f"    {words}"))
                self._changed(seen)

    def _stamped(self, text: str) -> str:
        passed = time.monotonic() - self._show.began
        return f"{int(passed) // 60:02d}:{passed % 60:04.1f}  {text}"


def _weights(seen: Picture) -> Text:
    """Each variant's weight as its object says, in the colour of its answers."""
    words = [
        Text(f"{one.name} {one.weight:g} on {one.instances}", VARIANTS[place % len(VARIANTS)])
        for place, one in enumerate(seen.variants)
        if one.weight is not None
    ]
    return Text("   ").join(words) if words else Text("-")


def _answers(tally: Tally) -> Text:
    """The answers' bar by variant, as counted, and how many there were."""
    if not tally.total:
        return Text("-")
    bar, words, drawn = Text(), Text(), 0
    for place, name in enumerate(tally.expected):
        colour = VARIANTS[place % len(VARIANTS)]
        last = place == len(tally.expected) - 1
        cells = ANSWERS_BAR - drawn if last else round(ANSWERS_BAR * tally.share(name))
        drawn += cells
        bar.append(FILLS[place % len(FILLS)] * cells, colour)
        words.append(f"  {name} {tally.share(name):.1%}", colour)
    return Text.assemble(bar, words, (f"  of {tally.total}, {tally.failures} lost", "bright_black"))


def _coloured(state: str) -> Text:
    return Text(state, COLOURS.get(state, "yellow"))


def _cut(text: str, width: int, style: str = "") -> Text:
    """One line of at most `width` characters; what does not fit ends in dots."""
    return Text(text if len(text) <= width else text[: width - 3] + "...", style, no_wrap=True)


def _lines(text: str, count: int, width: int) -> Text:
    """Exactly `count` lines, wrapped at words; what does not fit ends in dots."""
    lines = [line.plain.rstrip() for line in Text(text).wrap(Console(width=width), width)] if text else []
    if len(lines) > count:
        lines = [*lines[: count - 1], _cut(" ".join(lines[count - 1 :]), width).plain]
    return Text("\n".join([*lines, *[""] * (count - len(lines))]))
