"""The instance types that the cluster knows: the built-in ones, and the administrator's ConfigMap over them.

One that cannot be understood changes nothing: fleets that stand keep their templates anyway, and new ones get what was
last understood. When the operator starts, nothing was. To take the built-in types for what it may say would make new
fleets without their nodes' selector and tolerations; to wait for somebody to mend it would hold up every pass, and with
them the alarms that turn deployments back. So the types that its text names are known to nobody until it is mended (it
can say something of no others): no fleet of them is made and no deployment of them begins, which their Endpoints say
(UnknownInstanceType); what serves goes on serving, and what is under way goes on, or back, with the fleets that stand.

One that the API server does not give is waited for (ConfigMapReader.sync); one that is not there says nothing."""

import logging
import re
from typing import Final

import yaml

from sluice.core.instance_types import BUILT_IN, CONFIG_MAP, DATA_KEY, InstanceTypes, parse
from sluice.ports.kube import Object

logger = logging.getLogger(__name__)

_NAMED: Final = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9-]+", re.IGNORECASE)


class InstanceTypesFile:
    """Reads the ConfigMap; remembers what it last understood."""

    def __init__(self) -> None:
        self._last = parse(None)
        self._understood = False

    @property
    def last(self) -> InstanceTypes:
        """What was last understood; before anything was, what can be known all the same."""
        return self._last

    def read(self, config_map: Object | None) -> InstanceTypes:
        """The types as the ConfigMap has them now."""
        text = str(((config_map or {}).get("data") or {}).get(DATA_KEY) or "")
        try:
            self._last = parse(yaml.safe_load(text) if text else None)
            self._understood = True
        except (ValueError, TypeError, RecursionError, yaml.YAMLError) as error:  # as in policy.py
            if self._understood:
                logger.error("ConfigMap %s: the last instance types stand: %s", CONFIG_MAP, error)
            else:
                self._last = _without(named := {name.lower() for name in _NAMED.findall(text)})
                logger.error(
                    "ConfigMap %s cannot be understood, and this process has never seen one that can: until it is "
                    "mended no fleet is made of the instance types that it names (%s): %s",
                    CONFIG_MAP,
                    ", ".join(sorted(named)) or "none",
                    error,
                )
        return self._last


def _without(named: set[str]) -> InstanceTypes:
    return InstanceTypes({name: known for name, known in BUILT_IN.items() if name not in named})
