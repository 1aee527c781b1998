"""Envoy's admin interface: what is warming, who is healthy, how much is under way."""

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import aiohttp

from sluice.router.bootstrap import STAT_PREFIX
from sluice.router.view import Activity

CALL_TIMEOUT_SECONDS: Final = 2.0


class EnvoyUnavailable(Exception):
    """Envoy does not answer (starting, busy, frozen, gone)."""


class EnvoyGone(EnvoyUnavailable):
    """Nobody listens where it should."""


class Admin:
    """One Envoy. Every call ends within CALL_TIMEOUT_SECONDS."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def warming(self) -> frozenset[str]:
        """Clusters whose newest definition is not in use yet."""
        # A mask that ends at an Any (`cluster`) is refused with 400, but only while something warms.
        answer = json.loads(await self._get("/config_dump?resource=dynamic_warming_clusters&mask=cluster.name"))
        return frozenset(config["cluster"]["name"] for config in answer.get("configs", ()))

    async def config(self) -> str:
        """Everything that is in force, as JSON; of keys nothing is shown."""
        return await self._get("/config_dump")

    async def activity(self) -> Activity:
        """Healthy hosts and requests of every fleet: costs Envoy a walk over all its gauges."""
        # A request that waits for a connection is pending, not active.
        requests = ("upstream_rq_active", "upstream_rq_pending_active")
        pattern = rf"^cluster\.[^;]+;.*\.(membership_healthy|{'|'.join(requests)})$"
        gauges = await self._stats("Gauges", pattern)
        healthy: dict[str, int] = {}
        running: Counter[str] = Counter()
        for name, value in gauges.items():
            fleet, what = name.removeprefix("cluster.").split(";", 1)[0], name.rsplit(".", 1)[1]
            if what in requests:
                running[fleet] += int(value)
            else:
                # In mode Direct a fleet has a cluster per container, each with all pods.
                healthy[fleet] = min(healthy.get(fleet, int(value)), int(value))
        return Activity(healthy, dict(running))

    async def passed(self) -> dict[str, frozenset[str]]:
        """Per cluster, the addresses that are not failing its active health check."""
        hosts = await self._hosts(lambda health: not _fails(health) and not health.get("pending_active_hc"))
        return {name: frozenset(address for address, _ in found) for name, found in hosts.items()}

    async def failing(self) -> dict[str, frozenset[tuple[str, int]]]:
        """Per cluster, the addresses and ports that are failing its active health check."""
        return await self._hosts(_fails)

    async def _hosts(self, chosen: Callable[[Mapping[str, object]], bool]) -> dict[str, frozenset[tuple[str, int]]]:
        """Per cluster, the addresses and ports whose health is so."""
        answer = json.loads(await self._get("/clusters?format=json"))
        return {
            cluster["name"]: frozenset(
                (at["address"], at["port_value"])
                for host in cluster.get("host_statuses", ())
                if (at := host["address"].get("socket_address")) is not None and chosen(host["health_status"])
            )
            for cluster in answer.get("cluster_statuses", ())
        }

    async def traffic_stats(self, fleets: Collection[str]) -> str:
        """Counters of answers and histograms of latencies of these fleets, as JSON with every bucket."""
        names = "|".join(sorted(fleets))
        pattern = rf"^cluster\.({names});[^.]*\.upstream_rq_([1-5]xx|time|timeout)$"
        query = {"format": "json", "histogram_buckets": "detailed", "filter": pattern}
        return await self._get("/stats?" + urlencode(query))

    async def server_info(self) -> str:
        """JSON: since when it runs, and how it was started."""
        return await self._get("/server_info")

    async def ready(self) -> bool:
        """Whether Envoy says that it takes requests."""
        try:
            return (await self._get("/ready")).strip() == "LIVE"
        except EnvoyUnavailable:
            return False

    async def fail_health_check(self) -> None:
        """From now on `GET /ping` and /ready say 503."""
        await self._post("/healthcheck/fail")

    async def drain(self) -> None:
        """Take no new connections and close those that idle."""
        await self._post("/drain_listeners?graceful&skip_exit")

    async def requests_running(self) -> int:
        """Requests under way, of all endpoints."""
        gauges = await self._stats("Gauges", rf"^http\.{STAT_PREFIX}\.downstream_rq_active$")
        return sum(int(value) for value in gauges.values())

    async def _stats(self, kind: str, pattern: str) -> dict[str, str]:
        text = await self._get("/stats?" + urlencode({"type": kind, "filter": pattern}))
        lines = (line.rpartition(": ") for line in text.splitlines() if ": " in line)
        return {name: value for name, _, value in lines}

    async def _get(self, path: str) -> str:
        return await self._call("GET", path)

    async def _post(self, path: str) -> str:
        return await self._call("POST", path)

    async def _call(self, method: str, path: str) -> str:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(str(self._socket)),
                timeout=aiohttp.ClientTimeout(total=CALL_TIMEOUT_SECONDS),
            )
        try:
            async with self._session.request(method, f"http://envoy{path}") as response:
                text = await response.text()
        except aiohttp.ClientConnectorError as error:
            raise EnvoyGone(f"{method} {path}: {error}") from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EnvoyUnavailable(f"{method} {path}: {type(error).__name__}: {error}") from error
        if response.status != 200:
            raise EnvoyUnavailable(f"{method} {path}: {response.status} {text.strip()[:200]}")
        return text


def _fails(health: Mapping[str, object]) -> bool:
    return bool(health.get("failed_active_health_check"))
