"""What the routers count of each fleet, for alarms: invocations that ended, those that failed, and how long they took.

Cumulative since Envoy started: whoever asks twice has the difference. Nothing is kept here."""

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sluice.router.admin import Admin, EnvoyUnavailable

MAX_FLEETS: Final = 100
"""In one question, which is one line of a request."""
_FLEET: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_UPTIME: Final = re.compile(r"^(\d+)s$")


class WrongQuestionError(Exception):
    """Names that are none, or too many of them."""


@dataclass(slots=True)
class FleetTraffic:
    """One fleet, over its clusters."""

    requests: int = 0
    """Invocations that were answered, by a container or in its place (a time-out is a 504, a broken connection a
    503)."""
    errors_4xx: int = 0
    errors_5xx: int = 0
    timed_out: int = 0
    """Of those, the ones that no answer came for in time; they are in no bucket."""
    latency: dict[float, tuple[float, int]] = field(default_factory=dict)
    """Lower bound -> (width, how many): milliseconds, within a tenth."""


async def read(admin: Admin, fleets: Collection[str]) -> Mapping[str, Any]:
    """The answer to `GET /traffic?fleet=...`. Raises WrongQuestionError, EnvoyUnavailable."""
    if not 0 < len(fleets) <= MAX_FLEETS or not all(_FLEET.fullmatch(name) for name in fleets):
        raise WrongQuestionError(f"1 to {MAX_FLEETS} parameters `fleet`, each a fleet's name")
    # Before the counters: they are never younger than it says.
    uptime = await _uptime(admin)
    found = count(json.loads(await admin.traffic_stats(fleets)), fleets)
    return {
        "uptimeSeconds": uptime,
        "fleets": {
            name: {
                "requests": fleet.requests,
                "errors4xx": fleet.errors_4xx,
                "errors5xx": fleet.errors_5xx,
                "timedOut": fleet.timed_out,
                "latency": [[lower, width, number] for lower, (width, number) in sorted(fleet.latency.items())],
            }
            for name, fleet in found.items()
        },
    }


def count(stats: Mapping[str, Any], fleets: Collection[str]) -> Mapping[str, FleetTraffic]:
    """From Envoy's /stats as JSON with detailed buckets. A fleet that Envoy does not know has counted nothing."""
    found = {name: FleetTraffic() for name in fleets}
    for entry in stats.get("stats", ()):
        if "name" in entry:
            fleet, what = _parts(entry["name"])
            if fleet in found:
                _add(found[fleet], what, int(entry["value"]))
            continue
        for histogram in entry["histograms"].get("details", ()):
            fleet, what = _parts(histogram["name"])
            if fleet not in found or what != "time":
                continue
            latency = found[fleet].latency
            for bucket in histogram.get("totals") or ():
                lower, width = float(bucket["lower_bound"]), float(bucket["width"])
                latency[lower] = (width, latency.get(lower, (width, 0))[1] + int(bucket["count"]))
    return found


def _add(fleet: FleetTraffic, what: str, number: int) -> None:
    if what == "timeout":
        fleet.timed_out += number
        return
    fleet.requests += number
    if what == "4xx":
        fleet.errors_4xx += number
    elif what == "5xx":
        fleet.errors_5xx += number


def _parts(stat: str) -> tuple[str, str]:
    """cluster.FLEET;ENDPOINT;VARIANT;REVISION;CONTAINER;.upstream_rq_5xx -> (FLEET, 5xx)."""
    return stat.removeprefix("cluster.").split(";", 1)[0], stat.rpartition("upstream_rq_")[2]


async def _uptime(admin: Admin) -> int:
    text = str(json.loads(await admin.server_info()).get("uptime_current_epoch"))
    found = _UPTIME.match(text)
    if found is None:
        raise EnvoyUnavailable(f"/server_info: uptime_current_epoch is {text!r}")
    return int(found[1])
