"""A way into the cluster that works with every provider: `kubectl port-forward` for as long as a block lasts."""

from __future__ import annotations

import re
import selectors
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from demo.surroundings import DemoError, Surroundings

START_SECONDS = 30


@contextmanager
def forwarded(surroundings: Surroundings, namespace: str, target: str, port: int) -> Iterator[str]:
    """The URL on loopback of a port of a Service or Deployment (`svc/name`)."""
    process = subprocess.Popen(
        [
            surroundings.kubectl, "--kubeconfig", str(surroundings.kubeconfig), "--namespace", namespace,
            "port-forward", "--address", "127.0.0.1", target, f":{port}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        yield f"http://127.0.0.1:{_local_port(process, f'{namespace}/{target}:{port}')}"
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)


def _local_port(process: subprocess.Popen[bytes], what: str) -> int:
    assert process.stdout is not None  # noqa: S101 - asked for above
    said = b""
    deadline = time.monotonic() + START_SECONDS
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0 and selector.select(left):
            read = process.stdout.read1(4096)
            said += read
            found = re.search(rb"Forwarding from 127\.0\.0\.1:(\d+)", said)
            if found:
                return int(found.group(1))
            if not read:
                break
    raise DemoError(f"no way to {what}: kubectl port-forward said {said.decode(errors='replace').strip() or 'nothing'}")
