"""What this process can handle, found out at its start: the watched namespaces that may be read, and whether backend
Cluster can work. What could not be handled then is looked at again, and ends the process when it can be: all else is
built for what was found.

A watched namespace that is deleted takes the operator's Role with it. It must not keep the others waiting."""

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


class ReachGrewError(Exception):
    """Something can be handled that could not be at the start."""


@dataclass(frozen=True, slots=True)
class Reach:
    """`settings`: with the namespaces that may be read; `left_out`: those that may not; `missing`: what keeps backend
    Cluster from working, None: nothing."""

    settings: Settings
    left_out: tuple[str, ...] = ()
    missing: str | None = None

    @property
    def may_grow(self) -> bool:
        """Whether there is anything to look at again."""
        return bool(self.left_out) or (self.missing is not None and self.settings.cluster_backend)


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


async def until_it_grows(kube: Kube, reach: Reach, *, sleep: Sleep = asyncio.sleep) -> None:
    """Look again, for ever. Raises ReachGrewError."""
    while True:
        await sleep(LOOK_AGAIN_SECONDS)
        try:
            refused = await _refused(kube, reach.left_out)
        except KubeUnavailable:
            continue
        if refused != reach.left_out:
            back = ", ".join(space for space in reach.left_out if space not in refused)
            raise ReachGrewError(f"namespaces that were left out may be read: {back}")
        if reach.missing is not None and await cluster.missing(kube, reach.settings) is None:
            raise ReachGrewError("backend Cluster was off and can work now")


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
