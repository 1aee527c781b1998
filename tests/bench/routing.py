"""The stage of the router's figures: an API server, routers (a real Envoy with the agent's process each) and pods in a
network namespace of the run's own, and callers there that count every answer."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.bench.routes import RouteStore
from tests.operator.harness.kube import Kube, install_crds
from tests.router.harness.namespace import NetworkNamespace
from tests.router.harness.pod import RouterPod

from localcluster.controlplane import ControlPlane

CHECKOUT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).parent
NAMESPACE = "team-a"
_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Routing:
    """Routers `router-0`, ... of one namespace, started and ready; pods and callers on demand."""

    def __init__(self, directory: Path, routers: int = 1, *, addresses: int = 8) -> None:
        self.directory = directory
        self._count, self._addresses = routers, addresses
        self._stack = ExitStack()
        self.routers: list[RouterPod] = []

    def __enter__(self) -> Self:
        with self._stack:
            self.net = NetworkNamespace(self._addresses)
            self._stack.callback(self.net.close)
            control_plane = self._stack.enter_context(ControlPlane(self.directory / "control-plane"))
            self.kubeconfig = control_plane.kubeconfig
            self.kube = Kube(self.kubeconfig)
            self._stack.callback(self.kube.close)
            install_crds(self.kube, CHECKOUT / "crds")
            self.kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
            self.routes = self._stack.enter_context(RouteStore(self.kube, NAMESPACE))
            for number in range(self._count):
                self.add_router(f"router-{number}", f"uid-{number}")
            self._stack = self._stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add_router(self, name: str, uid: str) -> RouterPod:
        """Envoy and the agent, as the pod of this name."""
        router = RouterPod(self.directory / name, self.net, NAMESPACE, self.kubeconfig)
        self._stack.callback(router.close)
        router.envoy.settings = replace(router.envoy.settings, pod_name=name, pod_uid=uid)
        router.start_agent()
        until(f"{name} is ready", lambda: router.probe("/ready") == 200, 60)
        self.routers.append(router)
        return router

    def pod(self, number: int, name: str = "", record: Path | None = None) -> Started:
        """A container at 198.18.0.NUMBER:8080 that listens; a bad one with a record of its requests."""
        pod = self.start_pod(number, name, record)
        self.until_listens(number)
        return pod

    def start_pod(self, number: int, name: str = "", record: Path | None = None) -> Started:
        """As `pod`, but it may not listen yet."""
        more = [] if record is None else [str(record)]
        argv = [str(HERE / "pod.py"), name or f"pod-{number}", f"198.18.0.{number}", "8080", *more]
        pod = Started([*self.net.prefix, sys.executable, *argv])
        self._stack.callback(pod.kill)
        return pod

    def until_listens(self, number: int) -> None:
        """Wait until the container of this number accepts connections."""
        until(f"pod {number} listens", lambda: self.net.call(lambda: listens(f"198.18.0.{number}", 8080)), 20)

    def call(self, endpoint: str, *routers: RouterPod, **options: int) -> Calls:
        """Start calling an endpoint through these routers (default: the first)."""
        addresses = [address_of(router) for router in routers or self.routers[:1]]
        return self.call_path(f"/endpoints/{endpoint}/invocations", *addresses, **options)

    def call_path(self, path: str, *addresses: str, **options: int) -> Calls:
        """Start calling a path at any addresses."""
        words = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", str(value))]
        return Calls([*self.net.prefix, sys.executable, str(HERE / "caller.py"), *words, path, *addresses])

    def confirmed(self, name: str, generation: int, *, within: float = 30, routers: int = 0) -> None:
        """Wait until so many routers (default: all) report this generation of a route."""
        wanted = routers or len(self.routers)
        until(
            f"{wanted} routers confirm generation {generation} of {name}",
            lambda: len(self.routes.confirmations(name, generation)) >= wanted,
            within,
        )


class Started:
    """A process."""

    def __init__(self, argv: Sequence[str]) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - the benchmark's own programs
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL
        )

    def stop(self) -> None:
        """SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(40)

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(10)


@dataclass(frozen=True, slots=True)
class Called:
    """What came of a caller's requests."""

    seconds: float
    statuses: dict[str, int]
    pods: dict[str, int]
    lost: list[dict[str, Any]]
    """status, began, ended (time.monotonic()), said; the first thousand."""
    latencies: dict[str, float]
    """p50, p90, p99, max in ms, of the answers with 200."""

    @property
    def total(self) -> int:
        """All requests."""
        return sum(self.statuses.values())

    @property
    def lost_count(self) -> int:
        """Everything but 200."""
        return self.total - self.statuses.get("200", 0)


@dataclass
class Calls:
    """A caller that runs."""

    argv: Sequence[str]
    total: int = 0
    first: dict[str, float] = field(default_factory=dict)
    """Pod -> time.time() of its first answer."""

    def __post_init__(self) -> None:
        self._end: dict[str, Any] = {}
        self._process = subprocess.Popen(  # noqa: S603 - the benchmark's own program
            self.argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def use(self, *routers: RouterPod) -> None:
        """New connections go to these alone, as when the Service loses an endpoint."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"use {' '.join(map(address_of, routers))}\n")

    def until_total(self, total: int, within: float) -> None:
        """Wait for so many answers."""
        until(f"{total} answers (there are {self.total})", lambda: self.total >= total or self._ended(), within)
        if self._ended():
            raise RuntimeError("the caller ended")

    def finish(self, within: float = 60) -> Called:
        """Let it end; what came of it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self.wait(within)

    def wait(self, within: float) -> Called:
        """Until it has made its --requests."""
        try:
            self._process.wait(within)
        finally:
            self._process.kill()
        self._thread.join(10)
        return Called(**self._end)

    def _ended(self) -> bool:
        return self._process.poll() is not None

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "total" in told:
                self.total = told["total"]
            elif "pod" in told:
                self.first.setdefault(told["pod"], told["at"])
            else:
                self._end = told


def address_of(router: RouterPod) -> str:
    """Where its Envoy listens."""
    return f"{router.envoy.settings.address}:{router.envoy.settings.port}"


def listens(address: str, port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        socket.create_connection((address, port), 1).close()
    except OSError:
        return False
    return True


def cpu_seconds(pid: int) -> float:
    """What a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS_PER_SECOND


def resident_megabytes(pid: int) -> float:
    """Of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def envoy_pid(router: RouterPod) -> int:
    """`nsenter` becomes the program that it starts."""
    assert router.envoy.process is not None
    return router.envoy.process.pid


def until(what: str, condition: Callable[[], bool], seconds: float, every: float = 0.02) -> None:
    """Poll; raises RuntimeError."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"waited {seconds:.0f} s in vain until {what}")
        time.sleep(every)
