"""One real Envoy, started from the bootstrap that `python -m sluice.router bootstrap` writes."""

import asyncio
import os
import signal
import subprocess
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

import envoy

from localcluster.ports import free_ports
from sluice.router.__main__ import write_bootstrap
from sluice.router.admin import Admin
from sluice.router.settings import Settings

T = TypeVar("T")
BINARY = Path(envoy.__file__).parent / "_bin" / "envoy"


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    return free_ports(1)[0]


class Envoy:
    """Started with `start`, always stopped by the fixture."""

    def __init__(self, directory: Path, *, prefix: Sequence[str] = (), address: str = "127.0.0.1", **rest: Any) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        port, metrics_port, health_port = free_ports(3)
        self.settings = Settings(
            namespace="team-a",
            pod_name="router-0",
            pod_uid="pod-uid-0",
            run_directory=directory,
            address=address,
            port=port,
            metrics_port=metrics_port,
            health_port=health_port,
            envoy=str(BINARY),
            **rest,
        )
        self.bootstrap = directory / "bootstrap.json"
        write_bootstrap(self.settings, self.bootstrap)
        self._prefix = [*prefix]
        self.process: subprocess.Popen[bytes] | None = None
        self.end_serving: Callable[[], None] = lambda: None
        """Ends who tells it its clusters and scopes now."""

    @property
    def url(self) -> str:
        """What callers call."""
        return f"http://{self.settings.address}:{self.settings.port}"

    @property
    def metrics(self) -> str:
        """What Prometheus scrapes."""
        return f"http://{self.settings.address}:{self.settings.metrics_port}"

    def start(self, *, wait: bool = True, threads: int = 1) -> None:
        """Run it; it dies with this process. It takes requests when it was told its clusters and scopes."""
        log = (self.directory / "envoy.log").open("ab")
        # A written line of the access log is there at once, not ten seconds later.
        options = f"--concurrency {threads} --use-dynamic-base-id -l warn --file-flush-interval-msec 100"
        self.process = subprocess.Popen(  # noqa: S603 - the program under test
            [*self._prefix, str(BINARY), "-c", str(self.bootstrap), *options.split()],
            stdout=log,
            stderr=log,
        )
        if wait:
            self.wait()

    def wait(self) -> None:
        """Until it takes requests."""
        self.until(lambda: self.ask(lambda admin: admin.ready()), 60)

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)
            self.process = None

    def signal(self, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT, SIGTERM."""
        assert self.process is not None
        os.kill(self.process.pid, number)

    def ask(self, question: Any) -> Any:
        """An answer of the admin interface."""

        async def call() -> Any:
            admin = Admin(self.directory / "admin.sock")
            try:
                return await question(admin)
            finally:
                await admin.close()

        return run(call())

    def log(self) -> str:
        """What Envoy said."""
        return (self.directory / "envoy.log").read_text()

    @staticmethod
    def until(condition: Any, seconds: float) -> None:
        """Poll until it holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"did not come true within {seconds} s"
            time.sleep(0.01)


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """To its end, from a test that is not asynchronous."""
    return asyncio.run(coroutine)
