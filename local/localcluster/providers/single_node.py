"""Brings the Docker-free single node up and down: the order of its steps, and what each one waits for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from string import Template

from localcluster import dns, packages, paths, tools
from localcluster.cluster import Cluster
from localcluster.errors import LocalClusterError
from localcluster.images.static import write_static_image
from localcluster.kubeconfig import write_secret
from localcluster.node import components, forwarder
from localcluster.node.components import DNS_ADDRESS, NODE_NAME, PAUSE_IMAGE, Component, Layout
from localcluster.node.namespace import NODE_ADDRESS, Namespace
from localcluster.processes import end_all, recorded, running, start_detached
from localcluster.progress import run_logged, step
from localcluster.waiting import exclusive, log_tail, until

_STEP_SECONDS = 90.0
_NODE_SOURCES = Path(components.__file__).parent


class SingleNode:
    """The provider for machines without Docker: needs root, and Debian's containerd, runc and CNI plugins."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._layout = Layout(paths.state() / name)
        self._namespace = Namespace(name, self._layout.directory)
        self._expected: set[Path] = set()

    def up(self) -> Cluster:
        """Bring the node up; a node that is up stays, a program of it that died is started again.

        A node whose namespaces are gone (a reboot, a cut-off `up` or `down`), or which was made by other versions, is
        made anew. Raises LocalClusterError naming the step that did not come to its end, with the end of its log.
        """
        if os.geteuid() != 0:
            raise LocalClusterError(
                "a cluster without Docker needs root for its namespaces: run this as root (sudo -E make ...), start a "
                "Docker daemon, or name a cluster in SLUICE_KUBECONFIG"
            )
        packages.require(packages.NODE)
        bin_directory = tools.bin_directory((*tools.NODE_TOOLS, "helm"))
        cluster = Cluster(self._name, "node", self._layout.admin, bin_directory, (*self._namespace.enter_network, "--"))
        with exclusive(self._lock):
            fingerprint = _fingerprint(bin_directory)
            made_from = self._layout.directory / "made-from"
            if not made_from.exists() or made_from.read_text() != fingerprint or not self._namespace.holder():
                self._create()
                made_from.write_text(fingerprint)
            self._start(cluster, {name: bin_directory / name for name in tools.NODE_TOOLS})
        return cluster

    def exists(self) -> bool:
        """Whether anything of the node is there, running or not."""
        return self._layout.directory.exists() or self._namespace.network.exists()

    def down(self) -> None:
        """End every process of the node and remove its namespaces, mounts, cgroups and state."""
        if not self.exists():
            return
        if os.geteuid() != 0:
            raise LocalClusterError(f"removing the node {self._name} needs root, as making it did: sudo -E make down")
        with exclusive(self._lock):
            self._close()
            self._lock.unlink()
        with suppress(OSError):  # another cluster's is still there
            paths.state().rmdir()

    def status(self) -> str:
        """One line for a person."""
        if not self._namespace.holder():
            return f"node {self._name}: down"
        records = sorted(self._layout.directory.glob("processes/*.json"))
        dead = [record.stem for record in records if not _alive(record)]
        return f"node {self._name}: up, network {self._namespace.network}" + (f", but {dead} died" if dead else "")

    def load_image(self, archive: Path, name: str) -> None:
        """Import the archive into the node's containerd."""
        listed = subprocess.run(self.ctr("images", "list", "--quiet"), capture_output=True, text=True, check=True)
        if name in listed.stdout.split():
            return
        with step(f"loading {name}"):
            run_logged(self.ctr("images", "import", str(archive)), log=self._layout.log("import"))
        listed = subprocess.run(self.ctr("images", "list", "--quiet"), capture_output=True, text=True, check=True)
        if name not in listed.stdout.split():
            raise LocalClusterError(
                f"{archive} holds no image {name}; found {listed.stdout.split()}: delete the archive"
            )

    def ctr(self, *arguments: str) -> list[str | Path]:
        """The argv of containerd's client on the node."""
        return self._namespace.enter(
            ["ctr", f"--address={self._layout.containerd_socket}", "--namespace=k8s.io", *arguments]
        )

    def signal_program(self, program: str, number: int) -> None:
        """Send it to the process that this provider started under that name."""
        process = recorded(self._layout.directory / "processes" / f"{program}.json")
        if process is None or not process.alive():
            raise LocalClusterError(f"{program} does not run on the node {self._name}")
        # What is recorded is the nsenter that waits for it; a stop must reach both, or the one wakes the other.
        inside = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for pid in (*map(int, inside), process.pid):
            os.kill(pid, number)

    @property
    def _lock(self) -> Path:
        return paths.state() / f"{self._name}.lock"

    def _create(self) -> None:
        with step(f"making the namespaces of the node {self._name}"):
            self._close()
            self._namespace.open()
            (self._layout.directory / "processes").mkdir()
            tokens = components.write_files(self._layout, self._name)
            write_secret(self._layout.directory / "tokens.json", json.dumps(tokens))

    def _close(self) -> None:
        if self._layout.has_port():
            with suppress(ValueError):  # a full disk left the file empty: nothing was started that it would name
                words = self._forwarding()
                end_all(lambda: running(words))
        self._namespace.close()

    @property
    def _forwarder(self) -> Path:
        # Not among the records of the node's programs: it is the one process outside of its namespaces.
        return self._layout.directory / "forwarder.json"

    def _start(self, cluster: Cluster, binaries: Mapping[str, Path]) -> None:
        control_plane = components.control_plane(self._layout, binaries)
        node = components.node(self._layout, binaries)
        records = [*(self._record(component) for component in (*control_plane, *node)), self._forwarder]
        if all(map(_alive, records)) and self._serves(cluster):
            return
        with step(f"starting the node {self._name}"):
            for component in control_plane:
                self._ensure_running(component)
            self._await(
                "kube-apiserver", "the API server's certificate", self._layout.certificate.with_suffix(".key").exists
            )
            components.write_kubeconfigs(self._layout, json.loads((self._layout.directory / "tokens.json").read_text()))
            for component in node:
                self._ensure_running(component)
            self._ensure_forwarder()
            kubectl: list[str | Path] = [cluster.kubectl, "--request-timeout=5s"]
            self._await(
                "kube-apiserver",
                "the API server",
                lambda: cluster.run([*kubectl, "get", "--raw", "/readyz"], check=False).returncode == 0,
            )
            self._load_own_images(binaries)
            self._apply_dns(cluster)
            condition = "{.status.conditions[?(@.type=='Ready')].status}"
            self._await(
                "kubelet",
                f"the node {NODE_NAME} to be Ready",
                lambda: (
                    cluster.run(
                        [*kubectl, "get", "node", NODE_NAME, f"--output=jsonpath={condition}"], check=False
                    ).stdout
                    == "True"
                ),
            )
            self._await("kubelet", "the cluster's DNS to answer", lambda: self._serves(cluster))

    def _serves(self, cluster: Cluster) -> bool:
        """Whether a name resolves through the DNS Service: API server, kube-proxy, the bridge and a pod all work."""
        query = [sys.executable, dns.__file__, DNS_ADDRESS, "kubernetes.default.svc.cluster.local"]
        return cluster.run(query, check=False).returncode == 0

    def _ensure_running(self, component: Component) -> None:
        record = self._record(component)
        self._expected.add(record)
        if not _alive(record):
            # An `up` that was killed between a start and its record left a process that nobody knows of.
            end_all(lambda: running(component.argv, self._namespace.processes()))
            start_detached(self._namespace.enter(component.argv), record=record, log=self._layout.log(component.name))

    def _ensure_forwarder(self) -> None:
        if not _alive(self._forwarder):
            end_all(lambda: running(self._forwarding()))
            start_detached(
                [sys.executable, "-S", "-E", forwarder.__file__, *self._forwarding()],
                record=self._forwarder,
                log=self._layout.log("forwarder"),
            )

    def _forwarding(self) -> list[str]:
        return [str(self._layout.port), str(self._namespace.network), NODE_ADDRESS]

    def _record(self, component: Component) -> Path:
        return self._layout.directory / "processes" / f"{component.name}.json"

    def _load_own_images(self, binaries: Mapping[str, Path]) -> None:
        version = self.ctr("version")
        self._await(
            "containerd",
            "containerd",
            lambda: subprocess.run(version, capture_output=True, check=False).returncode == 0,
        )
        catatonit = shutil.which("catatonit")
        if catatonit is None:
            raise LocalClusterError("catatonit is missing: install the package catatonit")
        images = self._layout.directory / "images"
        images.mkdir(exist_ok=True)
        for name, binary, arguments in (
            (PAUSE_IMAGE, Path(catatonit), ("-P",)),
            (_coredns_image(binaries), binaries["coredns"].resolve(), ()),
        ):
            archive = images / f"{binary.name}.tar"
            write_static_image(archive, name=name, binary=binary, arguments=arguments)
            self.load_image(archive, name)
            archive.unlink()

    def _apply_dns(self, cluster: Cluster) -> None:
        template = Template((_NODE_SOURCES / "coredns.yaml").read_text())
        binaries = {"coredns": cluster.bin / "coredns"}
        manifest = template.substitute(image=_coredns_image(binaries), address=DNS_ADDRESS)
        apply: list[str | Path] = [cluster.kubectl, "apply", "--server-side", "--force-conflicts", "--filename=-"]
        self._await(
            "kube-apiserver",
            "the API server to take CoreDNS",
            lambda: cluster.run(apply, check=False, input_text=manifest).returncode == 0,
        )

    def _await(self, program: str, what: str, condition: Callable[[], bool]) -> None:
        """Wait for what `program` does; if it or another program that was started ends, that is an error at once."""

        def holds() -> bool:
            for record in self._expected:
                if not _alive(record):
                    raise LocalClusterError(
                        f"{record.stem} ended while starting; {log_tail(self._layout.log(record.stem))}"
                    )
            return condition()

        until(holds, seconds=_STEP_SECONDS, what=what, why=lambda: log_tail(self._layout.log(program)))


def _alive(record: Path) -> bool:
    process = recorded(record)
    return process is not None and process.alive()


def _coredns_image(binaries: Mapping[str, Path]) -> str:
    return f"localhost/sluice-coredns:{binaries['coredns'].resolve().parent.name}"


def _fingerprint(bin_directory: Path) -> str:
    digest = hashlib.sha256(bin_directory.name.encode())
    for source in sorted(_NODE_SOURCES.iterdir()):
        if source.is_file():
            digest.update(source.read_bytes())
    return digest.hexdigest()
