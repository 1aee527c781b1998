"""Lets a router go without losing a request: its health check fails, it takes no new connections, requests end."""

import asyncio
import logging
import time
from typing import Final

from sluice.router.admin import Admin, EnvoyUnavailable

logger = logging.getLogger(__name__)

LET_GO_SECONDS: Final = 5.0
"""Until kube-proxy and load balancers send nothing new here."""
POLL_SECONDS: Final = 0.25


async def drain(admin: Admin, within_seconds: float, let_go_seconds: float = LET_GO_SECONDS) -> bool:
    """Whether no request was left. Repeating it, in either container, does no harm."""
    try:
        await admin.fail_health_check()
        await admin.drain()
    except EnvoyUnavailable as error:
        logger.warning("nothing to drain: %s", error)
        return True
    return await drained(admin, within_seconds, let_go_seconds)


async def drained(admin: Admin, within_seconds: float, let_go_seconds: float = LET_GO_SECONDS) -> bool:
    """As `drain`, but only waits: somebody else lets the router go."""
    started = time.monotonic()
    try:
        while time.monotonic() - started < within_seconds:
            running = await admin.requests_running()
            if not running and time.monotonic() - started >= let_go_seconds:
                return True
            await asyncio.sleep(POLL_SECONDS)
    except EnvoyUnavailable as error:
        logger.warning("nothing to drain: %s", error)
        return True
    return False
