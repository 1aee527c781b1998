"""Debian's Prometheus: as an image for the cluster, and as a process on loopback for tests that need no cluster."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

from localcluster.cluster import Cluster
from localcluster.errors import LocalClusterError
from localcluster.images import product
from localcluster.images.dockerfile import Target
from localcluster.keeper import keep, release
from localcluster.ports import free_ports
from localcluster.waiting import log_tail, until

_DOCKERFILE = "local/localcluster/images/prometheus.Dockerfile"
IMAGE = Target("prometheus", (), dockerfile=_DOCKERFILE)
PROGRAMS = Target("prometheus-programs", (), dockerfile=_DOCKERFILE, stage_name="programs")
# The manifest of examples/prometheus names this one, whatever its content is today.
STEADY_NAME = "localhost/sluice-prometheus:1"
_START_SECONDS = 60


def image(cluster: Cluster) -> str:
    """The name of the image, put on the cluster's nodes first.

    A user's own, named in SLUICE_PROMETHEUS_IMAGE, is returned as it is.
    """
    named = os.environ.get(IMAGE.variable)
    if named:
        return named
    built = product.build(IMAGE)
    cluster.load_image(built.archive, built.name)
    cluster.tag_image(built.name, STEADY_NAME)
    return STEADY_NAME


def program(name: str = "prometheus") -> Path:
    """The path of `prometheus` or `promtool`, made where it is missing. They need glibc 2.34, nothing else."""
    return product.export(PROGRAMS) / name


class Prometheus:
    """A Prometheus on a free loopback port that scrapes and evaluates every second; its files are in `directory`.

    Port and data stay the same over `stop`/`start`. The process dies with this one, however it ends.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.url = f"http://127.0.0.1:{free_ports(1)[0]}"
        self._log = directory / "prometheus.log"
        self._process: subprocess.Popen[bytes] | None = None
        self.configure()

    def configure(
        self,
        *,
        rules: Sequence[Mapping[str, object]] = (),
        targets: Sequence[str] = (),
        labels: Mapping[str, str] | None = None,
        metric_relabel_configs: Sequence[Mapping[str, object]] = (),
    ) -> None:
        """What it does from now on: rules as in a group of a rule file, targets to scrape as `host:port`, the labels of
        all of them, `__metrics_path__` among them where it is another, and what becomes of the series that they have.

        Raises LocalClusterError if it runs and refuses them.
        """
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(self.directory / "rules.yml")],
            "scrape_configs": [
                {
                    "job_name": "targets",
                    "static_configs": [{"targets": list(targets), "labels": dict(labels or {})}],
                    "metric_relabel_configs": list(metric_relabel_configs),
                }
            ],
        }
        groups = {"groups": [{"name": "rules", "rules": list(rules)}] if rules else []}
        # YAML that is JSON: the bare system's Python has no YAML.
        (self.directory / "prometheus.yml").write_text(json.dumps(config))
        (self.directory / "rules.yml").write_text(json.dumps(groups))
        if self._process is not None:
            self._reload()

    def start(self) -> None:
        """Start it and wait until it answers queries. Raises LocalClusterError with the end of its log."""
        arguments = (
            f"--config.file={self.directory / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.directory / 'data'}",
            f"--web.listen-address={self.url.removeprefix('http://')}",
            "--web.enable-lifecycle",
            "--log.level=warn",
        )
        self._process = keep([str(program()), *arguments], log=self._log)
        try:
            until(self._ready, seconds=_START_SECONDS, what=f"Prometheus at {self.url}", why=self._said)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it; nobody answers at its address any more."""
        if self._process is not None:
            self.thaw()
            release(self._process)
            self._process.wait(10)
            self._process = None

    def freeze(self) -> None:
        """Stop it where it is: connections are accepted, and nobody answers. `thaw` ends that."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on after `freeze`."""
        self._signal(signal.SIGCONT)

    def __enter__(self) -> Prometheus:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _ready(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            raise LocalClusterError(f"Prometheus ended with code {self._process.returncode}; {self._said()}")
        try:
            self._ask("/-/ready")
        except OSError:
            return False
        return True

    def _reload(self) -> None:
        try:
            self._ask("/-/reload", method="POST")
        except OSError as error:
            raise LocalClusterError(f"Prometheus did not take its files: {error}; {self._said()}") from error

    def _ask(self, path: str, method: str = "GET") -> None:
        # A proxy of the environment has no business on loopback.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        opener.open(urllib.request.Request(f"{self.url}{path}", method=method), timeout=10).close()  # noqa: S310  ours

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise LocalClusterError("Prometheus does not run: call start() first")
        # Its keeper leads the session.
        os.killpg(self._process.pid, number)

    def _said(self) -> str:
        return log_tail(self._log)
