"""What the agent leaves for its next process: a file per fleet and per endpoint, in the directory that Envoy and the
agent share. Every file appears whole: written beside its place and renamed over it."""

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from sluice.api.routes import EndpointRouteSpec, RouteFleet, RouteModel
from sluice.router.clusters import Host
from sluice.router.ledger import Served
from sluice.router.standing import Placed

logger = logging.getLogger(__name__)

FLEETS: Final = "fleets"
ENDPOINTS: Final = "endpoints"


class Files:
    """Reads and writes them."""

    def __init__(self, directory: Path) -> None:
        self._directories = {FLEETS: directory / FLEETS, ENDPOINTS: directory / ENDPOINTS}
        self._kept: dict[str, dict[str, Placed | Served]] = {FLEETS: {}, ENDPOINTS: {}}

    def read(self) -> tuple[dict[str, Placed], dict[str, Served]]:
        """Fleets and endpoints, by name. A file that cannot be read (the node lost power) is left out: the API server
        has what stood there."""
        placed = {one.fleet.name: one for one in map(_placed, self._bodies(FLEETS))}
        served = {one.spec.endpoint_name: one for one in map(_served, self._bodies(ENDPOINTS))}
        self._kept = {FLEETS: {**placed}, ENDPOINTS: {**served}}
        return placed, served

    def keep(self, placed: Mapping[str, Placed], served: Mapping[str, Served]) -> None:
        """Write what changed since the last time. A process that ends in the midst leaves no endpoint whose fleets
        are missing."""
        for name, fleet in placed.items():
            if self._kept[FLEETS].get(name) is not fleet:
                self._put(FLEETS, name, _placed_body(fleet))
        for name, endpoint in served.items():
            if self._kept[ENDPOINTS].get(name) != endpoint:
                self._put(ENDPOINTS, name, _served_body(endpoint))
        for folder, wanted in ((ENDPOINTS, served), (FLEETS, placed)):
            for name in self._kept[folder].keys() - wanted.keys():
                self._path(folder, name).unlink(missing_ok=True)
        self._kept = {FLEETS: {**placed}, ENDPOINTS: {**served}}

    def _bodies(self, folder: str) -> list[dict[str, Any]]:
        bodies = []
        for path in sorted(self._directories[folder].glob("*.json")):
            try:
                bodies.append(json.loads(path.read_text()))
            except ValueError as error:
                logger.error("%s is left out: %s", path, error)
                path.unlink()
        return bodies

    def _put(self, folder: str, name: str, body: dict[str, Any]) -> None:
        self._directories[folder].mkdir(exist_ok=True)
        path = self._path(folder, name)
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(body, indent=1) + "\n")
        os.replace(beside, path)

    def _path(self, folder: str, name: str) -> Path:
        return self._directories[folder] / f"{quote(name, safe='')}.json"


def _placed_body(placed: Placed) -> dict[str, Any]:
    return {
        "endpointName": placed.endpoint_name,
        "timeoutSeconds": placed.timeout_seconds,
        "hosts": [{"address": host.address, "passed": host.passed} for host in placed.hosts],
        "fleet": _plain(placed.fleet),
    }


def _placed(body: Mapping[str, Any]) -> Placed:
    return Placed(
        body["endpointName"],
        RouteFleet.model_validate(body["fleet"]),
        body["timeoutSeconds"],
        tuple(Host(**host) for host in body["hosts"]),
    )


def _served_body(served: Served) -> dict[str, Any]:
    return {"uid": served.uid, "name": served.name, "generation": served.generation, "spec": _plain(served.spec)}


def _served(body: Mapping[str, Any]) -> Served:
    return Served(body["uid"], body["name"], body["generation"], EndpointRouteSpec.model_validate(body["spec"]))


def _plain(model: RouteModel) -> dict[str, Any]:
    return model.model_dump(mode="json", by_alias=True, exclude_none=True)
