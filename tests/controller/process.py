"""The operator as a subprocess, as other tests and people start it."""

import asyncio
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import aiohttp
from tests.controller.waiting import until

ROOT = Path(__file__).parents[2]


class OperatorProcess:
    """`python -m sluice.main` with an environment of its own; its log goes to a file."""

    def __init__(self, kubeconfig: Path, log: Path, **settings: str) -> None:
        self.log = log
        self._environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(log.parent),
            "PYTHONPATH": str(ROOT / "operator"),
            "KUBECONFIG": str(kubeconfig),
            "SLUICE_HEALTH_PORT": "0",
            "AWS_EC2_METADATA_DISABLED": "true",
            **settings,
        }
        self._process: asyncio.subprocess.Process | None = None
        self.port = 0

    async def start(self, *, ready: bool = True) -> None:
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "sluice.main", env=self._environment, stderr=log, stdout=log, cwd=self.log.parent
            )
        if ready:
            await until(self._find_port, 120)
            await until(self.is_ready, 120)

    def _find_port(self) -> int:
        assert self.process.returncode is None, self.log.read_text()[-3000:]
        for line in self.lines():
            if "health and metrics on port" in line["message"]:
                self.port = int(line["message"].rsplit(" ", 1)[1])
        return self.port

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None, "not started"
        return self._process

    def lines(self) -> list[dict[str, Any]]:
        """The log so far; of a line that is just being written nothing."""
        written, _, _ = self.log.read_text().rpartition("\n")
        return [json.loads(line) for line in written.splitlines() if line.startswith("{")]

    def said(self, text: str) -> bool:
        return any(text in line["message"] for line in self.lines())

    async def ask(self, path: str) -> tuple[int, str]:
        url = f"http://127.0.0.1:{self.port}{path}"
        async with aiohttp.ClientSession() as session, session.get(url) as answer:
            return answer.status, await answer.text()

    async def is_ready(self) -> bool:
        assert self.process.returncode is None, self.log.read_text()[-3000:]
        status, _ = await self.ask("/readyz")
        return status == 200

    async def stop(self, number: int = signal.SIGTERM, within_seconds: float = 120) -> int:
        """Signal it and wait; returns the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(number)
        async with asyncio.timeout(within_seconds):
            return await self.process.wait()

    async def end(self) -> None:
        """Make sure that it is gone."""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()
