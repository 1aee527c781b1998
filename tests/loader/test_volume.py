"""Model data in a mounted volume."""

import json
import os
import shutil
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.loader.loading import archive, content, refused, request, run, source

from sluice.loader.request import Source
from sluice.loader.volume import MAX_FILES, find_in_volume


@pytest.fixture
def volume() -> Iterator[Path]:
    """A folder in a file system of its own, as a claim is one: /dev/shm is the mount."""
    folder = Path("/dev/shm") / f"sluice-loader-volume-{os.getpid()}"  # noqa: S108
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def test_a_folder_is_copied_links_followed_within_the_volume(volume: Path, target: Path) -> None:
    (volume / "m/deep").mkdir(parents=True)
    (volume / "m/a").write_bytes(b"1")
    (volume / "m/deep/b#?%41").write_bytes(b"x" * 200_000)
    (volume / "m/deep/link").symlink_to("../a")
    (volume / "current").symlink_to("m")
    loaded = run(request(source(f"file://{volume}/current/", target, kind="Prefix")))
    assert content(target) == {"a": b"1", "deep": None, "deep/b#?%41": b"x" * 200_000, "deep/link": b"1"}
    assert loaded.versions["model"].digest is not None
    assert (volume / "m/a").exists()


def test_as_many_files_as_are_allowed_fit_into_memory(volume: Path, target: Path) -> None:
    """The loader's container has 1 GiB, and would be killed without a word."""
    count = 5000
    folder = volume / "models/churn/shards"
    for part in range(10):
        (folder / f"part-{part:08d}").mkdir(parents=True)
        for number in range(count // 10):
            (folder / f"part-{part:08d}/weights-{number:08d}.safetensors").touch()
    asked = Source("model", f"file://{volume}/models/churn/", "Prefix", "None", str(target))
    tracemalloc.start()
    try:
        found = find_in_volume(asked)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert len(found.items) == count
    assert most / count * MAX_FILES < 800 * 1024**2


def test_an_archive_and_a_file(volume: Path, target: Path) -> None:
    packed = archive({"a": b"1"})  # made once: gzip writes the second into it
    (volume / "m.tar.gz").write_bytes(packed)
    run(request(source(f"file://{volume}/m.tar.gz", target)))
    assert content(target) == {"a": b"1"}
    loaded = run(request(source(f"file://{volume}/m.tar.gz", target, kind="Object")))
    assert content(target) == {"m.tar.gz": packed}
    assert loaded.versions["model"].size == len(packed)


def test_a_volume_that_changes_has_moved(volume: Path, target: Path, tmp_path: Path) -> None:
    (volume / "m").mkdir()
    (volume / "m/a").write_bytes(b"1")
    asked = source(f"file://{volume}/m/", target, kind="Prefix")
    first = run(request(asked)).versions["model"]
    (tmp_path / "record").write_text(json.dumps({"model": json.dumps(first.as_json())}))
    run(request(asked, recordFile=str(tmp_path / "record")))
    (volume / "m/a").write_bytes(b"22")
    asked["target"] = str(target.with_name("other"))
    assert refused(request(asked, recordFile=str(tmp_path / "record"))).reason == "SourceMoved"


def make_link_out(volume: Path) -> str:
    (volume / "m").mkdir()
    (volume / "m/environ").symlink_to("/proc/self/environ")
    return "m/"


def make_link_to_sibling(volume: Path) -> str:
    (volume / "m").mkdir()
    (volume / "secret").write_bytes(b"1")
    (volume / "m/link").symlink_to("../secret")
    return "m/"


def make_folder_link(volume: Path) -> str:
    (volume / "m/d").mkdir(parents=True)
    (volume / "m/d/again").symlink_to("..")
    return "m/"


def make_pipe(volume: Path) -> str:
    (volume / "m").mkdir()
    os.mkfifo(volume / "m/pipe")
    return "m/"


def make_nothing(volume: Path) -> str:
    (volume / "m").mkdir()
    return "m/"


def make_circle(volume: Path) -> str:
    (volume / "m").symlink_to("m")
    return "m/"


def make_root_out(volume: Path) -> str:
    (volume / "m").symlink_to("/etc")
    return "m/"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (make_link_out, "leads out of the folder"),
        (make_link_to_sibling, "leads out of the folder"),
        (make_folder_link, "a link to a folder"),
        (make_pipe, "neither a file nor a folder"),
        (make_nothing, "no file in this folder"),
        (make_circle, "Too many levels of symbolic links"),
        (make_root_out, "leads out of the volume"),
        (lambda volume: "absent/", "No such file"),
    ],
)
def test_what_a_folder_must_not_hold(volume: Path, target: Path, make: object, words: str) -> None:
    assert callable(make)
    uri = f"file://{volume}/{make(volume)}"
    assert words in str(refused(request(source(uri, target, kind="Prefix"))))


def test_a_file_that_is_a_link_out_of_the_volume(volume: Path, target: Path) -> None:
    (volume / "m.bin").symlink_to("/etc/passwd")
    assert "leads out of the volume" in str(refused(request(source(f"file://{volume}/m.bin", target, kind="Object"))))
    os.mkfifo(volume / "pipe")
    assert "it is not a file" in str(refused(request(source(f"file://{volume}/pipe", target, kind="Object"))))
