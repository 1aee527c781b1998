"""Tells the whole story in three parts, on a live screen or as lines, with a transcript if one is wanted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, TypeVar

from rich.console import Console

from demo import cluster_story, guarded_story, install, steps
from demo.example import Example, read_example
from demo.screen import WIDTH, Chapter, Lines, LiveScreen, Show
from demo.surroundings import Surroundings
from demo.transcript import Transcript

TITLE = f"Sluice: a simulated SageMaker, {install.SPEED} times as fast as its clock says"
CLUSTER_TITLE = "Sluice: the same kinds on the cluster's own nodes, with real models and real predictions"
GUARDED_TITLE = "Sluice: a canary under load, and a bad one that a Prometheus alert turns back"
READING_SECONDS = 1.5
"""How long a command stands on the live screen before it is run: for the eyes alone, nothing waits for it."""

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Part(Generic[S]):
    """One chapter: what it shows and what it does."""

    title: str
    run: Callable[[S], object]


def parts(example: Example) -> list[Part[steps.Stage]]:
    """The chapters of the first part, after the installation."""
    second, broken, mended = (example.next_image(tag) for tag in ("2", "3", "4"))
    return [
        Part("Nothing is left of an earlier run", steps.clear),
        Part("kubectl apply: Creating, then InService", steps.create),
        Part("A new image: canary, bake, InService on the new revision", lambda s: steps.canary(s, second)),
        Part("A bad image: canary, alarm, rollback, Stalled RolledBack", lambda s: steps.rolled_back(s, broken)),
        Part("The fix: canary, InService", lambda s: steps.fixed(s, mended)),
    ]


CLUSTER_PARTS: list[Part[cluster_story.ClusterStage]] = [
    Part("Nothing is left of an earlier run on the nodes", cluster_story.clear),
    Part("Two models, trained by scikit-learn, go to S3", cluster_story.upload),
    Part("kubectl apply with backend: Cluster: two variants in service", cluster_story.create),
    Part("boto3 asks: 2/3 of the answers and 1/3", cluster_story.predict),
    Part("kubectl patch: 1/6 and 5/6 under load, nothing lost", cluster_story.reweigh),
]

GUARDED_PARTS: list[Part[cluster_story.ClusterStage]] = [
    Part("Nothing is left of an earlier run of this part", cluster_story.clear),
    Part("A model goes to S3, and Prometheus reads the routers each second", guarded_story.prepare),
    Part("kubectl apply: one model in service, behind alarms", guarded_story.begin),
    Part("A new model: a canary of 25 % bakes under load, then it has all", guarded_story.canary),
    Part("A bad model: its 5xx raise an alert, all traffic goes back", guarded_story.rolled_back),
]


@dataclass(frozen=True, slots=True)
class Telling:
    """How the story is told: to a terminal or in lines, since when, and the record of it."""

    console: Console
    plain: bool
    began: float
    kept: Transcript

    def part(
        self,
        show: Show,
        chapters: Iterable[Part[S]],
        stage_of: Callable[[Callable[[str], None], Callable[[str], None]], S],
    ) -> None:
        """Tell one part. `stage_of` makes its stage from what tells a command and what says a line.

        Raises DemoError at the first thing that does not happen.
        """
        with ExitStack() as stack:
            lines = stack.enter_context(Lines(show, self._write, lambda seen: self.kept.look(show, seen)))
            if not self.plain:
                stack.enter_context(LiveScreen(self.console, show))

            def tell(command: str) -> None:
                show.command = command
                lines.say(f"$ {command}")
                if not self.plain:
                    time.sleep(READING_SECONDS)

            stage = stage_of(tell, lines.say)
            for chapter, part in zip(show.chapters, chapters, strict=True):
                lines.say(f"== {chapter.title}")
                chapter.began = time.monotonic()
                try:
                    part.run(stage)
                except BaseException:
                    chapter.failed = True
                    raise
                if show.tally is not None and show.tally().total:
                    self.kept.keep(show, "the answers")
                chapter.took = time.monotonic() - chapter.began
                lines.say(f"== done in {chapter.took:.1f} s")
            show.command = ""

    def _write(self, line: str) -> None:
        self.kept.line(line)
        if self.plain:
            print(line, flush=True)


def tell(surroundings: Surroundings, *, plain: bool, transcript: Path | None) -> None:
    """Tell it. Raises DemoError at the first thing that does not happen."""
    example = read_example()
    console = Console(width=None if plain else min(WIDTH, Console().width))
    telling = Telling(console, plain, time.monotonic(), Transcript())
    models = cluster_story.bring_models()
    install.install(surroundings, lambda said: console.print(f"{said} ...", style="bright_black", highlight=False))
    with install.simulated_aws(surroundings) as aws:
        _sagemaker_part(telling, surroundings, aws, example)
        for title, chapters, manifest in (
            (CLUSTER_TITLE, CLUSTER_PARTS, cluster_story.MANIFEST),
            (GUARDED_TITLE, GUARDED_PARTS, guarded_story.MANIFEST),
        ):
            opened = cluster_story.open_stage(surroundings, aws, models, cluster_story.read(manifest))
            _cluster_part(telling, title, chapters, opened)
    if transcript is not None:
        transcript.write_text(telling.kept.document(farewell(example)))
    print(farewell(example), flush=True)


def _sagemaker_part(telling: Telling, surroundings: Surroundings, aws: install.SimulatedAws, example: Example) -> None:
    chapters = parts(example)
    with steps.watcher(surroundings, example) as watcher:
        show = Show(
            title=TITLE,
            chapters=[Chapter(part.title) for part in chapters],
            look=lambda: watcher.now,
            look_at_events=lambda: watcher.events,
            seconds_until=aws.time.seconds_until,
            began=telling.began,
        )
        telling.part(show, chapters, lambda tell, say: steps.Stage(surroundings, aws, example, watcher, tell))


def _cluster_part(
    telling: Telling,
    title: str,
    chapters: list[Part[cluster_story.ClusterStage]],
    opened: AbstractContextManager[cluster_story.ClusterStage],
) -> None:
    with opened as stage:
        show = Show(
            title=title,
            chapters=[Chapter(part.title) for part in chapters],
            look=lambda: stage.watcher.now,
            look_at_events=lambda: stage.watcher.events,
            seconds_until=lambda moment: (moment - datetime.now(UTC)).total_seconds(),
            tally=lambda: stage.tally,
            began=telling.began,
        )
        telling.part(show, chapters, stage.told_by)


def farewell(example: Example) -> str:
    """What to do next: everything is left running."""
    return "\n".join(
        [
            "",
            "Everything is left running. `make shell` opens a shell with kubectl in the cluster's network; go on with:",
            "  kubectl get sluice -A",
            f"  kubectl -n {steps.NAMESPACE} describe sep {example.endpoint}",
            f"  kubectl -n {steps.NAMESPACE} get pods",
            "  make down",
        ]
    )
