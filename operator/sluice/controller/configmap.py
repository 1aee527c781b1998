"""A ConfigMap of the operator's namespace, read every few seconds.

It is read, not watched: a watch would need the permission to watch ConfigMaps, and one small read costs nothing. While
the API server cannot be asked, the last content stands."""

import asyncio
import logging
from collections.abc import Callable
from typing import Generic, TypeVar

from sluice.controller.queue import Sleep
from sluice.ports.kube import Forbidden, Kube, KubeUnavailable, Object, Rejected

logger = logging.getLogger(__name__)

T = TypeVar("T")


class ConfigMapReader(Generic[T]):
    """Holds what the newest state of one ConfigMap says."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        parse: Callable[[Object | None], T],
        *,
        empty: T,
        every_seconds: float,
        changed: Callable[[], None],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        """`parse` never raises: what cannot be understood is its business. `empty`: before the first read."""
        self._kube = kube
        self._namespace = namespace
        self._name = name
        self._parse = parse
        self._every = every_seconds
        self._changed = changed
        self._sleep = sleep
        self._version: str | None = ""
        self._content = empty

    @property
    def content(self) -> T:
        """What it said when it was last read."""
        return self._content

    async def sync(self) -> None:
        """Read it until that succeeds once: what is not known must not look like what says nothing."""
        delay = 0.2
        while not await self.read():
            await self._sleep(delay)
            delay = min(delay * 2, 5.0)

    async def read(self) -> bool:
        """Read it once; a change calls `changed`. False: it could not be read."""
        try:
            config_map = await self._kube.get("ConfigMap", self._namespace, self._name)
        except (KubeUnavailable, Forbidden, Rejected) as error:
            logger.warning("ConfigMap %s could not be read, its last content stands: %s", self._name, error)
            return False
        version = config_map["metadata"]["resourceVersion"] if config_map else None
        if version == self._version:
            return True
        self._version = version
        content = self._parse(config_map)
        if content != self._content:
            self._content = content
            self._changed()
        return True

    async def run(self) -> None:
        """Read for ever."""
        while True:
            await self._sleep(self._every)
            await self.read()
