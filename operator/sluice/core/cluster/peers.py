"""What the limits on deployments ask of the other Cluster Endpoints: which deploy, which wait for their turn, and which
images were rolled back. Read from their statuses alone, so that a restart forgets nothing."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sluice.api.reasons import Cause, ConditionType, Outcome, Reason

FAULTS = frozenset({Cause.ALARM, Cause.HEALTH})
"""Causes of a rollback that tell against the image: not a person's word, no room, no data, no time."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """How many deployments of Cluster Endpoints may run, and when an image is stopped. 0: no such bound."""

    deployments: int = 0
    """At the same time, of the whole operator."""
    deployments_per_namespace: int = 0
    """At the same time, in each namespace."""
    rollbacks_of_one_image: int = 0
    """After so many, nobody else starts with that image by itself."""
    rollback_window_seconds: int = 86400
    """How long a rollback counts."""


@dataclass(frozen=True, slots=True)
class ImageRollback:
    """A deployment that was rolled back for a fault of what it brought."""

    images: frozenset[str]
    """What it brought, as `image_key` tells images apart."""
    at: datetime


@dataclass(frozen=True, slots=True)
class Peer:
    """One Cluster Endpoint, as the limits see it."""

    namespace: str
    name: str
    deploying: bool = False
    waiting_since: datetime | None = None
    """It waits for its turn: when the change that it waits with was first seen."""
    rollbacks: tuple[ImageRollback, ...] = ()

    @property
    def label(self) -> str:
        """Its name for people."""
        return f"{self.namespace}/{self.name}"

    @property
    def order(self) -> tuple[datetime, str, str]:
        """Who waits longest comes first; the names decide between equals, the same way after every restart."""
        assert self.waiting_since is not None, "asked only of those who wait"  # noqa: S101
        return (self.waiting_since, self.namespace, self.name)


def peer_of(endpoint: Mapping[str, Any]) -> Peer | None:
    """An Endpoint's part, from the raw object. None: the limits have nothing to do with it; what is being deleted runs
    no deployment and waits for none. A status that somebody wrote by hand counts as far as it can be read."""
    metadata, status = endpoint["metadata"], endpoint.get("status") or {}
    deleted = bool(metadata.get("deletionTimestamp"))
    deploying = bool(status.get("deployment")) and not deleted
    since = None if deleted or deploying else _waiting_since(status)
    rollbacks = rollbacks_in(status.get("history") or ())
    if not deploying and since is None and not rollbacks:
        return None
    return Peer(str(metadata["namespace"]), str(metadata["name"]), deploying, since, rollbacks)


def rollbacks_in(history: Iterable[Mapping[str, Any]]) -> tuple[ImageRollback, ...]:
    """The rollbacks of a raw status' history that tell against an image."""
    found = []
    for item in history:
        at = _time(item.get("endTime"))
        faulty = item.get("outcome") == Outcome.ROLLED_BACK and item.get("cause") in FAULTS
        if faulty and at is not None and item.get("images"):
            found.append(ImageRollback(frozenset(image_key(str(image)) for image in item["images"]), at))
    return tuple(found)


def image_key(image: str) -> str:
    """What tells images apart: the digest where one is named, whatever the repository is called; else the reference."""
    return image.rpartition("@")[2]


def _waiting_since(status: Mapping[str, Any]) -> datetime | None:
    waits = any(
        (condition.get("type"), condition.get("status"), condition.get("reason"))
        == (ConditionType.RECONCILING, "True", Reason.DEPLOYMENT_QUEUED)
        for condition in status.get("conditions") or ()
    )
    return _time((status.get("settle") or {}).get("since")) if waits else None


def _time(text: Any) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None
