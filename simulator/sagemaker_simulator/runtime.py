"""InvokeEndpoint: chooses the variant and the fleet by weights, and answers with who would have answered."""

from __future__ import annotations

from http import HTTPStatus

from .deployments import traffic
from .errors import ServiceError
from .state import Region, Variant, World

SERVING = frozenset({"InService", "Updating", "SystemUpdating", "RollingBack", "UpdateRollbackFailed"})


def _refused(message: str) -> ServiceError:
    return ServiceError("ValidationError", message, HTTPStatus.BAD_REQUEST)


def invoke(world: World, region: Region, name: str, target_variant: str | None) -> tuple[Variant, str]:
    """The variant that answers and its EndpointConfig's name. A target variant answers whatever its weight."""
    endpoint = region.endpoints.get(name.lower())
    if endpoint is None or endpoint.name != name or endpoint.status not in SERVING:
        raise _refused(f"Endpoint {name} of account {region.account} not found.")
    rows = traffic(endpoint)
    if target_variant is not None:
        rows = [row for row in rows if row[0].name == target_variant]
        if not rows:
            raise _refused(f"Variant {target_variant} of endpoint {name} not found.")
    weights = [share for _, _, share, _ in rows]
    if sum(weights) <= 0:
        if target_variant is None:
            raise _refused(f"Endpoint {name} has no variant with a weight above 0.")
        weights = [1.0, *[0.0] * (len(rows) - 1)]
    ((variant, config, _, _),) = world.dice.choices(rows, weights)
    return variant, config
