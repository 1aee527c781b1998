"""The administrator's permission policy in its ConfigMap.

Without a ConfigMap, or with one that cannot be understood, nothing is permitted."""

import logging

import yaml

from sluice.core.permission import Policy, PolicyError
from sluice.ports.kube import Object

logger = logging.getLogger(__name__)

CONFIG_MAP = "sluice-permissions"
FIELD = "policy.yaml"


def read(config_map: Object | None) -> Policy:
    """The policy that the ConfigMap holds."""
    if config_map is None:
        logger.warning("there is no ConfigMap %s: nothing is permitted", CONFIG_MAP)
        return Policy()
    return parse((config_map.get("data") or {}).get(FIELD))


def parse(text: str | None) -> Policy:
    """The policy in the ConfigMap's field; one that cannot be understood permits nothing."""
    try:
        if text is None:
            raise PolicyError(f"ConfigMap {CONFIG_MAP}: found no field {FIELD}")
        return Policy.parse(yaml.safe_load(text))
    except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:  # YAML has dates, and 2024-13-45 is none
        logger.error("the permission policy permits nothing: %s", error)
        return Policy()
