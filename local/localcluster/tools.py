"""The cluster's own programs, built from Go modules into a cache: which they are, their keys, and their builds.

A module's binaries lie in `$SLUICE_CACHE/tools/<module>/<key>/`, the key being a hash of go.mod, go.sum, the flags and
the Go version, so a second run finds them and a changed pin builds anew.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from localcluster import paths
from localcluster.progress import run_logged, step
from localcluster.pruning import mark_used
from localcluster.toolchain import Go, find_go
from localcluster.waiting import exclusive

# Components refuse each other's version, and kubectl warns, unless the release is stamped in, as upstream's build does.
_KUBERNETES_VERSION_PACKAGES = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")


@dataclass(frozen=True)
class Tool:
    """One program: the folder under local/tools that pins it, and its package in that module."""

    name: str
    module: str
    package: str


TOOLS = {
    tool.name: tool
    for tool in (
        Tool("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
        *(
            Tool(name, "kubernetes", f"k8s.io/kubernetes/cmd/{name}")
            for name in (
                "kube-apiserver",
                "kubectl",
                "kube-controller-manager",
                "kube-scheduler",
                "kubelet",
                "kube-proxy",
            )
        ),
        Tool("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
        Tool("coredns", "coredns", "github.com/coredns/coredns"),
        Tool("kind", "kind", "sigs.k8s.io/kind"),
    )
}
CONTROL_PLANE_TOOLS = ("etcd", "kube-apiserver", "kubectl")
NODE_TOOLS = (*CONTROL_PLANE_TOOLS, "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "coredns")


def cache_key(module: Path, go_version: str) -> str:
    """The key of a module's binaries: 12 hex digits over everything that decides what comes out of its build."""
    digest = hashlib.sha256()
    for part in (
        (module / "go.mod").read_bytes(),
        (module / "go.sum").read_bytes(),
        go_version.encode(),
        " ".join(_flags(module)).encode(),
    ):
        digest.update(hashlib.sha256(part).digest())
    return digest.hexdigest()[:12]


def build(names: Iterable[str]) -> dict[str, Path]:
    """Build what is missing of the named tools, showing progress, and return where each one is."""
    wanted = [TOOLS[name] for name in names]
    go = find_go()
    binaries = {tool.name: _binary(tool, go) for tool in wanted}
    lock = paths.cache() / "tools.lock"
    mark_used({binary.parent for binary in binaries.values()}, lock)
    if all(binary.exists() for binary in binaries.values()):
        return binaries
    with exclusive(lock):
        missing = [tool for tool in wanted if not binaries[tool.name].exists()]
        for index, tool in enumerate(missing):
            _build_one(tool, binaries[tool.name], go, index, len(missing))
    return binaries


def bin_directory(names: Sequence[str]) -> Path:
    """Build the tools and return one directory with a link to each, fit for PATH."""
    binaries = build(names)
    key = hashlib.sha256("\n".join(str(path) for path in sorted(binaries.values())).encode()).hexdigest()[:12]
    directory = paths.cache() / "bin" / key
    directory.mkdir(parents=True, exist_ok=True)
    for name, binary in binaries.items():
        link = directory / name
        if not link.is_symlink():
            fresh = directory / f".{name}.{os.getpid()}"
            fresh.symlink_to(binary)
            fresh.rename(link)
    return directory


def _binary(tool: Tool, go: Go) -> Path:
    module = paths.TOOL_MODULES / tool.module
    return paths.cache() / "tools" / tool.module / cache_key(module, go.version) / tool.name


def _build_one(tool: Tool, binary: Path, go: Go, done: int, of: int) -> None:
    module = paths.TOOL_MODULES / tool.module
    binary.parent.mkdir(parents=True, exist_ok=True)
    partial = binary.with_name(f"{binary.name}.partial")
    log = paths.cache() / "log" / f"build-{tool.name}.log"
    log.unlink(missing_ok=True)
    with step(f"building {tool.name} with {go.version}", done=done, of=of, detail=lambda: _compiled(log)):
        argv = [str(go.command), "build", "-v", *_flags(module), "-o", str(partial), tool.package]
        run_logged(argv, log=log, env=go.environment(), cwd=module)
    # Only a whole binary ever gets its final name, so a killed build is never mistaken for a finished one.
    partial.rename(binary)


def _compiled(log: Path) -> str:
    return f"{sum(1 for _ in log.open('rb'))} packages compiled" if log.exists() else ""


def _flags(module: Path) -> list[str]:
    link = ["-s", "-w"]
    release = re.search(r"\bk8s\.io/kubernetes v((\d+)\.(\d+)\.\S+)", (module / "go.mod").read_text())
    if release:
        version, major, minor = release.groups()
        for package in _KUBERNETES_VERSION_PACKAGES:
            for field, value in (("gitVersion", f"v{version}"), ("gitMajor", major), ("gitMinor", minor)):
                link += ["-X", f"{package}.{field}={value}"]
    return ["-buildvcs=false", "-trimpath", "-ldflags", " ".join(link)]
