"""The instance types that the cluster knows: the built-in ones, and the administrator's ConfigMap over them.

One that cannot be understood changes nothing: fleets that stand keep their templates anyway, and new ones get what was
last understood."""

import logging

import yaml

from sluice.core.instance_types import CONFIG_MAP, DATA_KEY, InstanceTypes, parse
from sluice.ports.kube import Object

logger = logging.getLogger(__name__)


class InstanceTypesFile:
    """Reads the ConfigMap; remembers what it last understood."""

    def __init__(self) -> None:
        self._last = parse(None)

    @property
    def last(self) -> InstanceTypes:
        """What was last understood."""
        return self._last

    def read(self, config_map: Object | None) -> InstanceTypes:
        """The types as the ConfigMap has them now."""
        try:
            text = ((config_map or {}).get("data") or {}).get(DATA_KEY)
            self._last = parse(yaml.safe_load(text) if text else None)
        except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:  # as in policy.py
            logger.error("ConfigMap %s: the last instance types stand: %s", CONFIG_MAP, error)
        return self._last
