"""Kubernetes as the operator needs it. One adapter implements this (sluice.kube)."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Object = dict[str, Any]
"""A Kubernetes object as JSON."""


class Conflict(Exception):
    """The object changed since it was read (409): drop the pass."""


class Gone(Exception):
    """The object does not exist (404)."""


class KubeUnavailable(Exception):
    """The API server could not be asked (connection, 429, 5xx): try again later."""


class Forbidden(Exception):
    """The operator's ServiceAccount lacks a permission (403); the message names verb and resource."""


class Rejected(Exception):
    """The API server refused the request (400, 422): a bug of ours, or a CRD of another version than the operator."""


class NotHeld(Exception):
    """This process does not hold the Lease any more: the write was not sent. Drop the pass."""


class HeldByBudget(Exception):
    """A PodDisruptionBudget does not allow this eviction now (429)."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Objects at one moment."""

    items: tuple[Object, ...]
    resource_version: str


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change. A BOOKMARK's object holds nothing but the resourceVersion that was reached."""

    type: Literal["ADDED", "MODIFIED", "DELETED", "BOOKMARK"]
    object: Object

    @property
    def resource_version(self) -> str:
        """Where to watch on from."""
        return str(self.object["metadata"]["resourceVersion"])


class Kube(Protocol):
    """Typed nowhere outside the adapter: objects are plain JSON. `kind` is one of kube.resources.RESOURCES; objects of
    kinds that are not namespaced (Namespace, Node) have namespace "". Every method may raise KubeUnavailable,
    Forbidden or Rejected, and those that write NotHeld."""

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """A live read; None if it does not exist."""
        ...

    def list(self, kind: str, namespace: str | None = None, label_selector: str = "") -> AsyncIterator[Object]:
        """A chunked listing, of one namespace or of all. Raises Gone if the kind is not served."""
        ...

    def list_metadata(self, kind: str, namespace: str | None = None, label_selector: str = "") -> AsyncIterator[Object]:
        """As `list`, but only each object's metadata."""
        ...

    async def list_at(self, kind: str, namespace: str | None = None, label_selector: str = "") -> Listing:
        """A listing and where to watch on from. Raises Gone if the kind is not served."""
        ...

    def watch(
        self, kind: str, namespace: str | None, label_selector: str, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        """What changes from there on; ends now and then, to be asked again from the last resourceVersion. Raises Gone
        if that is too old: list again."""
        ...

    async def create(self, kind: str, namespace: str, body: Object) -> Object:
        """Create. Raises Conflict if it exists."""
        ...

    async def replace(self, kind: str, namespace: str, body: Object) -> Object:
        """Replace with the body's resourceVersion as precondition. Raises Conflict, Gone."""
        ...

    async def replace_status(self, kind: str, namespace: str, body: Object) -> Object:
        """Write the status subresource with the body's resourceVersion as precondition. Raises Conflict, Gone."""
        ...

    async def patch_metadata(
        self,
        kind: str,
        namespace: str,
        name: str,
        *,
        resource_version: str | None,
        finalizers: Sequence[str] | None = None,
        annotations: Mapping[str, str | None] | None = None,
    ) -> Object:
        """Merge-patch metadata; finalizers replaces the list. Raises Conflict, Gone."""
        ...

    async def delete(self, kind: str, namespace: str, name: str, *, uid: str | None = None) -> None:
        """Delete, dependants in the background; a missing object is fine. Raises Conflict if it has another uid."""
        ...

    async def scale(self, kind: str, namespace: str, name: str, replicas: int, *, uid: str) -> None:
        """Write replicas through the scale subresource: nothing else of the object can change. Raises Conflict if it
        has another uid; Gone."""
        ...

    async def evict(self, namespace: str, pod: str, *, uid: str, grace_seconds: int) -> None:
        """Evict a pod, which has so long to end; a missing one is fine. Raises Conflict if it has another uid,
        HeldByBudget."""
        ...

    async def event(self, regarding: Object, *, type_: str, reason: str, message: str) -> None:
        """Record an Event. Failures are logged, never raised: events are a courtesy."""
        ...
