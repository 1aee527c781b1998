"""Tells the whole story: five chapters, on a live screen or as lines, with a transcript if one is wanted."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from demo import install, steps
from demo.example import Example, read_example
from demo.screen import WIDTH, Chapter, Lines, LiveScreen, Show
from demo.surroundings import Surroundings
from demo.transcript import Transcript

TITLE = f"Sluice: a simulated SageMaker, {install.SPEED} times as fast as its clock says"
READING_SECONDS = 1.5
"""How long a command stands on the live screen before it is run: for the eyes alone, nothing waits for it."""


@dataclass(frozen=True, slots=True)
class Part:
    """One chapter: what it shows and what it does."""

    title: str
    run: Callable[[steps.Stage], object]


def parts(example: Example) -> list[Part]:
    """The chapters after the installation."""
    second, broken, mended = (example.next_image(tag) for tag in ("2", "3", "4"))
    return [
        Part("Nothing is left of an earlier run", steps.clear),
        Part("kubectl apply: Creating, then InService", steps.create),
        Part("A new image: canary, bake, InService on the new revision", lambda s: steps.canary(s, second)),
        Part("A bad image: canary, alarm, rollback, Stalled RolledBack", lambda s: steps.rolled_back(s, broken)),
        Part("The fix: canary, InService", lambda s: steps.fixed(s, mended)),
    ]


def tell(surroundings: Surroundings, *, plain: bool, transcript: Path | None) -> None:
    """Tell it. Raises DemoError at the first thing that does not happen."""
    example = read_example()
    console = Console(width=None if plain else min(WIDTH, Console().width))
    began = time.monotonic()
    install.install(surroundings, lambda said: console.print(f"{said} ...", style="bright_black", highlight=False))
    with ExitStack() as stack:
        aws = stack.enter_context(install.simulated_aws(surroundings))
        watcher = stack.enter_context(steps.watcher(surroundings, example))
        chapters = parts(example)
        show = Show(
            title=TITLE,
            chapters=[Chapter(part.title) for part in chapters],
            look=lambda: watcher.now,
            look_at_events=lambda: watcher.events,
            seconds_until=aws.time.seconds_until,
            began=began,
        )
        kept = Transcript(show)

        def write(line: str) -> None:
            kept.line(line)
            if plain:
                print(line, flush=True)

        lines = stack.enter_context(Lines(show, write, kept.look))
        if not plain:
            stack.enter_context(LiveScreen(console, show))

        def say(command: str) -> None:
            show.command = command
            lines.say(f"$ {command}")
            if not plain:
                time.sleep(READING_SECONDS)

        stage = steps.Stage(surroundings, aws, example, watcher, say)
        for chapter, part in zip(show.chapters, chapters, strict=True):
            _run(chapter, part, stage, lines.say)
        show.command = ""
    if transcript is not None:
        transcript.write_text(kept.document(farewell(example)))
    print(farewell(example), flush=True)


def _run(chapter: Chapter, part: Part, stage: steps.Stage, say: Callable[[str], None]) -> None:
    say(f"== {chapter.title}")
    chapter.began = time.monotonic()
    try:
        part.run(stage)
    except BaseException:
        chapter.failed = True
        raise
    chapter.took = time.monotonic() - chapter.began
    say(f"== done in {chapter.took:.1f} s")


def farewell(example: Example) -> str:
    """What to do next: everything is left running."""
    return "\n".join(
        [
            "",
            "Everything is left running. `make shell` opens a shell with kubectl in the cluster's network; go on with:",
            "  kubectl get sluice -A",
            f"  kubectl -n {steps.NAMESPACE} describe sep {example.endpoint}",
            "  make down",
        ]
    )
