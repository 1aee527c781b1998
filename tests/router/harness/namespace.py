"""A network namespace of the test's own: EndpointSlices refuse loopback addresses, so containers need others."""

import ctypes
import os
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
CLONE_NEWNET = 0x40000000


class NetworkNamespace:
    """Exists until `close`. Its loopback carries 198.18.0.0/24 (RFC 2544, for benchmarks)."""

    def __init__(self, addresses: int = 8) -> None:
        up = "ip link set lo up; " + "".join(f"ip addr add 198.18.0.{n}/32 dev lo; " for n in range(1, addresses + 1))
        self._holder = subprocess.Popen(  # noqa: S603
            ["unshare", "--net", "sh", "-ec", up + "echo up; exec cat"],  # noqa: S607
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        assert self._holder.stdout.readline() == b"up\n", "needs root and iproute2"
        self.path = Path(f"/proc/{self._holder.pid}/ns/net")

    @property
    def prefix(self) -> list[str]:
        """Before a command: runs it in here."""
        return ["nsenter", f"--net={self.path}"]

    def enter(self) -> None:
        """Moves the calling thread in here, for good."""
        with self.path.open() as file:
            if ctypes.CDLL(None, use_errno=True).setns(file.fileno(), CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def call(self, question: Callable[[], T]) -> T:
        """Its answer, asked from in here."""
        answers: list[T] = []
        errors: list[BaseException] = []

        def main() -> None:
            self.enter()
            try:
                answers.append(question())
            except BaseException as error:  # noqa: BLE001 - raised again by the caller
                errors.append(error)

        thread = threading.Thread(target=main)
        thread.start()
        thread.join(120)
        if errors:
            raise errors[0]
        return answers[0]

    def close(self) -> None:
        """Processes in it must have ended."""
        assert self._holder.stdin is not None
        self._holder.stdin.close()
        self._holder.wait(60)
