"""Lets a router go without losing a request: its health check fails, it takes no new connections, requests end."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from sluice.router.admin import Admin, EnvoyGone, EnvoyUnavailable

logger = logging.getLogger(__name__)

T = TypeVar("T")

LET_GO_SECONDS: Final = 5.0
"""Until kube-proxy and load balancers send nothing new here."""
POLL_SECONDS: Final = 0.25
SILENT_SECONDS: Final = 10.0
"""An Envoy that answers nothing for so long is frozen: nothing is to be waited for. One that is only busy serves on,
and would be ended with all its requests."""


async def drain(admin: Admin, within_seconds: float, let_go_seconds: float = LET_GO_SECONDS) -> bool:
    """Whether no request was left. Repeating it, in either container, does no harm."""
    ends = time.monotonic() + within_seconds
    try:
        await _asked(admin.fail_health_check, ends)
        await _asked(admin.drain, ends)
    except EnvoyUnavailable as error:
        logger.warning("nothing to drain: %s", error)
        return True
    return await drained(admin, ends - time.monotonic(), let_go_seconds)


async def drained(admin: Admin, within_seconds: float, let_go_seconds: float = LET_GO_SECONDS) -> bool:
    """As `drain`, but only waits: somebody else lets the router go."""
    started = time.monotonic()
    ends = started + within_seconds
    try:
        while time.monotonic() < ends:
            running = await _asked(admin.requests_running, ends)
            if not running and time.monotonic() - started >= let_go_seconds:
                return True
            await asyncio.sleep(POLL_SECONDS)
    except EnvoyUnavailable as error:
        logger.warning("nothing to drain: %s", error)
        return True
    return False


async def _asked(ask: Callable[[], Awaitable[T]], ends: float) -> T:
    """The answer, of an Envoy that may be busy. Raises EnvoyUnavailable."""
    silent = min(time.monotonic() + SILENT_SECONDS, ends)
    while True:
        try:
            return await ask()
        except EnvoyGone:
            raise
        except EnvoyUnavailable:
            if time.monotonic() >= silent:
                raise
        await asyncio.sleep(POLL_SECONDS)
