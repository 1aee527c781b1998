"""Writes this router's RouterReports: when something changed, and not more often than a few times a second.

The API server spends 40 ms on a report of 200 endpoints, however little of it changed. So a report comes in parts, and
an endpoint belongs to the same part for good: a change writes one of them.
"""

import asyncio
import logging
import zlib
from collections.abc import Mapping
from typing import Final

from sluice.api.names import API_VERSION, ROUTER_REPORT
from sluice.api.routes import RejectedRoute, RouteReport, RouterReportSpec
from sluice.core.cluster.names import LABEL_ROUTER, ROUTER
from sluice.core.revision import LABEL_MANAGED_BY, MANAGED_BY
from sluice.ports.kube import Conflict, Forbidden, Gone, Kube, KubeUnavailable, Object, Rejected

logger = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 0.25
"""The shortest rest between two."""
LONGEST_INTERVAL_SECONDS: Final = 1.0
RETRY_SECONDS: Final = 1.0
PARTS: Final = 16
"""The first has the pod's name, and always exists; the others only when an endpoint has belonged to them."""


class Reporter:
    """One pod's report. `write` is called with what is to be told; equal parts are written once."""

    def __init__(self, kube: Kube, namespace: str, pod_name: str, pod_uid: str) -> None:
        self._kube, self._namespace, self._name, self._uid = kube, namespace, pod_name, pod_uid
        self._written: dict[int, RouterReportSpec] = {}
        self._objects: dict[int, Object] = {}

    async def write(self, spec: RouterReportSpec) -> bool:
        """False: it could not be written now; try again."""
        due = {number: part for number, part in split(spec).items() if part != self._written.get(number)}
        done = await asyncio.gather(*(self._write(number, part) for number, part in due.items()))
        return all(done)

    async def _write(self, number: int, part: RouterReportSpec) -> bool:
        name = part_name(self._name, number)
        body = self._body(name, part)
        try:
            known = self._objects.get(number) or await self._kube.get(ROUTER_REPORT, self._namespace, name)
            if known is not None:
                body["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"]
                self._objects[number] = await self._kube.replace(ROUTER_REPORT, self._namespace, body)
            elif number == 0 or part.routes or part.rejected:
                self._objects[number] = await self._kube.create(ROUTER_REPORT, self._namespace, body)
        except (Conflict, Gone, KubeUnavailable, Forbidden, Rejected) as error:
            logger.warning("the report %s was not written: %s", name, error)
            self._objects.pop(number, None)
            # Perhaps it was: a call without an answer may be obeyed later. What stands there is not known any more, and
            # must not pass for what stood there before it.
            self._written.pop(number, None)
            return False
        self._written[number] = part
        return True

    def _body(self, name: str, spec: RouterReportSpec) -> Object:
        return {
            "apiVersion": API_VERSION,
            "kind": ROUTER_REPORT,
            "metadata": {
                "name": name,
                "namespace": self._namespace,
                "labels": {LABEL_MANAGED_BY: MANAGED_BY, LABEL_ROUTER: ROUTER},
                # The report goes with its pod.
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": self._name, "uid": self._uid}],
            },
            "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        }


def whole(pod_uid: str, routes: tuple[RouteReport, ...], rejected: tuple[RejectedRoute, ...]) -> RouterReportSpec:
    """All that a router reports. Not validated: what the API limits is each part, and all of them may be more."""
    return RouterReportSpec.model_construct(pod_uid=pod_uid, routes=routes, rejected=rejected)


def split(spec: RouterReportSpec) -> Mapping[int, RouterReportSpec]:
    """The parts, by number."""
    routes: dict[int, list[RouteReport]] = {number: [] for number in range(PARTS)}
    rejected: dict[int, list[RejectedRoute]] = {number: [] for number in range(PARTS)}
    for route in spec.routes:
        routes[_part_of(route.name)].append(route)
    for refused in spec.rejected:
        rejected[_part_of(refused.name)].append(refused)
    return {
        number: spec.model_copy(update={"routes": tuple(routes[number]), "rejected": tuple(rejected[number])})
        for number in range(PARTS)
    }


def rest(took_seconds: float) -> float:
    """Seconds to rest after a report whose writing took so long: as long. An API server that is slow has much to do:
    with hundreds of routes that change at once the reports are half of it, and the routes that come next wait."""
    return min(LONGEST_INTERVAL_SECONDS, max(INTERVAL_SECONDS, took_seconds))


def part_name(pod_name: str, number: int) -> str:
    """Of the object; a pod's name has no dot in the router's Deployment."""
    return pod_name if number == 0 else f"{pod_name}.{number}"


def _part_of(route_name: str) -> int:
    return zlib.crc32(route_name.encode()) % PARTS
