"""What kopf does here: it watches, and hands every event to the cache, or to the wakes. Nothing else.

kopf writes nothing on our objects: there are no change handlers, so it has no finalizer, no annotations and no state of
its own there. Why it is used in this way only: docs/decisions.md."""

import itertools
import random
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any, Protocol

import kopf

from sluice.api import names
from sluice.cluster.labels import MANAGED
from sluice.controller.cache import Source
from sluice.controller.feed import Feed
from sluice.controller.sweep import selector
from sluice.kube.configuration import Login
from sluice.kube.resources import RESOURCES
from sluice.ports.kube import Object

WATCHED = (names.MODEL, names.ENDPOINT_CONFIG, names.ENDPOINT, "ControllerRevision")
WAKING = {"Deployment": MANAGED, "Pod": MANAGED, names.ENDPOINT_ROUTE: MANAGED, names.ROUTER_REPORT: ""}
"""Kinds of the Cluster backend that are not cached, and by which labels they are watched."""


class Backoffs:
    """Delays between attempts to reach the API server, without end: 1 to 10 s, jittered."""

    def __iter__(self) -> Iterator[float]:
        for attempt in itertools.count():
            yield min(10.0, 1.5**attempt) * random.uniform(0.8, 1.2)  # noqa: S311 - spreads calls, hides nothing


class Moved(Protocol):
    """Hears of an object of the Cluster backend."""

    def __call__(self, item: Object, *, gone: bool) -> None:
        """It came, changed or went."""
        ...


class NoDifferences(kopf.DiffBaseStorage):
    """kopf compares every object with its last handled state for change handlers. We have none, and the copies that it
    makes for it were the largest part of what an event costs."""

    def build(self, *, body: kopf.Body, extra_fields: Iterable[Any] | None = None) -> kopf.BodyEssence:
        """Nothing to compare."""
        return kopf.BodyEssence()

    def fetch(self, *, body: kopf.Body) -> kopf.BodyEssence | None:
        """Nothing was stored."""
        return None

    def store(self, *, body: kopf.Body, patch: kopf.Patch, essence: kopf.BodyEssence) -> None:
        """Nothing is stored."""


def registry(
    feed: Feed, relisted: Callable[[], None], moved: Moved | None, login: Callable[[], Awaitable[Login]]
) -> kopf.OperatorRegistry:
    """The handlers: one for each watched kind, and the credentials.

    relisted is called when a watch was opened anew: kopf lists then, without telling what is gone. moved: None where
    the Cluster backend is off."""
    handlers = kopf.OperatorRegistry()
    for kind in WATCHED:
        _watch(handlers, kind, feed, relisted)
    if moved is not None:
        for kind in WAKING:
            _wake(handlers, kind, moved)

    @kopf.on.login(registry=handlers)
    async def credentials(**_: Any) -> kopf.ConnectionInfo:
        """The same server and identity as all other calls."""
        found = await login()
        return kopf.ConnectionInfo(
            server=found.server,
            ca_path=found.ca_path,
            insecure=found.insecure,
            certificate_path=found.certificate_path,
            private_key_path=found.private_key_path,
            scheme=found.scheme,
            token=found.token,
            trust_env=True,
        )

    return handlers


def _watch(handlers: kopf.OperatorRegistry, kind: str, feed: Feed, relisted: Callable[[], None]) -> None:
    resource = RESOURCES[kind]
    group, _, version = resource.api_version.rpartition("/")

    @kopf.on.event(group, version, resource.plural, registry=handlers, id=f"watch-{resource.plural}")
    async def watched(event: kopf.RawEvent, **_: Any) -> None:
        """Into the cache, and on to the queue."""
        item = {**event["object"], "kind": kind, "apiVersion": resource.api_version}
        if event["type"] is None:
            relisted()
        if event["type"] == "DELETED":
            feed.gone(item, Source.WATCH)
        else:
            feed.seen(item, Source.WATCH)


def _wake(handlers: kopf.OperatorRegistry, kind: str, moved: Moved) -> None:
    resource = RESOURCES[kind]
    group, _, version = resource.api_version.rpartition("/")

    @kopf.on.event(group, version, resource.plural, registry=handlers, id=f"watch-{resource.plural}")
    async def heard(event: kopf.RawEvent, **_: Any) -> None:
        """On to the queue."""
        item = {**event["object"], "kind": kind, "apiVersion": resource.api_version}
        moved(item, gone=event["type"] == "DELETED")


def kopf_settings() -> kopf.OperatorSettings:
    """How kopf watches."""
    settings = kopf.OperatorSettings()
    settings.peering.standalone = True
    settings.posting.enabled = False
    settings.posting.loggers = False
    settings.persistence.diffbase_storage = NoDifferences()
    # No watching of CRDs and namespaces, so no cluster-wide permission for it: the operator waits for its CRDs itself.
    settings.scanning.disabled = True
    settings.watching.chunk_size = 500
    # The API server ends a stream after five minutes; a silent one (no bookmark for 70 s) is opened anew before.
    settings.watching.server_timeout = 300
    settings.watching.inactivity_timeout = 70
    # kopf keeps one task per object that had an event; ours take microseconds.
    settings.queueing.idle_timeout = 0.5
    # An API server that is away is waited for, however long; the Lease says when acting must stop.
    settings.networking.error_backoffs = Backoffs()
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 60
    settings.networking.trust_env = True
    for kind, labels in {**{kind: selector(kind) for kind in WATCHED}, **WAKING}.items():
        if labels:
            resource = RESOURCES[kind]
            group, _, version = resource.api_version.rpartition("/")
            settings.watching.label_selectors[group, version, resource.plural] = labels
    return settings
