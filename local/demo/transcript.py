"""A record of one telling: the screen at the moments that matter, and every line. docs/demo-transcript.md is one."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from demo.picture import Picture
from demo.screen import Show

HEAD = """# What `make demo` shows

<!-- Written by `python -m demo --transcript FILE`: a real run, nothing edited. -->

A run of {when}. First the screen at the moments that matter (in a terminal it is one table that
changes in place, in colour), then every line that the same run writes where there is no terminal."""


@dataclass(slots=True)
class Transcript:
    """Takes a picture of the screen whenever the story reaches something it has not shown yet."""

    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    frames: list[tuple[str, str]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    _shown: set[tuple[str, str]] = field(default_factory=set)

    def line(self, text: str) -> None:
        """Keep a line."""
        self.lines.append(text)

    def look(self, show: Show, seen: Picture) -> None:
        """Keep the screen if it shows another moment of the story."""
        clearing = show.chapters[0].took is None
        if not clearing and (moment := _moment(seen)):
            self.keep(show, moment)

    def keep(self, show: Show, moment: str) -> None:
        """Keep the screen, once for each moment of a chapter."""
        chapter = next((one.title for one in reversed(show.chapters) if one.began is not None), "")
        if (chapter, moment) not in self._shown:
            self._shown.add((chapter, moment))
            self.frames.append((f"{chapter} ({moment})", show.frame()))

    def document(self, farewell: str) -> str:
        """The whole record as Markdown."""
        parts = [HEAD.format(when=self.began.strftime("%Y-%m-%d %H:%M UTC")), "## The screen"]
        parts += [f"### {title}\n\n```text\n{frame}\n```" for title, frame in self.frames]
        parts += ["## The lines", "```text\n" + "\n".join([*self.lines, farewell.rstrip()]) + "\n```"]
        return "\n\n".join(parts) + "\n"


def _moment(seen: Picture) -> str:
    """What is worth a picture; empty: nothing new."""
    if seen.deployment is not None and seen.endpoint_status != "Creating":
        return seen.deployment.stage if seen.deployment.stage in {"Baking", "FinalBaking", "RollingBack"} else ""
    if seen.stalled.status == "True":
        return f"Stalled, {seen.stalled.reason}"
    if seen.endpoint_status == "Creating":
        return "Creating"
    return "InService" if seen.is_ready else ""
