"""Callers: an unmodified boto3, and a constant load that counts every answer."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp
import boto3
from botocore.config import Config


def client(url: str) -> Any:
    """boto3's sagemaker-runtime; one attempt, so that nothing is hidden."""
    return boto3.client(
        "sagemaker-runtime",
        endpoint_url=url,
        region_name="eu-west-1",
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}, read_timeout=70),
    )


def order(do: str, **rest: Any) -> bytes:
    """A body that tells the container what to do."""
    return json.dumps({"do": do, **rest}).encode()


class Load:
    """So many requests at once to one endpoint, on a thread of its own, until it is stopped. `pause`: seconds between
    an answer and the next request, so that several loads leave each other room."""

    def __init__(
        self,
        url: str,
        endpoint: str,
        *,
        concurrency: int = 8,
        keep_alive: bool = True,
        body: bytes = b"x",
        content_type: str = "application/octet-stream",
        pause: float = 0.0,
        enter: Callable[[], None] = lambda: None,
    ) -> None:
        self._url = f"{url}/endpoints/{endpoint}/invocations"
        self._concurrency, self._keep_alive, self._pause, self._enter = concurrency, keep_alive, pause, enter
        self._body, self._headers = body, {"Content-Type": content_type}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._main, name=f"load on {endpoint}", daemon=True)
        self.statuses: Counter[str] = Counter()
        self.variants: Counter[str] = Counter()
        self.answers: Counter[str] = Counter()
        self.samples: list[str] = []

    def __enter__(self) -> "Load":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(90)
        assert not self._thread.is_alive()

    @property
    def total(self) -> int:
        """Answers so far."""
        return sum(self.statuses.values())

    def lost(self) -> dict[str, int]:
        """Everything but 200."""
        return {status: count for status, count in self.statuses.items() if status != "200"}

    def _main(self) -> None:
        self._enter()
        asyncio.run(self._run())

    async def _run(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, force_close=not self._keep_alive)
        async with aiohttp.ClientSession(connector=connector) as session:
            await asyncio.gather(*(self._caller(session) for _ in range(self._concurrency)))

    async def _caller(self, session: aiohttp.ClientSession) -> None:
        while not self._stop.is_set():
            try:
                async with session.post(self._url, data=self._body, headers=self._headers) as answer:
                    text = await answer.text()
                    self.statuses[str(answer.status)] += 1
                    self.answers[text] += 1
                    self.variants[answer.headers.get("x-amzn-invoked-production-variant", "")] += 1
                    if answer.status != 200 and len(self.samples) < 5:
                        self.samples.append(f"{answer.status} {text}")
            except (aiohttp.ClientError, OSError) as error:  # TimeoutError too
                self.statuses[type(error).__name__] += 1
                self.samples.append(repr(error))
            if self._pause:
                await asyncio.sleep(self._pause)
