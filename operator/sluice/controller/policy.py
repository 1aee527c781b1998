"""The administrator's permission policy, read every few seconds from one ConfigMap of the operator's namespace.

It is read, not watched: a watch would need the permission to watch ConfigMaps, and one small read costs nothing.
Without a ConfigMap, or with one that cannot be understood, nothing is permitted; while the API server cannot be asked,
the last policy stands."""

import asyncio
import logging
from collections.abc import Callable

import yaml

from sluice.controller.queue import Sleep
from sluice.core.permission import Policy, PolicyError
from sluice.ports.kube import Forbidden, Kube, KubeUnavailable, Rejected

logger = logging.getLogger(__name__)

CONFIG_MAP = "sluice-permissions"
FIELD = "policy.yaml"


class PolicyReader:
    """Holds the newest policy."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        *,
        every_seconds: float,
        changed: Callable[[], None],
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._every = every_seconds
        self._changed = changed
        self._sleep = sleep
        self._version: str | None = ""
        self._policy = Policy()

    @property
    def policy(self) -> Policy:
        """The policy as last read."""
        return self._policy

    async def sync(self) -> None:
        """Read it until that succeeds once: a policy that is not known must not look like one that permits nothing."""
        delay = 0.2
        while not await self.read():
            await self._sleep(delay)
            delay = min(delay * 2, 5.0)

    async def read(self) -> bool:
        """Read it once; a change calls `changed`. False: it could not be read."""
        try:
            config_map = await self._kube.get("ConfigMap", self._namespace, CONFIG_MAP)
        except (KubeUnavailable, Forbidden, Rejected) as error:
            logger.warning("the permission policy could not be read, the last one stands: %s", error)
            return False
        version = config_map["metadata"]["resourceVersion"] if config_map else None
        if version == self._version:
            return True
        self._version = version
        if config_map is None:
            logger.warning("there is no ConfigMap %s/%s: nothing is permitted", self._namespace, CONFIG_MAP)
            policy = Policy()
        else:
            policy = parse((config_map.get("data") or {}).get(FIELD))
        if policy != self._policy:
            self._policy = policy
            self._changed()
        return True

    async def run(self) -> None:
        """Read for ever."""
        while True:
            await self._sleep(self._every)
            await self.read()


def parse(text: str | None) -> Policy:
    """The policy in the ConfigMap's field; one that cannot be understood permits nothing."""
    try:
        if text is None:
            raise PolicyError(f"ConfigMap {CONFIG_MAP}: found no field {FIELD}")
        return Policy.parse(yaml.safe_load(text))
    except (PolicyError, yaml.YAMLError) as error:
        logger.error("the permission policy permits nothing: %s", error)
        return Policy()
