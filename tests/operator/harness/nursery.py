"""Starts operators quickly: a process that has imported their libraries once and forks for each start.

An operator that it starts is a process of its own, with its own environment, log and process id, and dies of SIGKILL
as any other. Run as a program this module is the nursery; `Nursery` is the test's side of it: lines of JSON, requests
on its standard input, answers on its standard output. When the test run dies, the input ends, and the nursery and all
its children with it.
"""

import ctypes
import gc
import json
import os
import runpy
import selectors
import signal
import subprocess
import sys
import threading
import traceback
from pathlib import Path
from typing import get_args

_PR_SET_PDEATHSIG = 1
_PROGRAM = "sluice.main"


class Child:
    """One operator process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._ended = threading.Event()
        self._code: int | None = None

    def ended(self, code: int) -> None:
        """Called by the nursery's reader."""
        self._code = code
        self._ended.set()

    @property
    def code(self) -> int | None:
        """The exit code (negative: the signal), None while it runs."""
        return self._code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, if it still runs. Its id cannot have been taken by another: only the reader reaps."""
        if self._code is None:
            try:
                os.kill(self.pid, number)
            except ProcessLookupError:
                return

    def wait(self, seconds: float) -> int:
        """Wait for the end; raises AssertionError if it does not come."""
        if not self._ended.wait(seconds) or self._code is None:
            raise AssertionError(f"operator process {self.pid} did not end within {seconds:g} s")
        return self._code


class Nursery:
    """The test's side."""

    def __init__(self, import_path: list[Path]) -> None:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join(str(path) for path in import_path),
            "PYTHONUNBUFFERED": "1",
        }
        self._process = subprocess.Popen(  # noqa: S603 - this very file
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
            start_new_session=True,
        )
        self._lock = threading.Lock()
        self._answered = threading.Condition()
        self._children: dict[int, Child] = {}
        self._born: dict[int, int] = {}
        self._asked = 0
        self._reader = threading.Thread(target=self._read, name="nursery", daemon=True)
        self._reader.start()

    def start(self, environment: dict[str, str], log: Path, seconds: float = 120.0) -> Child:
        """Start an operator with exactly this environment; its output is appended to `log`."""
        assert self._process.stdin is not None
        with self._lock:
            self._asked += 1
            asked = self._asked
            request = json.dumps({"ask": asked, "environment": environment, "log": str(log)})
            self._process.stdin.write(request + "\n")
            self._process.stdin.flush()
        with self._answered:
            if not self._answered.wait_for(lambda: asked in self._born, seconds):
                raise AssertionError(f"the nursery did not start an operator within {seconds:g} s")
            return self._children[self._born.pop(asked)]

    def close(self) -> None:
        """End the nursery and whatever still runs in it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(60)
        self._reader.join(10)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            with self._answered:
                if "ask" in answer:
                    self._children[answer["pid"]] = Child(answer["pid"])
                    self._born[answer["ask"]] = answer["pid"]
                else:
                    self._children.pop(answer["pid"]).ended(answer["code"])
                self._answered.notify_all()


def _become_operator(request: dict[str, object], parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    output = os.open(str(request["log"]), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    environment = request["environment"]
    assert isinstance(environment, dict)
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = [_PROGRAM]
    code = 0
    try:
        runpy.run_module(_PROGRAM, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001 - shown as the interpreter would show it, before this process ends
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _say(**answer: int) -> None:
    os.write(1, (json.dumps(answer) + "\n").encode())


def _reap() -> None:
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        _say(pid=pid, code=os.waitstatus_to_exitcode(status))


def _warm_up() -> None:
    """Import what operators import and read the AWS service models, once for all. Starts no thread."""
    from botocore.config import Config

    import sluice.main.wiring  # noqa: F401 - this import is the purpose
    from sluice.core.identity import Credentials
    from sluice.ports.aws import Service
    from sluice.sagemaker.sessions import Sessions

    os.environ |= {"AWS_ACCESS_KEY_ID": "nursery", "AWS_SECRET_ACCESS_KEY": "nursery"}
    sessions = Sessions(Config(), "nursery")
    for service in get_args(Service):
        sessions.client(Credentials("us-east-1"), service)
    gc.collect()
    gc.freeze()


def _serve() -> None:
    _warm_up()
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    signal.set_wakeup_fd(writable)
    with selectors.DefaultSelector() as selector:
        selector.register(0, selectors.EVENT_READ)
        selector.register(readable, selectors.EVENT_READ)
        rest = b""
        while True:
            for key, _ in selector.select():
                data = os.read(key.fd, 65536)
                if key.fd == readable:
                    _reap()
                    continue
                if not data:
                    return
                *lines, rest = (rest + data).split(b"\n")
                for line in lines:
                    request = json.loads(line)
                    parent = os.getpid()
                    pid = os.fork()
                    if pid == 0:
                        _become_operator(request, parent)
                    _say(ask=request["ask"], pid=pid)


if __name__ == "__main__":
    _serve()
