"""A private etcd and kube-apiserver for tests that need the real API but no node; up in about three seconds."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType

from localcluster import tools
from localcluster.errors import LocalClusterError
from localcluster.keeper import keep, release
from localcluster.kubeconfig import ADMIN, write_kubeconfig, write_signing_key, write_tokens
from localcluster.ports import free_ports
from localcluster.waiting import log_tail, until

_START_SECONDS = 60.0


class ControlPlane:
    """etcd + kube-apiserver in `directory`, on free loopback ports, with RBAC, without controllers.

    No controller-manager runs: namespaces are not finalized, service accounts get no tokens by themselves, nothing is
    garbage-collected. The ports and credentials stay the same over `stop`/`start` and `restore`, so a kubeconfig
    handed out once keeps working. Both processes die with this one, however it ends.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kubeconfig = directory / "admin.kubeconfig"
        self._etcd_data = directory / "etcd"
        self._certificates = directory / "certificates"
        self._binaries: dict[str, Path] = {}
        self._ports: tuple[int, int, int] | None = None
        self._token = ""
        self._running: list[subprocess.Popen[bytes]] = []
        self._snapshots = 0

    @property
    def kubectl(self) -> Path:
        """The kubectl of the same release."""
        return self._binaries["kubectl"]

    @property
    def url(self) -> str:
        """The API server's address."""
        if self._ports is None:
            raise LocalClusterError("the control plane has no address yet: call start() first")
        return f"https://127.0.0.1:{self._ports[2]}"

    def start(self) -> None:
        """Start both and wait until the API server is ready; does nothing if they run.

        Raises LocalClusterError with the end of the log of the one that did not start.
        """
        if self._running:
            return
        client, peer, secure = self._prepare()
        etcd_url = f"http://127.0.0.1:{client}"
        peer_url = f"http://127.0.0.1:{peer}"
        try:
            self._run(
                "etcd",
                f"--data-dir={self._etcd_data}",
                f"--listen-client-urls={etcd_url}",
                f"--advertise-client-urls={etcd_url}",
                f"--listen-peer-urls={peer_url}",
                f"--initial-advertise-peer-urls={peer_url}",
                f"--initial-cluster=default={peer_url}",
                "--unsafe-no-fsync",
                "--log-level=warn",
            )
            self._run(
                "kube-apiserver",
                f"--etcd-servers={etcd_url}",
                "--bind-address=127.0.0.1",
                f"--secure-port={secure}",
                f"--cert-dir={self._certificates}",
                f"--token-auth-file={self.directory / 'tokens.csv'}",
                "--authorization-mode=RBAC",
                f"--service-account-signing-key-file={self.directory / 'service-accounts.pem'}",
                f"--service-account-key-file={self.directory / 'service-accounts.pem'}",
                "--service-account-issuer=https://kubernetes.default.svc",
                "--service-cluster-ip-range=10.96.0.0/16",
                # The API server's own endpoints are not published: EndpointSlices refuse loopback addresses.
                "--advertise-address=10.96.0.1",
                "--endpoint-reconciler-type=none",
                # Pods are only stored here, and there is no controller that would make their service accounts.
                "--disable-admission-plugins=ServiceAccount",
                "--profiling=false",
            )
            self._await_ready()
        except BaseException:
            self.stop()
            raise
        write_kubeconfig(self.kubeconfig, server=self.url, ca=self._certificates / "apiserver.crt", token=self._token)

    def stop(self) -> None:
        """Stop both, API server first; what is stored stays. An open watch does not delay it for more than a second."""
        for process in reversed(self._running):
            release(process)
        for process in reversed(self._running):
            process.wait(10)
        self._running.clear()

    def snapshot(self) -> Path:
        """Copy etcd's data with both stopped and start them again; returns the copy, for `restore`."""
        self.stop()
        self._snapshots += 1
        copy = self.directory / f"snapshot-{self._snapshots}"
        shutil.copytree(self._etcd_data, copy)
        self.start()
        return copy

    def restore(self, snapshot: Path) -> None:
        """Put etcd back to a snapshot and start again: resource versions go backwards, as after a real restore."""
        if not snapshot.is_dir():
            raise LocalClusterError(f"{snapshot} is no snapshot of this control plane; take one with snapshot()")
        self.stop()
        shutil.rmtree(self._etcd_data)
        shutil.copytree(snapshot, self._etcd_data)
        self.start()

    def __enter__(self) -> ControlPlane:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _prepare(self) -> tuple[int, int, int]:
        if self._ports is not None:
            return self._ports
        self._binaries = tools.build(tools.CONTROL_PLANE_TOOLS)
        self.directory.mkdir(parents=True, exist_ok=True)
        self._certificates.mkdir(exist_ok=True)
        self._token = write_tokens(self.directory / "tokens.csv", {"admin": ADMIN})["admin"]
        write_signing_key(self.directory / "service-accounts.pem")
        first, second, third = free_ports(3)
        self._ports = (first, second, third)
        return self._ports

    def _run(self, name: str, *arguments: str) -> None:
        self._running.append(keep([str(self._binaries[name]), *arguments], log=self._log(name)))

    def _log(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def _await_ready(self) -> None:
        def ready() -> bool:
            for name, process in zip(("etcd", "kube-apiserver"), self._running, strict=True):
                if process.poll() is not None:
                    raise LocalClusterError(
                        f"{name} ended with code {process.returncode} while starting; {log_tail(self._log(name))}"
                    )
            return _answers_ok(f"{self.url}/readyz", self._token, self._certificates / "apiserver.crt")

        until(
            ready,
            seconds=_START_SECONDS,
            what=f"the API server at {self.url}",
            why=lambda: log_tail(self._log("kube-apiserver")),
        )


def _answers_ok(url: str, token: str, ca: Path) -> bool:
    try:
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"})  # noqa: S310  our own https address
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),  # a proxy of the environment has no business on loopback
            urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(ca))),
        )
        with opener.open(request, timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False
