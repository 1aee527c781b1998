"""The router's settings: environment variables of its containers, the same for all."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from sluice.core.cluster.names import ROUTER_HEALTH_PORT, ROUTER_METRICS_PORT, ROUTER_PORT
from sluice.router.bootstrap import MAX_STREAMS

RUN_DIRECTORY: Final = "/var/run/sluice/envoy"
"""What agent and Envoy share; the cluster room mounts it."""
PREFIX: Final = "SLUICE_ROUTER_"


class WrongSettingError(Exception):
    """A variable is missing or not understood; the message names it."""


@dataclass(frozen=True, slots=True)
class Settings:
    """All of them. SLUICE_ROUTER_ and the upper-case name, but for the pod's own three."""

    namespace: str
    """POD_NAMESPACE."""
    pod_name: str
    """POD_NAME."""
    pod_uid: str
    """POD_UID."""
    run_directory: Path = Path(RUN_DIRECTORY)
    address: str = "0.0.0.0"  # noqa: S104 - the router's purpose
    port: int = ROUTER_PORT
    metrics_port: int = ROUTER_METRICS_PORT
    health_port: int = ROUTER_HEALTH_PORT
    access_log: bool = False
    """One JSON line per request on standard output."""
    max_connections: int = 20_000
    """Downstream connections at once."""
    max_streams: int = MAX_STREAMS
    """Streams at once; more are answered ServiceUnavailable."""
    heap_bytes: int = 0
    """Memory at which Envoy refuses new requests; 0: no limit of its own."""
    envoy: str = "envoy"
    """The program, for validating a route that Envoy refused."""
    drain_seconds: int = 75
    """How long a draining router waits for requests to end."""
    log_level: str = "INFO"

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> "Settings":
        """Raises WrongSettingError."""
        values: dict[str, object] = {
            "namespace": environ.get("POD_NAMESPACE", "default"),
            "pod_name": environ.get("POD_NAME", ""),
            "pod_uid": environ.get("POD_UID", ""),
        }
        for name, kind in cls.__annotations__.items():
            text = environ.get(PREFIX + name.upper())
            if name in values or text is None:
                continue
            try:
                values[name] = _READERS[kind](text)
            except (ValueError, KeyError) as error:
                raise WrongSettingError(f"{PREFIX}{name.upper()}={text!r} is not {kind.__name__}") from error
        return cls(**values)  # type: ignore[arg-type] # read by annotation


def _flag(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


_READERS: Final[Mapping[type, Callable[[str], object]]] = {bool: _flag, int: int, str: str, Path: Path}
