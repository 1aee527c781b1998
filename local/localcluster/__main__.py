"""The commands behind the Makefile: `python3 -m localcluster COMMAND`, on the bare system's Python."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from localcluster import contrary, environment, paths, prometheus, providers, pruning, registry, tools
from localcluster.checks import CHECKS
from localcluster.cluster import Cluster
from localcluster.errors import LocalClusterError
from localcluster.images import examples, product
from localcluster.images.dockerfile import Target
from localcluster.providers import CLUSTER_VARIABLE, KUBECONFIG_VARIABLE

# What a machine lacks: a right, room, or a file system that can be written.
_OF_THE_MACHINE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT)
# Programs of a node, images and tests make files that other users read, among them the user of the pods.
_UMASK = 0o022
# What every run gets; its users name images of their own in the targets' variables, for clusters that no image can be
# loaded into.
_ALWAYS = (product.OPERATOR, product.ROUTER, product.SIMULATOR)
# What a run gets when it first asks for it (images/examples.py).
_ON_DEMAND = examples.TARGETS | {
    target.name: target for target in (contrary.IMAGE, registry.IMAGE, prometheus.IMAGE, prometheus.PROGRAMS)
}

_callers_umask = _UMASK


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns the exit code, 1 with a message where something is missing or broken."""
    if not arguments or arguments[0] not in _COMMANDS:
        width = max(map(len, _COMMANDS))
        lines = [f"  {name:{width}}  {text}" for name, (_, text) in _COMMANDS.items()]
        print("\n".join([__doc__.strip(), "", *lines]), file=sys.stderr)
        return 2
    command, rest = arguments[0], list(arguments[1:])
    if rest[:1] == ["--"]:
        del rest[0]
    global _callers_umask
    _callers_umask = os.umask(_UMASK)
    try:
        return _COMMANDS[command][0](rest)
    except LocalClusterError as error:
        return _failed(str(error))
    except subprocess.CalledProcessError as error:
        words = " ".join(map(str, error.cmd[:6]))
        return _failed(f"`{words} ...` ended with code {error.returncode}: {error.stderr or error.output or 'no word'}")
    except OSError as error:
        # The machine's, which its user can mend; all others are bugs.
        if error.errno not in _OF_THE_MACHINE:
            raise
        return _failed(f"{error}\n{_where_things_are()}")
    except KeyboardInterrupt:
        return 130
    finally:
        os.umask(_callers_umask)


def _failed(message: str) -> int:
    sys.stdout.flush()
    print(f"\nerror: {message}", file=sys.stderr)
    return 1


def _where_things_are() -> str:
    return (
        f"Programs and images are kept in {paths.cache()} (SLUICE_CACHE), running clusters in {paths.state()} "
        f"(SLUICE_STATE), the Python environment in {paths.VENV}. They need room, and whoever runs this must be able "
        "to write there: what root made is root's (sudo -E make ...)."
    )


def _up(_: list[str]) -> int:
    environment.ensure()
    cluster = providers.up()
    print(f"{cluster.provider} cluster {cluster.name} is up; `make shell` opens a shell in it, `make down` removes it")
    return 0


def _down(_: list[str]) -> int:
    providers.down()
    try:
        pruning.prune()
    except (OSError, LocalClusterError) as error:
        # The cluster is gone, which is what was asked for.
        print(f"the cache could not be pruned: {error}", file=sys.stderr)
    return 0


def _status(_: list[str]) -> int:
    print(providers.pick().status())
    return 0


def _tools(_: list[str]) -> int:
    environment.ensure()
    print(tools.bin_directory((*tools.NODE_TOOLS, "helm")))
    return 0


def _images(rest: list[str]) -> int:
    environment.ensure()
    for target in _targets(rest) if rest else _ALWAYS:
        print(product.build(target).name)
    return 0


def _files(rest: list[str]) -> int:
    environment.ensure()
    for target in _targets(rest):
        print(product.export(target))
    return 0


def _example(rest: list[str]) -> int:
    cluster = _bring_up()
    for target in _targets([f"example-{name}" for name in rest]):
        print(examples.image(cluster, target))
        for archive in examples.archives(target).values():
            print(archive)
    return 0


def _targets(names: list[str]) -> list[Target]:
    known = {target.name: target for target in _ALWAYS} | _ON_DEMAND
    unknown = [name for name in names if name not in known]
    if unknown:
        raise LocalClusterError(f"unknown target {', '.join(unknown)}; there are {', '.join(known)}")
    return [known[name] for name in names]


def _lint(_: list[str]) -> int:
    environment.ensure()
    failed = []
    for check in CHECKS:
        result = check.run()
        print(f"{check.name}: {'ok' if result.returncode == 0 else 'FAILED'}")
        if result.returncode != 0:
            failed.append(check.name)
            print(result.stdout)
    return 1 if failed else 0


def _crds(rest: list[str]) -> int:
    environment.ensure()
    return _attend([str(paths.VENV_PYTHON), "-m", "sluice.cli.crds", *rest], _python_environment())


def _enter(rest: list[str]) -> int:
    cluster = _bring_up()
    argv = rest or [os.environ.get("SHELL") or shutil.which("bash") or "/bin/sh"]
    # What a person makes there is theirs.
    return _attend([*cluster.enter, *argv], _run_environment(cluster), directory=None, umask=_callers_umask)


def _test(rest: list[str]) -> int:
    # Where the time went stands in every log.
    slowest = ("--durations=25", "--durations-min=5")
    return _run_with_images([str(paths.VENV_PYTHON), "-m", "pytest", *slowest, *rest])


def _demo(rest: list[str]) -> int:
    return _run_with_images([str(paths.VENV_PYTHON), "-m", "demo", *rest])


def _timelines(rest: list[str]) -> int:
    return _run_with_images([str(paths.VENV_PYTHON), "-m", "demo.timelines", *rest])


def _bench(rest: list[str]) -> int:
    """Without a cluster: the benchmark starts an API server of its own, and nodes would only disturb it."""
    environment.ensure()
    return _attend([str(paths.VENV_PYTHON), "-m", "tests.bench", *rest], _python_environment())


def _conformance_aws(rest: list[str]) -> int:
    """Without a cluster: endpoints run in the account."""
    environment.ensure()
    return _attend([str(paths.VENV_PYTHON), "-m", "tests.conformance.aws", *rest], _python_environment())


def _bring_up() -> Cluster:
    environment.ensure()
    return providers.up()


def _run_with_images(argv: Sequence[str]) -> int:
    """Bring everything up and run a command in the cluster's network with everything named in its environment."""
    cluster = _bring_up()
    images = {}
    for target in _ALWAYS:
        named = os.environ.get(target.variable)
        if named:
            images[target.variable] = named
        else:
            image = product.build(target)
            cluster.load_image(image.archive, image.name)
            images[target.variable] = image.name
    return _attend([*cluster.enter, *argv], {**_run_environment(cluster), **images})


def _attend(
    argv: Sequence[str],
    environment: Mapping[str, str],
    directory: Path | None = paths.CHECKOUT,
    umask: int = _UMASK,
) -> int:
    """Run a command to its end; returns its exit code, as a shell gives it.

    A Ctrl-C reaches it too, and what it does then is its own matter: deleting what costs money in an account takes
    longer than the quarter of a second after which a KeyboardInterrupt in `subprocess.run` kills it.
    """
    before = signal.getsignal(signal.SIGINT)
    # SIG_IGN is inherited, a handler is not: the command gets what it would have had.
    if before is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: None)
    try:
        code = subprocess.run(argv, cwd=directory, env=environment, umask=umask, check=False).returncode
    finally:
        signal.signal(signal.SIGINT, before)
    return 128 - code if code < 0 else code


def _run_environment(cluster: Cluster) -> dict[str, str]:
    # In the cache, not in the state: `down` leaves no state behind, whoever made the cluster.
    key = hashlib.sha256(str(cluster.kubeconfig).encode()).hexdigest()[:12]
    record = paths.cache() / "clusters" / f"{key}.json"
    record.parent.mkdir(parents=True, exist_ok=True)
    cluster.save(record)
    return {
        **cluster.environment(),
        "PYTHONPATH": _python_environment()["PYTHONPATH"],
        CLUSTER_VARIABLE: str(record),
        KUBECONFIG_VARIABLE: str(cluster.kubeconfig),
        "SLUICE_TOOLS": str(cluster.bin),
        # This process waits for what it runs, so its own network is there as long as that may want to leave.
        product.OUTSIDE_VARIABLE: f"nsenter --net=/proc/{os.getpid()}/ns/net --" if cluster.enter else "",
    }


def _python_environment() -> dict[str, str]:
    parts = ("local", "operator", "simulator", ".")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(str(paths.CHECKOUT / part) for part in parts)}


_COMMANDS: dict[str, tuple[Callable[[list[str]], int], str]] = {
    "up": (_up, "bring the cluster up; what is up stays"),
    "down": (_down, "remove the cluster and everything it left"),
    "status": (_status, "say what is up"),
    "tools": (_tools, "build the cluster's programs into the cache"),
    "images": (_images, "build the product's images, or those of the targets that are named"),
    "files": (_files, "make the files of a target, such as example-mlflow-models"),
    "example": (_example, "put the image of an example's model server (mlflow, mms) on the node, and make its models"),
    "crds": (_crds, "generate crds/ and the reference from the models (--check: only compare)"),
    "lint": (_lint, "run the static checks"),
    "enter": (_enter, "run a command (default: a shell) in the cluster's network"),
    "test": (_test, "run every test; further arguments go to pytest"),
    "demo": (_demo, "run the demo"),
    "timelines": (_timelines, "draw the pictures of docs/deployments.md from real runs"),
    "bench": (_bench, "run the benchmark"),
    "conformance-aws": (_conformance_aws, "run the conformance table in a real AWS account, at most for --cap-dollars"),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
