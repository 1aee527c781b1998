"""For tests: a simulator in a thread, on a free loopback port, with its control endpoint as methods.

>>> with Simulator() as simulator:                                  # doctest: +SKIP
...     simulator.client("sagemaker").create_model(...)
...     simulator.advance(30)
"""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from types import TracebackType
from typing import Any, Self
from urllib.error import HTTPError
from urllib.parse import quote, urlencode

import boto3
from aiohttp import web
from botocore.config import Config

from . import server
from .settings import Settings
from .simulator import DEFAULT_ACCOUNT
from .simulator import Simulator as Core

_START_SECONDS = 30
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Control:
    """The control endpoint of a running simulator, wherever it runs."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def ask(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """One control request; raises RuntimeError with the simulator's explanation when it is refused."""
        address = f"{self.url}/_simulator/{path}" + (f"?{urlencode(query)}" if query else "")
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(  # noqa: S310 - the address is the simulator's own http URL
            address, data=data, method=method, headers={"Content-Type": "application/json"}
        )
        try:
            with _OPENER.open(request, timeout=60) as answer:
                return json.load(answer)
        except HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode()}") from error

    def advance(self, seconds: float) -> float:
        """Lets simulated seconds pass; returns the simulated time."""
        return float(self.ask("POST", "clock", {"advance": seconds})["now"])

    def pace(self, speed: float) -> None:
        """Lets a running clock go on at so many simulated seconds per second."""
        self.ask("POST", "clock", {"speed": speed})

    def now(self) -> float:
        """The simulated time, in seconds since the epoch."""
        return float(self.ask("GET", "clock")["now"])

    def fault(
        self,
        kind: str,
        *,
        operation: str = "*",
        target: str = "*",
        role: str = "*",
        count: int | None = None,
        skip: int = 0,
        probability: float = 1.0,
        **parameters: Any,
    ) -> int:
        """Sets a fault (see ``faults.FaultKind``) and returns its id; patterns are shell-style."""
        body = {
            "kind": kind,
            "operation": operation,
            "target": target,
            "role": role,
            "count": count,
            "skip": skip,
            "probability": probability,
            "parameters": parameters,
        }
        return int(self.ask("POST", "faults", body)["id"])

    def faults(self) -> list[dict[str, Any]]:
        """The faults that are set, with how often each has struck (``fired``)."""
        return list(self.ask("GET", "faults"))

    def clear_faults(self, fault_id: int | None = None) -> None:
        """Takes one fault away, or all."""
        self.ask("DELETE", "faults" if fault_id is None else f"faults/{fault_id}")

    def requests(self, operation: str | None = None) -> list[dict[str, Any]]:
        """The request log, oldest first, of one operation or all."""
        entries = self.ask("GET", "requests")["requests"]
        return [entry for entry in entries if operation in (None, entry["operation"])]

    def counts(self, role: str | None = None) -> dict[str, int]:
        """How often each operation was called, by one role (or access key) or by everybody."""
        shown = self.ask("GET", "requests", counts="1")
        return dict(shown["operations"] if role is None else shown["roles"].get(role, {}))

    def codes(self) -> dict[str, int]:
        """How often each outcome was answered: "OK", error codes, "Lost"."""
        return dict(self.ask("GET", "requests", counts="1")["codes"])

    def clear_requests(self) -> None:
        """Forgets the request log and its counters."""
        self.ask("DELETE", "requests")

    def reset(self) -> None:
        """Forgets objects, faults, alarms, changed settings and the log; time goes on."""
        self.ask("POST", "reset")

    def set_alarm(self, name: str, state: str | None) -> None:
        """Sets an alarm's state, or leaves it to CloudWatch again (None)."""
        if state is None:
            self.ask("DELETE", f"alarms/{quote(name, safe='')}")
        else:
            self.ask("POST", f"alarms/{quote(name, safe='')}", {"state": state})

    def state(self) -> dict[str, Any]:
        """Everything that exists, by account and region."""
        return dict(self.ask("GET", "state"))

    def settings(self, **values: Any) -> dict[str, Any]:
        """Changes settings (see ``settings.Settings``) and returns them all."""
        return dict(self.ask("PUT", "settings", values))

    def change_endpoint(
        self, name: str, *, region: str = "us-east-1", account: str = DEFAULT_ACCOUNT, **change: Any
    ) -> None:
        """Somebody else changes an endpoint: endpointConfigName, weights, counts, tags, status, immediate=True ..."""
        self.ask("PUT", f"endpoints/{name}", change, region=region, account=account)

    def delete_endpoint(
        self, name: str, *, region: str = "us-east-1", account: str = DEFAULT_ACCOUNT, now: bool = False
    ) -> None:
        """Somebody else deletes an endpoint; ``now`` skips Deleting."""
        query = {"region": region, "account": account} | ({"now": "1"} if now else {})
        self.ask("DELETE", f"endpoints/{name}", **query)

    def set_image(self, image: str, digest: str) -> None:
        """What a tag resolves to from now on (64 hexadecimal digits)."""
        self.ask("POST", "images", {"image": image, "digest": digest})

    def introduce(self, access_key: str, account: str, role: str = "") -> None:
        """Says to which account and role an access key belongs."""
        self.ask("POST", "callers", {"accessKeyId": access_key, "account": account, "role": role})

    def require_external_id(self, role_arn: str, external_id: str | None) -> None:
        """AssumeRole of that role asks for this ExternalId from now on."""
        self.ask("POST", "roles", {"roleArn": role_arn, "externalId": external_id})

    def client(
        self, service: str, *, region: str = "us-east-1", access_key: str = "test", config: Config | None = None
    ) -> Any:
        """A plain boto3 client of sagemaker, sagemaker-runtime, application-autoscaling or sts."""
        session = boto3.Session(
            aws_access_key_id=access_key,
            aws_secret_access_key="secret",  # noqa: S106 - the simulator takes any
            region_name=region,
        )
        plain = Config(proxies={})
        # boto3-stubs knows clients by literal service names only; here the name is the caller's.
        create: Any = session.client
        return create(service, endpoint_url=self.url, config=plain.merge(config) if config else plain)


class Simulator(Control):
    """A simulator that lives as long as the ``with`` block. ``speed`` 0 is the stepped clock."""

    def __init__(
        self,
        *,
        speed: float = 0.0,
        account: str = DEFAULT_ACCOUNT,
        cloudwatch_endpoint: str | None = None,
        seed: int = 0,
        **settings: Any,
    ) -> None:
        super().__init__("http://127.0.0.1:0")
        defaults = Settings()
        defaults.change(settings)
        self.core = Core(speed, account, defaults, seed)
        self._cloudwatch_endpoint = cloudwatch_endpoint
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="sagemaker-simulator", daemon=True)

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001 - handed to the thread that waits for the start
            self._failure = error
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        app = server.application(self.core, self._cloudwatch_endpoint)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        self._started.set()
        await self._stop.wait()
        await runner.cleanup()

    def start(self) -> Self:
        """Starts serving; returns when requests are taken."""
        self._thread.start()
        if not self._started.wait(_START_SECONDS) or self._failure is not None:
            raise RuntimeError("the simulator did not start") from self._failure
        return self

    def stop(self) -> None:
        """Stops serving; raises if the simulator gave an answer that the service model does not allow."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_START_SECONDS)
        if self.core.broken_responses:
            raise AssertionError(f"the simulator broke the service model: {self.core.broken_responses}")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
