"""What the router's commands bring into their processes."""

import subprocess
import sys

HEAVY = ("kubernetes", "grpc", "kopf")


def test_only_the_agent_brings_the_agents_libraries() -> None:
    """Writing the bootstrap stands before the start of every router, draining before its end, and the relay beside it:
    none of them needs Kubernetes or gRPC."""
    code = f"import sys, sluice.router.__main__; print(sorted(set(sys.modules) & set({HEAVY!r})))"
    done = subprocess.run(  # noqa: S603 - this very interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == "[]"
