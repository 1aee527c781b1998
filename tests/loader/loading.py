"""How tests ask the loader, in this process or as the init container does."""

import io
import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import sluice
from sluice.loader.failure import LoadFailed
from sluice.loader.load import Loaded, load
from sluice.loader.paths import STAGING
from sluice.loader.request import parse
from sluice.loader.retry import Tuning

QUICK = Tuning(concurrency=4, part_bytes=64 * 1024, attempts=4, first_pause_seconds=0.01, longest_pause_seconds=0.05)


def source(uri: str, target: Path, name: str = "model", kind: str = "Archive", **more: Any) -> dict[str, Any]:
    return {"name": name, "uri": uri, "kind": kind, "target": str(target), **more}


def request(*sources: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"formatVersion": 1, "sources": list(sources), "timeoutSeconds": 60, "allowLoopbackHttp": True, **more}


def run(asked: dict[str, Any], tuning: Tuning = QUICK) -> Loaded:
    return load(parse(json.dumps(asked)), tuning=tuning)


def refused(asked: dict[str, Any], tuning: Tuning = QUICK) -> LoadFailed:
    """How the load failed; nothing but the loader's own directory is in any target then."""
    with pytest.raises(LoadFailed) as caught:
        run(asked, tuning)
    for each in asked["sources"]:
        assert not set(content(Path(each["target"])))
    return caught.value


def content(tree: Path) -> dict[str, bytes | str | None]:
    """What is in a directory: file -> bytes, link -> "-> target", directory -> None. Not the loader's own."""
    found: dict[str, bytes | str | None] = {}
    for path in sorted(tree.rglob("*")) if tree.exists() else ():
        name = str(path.relative_to(tree))
        if name.split("/")[0] == STAGING:
            continue
        if path.is_symlink():
            found[name] = f"-> {path.readlink()}"
        else:
            found[name] = None if path.is_dir() else path.read_bytes()
    return found


def archive(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    """A well-formed archive of files."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode=mode) as tar:  # type: ignore[call-overload]
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return made.getvalue()


@dataclass
class Process:
    """The loader as the init container's process."""

    started: "subprocess.Popen[str]"
    message_file: Path

    def end(self, within_seconds: float = 60) -> tuple[int, dict[str, Any], str]:
        """Exit code, termination message, log."""
        _, log = self.started.communicate(timeout=within_seconds)
        text = self.message_file.read_text() if self.message_file.exists() else "{}"
        assert len(text.encode()) <= 4096
        return self.started.returncode, json.loads(text), log


def start(asked: dict[str, Any] | str, message_file: Path, **environment: str) -> Process:
    text = asked if isinstance(asked, str) else json.dumps(asked)
    surroundings = {
        **os.environ,
        "PYTHONPATH": str(Path(sluice.__file__).parents[1]),
        "SLUICE_LOADER": text,
        "SLUICE_TERMINATION_LOG": str(message_file),
        **environment,
    }
    started = subprocess.Popen(
        [sys.executable, "-m", "sluice.loader"], env=surroundings, stderr=subprocess.PIPE, text=True
    )
    return Process(started, message_file)
