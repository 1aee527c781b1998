"""Where the demo runs: which cluster, which binaries, which images; and the two ways it talks to Kubernetes.

What changes something goes through kubectl and helm, as a person would do it, and can be shown; what only looks goes
straight to the API."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kubernetes.client import ApiClient
from kubernetes.client.exceptions import ApiException
from kubernetes.config import new_client_from_config
from urllib3.exceptions import HTTPError

CHECKOUT = Path(__file__).resolve().parents[2]
CALL_SECONDS = 10
COMMAND_SECONDS = 300


class DemoError(Exception):
    """Something that the demo needs is not there, or did not happen; the message is for the person who watches."""


class NotReachableError(Exception):
    """The API server did not answer this time."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """One cluster and the tools for it."""

    kubeconfig: Path
    kubectl: str
    helm: str
    operator_image: str
    router_image: str
    simulator_image: str

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] = os.environ) -> Surroundings:
        """Read what `make demo` and `make test` set. Raises DemoError naming what is missing."""
        names = ("SLUICE_KUBECONFIG", "SLUICE_OPERATOR_IMAGE", "SLUICE_ROUTER_IMAGE", "SLUICE_SIMULATOR_IMAGE")
        missing = [name for name in names if not environ.get(name)]
        if missing:
            raise DemoError(
                f"{', '.join(missing)} not set: this runs inside the local cluster's environment. Start it with "
                "`make demo`; the tests with `make test`."
            )
        tools = environ.get("SLUICE_TOOLS") or None
        return cls(
            kubeconfig=Path(environ["SLUICE_KUBECONFIG"]),
            kubectl=_binary("kubectl", tools),
            helm=_binary("helm", tools),
            operator_image=environ["SLUICE_OPERATOR_IMAGE"],
            router_image=environ["SLUICE_ROUTER_IMAGE"],
            simulator_image=environ["SLUICE_SIMULATOR_IMAGE"],
        )

    def run_kubectl(self, *arguments: str, stdin: str | None = None, seconds: float = COMMAND_SECONDS) -> str:
        """Run kubectl and return what it printed. Raises DemoError with what it said."""
        return self._run([self.kubectl, "--kubeconfig", str(self.kubeconfig), *arguments], stdin, seconds)

    def run_helm(self, *arguments: str, seconds: float = COMMAND_SECONDS) -> str:
        """Run helm and return what it printed. Raises DemoError with what it said."""
        return self._run([self.helm, "--kubeconfig", str(self.kubeconfig), *arguments], None, seconds)

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hold the cluster for one demo: two at a time would edit each other's Endpoint. Raises DemoError."""
        with self.kubeconfig.open() as held:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DemoError(f"another demo runs in the cluster of {self.kubeconfig}: let it end first") from error
            yield

    def api(self) -> Api:
        """A connection of its own to the API server, for one thread."""
        return Api(self.kubeconfig)

    def _run(self, argv: Sequence[str], stdin: str | None, seconds: float) -> str:
        shown = " ".join([Path(argv[0]).name, *argv[3:]])
        try:
            done = subprocess.run(
                argv, input=stdin, capture_output=True, text=True, timeout=seconds, cwd=CHECKOUT, check=False
            )
        except subprocess.TimeoutExpired as error:
            raise DemoError(f"`{shown}` did not end within {seconds:.0f} s") from error
        if done.returncode != 0:
            raise DemoError(f"`{shown}` ended with code {done.returncode}: {done.stderr.strip() or done.stdout}")
        return done.stdout


class Api:
    """Reads of the Kubernetes API as plain JSON: typed models would hide fields that they do not know."""

    def __init__(self, kubeconfig: Path) -> None:
        self._client: ApiClient = new_client_from_config(str(kubeconfig))  # type: ignore[no-untyped-call] # the library is typed in parts

    def get(self, path: str) -> dict[str, Any] | None:
        """One object or list; None if it does not exist. Raises NotReachableError."""
        body = self._read(path, "application/json")
        return None if body is None else dict(json.loads(body))

    def text(self, path: str) -> str:
        """A plain answer, such as a pod's log or metrics. Raises NotReachableError; empty if it does not exist."""
        return self._read(path, "*/*") or ""

    def _read(self, path: str, accept: str) -> str | None:
        try:
            request = self._client.param_serialize(
                "GET", path, header_params={"Accept": accept}, auth_settings=["BearerToken"]
            )
            answer = self._client.call_api(*request, _request_timeout=CALL_SECONDS)
            body = answer.read()  # type: ignore[no-untyped-call] # the library is typed in parts
        except (ApiException, HTTPError, OSError) as error:
            raise NotReachableError(f"GET {path}: {error}") from error
        if answer.status == 404:
            return None
        if answer.status >= 400:
            raise NotReachableError(f"GET {path}: {answer.status} {body.decode(errors='replace')[:300]}")
        return str(body.decode())


def _binary(name: str, tools: str | None) -> str:
    places = [str(Path(tools)), str(Path(tools) / "bin")] if tools else []
    found = shutil.which(name, path=os.pathsep.join([*places, os.environ.get("PATH", os.defpath)]))
    if found is None:
        raise DemoError(
            f"{name}: found neither in SLUICE_TOOLS ({tools or 'not set'}) nor in PATH; `make up` builds it"
        )
    return found
