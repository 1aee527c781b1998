"""What the operator knows of the cluster: objects by kind and name, who refers to whom, who claims which endpoint name,
and which keys need a pass when something changes.

Three sources feed it: watch events, listings (start and sweep), and the answers to the operator's own writes, so that a
pass never reads older than its own last write. An older state of an object never overwrites a newer one, whatever order
they arrive in; since Kubernetes 1.35 resourceVersions are documented as comparable integers, and they always were."""

import itertools
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType
from typing import Any

from sluice.api import names
from sluice.api.status import EndpointStatus
from sluice.core.cluster.peers import Peer, peer_of
from sluice.core.declaration import service_of
from sluice.core.identity import Key, Place
from sluice.core.requests import model_names
from sluice.core.resolve import pinned_place
from sluice.core.revision import LABEL_ENDPOINT, StoredRevision, stored_revision
from sluice.ports.kube import Object

CONTROLLER_REVISION = "ControllerRevision"
logger = logging.getLogger(__name__)
KINDS = (names.MODEL, names.ENDPOINT_CONFIG, names.ENDPOINT, CONTROLLER_REVISION)
"""What is watched and cached."""
MAX_TOMBSTONES = 20_000
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_NOTHING: frozenset[Key] = frozenset()


class Source(Enum):
    """Where a state of an object comes from."""

    WATCH = "watch"
    LIST = "list"
    OWN = "own"
    """The answer to a write of ours."""


@dataclass(slots=True)
class _Entry:
    object: Object
    version: int
    touched: int
    """Number of the cache's change that brought it."""
    watched: int = 0
    """The resourceVersion that the watch last delivered."""
    status: EndpointStatus | None = None
    stored: StoredRevision | None = None
    foreign: bool = False
    """A ControllerRevision that is none of ours."""


@dataclass(frozen=True, slots=True)
class Differences:
    """A listing against the cache."""

    newer: Mapping[Key, int]
    """Objects that the listing has in a newer state, or that the cache lacks, with that state's resourceVersion."""
    absent: tuple[Object, ...]
    """Objects that are gone, as they were known: whatever comes in their place meanwhile is not meant."""
    behind: tuple[Key, ...]
    """Objects whose listed state is older than one seen before the listing began: the API server's history went back
    (it was restored from a backup)."""


class Cache:
    """Not thread-safe: it belongs to the event loop. Objects that it hands out are never changed in place."""

    def __init__(self) -> None:
        self._entries: dict[str, dict[tuple[str, str], _Entry]] = {kind: {} for kind in KINDS}
        self._users: dict[Key, set[Key]] = {}
        """Referent -> the objects whose spec names it: EndpointConfig -> Endpoints, Model -> EndpointConfigs."""
        self._revisions: dict[tuple[str, str], set[str]] = {}
        """Endpoint -> names of its ControllerRevisions."""
        self._claims: dict[tuple[str, str, str], set[Key]] = {}
        self._in_cluster: dict[str, set[str]] = {}
        """Namespace -> names of its Endpoints with backend Cluster."""
        self._peers: dict[Key, Peer] = {}
        """Cluster Endpoints that deploy, wait for it, or were rolled back of late."""
        self._tombstones: OrderedDict[Key, int] = OrderedDict()
        self._changes = itertools.count(1)
        self._last_change = 0
        self._writing: dict[Key, Any] = {}

    # Reading ------------------------------------------------------------------------------------------------------

    def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """The newest known state of an object."""
        entry = self._entries[kind].get((namespace, name))
        return entry.object if entry else None

    def finder(self, namespace: str) -> Callable[[str, str], Object | None]:
        """(kind, name) -> object of one namespace, as core.resolve asks."""
        return lambda kind, name: self.get(kind, namespace, name)

    def status(self, key: Key) -> EndpointStatus:
        """An Endpoint's status, parsed once per state. Raises pydantic.ValidationError, KeyError."""
        entry = self._entries[key.kind][key.namespace, key.name]
        if entry.status is None:
            entry.status = EndpointStatus.from_manifest(entry.object.get("status") or {})
        return entry.status

    def stored(self, namespace: str, endpoint: str) -> tuple[StoredRevision, ...]:
        """An Endpoint's stored revisions, oldest first."""
        found = []
        for name in self._revisions.get((namespace, endpoint), ()):
            entry = self._entries[CONTROLLER_REVISION][namespace, name]
            if entry.stored is None and not entry.foreign:
                try:
                    entry.stored = stored_revision(entry.object)
                except ValueError as error:
                    entry.foreign = True
                    logger.warning("%s", error)
            if entry.stored is not None:
                found.append(entry.stored)
        return tuple(sorted(found, key=lambda stored: (stored.number, stored.name)))

    def users(self, kind: str, namespace: str, name: str) -> tuple[Object, ...]:
        """The Endpoints whose spec leads to a Model or an EndpointConfig, by name."""
        found = (
            self.get(key.kind, key.namespace, key.name)
            for key in sorted(self._dependants(Key(kind, namespace, name)), key=str)
        )
        return tuple(endpoint for endpoint in found if endpoint is not None)

    def claimants(self, place: Place, other_than: Key) -> tuple[Object, ...]:
        """Other Endpoints that are pinned to the same account, region and endpoint name (without regard to case)."""
        keys = sorted(self._claims.get(place.claim, set()) - {other_than}, key=str)
        found = (self.get(key.kind, key.namespace, key.name) for key in keys)
        return tuple(endpoint for endpoint in found if endpoint is not None)

    def in_cluster(self, namespace: str) -> tuple[Object, ...]:
        """A namespace's Endpoints with backend Cluster, by name."""
        found = (self.get(names.ENDPOINT, namespace, name) for name in sorted(self._in_cluster.get(namespace, ())))
        return tuple(endpoint for endpoint in found if endpoint is not None)

    def peers(self) -> Mapping[Key, Peer]:
        """The Cluster Endpoints that limits on deployments have to do with."""
        return MappingProxyType(self._peers)

    def keys(self, kind: str) -> tuple[Key, ...]:
        """All objects of a kind."""
        return tuple(Key(kind, namespace, name) for namespace, name in self._entries[kind])

    def count(self, kind: str) -> int:
        """How many objects of a kind there are."""
        return len(self._entries[kind])

    def mark(self) -> int:
        """A point in the cache's history: what is added after it is not missing from a listing that began before."""
        return self._last_change

    def compare(self, kind: str, listed: Mapping[tuple[str, str], Object], mark: int) -> "Differences":
        """What a consistent listing (metadata suffices) that began after `mark` shows beyond the cache."""
        entries = self._entries[kind]
        news = [(Key(kind, *place), version_of(item)) for place, item in listed.items()]
        settled = {place: entry for place, entry in entries.items() if entry.touched <= mark}
        versions = {place: entry.version for place, entry in settled.items()}
        return Differences(
            newer={key: version for key, version in news if version > self._known_version(key)},
            absent=tuple(entry.object for place, entry in settled.items() if place not in listed),
            behind=tuple(key for key, version in news if version < versions.get((key.namespace, key.name), 0)),
        )

    def watch_saw(self, key: Key, version: int) -> bool:
        """Whether the watch delivered this state of an object or a newer one (or the object is gone by now)."""
        entry = self._entries[key.kind].get((key.namespace, key.name))
        return entry is None or entry.watched >= version

    # Feeding ------------------------------------------------------------------------------------------------------

    def writing(self, key: Key, status: Any) -> None:
        """A write of this status is under way: when the watch shows it, it is no news."""
        self._writing[key] = status

    def written(self, key: Key) -> None:
        """The write ended."""
        self._writing.pop(key, None)

    def apply(self, item: Object, source: Source) -> frozenset[Key]:
        """Take in a state of an object. Returns the keys that need a pass because of it."""
        key = key_of(item)
        entries = self._entries[key.kind]
        place = (key.namespace, key.name)
        entry = entries.get(place)
        version = version_of(item)
        if source is Source.WATCH and entry is not None:
            entry.watched = max(entry.watched, version)
        if _is_finished(item) and version >= self._known_version(key):
            # Not only what is newer: where the API server deletes instead of writing, its answer to the write that took
            # the last finalizer away carries the resourceVersion of the state before.
            return self.remove(item, source)
        if not self._is_news(key, item):
            return _NOTHING
        before = entry.object if entry else None
        if before is not None:
            self._unlink(key, before)
        self._last_change = next(self._changes)
        watched = version if source is Source.WATCH else (entry.watched if entry else 0)
        after = _slim(item)
        entries[place] = _Entry(after, version, self._last_change, watched)
        self._tombstones.pop(key, None)
        self._link(key, after)
        return self._affected(key, before, after, source)

    def remove(self, item: Object, source: Source) -> frozenset[Key]:
        """Take in that this object (this uid) is gone. Returns the keys that need a pass because of it."""
        key = key_of(item)
        place = (key.namespace, key.name)
        version = version_of(item)
        self._tombstones[key] = max(version, self._tombstones.get(key, 0))
        self._tombstones.move_to_end(key)
        if len(self._tombstones) > MAX_TOMBSTONES:
            self._tombstones.popitem(last=False)
        entry = self._entries[key.kind].get(place)
        if entry is None or (entry.object["metadata"]["uid"] != item["metadata"]["uid"] and entry.version > version):
            return _NOTHING
        self._tombstones[key] = max(entry.version, self._tombstones[key])
        self._last_change = next(self._changes)
        affected = self._affected(key, entry.object, None, source)
        self._unlink(key, entry.object)
        del self._entries[key.kind][place]
        self._writing.pop(key, None)
        return affected

    # Rules --------------------------------------------------------------------------------------------------------

    def _is_news(self, key: Key, item: Object) -> bool:
        return version_of(item) > self._known_version(key)

    def _known_version(self, key: Key) -> int:
        entry = self._entries[key.kind].get((key.namespace, key.name))
        return entry.version if entry else self._tombstones.get(key, 0)

    def _affected(self, key: Key, before: Object | None, after: Object | None, source: Source) -> frozenset[Key]:
        """Which keys need a pass when an object goes from one state to another."""
        spec_changed = before is None or after is None or _identity(before) != _identity(after)
        foreign_status = (
            source is not Source.OWN
            and before is not None
            and after is not None
            and before.get("status") != after.get("status")
            and self._writing.get(key, _NOTHING) != after.get("status")
        )
        if key.kind == CONTROLLER_REVISION:
            endpoint = _revision_owner(after or before or {})
            known = endpoint is not None and (key.namespace, endpoint) in self._entries[names.ENDPOINT]
            if source is Source.OWN or endpoint is None or not known:
                return _NOTHING
            return frozenset({Key(names.ENDPOINT, key.namespace, endpoint)})
        keys: set[Key] = set()
        if after is not None and (spec_changed or foreign_status or _commands(before) != _commands(after)):
            keys.add(key)
        if key.kind == names.ENDPOINT:
            if spec_changed or _commands(before) != _commands(after):
                keys |= self._rivals(key, before) | self._rivals(key, after)
            if spec_changed or service_of(before) != service_of(after):
                keys |= self._declarations(key, before) | self._declarations(key, after)
        elif spec_changed:
            keys |= self._dependants(key)
            if key.kind == names.ENDPOINT_CONFIG:
                # Models that it named before and names now are used by the same Endpoints as before.
                changed = set(_references(key, before)) ^ set(_references(key, after))
                keys |= {model for model in changed if self._knows(model)}
        return frozenset(keys)

    def _declarations(self, endpoint: Key, state: Object | None) -> set[Key]:
        """The EndpointConfig and Models that an Endpoint's spec leads to, as far as they exist."""
        found: set[Key] = set()
        for config in _references(endpoint, state):
            if self._knows(config):
                found.add(config)
                found |= {
                    model
                    for model in _references(config, self.get(config.kind, config.namespace, config.name))
                    if self._knows(model)
                }
        return found

    def _rivals(self, endpoint: Key, state: Object | None) -> set[Key]:
        """Other Endpoints with the same claim: they learn when it is given up."""
        claims = _claim(endpoint, state) if state is not None else ()
        return {rival for claim in claims for rival in self._claims.get(claim, ())} - {endpoint}

    def _dependants(self, key: Key) -> set[Key]:
        """The Endpoints whose spec leads to a Model or an EndpointConfig."""
        users = self._users.get(key, set())
        if key.kind == names.MODEL:
            return {endpoint for config in users for endpoint in self._users.get(config, ())}
        return set(users)

    def _knows(self, key: Key) -> bool:
        return (key.namespace, key.name) in self._entries[key.kind]

    def _link(self, key: Key, state: Object) -> None:
        for referent in _references(key, state):
            self._users.setdefault(referent, set()).add(key)
        if key.kind == CONTROLLER_REVISION:
            owner = _revision_owner(state)
            if owner is not None:
                self._revisions.setdefault((key.namespace, owner), set()).add(key.name)
        for claim in _claim(key, state):
            self._claims.setdefault(claim, set()).add(key)
        if _is_in_cluster(key, state):
            self._in_cluster.setdefault(key.namespace, set()).add(key.name)
            peer = peer_of(state)
            if peer is not None:
                self._peers[key] = peer

    def _unlink(self, key: Key, state: Object) -> None:
        for referent in _references(key, state):
            _discard(self._users, referent, key)
        if key.kind == CONTROLLER_REVISION:
            owner = _revision_owner(state)
            if owner is not None:
                _discard(self._revisions, (key.namespace, owner), key.name)
        for claim in _claim(key, state):
            _discard(self._claims, claim, key)
        if _is_in_cluster(key, state):
            _discard(self._in_cluster, key.namespace, key.name)
            self._peers.pop(key, None)


def key_of(item: Object) -> Key:
    """The key of an object."""
    metadata = item["metadata"]
    return Key(item["kind"], metadata["namespace"], metadata["name"])


def version_of(item: Object) -> int:
    """The resourceVersion as the integer that it is."""
    return int(item["metadata"]["resourceVersion"])


def _slim(item: Object) -> Object:
    """The object without what the operator never reads: who managed which field, and what kubectl applied last."""
    metadata = {key: value for key, value in item["metadata"].items() if key != "managedFields"}
    annotations = metadata.get("annotations")
    if annotations and _LAST_APPLIED in annotations:
        metadata["annotations"] = {key: value for key, value in annotations.items() if key != _LAST_APPLIED}
    return {**item, "metadata": metadata}


def _is_finished(item: Object) -> bool:
    """Deleted, and nothing holds it any more: the answer to the write that took the last finalizer away."""
    metadata = item["metadata"]
    return bool(metadata.get("deletionTimestamp")) and not metadata.get("finalizers")


def _identity(state: Object) -> tuple[Any, ...]:
    """What makes an object another one to those who refer to it."""
    metadata = state["metadata"]
    return (metadata["uid"], metadata.get("generation"), metadata.get("deletionTimestamp"))


def _commands(state: Object | None) -> Any:
    """What a pass reads of an object's metadata: our annotations, finalizers. Others' annotations wake nobody."""
    metadata = (state or {}).get("metadata") or {}
    annotations = metadata.get("annotations") or {}
    ours = {key: value for key, value in annotations.items() if key.startswith(f"{names.GROUP}/")}
    return ours, metadata.get("finalizers")


def _references(key: Key, state: Object | None) -> Iterable[Key]:
    """What an object's spec names directly."""
    spec = (state or {}).get("spec") or {}
    if key.kind == names.ENDPOINT and spec.get("endpointConfigName"):
        return (Key(names.ENDPOINT_CONFIG, key.namespace, spec["endpointConfigName"]),)
    if key.kind == names.ENDPOINT_CONFIG:
        return tuple(Key(names.MODEL, key.namespace, name) for name in model_names(spec))
    return ()


def _claim(key: Key, state: Object) -> tuple[tuple[str, str, str], ...]:
    if key.kind != names.ENDPOINT:
        return ()
    try:
        place = pinned_place(state)
    except ValueError:  # an annotation is what anybody can write
        return ()
    return (place.claim,) if place else ()


def _is_in_cluster(key: Key, state: Object) -> bool:
    return key.kind == names.ENDPOINT and (state.get("spec") or {}).get("backend") == names.BACKEND_CLUSTER


def _revision_owner(state: Object) -> str | None:
    metadata = state.get("metadata") or {}
    owner = (metadata.get("annotations") or {}).get(LABEL_ENDPOINT) or (metadata.get("labels") or {}).get(
        LABEL_ENDPOINT
    )
    return str(owner) if owner else None


def _discard(index: dict[Any, set[Any]], key: Any, value: Any) -> None:
    values = index.get(key)
    if values is not None:
        values.discard(value)
        if not values:
            del index[key]
