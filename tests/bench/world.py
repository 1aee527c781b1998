"""The stage of the benchmark: an API server, a simulator at the real pace, and the operator, each a process."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml
from tests.bench.counting import fetch
from tests.bench.processes import Measured
from tests.bench.watching import EndpointWatch
from tests.operator.harness import manifests
from tests.operator.harness.kube import Kube, install_crds

from localcluster.controlplane import ControlPlane
from sagemaker_simulator.testing import Control

CHECKOUT = Path(__file__).resolve().parents[2]
NAMESPACE = "bench"
OPERATOR_NAMESPACE = "sluice-system"
ROLE = "sluice-operator"
CREATE_SECONDS = 1.0
APPLYING_THREADS = 8
POLICY = {"rules": [{"namespaces": ["*"], "executionRoles": ["*"]}]}
UNLIMITED = {"SLUICE_AWS_CALLS_PER_SECOND": "1000"}
"""For what is limited only by the operator itself; its default holds 10 calls a second, account and region."""


class World:
    """One API server and one simulator, both empty, and operators that come and go."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._stack = ExitStack()
        self.operator: Measured | None = None
        self.health = ""

    def __enter__(self) -> Self:
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        self.control_plane = self._stack.enter_context(ControlPlane(self.directory / "control-plane"))
        self.kube = Kube(self.control_plane.kubeconfig)
        self._stack.callback(self.kube.close)
        install_crds(self.kube, CHECKOUT / "crds")
        for name in (NAMESPACE, OPERATOR_NAMESPACE):
            self.kube.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        self.kube.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "sluice-permissions"},
                "data": {"policy.yaml": yaml.safe_dump(POLICY)},
            },
            OPERATOR_NAMESPACE,
        )
        self.simulator = self._start_simulator()
        self.watch = self._stack.enter_context(EndpointWatch(self.kube, NAMESPACE))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop_operator()
        self._stack.close()

    # The operator -----------------------------------------------------------------------------------------------

    def start_operator(self, settings: Mapping[str, str] | None = None) -> Measured:
        """Start it with its default settings and these."""
        port = _free_port()
        self.health = f"http://127.0.0.1:{port}"
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.directory),
            "PYTHONPATH": str(CHECKOUT / "operator"),
            "KUBECONFIG": str(self.control_plane.kubeconfig),
            "SLUICE_IDENTITY": "bench",
            "SLUICE_OPERATOR_NAMESPACE": OPERATOR_NAMESPACE,
            "SLUICE_HEALTH_PORT": str(port),
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": ROLE,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_EC2_METADATA_DISABLED": "true",
            **{f"AWS_ENDPOINT_URL_{name}": self.simulator.url for name in ("SAGEMAKER", "STS", "CLOUDWATCH")},
            "AWS_ENDPOINT_URL_APPLICATION_AUTO_SCALING": self.simulator.url,
            **(settings or {}),
        }
        words = [f"{name}={value}" for name, value in environment.items()]
        argv = ["/usr/bin/env", "-i", *words, sys.executable, "-m", "sluice.main"]
        self.operator = Measured(argv, log=self.directory / "operator.log")
        return self.operator

    def stop_operator(self) -> None:
        """SIGTERM."""
        if self.operator is not None:
            self.operator.stop()
            self.operator = None

    def metrics(self) -> str:
        """The operator's metrics; empty while it does not answer."""
        try:
            return fetch(f"{self.health}/metrics")
        except OSError:
            return ""

    def apiserver_metrics(self) -> str:
        """The API server's metrics."""
        return str(self.kube.request("GET", "/metrics")["message"])

    # Objects ----------------------------------------------------------------------------------------------------

    def apply_trios(self, count: int) -> float:
        """Create Model, EndpointConfig and Endpoint `count` times; the seconds that took."""
        began = time.monotonic()

        def create(name: str) -> None:
            self.kube.create(manifests.model(name=name), NAMESPACE)
            self.kube.create(manifests.config(manifests.variant(model=name), name=name), NAMESPACE)
            self.kube.create(manifests.endpoint(name=name, endpointConfigName=name), NAMESPACE)

        with ThreadPoolExecutor(APPLYING_THREADS) as pool:
            list(pool.map(create, names(count)))
        return time.monotonic() - began

    def until(self, what: str, condition: Callable[[], bool], *, seconds: float, every: float = 0.1) -> float:
        """Poll; the seconds it took. Raises RuntimeError with the end of the operator's log."""
        began = time.monotonic()
        while not condition():
            if time.monotonic() - began > seconds:
                log = self.operator.tail() if self.operator else "no operator"
                raise RuntimeError(f"waited {seconds:.0f} s in vain until {what}; the operator's log ends:\n{log}")
            time.sleep(every)
        return time.monotonic() - began

    def _start_simulator(self) -> Control:
        port = _free_port()
        path = os.pathsep.join([str(CHECKOUT / "simulator")])
        argv = [
            "/usr/bin/env", f"PYTHONPATH={path}", sys.executable, "-m", "sagemaker_simulator", "--port", str(port),
            "--set", f"create_seconds={CREATE_SECONDS}",
        ]  # fmt: skip
        process = Measured(argv, log=self.directory / "simulator.log")
        self._stack.callback(process.stop)
        control = Control(f"http://127.0.0.1:{port}")

        def answers() -> bool:
            try:
                control.now()
            except OSError:
                return False
            return True

        self.until("the simulator answers", answers, seconds=30)
        return control


def names(count: int) -> list[str]:
    """The names of the Endpoints, their configs and models."""
    return [f"e{number:04d}" for number in range(count)]


def gauge(metrics: str, name: str) -> float | None:
    """A metric without labels."""
    found = re.search(rf"^{name} ([0-9.e+-]+)$", metrics, re.MULTILINE)
    return float(found.group(1)) if found else None


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
