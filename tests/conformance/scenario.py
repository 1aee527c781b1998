"""What a scenario is, of those that both backends go through (tests/conformance/table.py), and what is seen of it."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from tests.operator.harness.manifests import Manifest

Backend = Literal["SageMaker", "Cluster"]
BACKENDS: tuple[Backend, ...] = ("SageMaker", "Cluster")

Sizes = Mapping[str, tuple[int, float]]
"""Variant -> instances and weight."""
EDITED = 3.0
"""The weight that an edit gives the variant a."""


@dataclass(frozen=True, slots=True)
class Event:
    """What somebody does once the endpoint is seen, since the event before, in a stage (see Seen.stages), with a new
    outcome (see Seen.outcomes) or under a condition's reason."""

    at: str
    do: Literal[
        "alarm",
        "alarm is quiet",
        "third revision",
        "third revision by the policy retained",  # the Endpoint names none any more
        "revert",
        "weights",  # of the variant a, until they are in force
        "counts",  # the same
        "same again",  # what is declared is applied once more, as by a Git sync
        "pause",
        "resume",
        "promote",
        "retry",
        "rollback",
        "deadline",  # the time that the deployment may take is over
        "nothing starts",  # no instance that is not there already, whatever it runs; a way back does not come forward
    ]


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen. stages: of the deployments, in order, without repetitions; bakes carry the share."""

    stages: tuple[str, ...]
    outcomes: tuple[str, ...]
    """Of the deployments, in order: outcome and cause."""
    serves: str
    """The image that serves at the end: old, new or third."""
    end: str
    """endpointStatus, and the reason of the condition that says why it is not Ready."""
    words: tuple[str, ...] = ()
    """endpointStatus, without repetitions, from the moment of the change on."""
    acknowledged: str = ""
    """What became of commands."""
    sizes: Sizes = field(default_factory=dict)
    """What is in force of each variant at the end. Absent: what the revision that serves was declared with."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One line of the table."""

    name: str
    change: Literal["image", "config", "weights", "counts"] = "image"
    """config: one edit of the EndpointConfig brings the new image and what `becomes` says."""
    policy: Manifest | None = None
    counts: Mapping[str, int] = field(default_factory=lambda: {"a": 4})
    becomes: Sizes = field(default_factory=dict)
    """The variants that come with the new image."""
    alarm: Literal["none", "quiet", "firing", "absent"] = "none"
    options: Manifest = field(default_factory=dict)
    """What the Endpoint says besides, from the change on."""
    unhealthy: bool = False
    """The new image's containers never answer."""
    events: tuple[Event, ...] = ()
    seen: Seen = field(kw_only=True)
    differs: Mapping[Backend, Seen] = field(default_factory=dict)
    """What this backend shows instead, where it must."""
    source: str = ""
    """Why it must, and where that is written."""

    @property
    def can_be_ordered(self) -> bool:
        """Whether a real account can be made to show it: nobody there lets no instance start."""
        return all(event.do != "nothing starts" for event in self.events)

    def wanted(self, backend: Backend) -> Seen:
        """What this backend is to show, with the sizes."""
        seen = self.differs.get(backend, self.seen)
        first: Sizes = {name: (count, 1.0) for name, count in self.counts.items()}
        declared = self.becomes if self.becomes and seen.serves == "new" else first
        return replace(seen, sizes=seen.sizes or declared)
