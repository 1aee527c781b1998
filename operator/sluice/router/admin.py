"""Envoy's admin interface: what is in force, what is refused, who is healthy, how much is under way."""

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlencode

import aiohttp

from sluice.router.bootstrap import SCOPES, STAT_PREFIX

CALL_TIMEOUT_SECONDS: Final = 2.0
_CLUSTERS: Final = "cluster_manager.cds"
_SCOPES: Final = f"http.{STAT_PREFIX}.scoped_rds.{SCOPES}"


class EnvoyUnavailable(Exception):
    """Envoy does not answer (starting, frozen, gone)."""


@dataclass(frozen=True, slots=True)
class View:
    """What Envoy has in force."""

    clusters: str
    """The version of the clusters file; empty: none yet."""
    scopes: str
    warming: frozenset[str] = frozenset()
    """Clusters whose newest definition is not in use yet."""
    counted: bool = False
    """Whether the next two were asked for."""
    clusters_refused: int = 0
    """How many cluster files it has refused since it started."""
    scopes_refused: int = 0


UNKNOWN: Final = View("?", "?")
"""Envoy does not answer."""


@dataclass(frozen=True, slots=True)
class Activity:
    """Per fleet, over its clusters."""

    hosts: dict[str, int]
    healthy: dict[str, int]
    running: dict[str, int]
    """Requests under way."""
    known: bool = True
    """False: it was not asked for, or Envoy does not answer."""


UNKNOWN_ACTIVITY: Final = Activity({}, {}, {}, known=False)


class Admin:
    """One Envoy. Every call ends within CALL_TIMEOUT_SECONDS."""

    def __init__(self, socket: Path) -> None:
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def view(self, *, counters: bool = False) -> View:
        """What is in force; with `counters` also what was refused, which costs Envoy a walk over all its counters."""
        versions = await self._stats("TextReadouts", rf"^({_CLUSTERS}|{_SCOPES})\.version_text$")
        refused: dict[str, str] = {}
        if counters:
            refused = await self._stats("Counters", rf"^({_CLUSTERS}|{_SCOPES})\.update_(rejected|failure)$")

        def count(of: str) -> int:
            return sum(int(refused.get(f"{of}.update_{what}", 0)) for what in ("rejected", "failure"))

        return View(
            clusters=versions.get(f"{_CLUSTERS}.version_text", "").strip('"'),
            scopes=versions.get(f"{_SCOPES}.version_text", "").strip('"'),
            warming=await self._warming(),
            counted=counters,
            clusters_refused=count(_CLUSTERS),
            scopes_refused=count(_SCOPES),
        )

    async def activity(self) -> Activity:
        """Hosts and requests of every fleet."""
        gauges = await self._stats(
            "Gauges", r"^cluster\.[^;]+;.*\.(membership_total|membership_healthy|upstream_rq_active)$"
        )
        found = {"membership_total": Counter[str](), "membership_healthy": Counter[str]()}
        running: Counter[str] = Counter()
        for name, value in gauges.items():
            fleet, what = name.removeprefix("cluster.").split(";", 1)[0], name.rsplit(".", 1)[1]
            if what == "upstream_rq_active":
                running[fleet] += int(value)
            else:
                # In mode Direct a fleet has a cluster per container, each with all pods.
                counter = found[what]
                counter[fleet] = min(counter[fleet], int(value)) if fleet in counter else int(value)
        return Activity(dict(found["membership_total"]), dict(found["membership_healthy"]), dict(running))

    async def passed(self) -> dict[str, frozenset[str]]:
        """Per cluster, the addresses that are not failing its active health check."""
        answer = json.loads(await self._get("/clusters?format=json"))
        return {
            cluster["name"]: frozenset(
                host["address"]["socket_address"]["address"]
                for host in cluster.get("host_statuses", ())
                if "socket_address" in host["address"]
                and not host["health_status"].get("failed_active_health_check")
                and not host["health_status"].get("pending_active_hc")
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

    async def _warming(self) -> frozenset[str]:
        answer = json.loads(await self._get("/config_dump?resource=dynamic_warming_clusters&mask=cluster"))
        return frozenset(config["cluster"]["name"] for config in answer.get("configs", ()))

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
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise EnvoyUnavailable(f"{method} {path}: {type(error).__name__}: {error}") from error
        if response.status != 200:
            raise EnvoyUnavailable(f"{method} {path}: {response.status} {text.strip()[:200]}")
        return text
