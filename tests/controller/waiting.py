"""Waiting for a condition with a deadline."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(ask: Callable[[], T | Awaitable[T]], within_seconds: float) -> T:
    """Asks until the answer is true; fails after the deadline with the last answer."""
    deadline = time.monotonic() + within_seconds
    while True:
        answer = ask()
        if isinstance(answer, Awaitable):
            answer = await answer
        if answer:
            return answer
        assert time.monotonic() < deadline, f"still {answer!r} after {within_seconds} s"
        await asyncio.sleep(0.05)
