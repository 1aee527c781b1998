"""The node's cache: one download for many pods, and nothing trusted that is not whole."""

import errno
import hashlib
import json
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.loader.loading import archive, content, refused, request, run, source, start
from tests.loader.webserver import Answering, Asked, WebServer

FILES = {"model.bin": b"w" * 300_000, "code/inference.py": b"pass"}
TREE = {**FILES, "code": None}
BODY = archive(FILES)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "node" / "cache"


@pytest.fixture
def uri(web: WebServer) -> str:
    return web.serve("/m.tar.gz", BODY)


def ask(uri: str, target: Path, cache: Path, **more: Any) -> dict[str, Any]:
    return request(source(uri, target), cacheDirectory=str(cache), **more)


def entry_of(cache: Path) -> Path:
    [entry] = [path for path in cache.iterdir() if path.is_dir()]
    return entry


def test_the_second_pod_only_asks_what_the_version_is(web: WebServer, uri: str, target: Path, cache: Path) -> None:
    first = run(ask(uri, target, cache))
    web.forget()
    second = run(ask(uri, target.with_name("second"), cache))
    assert [asked.range for asked in web.asked] == [(0, 0)]
    assert content(target) == content(target.with_name("second")) == TREE
    assert second.versions == first.versions
    assert second.placed_bytes == first.placed_bytes == sum(map(len, FILES.values()))


def test_another_version_is_another_entry(web: WebServer, uri: str, target: Path, cache: Path) -> None:
    run(ask(uri, target, cache))
    web.serve("/m.tar.gz", archive({"new": b"1"}), '"two"')
    run(ask(uri, target, cache))
    assert content(target) == {"new": b"1"}
    web.serve("/m.tar.gz", BODY)
    web.forget()
    run(ask(uri, target, cache))
    assert content(target) == TREE
    assert len(web.asked) == 1


def test_one_object_in_two_forms_is_two_entries(uri: str, target: Path, cache: Path) -> None:
    run(ask(uri, target, cache))
    run(request(source(uri, target, kind="Object"), cacheDirectory=str(cache)))
    assert content(target) == {"m.tar.gz": BODY}


def test_files_are_linked_on_one_mount_and_copied_otherwise(uri: str, target: Path, cache: Path) -> None:
    run(ask(uri, target, cache))
    kept = (entry_of(cache) / "tree/model.bin").stat()
    assert (target / "model.bin").stat().st_ino == kept.st_ino
    elsewhere = Path("/dev/shm/sluice-loader-test") / str(os.getpid())  # noqa: S108 - another file system
    try:
        run(ask(uri, elsewhere, cache))
        assert content(elsewhere) == TREE
        copied = (elsewhere / "model.bin").stat()
        assert copied.st_dev != kept.st_dev
        assert (copied.st_mode, copied.st_mtime_ns) == (kept.st_mode, kept.st_mtime_ns)
    finally:
        shutil.rmtree(elsewhere.parent)


def truncate(entry: Path) -> None:
    os.truncate(entry / "tree/model.bin", 10)


def lose(entry: Path) -> None:
    (entry / "tree/code/inference.py").unlink()


def add(entry: Path) -> None:
    (entry / "tree/extra").write_bytes(b"1")


def lose_manifest(entry: Path) -> None:
    (entry / "manifest.json").unlink()


def break_manifest(entry: Path) -> None:
    (entry / "manifest.json").write_text("{")


def age_manifest(entry: Path) -> None:
    manifest = json.loads((entry / "manifest.json").read_text())
    (entry / "manifest.json").write_text(json.dumps({**manifest, "formatVersion": 0}))


def replace_by_link(entry: Path) -> None:
    (entry / "tree/model.bin").unlink()
    (entry / "tree/model.bin").symlink_to("/etc/passwd")


@pytest.mark.parametrize("damage", [truncate, lose, add, lose_manifest, break_manifest, age_manifest, replace_by_link])
def test_an_entry_that_is_not_whole_is_made_anew(
    web: WebServer, uri: str, target: Path, cache: Path, damage: Any
) -> None:
    run(ask(uri, target, cache))
    shutil.rmtree(target)  # links to the entry's files
    damage(entry_of(cache))
    web.forget()
    run(ask(uri, target, cache))
    assert content(target) == TREE
    assert len(web.asked) > 1
    web.forget()
    run(ask(uri, target.with_name("second"), cache))
    assert len(web.asked) == 1


def test_a_hostile_archive_never_becomes_an_entry(web: WebServer, target: Path, cache: Path) -> None:
    uri = web.serve("/bad.tar.gz", BODY[:-20])
    assert refused(ask(uri, target, cache)).reason == "BadArchive"
    assert not list(cache.rglob("tree"))


def test_the_size_limit_holds_for_what_comes_from_the_cache(uri: str, target: Path, cache: Path) -> None:
    run(ask(uri, target, cache))
    assert refused(ask(uri, target.with_name("second"), cache, sizeLimitBytes=300_000)).reason == "TooLarge"


def test_what_has_no_version_is_not_cached(web: WebServer, target: Path, cache: Path) -> None:
    uri = web.serve("/m.tar.gz", BODY, None)
    run(ask(uri, target, cache))
    assert not cache.exists()
    assert content(target) == TREE


def test_another_s3_service_neither_fills_nor_reads_what_is_kept_of_this_one(
    web: WebServer, target: Path, cache: Path
) -> None:
    """Any Model may name a service, and that one may say of a version what it likes."""
    true, false = b"true" * 1000, b"evil" * 1000
    e_tag = f'"{hashlib.md5(true, usedforsecurity=False).hexdigest()}-2"'  # of parts: not compared with the bytes
    web.serve("/theirs/models/m.bin", false, e_tag)
    web.serve("/ours/models/m.bin", true, e_tag)
    for service, body in (("theirs", false), ("ours", true), ("theirs", false)):
        place = source("s3://models/m.bin", target.with_name(service), kind="Object")
        run(request(place, endpointUrl=f"{web.url}/{service}", cacheDirectory=str(cache)))
        assert content(target.with_name(service)) == {"m.bin": body}


def told_before(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    usage = shutil.disk_usage

    def full(path: Any) -> Any:
        return usage(path)._replace(free=10 if Path(path).is_relative_to(cache) else 10**12)

    monkeypatch.setattr(shutil, "disk_usage", full)


def noticed_at_the_end(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)


@pytest.mark.parametrize("fill", [told_before, noticed_at_the_end])
def test_a_cache_without_room_keeps_no_pod_from_its_data(
    uri: str, target: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, fill: Any
) -> None:
    fill(monkeypatch, cache)
    assert run(ask(uri, target, cache)).placed_bytes == 300_004
    assert content(target) == TREE
    assert not [path for path in cache.iterdir() if path.is_dir()]


def test_two_loaders_at_once_download_once(web: WebServer, tmp_path: Path, cache: Path) -> None:
    """The server tells neither the version before both have asked for it: both are there before either has the data."""
    both = threading.Barrier(2, timeout=60)

    def slow(handler: Answering, asked: Asked) -> None:
        if asked.range == (0, 0):
            both.wait()
        handler.part(asked, BODY, '"one"')

    uri = web.answer("/m.tar.gz", slow)
    targets = [tmp_path / name / "model" for name in ("one", "two")]
    running = [
        start(ask(uri, each, cache, partBytes=65536, concurrency=2), tmp_path / f"message-{number}")
        for number, each in enumerate(targets)
    ]
    for process in running:
        code, message, log = process.end()
        assert (code, message["bytes"]) == (0, 300_004), log
    assert [content(each) for each in targets] == [TREE, TREE]
    downloads = [asked for asked in web.asked if asked.range != (0, 0)]
    assert len(downloads) == 1  # the archive is smaller than a part
