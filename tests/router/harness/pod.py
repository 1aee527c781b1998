"""A router pod: Envoy in a network namespace, the agent's real process beside it."""

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

from tests.router.harness.envoy import Envoy
from tests.router.harness.namespace import NetworkNamespace

ROOT = Path(__file__).parents[3]
_ASLEEP = """
import runpy
from sluice.router import agent
agent.BUSY_SECONDS = agent.IDLE_SECONDS = 3600.0
runpy.run_module("sluice.router", run_name="__main__")
"""


class RouterPod:
    """Envoy runs; the agent is started by `start_agent`."""

    def __init__(self, directory: Path, net: NetworkNamespace, namespace: str, kubeconfig: Path) -> None:
        self._net = net
        self.envoy = Envoy(directory / "run", prefix=net.prefix)
        self.envoy.settings = replace(self.envoy.settings, namespace=namespace)
        self._kubeconfig, self._log = kubeconfig, directory / "agent.log"
        self.agent: subprocess.Popen[bytes] | None = None
        self.envoy.start(wait=False)

    @property
    def name(self) -> str:
        """The pod's."""
        return self.envoy.settings.pod_name

    def start_agent(self, *, looks_by_itself: bool = True, inside: bool = False) -> None:
        """Start it; `ready` tells when it has applied what it read. One that does not look by itself does what it does
        because something happened, or never. `inside`: in Envoy's network, as it is in a pod; its probes are there,
        too."""
        settings = self.envoy.settings
        environ = {
            **os.environ,
            "PYTHONPATH": str(ROOT / "operator"),
            "KUBECONFIG": str(self._kubeconfig),
            "POD_NAMESPACE": settings.namespace,
            "POD_NAME": settings.pod_name,
            "POD_UID": settings.pod_uid,
            "SLUICE_ROUTER_RUN_DIRECTORY": str(settings.run_directory),
            "SLUICE_ROUTER_HEALTH_PORT": str(settings.health_port),
            "SLUICE_ROUTER_ENVOY": settings.envoy,
        }
        arguments = ["agent", "--bootstrap", str(self.envoy.bootstrap)]
        self.agent = subprocess.Popen(  # noqa: S603 - the program under test
            [
                *(self._net.prefix if inside else ()),
                sys.executable,
                *(["-m", "sluice.router"] if looks_by_itself else ["-c", _ASLEEP]),
                *arguments,
            ],
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=self._log.open("ab"),
        )

    def signal_agent(self, number: signal.Signals) -> None:
        """SIGSTOP, SIGCONT."""
        assert self.agent is not None
        self.agent.send_signal(number)

    def kill_agent(self) -> None:
        """SIGKILL."""
        if self.agent is not None:
            self.agent.kill()
            self.agent.wait(60)
            self.agent = None

    def stop_agent(self) -> int:
        """SIGTERM; its exit code."""
        assert self.agent is not None
        self.agent.terminate()
        code = self.agent.wait(60)
        self.agent = None
        return code

    def probe(self, path: str) -> int:
        """The status of one of the agent's probes; 0: nobody answers."""
        try:
            url = f"http://127.0.0.1:{self.envoy.settings.health_port}{path}"
            with urllib.request.urlopen(url, timeout=20) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    def log(self) -> str:
        """What the agent said."""
        return self._log.read_text()

    def close(self) -> None:
        """Both end."""
        self.kill_agent()
        self.envoy.kill()
