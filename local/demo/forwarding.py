"""A way into the cluster that works with every provider: `kubectl port-forward` for as long as a block lasts."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from demo.surroundings import DemoError, Surroundings

START_SECONDS = 120


@contextmanager
def forwarded(surroundings: Surroundings, namespace: str, target: str, port: int) -> Iterator[str]:
    """The URL on loopback of a port of a Service, Deployment or pod (`svc/name`). Raises DemoError."""
    what = f"{namespace}/{target}:{port}"
    # A file, not a pipe: kubectl writes a line for each connection, and nobody would empty the pipe.
    with tempfile.TemporaryDirectory(prefix="sluice-forward-") as directory:
        said = Path(directory) / "kubectl.log"
        with said.open("wb") as output:
            process = subprocess.Popen(
                [
                    surroundings.kubectl, "--kubeconfig", str(surroundings.kubeconfig), "--namespace", namespace,
                    "port-forward", "--address", "127.0.0.1", target, f":{port}",
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )  # fmt: skip
        try:
            yield f"http://127.0.0.1:{_local_port(process, said, what)}"
        finally:
            process.terminate()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(5)


def _local_port(process: subprocess.Popen[bytes], said: Path, what: str) -> int:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        found = re.search(r"Forwarding from 127\.0\.0\.1:(\d+)", said.read_text(errors="replace"))
        if found:
            return int(found.group(1))
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise DemoError(
        f"no way to {what}: kubectl port-forward said {said.read_text(errors='replace').strip() or 'nothing'}"
    )
