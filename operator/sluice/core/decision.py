"""The value one pass ends in: the status to persist, then at most one action set, then when to look again."""

from dataclasses import dataclass
from datetime import datetime

from sluice.api.status import EndpointStatus
from sluice.core.actions import Action


@dataclass(frozen=True, slots=True)
class EventNote:
    """A Kubernetes Event, written after the status that announces it was persisted."""

    type: str
    """Normal or Warning."""
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What a pass decided."""

    status: EndpointStatus
    actions: tuple[Action, ...] = ()
    look_again: datetime | None = None
    """The absolute time of the next pass; None: only when something happens."""
    events: tuple[EventNote, ...] = ()
    confirm_references: bool = False
    """The decision supersedes or reverts something: the controller confirms the references by live GETs and drops
    the pass if they resolve differently."""
