"""What this process can handle, found out at its start: the watched namespaces that may be read, and whether backend
Cluster can work. Both are looked at again, and end the process when they have changed: all else is built for what was
found.

A watched namespace that is deleted takes the operator's Role with it. It must not keep the others waiting, neither at
the start nor later: what lists all namespaces, as the sweep does, would be refused for ever."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Final

from sluice.api import names
from sluice.controller.queue import Sleep
from sluice.main import cluster
from sluice.main.settings import Settings
from sluice.ports.kube import Forbidden, Gone, Kube, KubeUnavailable, Rejected

logger = logging.getLogger(__name__)

PATIENCE_SECONDS: Final = 10
"""Roles that are just being made are waited for so long."""
LOOK_AGAIN_SECONDS: Final = 30.0


class ReachChangedError(Exception):
    """Something can be handled that could not be at the start, or the reverse."""


@dataclass(frozen=True, slots=True)
class Reach:
    """`settings`: with the namespaces that may be read; `left_out`: those that may not; `missing`: what keeps backend
    Cluster from working, None: nothing."""

    settings: Settings
    left_out: tuple[str, ...] = ()
    missing: str | None = None

    @property
    def may_change(self) -> bool:
        """Whether there is anything to look at again."""
        several = len(self.settings.watch_namespaces) > 1
        return several or bool(self.left_out) or (self.missing is not None and self.settings.cluster_backend)


async def find(kube: Kube, settings: Settings, *, sleep: Sleep = asyncio.sleep) -> Reach:
    """Find it out. An API server that is away is waited for; where no namespace may be read, none is left out, as
    the first listing waits."""
    left_out = await _left_out(kube, settings.watch_namespaces, sleep)
    if left_out:
        logger.warning("left out, as they may not be read (are they gone?): namespaces %s", ", ".join(left_out))
        readable = tuple(space for space in settings.watch_namespaces if space not in left_out)
        settings = replace(settings, watch_namespaces=readable)
    missing = await cluster.missing(kube, settings)
    if missing is not None:
        logger.warning("backend Cluster is off: %s", missing)
    return Reach(settings, left_out, missing)


async def until_it_changes(kube: Kube, reach: Reach, *, sleep: Sleep = asyncio.sleep) -> None:
    """Look again, for ever. Raises ReachChangedError."""
    watched, lost_before = reach.settings.watch_namespaces, frozenset[str]()
    while True:
        await sleep(LOOK_AGAIN_SECONDS)
        try:
            refused = await _refused(kube, reach.left_out)
            lost = frozenset(await _refused(kube, watched) if len(watched) > 1 else ())
        except KubeUnavailable:
            continue
        # Twice: Roles are replaced by deleting and making them. Where none may be read it is not the namespaces.
        if lost & lost_before and len(lost) < len(watched):
            gone = ", ".join(sorted(lost & lost_before))
            raise ReachChangedError(f"namespaces that were watched may not be read any more (are they gone?): {gone}")
        lost_before = lost
        if refused != reach.left_out:
            back = ", ".join(space for space in reach.left_out if space not in refused)
            raise ReachChangedError(f"namespaces that were left out may be read: {back}")
        if reach.missing is not None and await cluster.missing(kube, reach.settings) is None:
            raise ReachChangedError("backend Cluster was off and can work now")


async def _left_out(kube: Kube, namespaces: tuple[str, ...], sleep: Sleep) -> tuple[str, ...]:
    tries = PATIENCE_SECONDS
    while True:
        try:
            refused = await _refused(kube, namespaces)
        except KubeUnavailable:
            refused = namespaces
        else:
            tries -= 1
            if not refused or tries < 0:
                return refused if refused != namespaces else ()
        await sleep(1)


async def _refused(kube: Kube, namespaces: Iterable[str]) -> tuple[str, ...]:
    """Those whose Endpoints may not be read. Raises KubeUnavailable."""
    refused = []
    for namespace in namespaces:
        try:
            async for _ in kube.list_metadata(names.ENDPOINT, namespace):
                break
        except Forbidden:
            refused.append(namespace)
        except (Gone, Rejected):  # the first listing says so, and waits
            continue
    return tuple(refused)
