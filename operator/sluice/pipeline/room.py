"""How much of invocations the process may hold at once, so that the kernel does not kill it with all of them.

Every invocation is counted for what it costs, and for what of its bodies passes through buffers; a body that is held
between two containers is counted as it grows. Where there is no room, one invocation is refused, not all lost."""

from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Final

INVOCATION_BYTES: Final = 64 * 1024
"""Of an invocation with small bodies. Measured: 17 KiB, and its sockets."""
TRANSFER_BYTES: Final = 1024 * 1024
"""Of a body that passes through, however large: what Python's and the kernel's buffers of two connections hold."""
BLOCK_BYTES: Final = 64 * 1024
"""Bodies are held in blocks of so much: a container may send them byte by byte."""
_SHARE: Final = 0.6
"""Of the container's memory. The rest is the process' own (40 MiB), and what the allocator cannot use."""
_MEBIBYTE: Final = 1 << 20


class NoRoom(Exception):
    """There is no room. `later`: there will be, when others have ended."""

    def __init__(self, message: str, *, later: bool) -> None:
        super().__init__(message)
        self.later = later


class Room:
    """What all invocations hold together. Used from one event loop."""

    def __init__(self, memory_bytes: int) -> None:
        self.capacity = int(memory_bytes * _SHARE)
        self.taken = 0

    def share(self) -> "Share":
        """What one invocation holds: nothing yet. Raises NoRoom if there is none for another one."""
        share = Share(self)
        share.take(INVOCATION_BYTES)
        return share


class Share:
    """What one invocation holds. Leaving it gives all of it back."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._taken = 0
        self._passes = 0

    def __enter__(self) -> "Share":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.give(self._taken)

    def take(self, count: int) -> None:
        """Hold so many bytes more. Raises NoRoom, and holds no more than before."""
        room = self._room
        if room.taken + count > room.capacity:
            later = self._taken + count <= room.capacity
            most, held = room.capacity // _MEBIBYTE, room.taken // _MEBIBYTE
            raise NoRoom(
                f"invocations hold {held} MiB of at most {most} MiB here: try again later"
                if later
                else f"it is more than the {most} MiB that can be held here",
                later=later,
            )
        room.taken += count
        self._taken += count

    def give(self, count: int) -> None:
        """Hold so many bytes less."""
        self._room.taken -= count
        self._taken -= count

    def passes(self, length: int | None) -> None:
        """A body of this length (None: unknown) is passed on as it comes; one at a time. Raises NoRoom."""
        wanted = TRANSFER_BYTES if length is None else min(length, TRANSFER_BYTES)
        if wanted > self._passes:
            self.take(wanted - self._passes)
            self._passes = wanted


class Held:
    """A body that is held as a whole until it is sent, once."""

    def __init__(self, share: Share) -> None:
        self._share = share
        self._blocks: deque[bytearray] = deque()
        self.length = 0

    async def fill(self, chunks: AsyncIterator[bytes], length: int | None) -> None:
        """Take in the body; `length`: what is known of it. Raises NoRoom, and what reading raises."""
        reserved = length or 0
        self._share.take(reserved)
        async for chunk in chunks:
            beyond = self.length + len(chunk) - reserved
            if beyond > 0:
                self._share.take(beyond)
                reserved += beyond
            self.length += len(chunk)
            if not self._blocks or len(self._blocks[-1]) >= BLOCK_BYTES:
                self._blocks.append(bytearray())
            self._blocks[-1] += chunk

    async def sent(self) -> AsyncIterator[bytes]:
        """Its parts in turn, each given up when the next one is asked for."""
        while self._blocks:
            block = self._blocks.popleft()
            yield bytes(block)
            self._share.give(len(block))
