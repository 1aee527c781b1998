"""`make down` takes from the cache what nothing has used for a fortnight, and nothing that anybody uses."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from localcluster import __main__ as commands
from localcluster import paths, providers, pruning, tools
from localcluster.images import product
from localcluster.images.buildah import Buildah
from localcluster.images.dockerfile import Target
from localcluster.toolchain import Go
from localcluster.waiting import exclusive, until

DAY = 24 * 3600


class Cache:
    """A cache of things of some age in days, and a machine whose `buildah` notes what it is told."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.directory = directory / "cache"
        self.directory.mkdir()
        self._programs = directory / "programs"
        self._programs.mkdir()
        self._said = directory / "said"
        monkeypatch.setenv("SLUICE_CACHE", str(self.directory))
        monkeypatch.setenv("PATH", f"{self._programs}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setattr(providers, "down", lambda: None)
        self.store_has()

    def store_has(self, *names: str) -> None:
        """The images in buildah's store."""
        listed = json.dumps([{"names": list(names)}, {"names": None}])
        program = self._programs / "buildah"
        program.write_text(f"#!/bin/sh\nshift 3\necho \"$*\" >> {self._said}\n[ $1 != images ] || echo '{listed}'\n")
        program.chmod(0o755)

    def removed_from_store(self) -> list[str]:
        """What buildah was told, but for the question what it has."""
        lines = self._said.read_text().splitlines() if self._said.exists() else []
        return [line for line in lines if not line.startswith("images")]

    def add(self, name: str, *, days: float, read_days: float | None = None) -> Path:
        """A file, and what it is in, that was made so many days ago, and read so many days ago."""
        file = self.directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("content")
        self.date(file, days=days, read_days=read_days)
        for above in file.relative_to(self.directory).parents:
            self.date(self.directory / above, days=days)
        return file

    @staticmethod
    def date(entry: Path, *, days: float, read_days: float | None = None) -> None:
        now = time.time()
        os.utime(entry, (now - DAY * (days if read_days is None else read_days), now - DAY * days))

    def link(self, name: str, to: Path) -> Path:
        """A link, and its directory, of long ago."""
        link = self.directory / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(to)
        self.date(link.parent, days=99)
        return link


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    return Cache(tmp_path, monkeypatch)


def test_what_is_unused_goes_and_what_was_used_lately_stays(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    old = [
        cache.add("tools/helm/aaaa/helm", days=15),
        cache.add("go/1.20.0/go/bin/go", days=15),
        cache.add("images/operator-aaaaaaaaaaaa.tar", days=15),
        cache.add("files/models-aaaaaaaaaaaa/tree.tar.gz", days=15),
        cache.add("clusters/aaaa.json", days=15),
    ]
    used = [
        cache.add("tools/helm/bbbb/helm", days=13),
        cache.add("go/1.26.0/go/bin/go", days=13),
        cache.add("images/operator-bbbbbbbbbbbb.tar", days=13),
        cache.add("files/models-bbbbbbbbbbbb/tree.tar.gz", days=13),
        cache.add("clusters/bbbb.json", days=13),
    ]
    log = cache.add("log/apt.log", days=99)

    assert commands.main(["down"]) == 0

    assert [path.exists() for path in old] == [False] * 5
    assert [path.exists() for path in (*used, log)] == [True] * 6
    assert "that nothing has used for 14 days" in capsys.readouterr().out
    assert not list((cache.directory / "tools" / "helm").glob("*aaaa*")), "nothing is left by half"


def test_what_an_older_checkout_uses_is_known_by_its_files(cache: Cache) -> None:
    """It marks nothing; running and reading leave their time."""
    run = cache.add("tools/kubernetes/aaaa/kubectl", days=40, read_days=2)
    archive = cache.add("images/operator-aaaaaaaaaaaa.tar", days=40, read_days=2)
    link = cache.link("bin/cccc/kubectl", run)
    cache.link("bin/dddd/kubectl", cache.add("tools/kubernetes/bbbb/kubectl", days=40))

    pruning.prune()

    assert run.exists()
    assert archive.exists()
    assert link.exists()
    assert [path.name for path in (cache.directory / "bin").iterdir()] == ["cccc"]


def test_a_directory_of_links_that_is_being_made_stays(cache: Cache) -> None:
    made = cache.directory / "bin" / "aaaa"
    made.mkdir(parents=True)
    pruning.prune()
    assert made.exists()


def test_no_program_goes_while_one_of_them_runs(cache: Cache) -> None:
    kubelet = cache.add("tools/kubernetes/aaaa/kubelet", days=40)
    other = cache.add("tools/coredns/aaaa/coredns", days=40)
    sleep = shutil.which("sleep")
    assert sleep is not None
    shutil.copyfile(sleep, kubelet)
    kubelet.chmod(0o755)
    process = subprocess.Popen([kubelet, "600"])  # noqa: S603  our own copy
    try:
        running = Path(f"/proc/{process.pid}/exe")
        until(lambda: running.resolve() == kubelet, seconds=60, what="the copy to run")
        _of_long_ago(cache, kubelet)
        pruning.prune()
        assert kubelet.exists()
        assert other.exists()
    finally:
        process.kill()
        process.wait()
    _of_long_ago(cache, kubelet)
    pruning.prune()
    assert not kubelet.exists()
    assert not other.exists()


def _of_long_ago(cache: Cache, file: Path) -> None:
    for path in (file, file.parent):
        cache.date(path, days=40)


@pytest.mark.parametrize(
    ("lock", "name"),
    [
        ("tools.lock", "tools/helm/aaaa/helm"),
        ("go.lock", "go/1.20.0/go/bin/go"),
        ("images.lock", "images/operator-aaaaaaaaaaaa.tar"),
    ],
)
def test_nothing_goes_while_another_run_makes_something(cache: Cache, lock: str, name: str) -> None:
    old = cache.add(name, days=40)
    with exclusive(cache.directory / lock):
        pruning.prune()
    assert old.exists()
    pruning.prune()
    assert not old.exists()


def test_a_program_that_is_used_again_stays(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tools, "find_go", lambda: Go(Path("/usr/bin/go"), "go1.26.3"))
    key = tools.cache_key(paths.TOOL_MODULES / "helm", "go1.26.3")
    helm = cache.add(f"tools/helm/{key}/helm", days=40)
    assert tools.build(["helm"]) == {"helm": helm}
    pruning.prune()
    assert helm.exists()


def test_an_image_that_is_used_again_stays(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    target = Target("operator", ("locks/operator.lock",))
    monkeypatch.setattr(product, "_builder", Buildah)
    monkeypatch.delenv(product.OUTSIDE_VARIABLE, raising=False)
    key = product._key(target, Buildah())
    archive = cache.add(f"images/operator-{key}.tar", days=40)
    models = cache.add(f"files/operator-{key}/tree.tar.gz", days=40)
    product.build(target)
    product.export(target)
    pruning.prune()
    assert archive.exists()
    assert models.exists()


def test_a_mark_of_today_takes_no_lock(cache: Cache, capsys: pytest.CaptureFixture[str]) -> None:
    fresh = cache.add("tools/helm/aaaa/helm", days=0.5).parent
    lock = cache.directory / "tools.lock"
    with exclusive(lock):
        pruning.mark_used([fresh, cache.directory / "tools" / "helm" / "gone"], lock)
    assert "waiting for another run" not in capsys.readouterr().out


def test_the_builders_store_keeps_the_images_that_have_an_archive_and_the_base(cache: Cache) -> None:
    (cache.directory / "buildah").mkdir()
    cache.add("images/operator-aaaaaaaaaaaa.tar", days=1)
    cache.add("images/router-bbbbbbbbbbbb.tar", days=15)
    prefix = "localhost/sluice-"
    kept = (f"{prefix}operator:aaaaaaaaaaaa", f"{prefix}base:cccccccccccc", f"{prefix}example-mms:1")
    cache.store_has(*kept)
    pruning.prune()
    assert cache.removed_from_store() == []

    cache.store_has(*kept, f"{prefix}router:bbbbbbbbbbbb", f"{prefix}operator:dddddddddddd")
    pruning.prune()
    assert cache.removed_from_store() == ["rm --all", f"rmi {prefix}router:bbbbbbbbbbbb {prefix}operator:dddddddddddd"]


def test_a_store_is_emptied_only_when_nothing_was_built_for_long(cache: Cache) -> None:
    (cache.directory / "buildah").mkdir()
    cache.store_has("localhost/sluice-base:cccccccccccc")
    lock = cache.directory / "images.lock"
    lock.touch()
    pruning.prune()
    assert cache.removed_from_store() == []

    cache.date(lock, days=15)
    pruning.prune()
    assert cache.removed_from_store() == ["rm --all", "rmi --all --force"]


def test_a_cache_that_cannot_be_pruned_leaves_the_cluster_down(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Cache
) -> None:
    cache.add("tools/helm/aaaa/helm", days=40)

    def read_only(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(shutil, "rmtree", read_only)
    assert commands.main(["down"]) == 0
    assert "the cache could not be pruned: [Errno 30] Read-only file system" in capsys.readouterr().err
