"""The init container's process: exit codes, messages, deadlines, and what a restarted one goes on with."""

import errno
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.loader.loading import QUICK, archive, content, request, run, source, start
from tests.loader.webserver import Answering, Asked, WebServer

from sluice.loader import message
from sluice.loader.budget import Budget
from sluice.loader.deadline import Deadline
from sluice.loader.download import Download
from sluice.loader.failure import BadRequest, LoadFailed
from sluice.loader.item import Checks, Found, Item
from sluice.loader.load import Loaded
from sluice.loader.paths import STAGING
from sluice.loader.request import parse
from sluice.loader.version import Version, read_record, version_of_all

PART = 65536
BODY = os.urandom(PART * 16)


def test_success(web: WebServer, target: Path, tmp_path: Path) -> None:
    uri = web.serve("/m.tar.gz", archive({"a": b"123"}))
    code, told, log = start(request(source(uri, target, "front/model")), tmp_path / "message").end()
    assert code == 0, log
    assert told["versions"] == {"front/model": {"eTag": "one", "size": len(archive({"a": b"123"}))}}
    assert told["bytes"] == 3
    assert told["seconds"] >= 0
    assert content(target) == {"a": b"123"}
    assert "100%" in log


def test_a_killed_download_goes_on_where_it_was(web: WebServer, target: Path, tmp_path: Path) -> None:
    """Killed when twelve parts were sent and the others are held back; only what was under way is asked for again."""
    held, sent = threading.Event(), threading.Semaphore(0)
    released = threading.Event()

    def holding(handler: Answering, asked: Asked) -> None:
        assert asked.range is not None
        if asked.range[0] >= 12 * PART and not released.is_set():
            held.set()
            released.wait(60)
            return
        handler.part(asked, BODY, '"one"')
        sent.release()

    uri = web.answer("/m.bin", holding)
    asked = request(source(uri, target, kind="Object"), concurrency=4, partBytes=PART)
    process = start(asked, tmp_path / "message")
    try:
        assert held.wait(60)
        for _ in range(13):  # the first byte, and twelve parts
            assert sent.acquire(timeout=60)
        journal = target / STAGING / "download" / "journal"
        wait_for(lambda: journal.read_text().count(";") == 12)
    finally:
        process.started.send_signal(signal.SIGKILL)
    assert process.end()[0] == -signal.SIGKILL
    assert not content(target)
    released.set()
    web.forget()
    code, told, log = start(asked, tmp_path / "message").end()
    assert code == 0, log
    assert content(target) == {"m.bin": BODY}
    again = sum(each.range[1] - each.range[0] + 1 for each in web.asked[1:] if each.range is not None)
    assert again == 4 * PART
    assert told["bytes"] == len(BODY)
    assert "768.0 KiB are here from an earlier try" in log


def wait_for(condition: Any) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        os.sched_yield()


def fail_after_some_parts(web: WebServer, target: Path, body: bytes, e_tag: str) -> dict[str, Any]:
    """A first try that brought four parts and then met a refusal."""
    asked_for = iter(range(100))

    def failing(handler: Answering, asked: Asked) -> None:
        if next(asked_for) < 5:
            handler.part(asked, body, e_tag)
        else:
            handler.plain(403, b"")

    asked = request(source(web.answer("/m.bin", failing), target, kind="Object"))
    with pytest.raises(LoadFailed):
        run(asked, replace(QUICK, concurrency=1))
    web.forget()
    return asked


def test_a_failed_download_goes_on_where_it_was(web: WebServer, target: Path) -> None:
    asked = fail_after_some_parts(web, target, BODY, '"one"')
    web.serve("/m.bin", BODY)
    run(asked)
    assert content(target) == {"m.bin": BODY}
    assert len(web.asked) == 1 + 16 - 4


def test_another_version_starts_over(web: WebServer, target: Path) -> None:
    asked = fail_after_some_parts(web, target, BODY, '"one"')
    other = BODY[::-1]
    web.serve("/m.bin", other, '"two"')
    run(asked)
    assert content(target) == {"m.bin": other}
    assert len(web.asked) == 1 + 16


def lose_file(download: Path) -> None:
    (download / "content/m.bin").unlink()


def shorten_file(download: Path) -> None:
    os.truncate(download / "content/m.bin", PART)


def of_another_boot(download: Path) -> None:
    text, *rest = (download / "journal").read_text().split("\n")
    header = json.loads(text)
    assert header["boot"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    (download / "journal").write_text("\n".join([json.dumps({**header, "boot": "another"}), *rest]))


def break_journal(download: Path) -> None:
    (download / "journal").write_text("{")


def lose_journal(download: Path) -> None:
    (download / "journal").unlink()


@pytest.mark.parametrize("damage", [lose_file, shorten_file, of_another_boot, break_journal, lose_journal])
def test_what_cannot_be_trusted_is_fetched_anew(web: WebServer, target: Path, damage: Any) -> None:
    asked = fail_after_some_parts(web, target, BODY, '"one"')
    damage(target / STAGING / "download")
    web.serve("/m.bin", BODY)
    run(asked)
    assert content(target) == {"m.bin": BODY}
    assert len(web.asked) == 1 + 16


class _Given:
    """A file of a store that says a checksum. Implements Reader."""

    def __init__(self, chunks: Callable[[], Iterator[bytes]], sha256: str) -> None:
        self._chunks = chunks
        self._sha256 = sha256

    def read(self, start: int, length: int | None) -> Iterator[bytes]:
        return self._chunks()

    def checks(self) -> Checks:
        return Checks({"sha256": self._sha256})


def test_what_was_damaged_goes_when_nobody_writes_beside_it_any_more(tmp_path: Path) -> None:
    directory, there = tmp_path / "download", []
    begun = threading.Event()

    def bad() -> Iterator[bytes]:
        assert begun.wait(60)
        yield b"0"

    def slow() -> Iterator[bytes]:
        yield b"1"
        begun.set()
        wait_for(lambda: download._failures)
        there.append(directory.exists())
        yield b"2"

    found = Found(
        Version(digest="one"),
        (Item("bad", 1, _Given(bad, "0")), Item("slow", 2, _Given(slow, "0"))),
    )
    download = Download("s3://models/m/", found, directory, Budget(None), Deadline(60), QUICK)
    with pytest.raises(LoadFailed, match="it was damaged on the way"):
        download.run()
    assert there == [True]
    assert not directory.exists()


def test_a_torn_last_line_of_the_journal_is_not_read(web: WebServer, target: Path) -> None:
    asked = fail_after_some_parts(web, target, BODY, '"one"')
    with (target / STAGING / "download/journal").open("a") as journal:
        journal.write("\n0 1")
    web.serve("/m.bin", BODY)
    run(asked)
    assert content(target) == {"m.bin": BODY}
    assert len(web.asked) == 1 + 16 - 4


def test_a_source_that_was_whole_is_not_fetched_again(web: WebServer, tmp_path: Path) -> None:
    good = source(web.serve("/good.tar.gz", archive({"a": b"1"})), tmp_path / "t" / "good", "good")
    bad = source(web.serve("/bad.tar.gz", b"no archive" * 100), tmp_path / "t" / "bad", "bad")
    with pytest.raises(LoadFailed):
        run(request(good, bad))
    web.serve("/bad.tar.gz", archive({"b": b"2"}), '"two"')
    web.forget()
    loaded = run(request(good, bad))
    assert [each.range for each in web.asked if each.path == "/good.tar.gz"] == [(0, 0)]
    assert content(tmp_path / "t" / "good") == {"a": b"1"}
    assert loaded.placed_bytes == 2


@pytest.mark.parametrize("end", [OSError(errno.EIO, "Input/output error"), SystemExit()], ids=["error", "killed"])
def test_what_was_moved_in_part_is_not_taken_for_the_whole(
    web: WebServer, target: Path, monkeypatch: pytest.MonkeyPatch, end: BaseException
) -> None:
    files = {name: name.encode() for name in "abcdef"}
    asked = request(source(web.serve("/m.tar.gz", archive(files)), target))
    rename = Path.rename

    def breaking(path: Path, place: Path) -> Path:
        if path.name == "d":
            raise end
        return rename(path, place)

    monkeypatch.setattr(Path, "rename", breaking)
    with pytest.raises((LoadFailed, SystemExit)):
        run(asked)
    monkeypatch.undo()
    run(asked)
    assert content(target) == files


def test_a_server_that_trickles_is_cut_off_at_the_deadline(web: WebServer, target: Path, tmp_path: Path) -> None:
    gone = threading.Event()

    def trickling(handler: Answering, asked: Asked) -> None:
        if asked.range == (0, 0):
            handler.part(asked, BODY, '"one"')
            return
        handler.head(200, ETag='"one"', Content_Length=str(len(BODY)))
        while not gone.wait(0.1):
            handler.wfile.write(b"x")

    uri = web.answer("/m.bin", trickling)
    try:
        asked = request(source(uri, target, kind="Object"), timeoutSeconds=3)
        code, told, _ = start(asked, tmp_path / "message").end(within_seconds=45)
    finally:
        gone.set()
    assert (code, told["reason"]) == (1, "TimedOut")
    assert "3 s" in told["error"]


def test_an_s3_that_trickles_is_cut_off_at_the_deadline(web: WebServer, target: Path, tmp_path: Path) -> None:
    """botocore waits for a whole chunk; the process ends nevertheless."""
    gone = threading.Event()

    def trickling(handler: Answering, asked: Asked) -> None:
        if asked.method == "HEAD":
            handler.part(asked, BODY, '"one"')
            return
        handler.head(206, ETag='"one"', Content_Range=f"bytes 0-{PART - 1}/{len(BODY)}", Content_Length=str(PART))
        while not gone.wait(0.1):
            handler.wfile.write(b"x")

    web.answer("/models/m.bin", trickling)
    try:
        asked = request(source("s3://models/m.bin", target, kind="Object"), timeoutSeconds=3, endpointUrl=web.url)
        asked["partBytes"] = PART
        code, told, _ = start(asked, tmp_path / "message").end(within_seconds=45)
    finally:
        gone.set()
    assert (code, told["reason"]) == (1, "TimedOut")


def test_a_silent_server_is_cut_off_at_the_deadline(web: WebServer, target: Path, tmp_path: Path) -> None:
    gone = threading.Event()
    uri = web.answer("/m.bin", lambda handler, asked: handler.part(asked, b"", None) if gone.wait(60) else None)
    try:
        asked = request(source(uri, target, kind="Object"), timeoutSeconds=2)
        code, told, _ = start(asked, tmp_path / "message").end(within_seconds=45)
    finally:
        gone.set()
    assert (code, told["reason"]) == (1, "TimedOut")


def test_a_stopped_pod_ends_at_once(web: WebServer, target: Path, tmp_path: Path) -> None:
    asked_for, gone = threading.Event(), threading.Event()

    def holding(handler: Answering, asked: Asked) -> None:
        asked_for.set()
        gone.wait(60)

    process = start(request(source(web.answer("/m.bin", holding), target, kind="Object")), tmp_path / "message")
    try:
        assert asked_for.wait(60)
        process.started.send_signal(signal.SIGTERM)
        assert process.end(within_seconds=45)[0] == 143
    finally:
        gone.set()


def test_a_target_that_cannot_be_written(web: WebServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    uri = web.serve("/m.tar.gz", archive({"a": b"1"}))
    code, told, _ = start(request(source(uri, tmp_path / "file" / "model")), tmp_path / "message").end()
    assert (code, told["reason"]) == (1, "ModelDataFailed")
    assert "failed to write model data" in told["error"]


def test_a_message_that_cannot_be_written_changes_nothing(web: WebServer, target: Path, tmp_path: Path) -> None:
    uri = web.serve("/m.tar.gz", archive({"a": b"1"}))
    code, _, log = start(request(source(uri, target)), tmp_path / "no" / "such" / "folder").end()
    assert code == 0
    assert "the termination message cannot be written" in log


GOOD = source("s3://models/m.tar.gz", Path("/opt/ml/model"))


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ("", "SLUICE_LOADER is not set"),
        ("{", "is not JSON"),
        ("[]", "found list, allowed is an object"),
        (request(GOOD, formatVersion=2), "formatVersion: found 2, this loader knows 1"),
        (request(GOOD, newer=1), "newer: this loader does not know the field"),
        (request(), "sources: found 0"),
        (request({**GOOD, "name": ""}), "sources[0].name: is missing"),
        (request({**GOOD, "kind": "Folder"}), "sources[0].kind: found Folder"),
        (request({**GOOD, "compression": "Zip"}), "sources[0].compression: found Zip"),
        (request({**GOOD, "target": "relative"}), "sources[0].target: found 'relative'"),
        (request({**GOOD, "target": "/"}), "sources[0].target: found ''"),
        (request({**GOOD, "target": "/etc"}), "sources[0].target: found '/etc'"),
        (request({**GOOD, "target": "/opt/../etc/x"}), "sources[0].target: found"),
        (request({**GOOD, "uri": "gs://bucket/key"}), "sources[0].uri: found gs://bucket/key"),
        (request({**GOOD, "uri": "s3:///key"}), "with a bucket"),
        (request({**GOOD, "uri": "https:///key"}), "with a host"),
        (request({**GOOD, "uri": "file:///mnt/a/../../etc"}), "without . and .."),
        (request({**GOOD, "uri": "file://host/mnt/a"}), "an absolute path"),
        (request({**GOOD, "more": 1}), "sources[0].more: this loader does not know"),
        (request(GOOD, GOOD), "sources[1].name: model is there twice"),
        (request(GOOD, {**GOOD, "name": "b"}), "overlap"),
        (request(GOOD, {**GOOD, "name": "b", "target": "/opt/ml/model/sub"}), "overlap"),
        (request(GOOD, concurrency=0), "concurrency: found 0, allowed are 1 to 64"),
        (request(GOOD, concurrency=True), "concurrency: found bool"),
        (request(GOOD, timeoutSeconds="60"), "timeoutSeconds: found str"),
        (request(GOOD, partBytes=1), "partBytes: found 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_wrong_request_is_named(asked: Any, words: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(asked if isinstance(asked, str) else json.dumps(asked))
    assert words in str(caught.value)


def test_a_wrong_request_ends_with_2_and_a_message(tmp_path: Path) -> None:
    code, told, _ = start("{}", tmp_path / "message").end()
    assert code == 2
    assert told["error"].startswith("the loader was asked wrongly: formatVersion")


def loaded_of(count: int, length: int) -> Loaded:
    versions = {
        f"container-{n}/channel-{n}": Version("e" * 32, "v" * length, n, "2026-01-01T00:00:00+00:00")
        for n in range(count)
    }
    return Loaded(versions, 1, 1.0)


def test_the_message_fits_and_still_says_which_versions(tmp_path: Path) -> None:
    assert "lastModified" in message.success(loaded_of(3, 32))
    shorter = json.loads(message.success(loaded_of(25, 32)))["versions"]
    assert len(shorter) == 25
    assert all(set(version) == {"eTag", "versionId", "size"} for version in shorter.values())
    many = loaded_of(90, 1024)
    text = message.success(many)
    assert len(text.encode()) <= 4096
    told = json.loads(text)["versions"]
    (tmp_path / "record").write_text(json.dumps({name: json.dumps(version) for name, version in told.items()}))
    assert read_record(str(tmp_path / "record")) == {"*": version_of_all(many.versions)}


def test_one_version_for_all_is_required_of_later_pods(web: WebServer, target: Path, tmp_path: Path) -> None:
    asked = request(source(web.serve("/m.tar.gz", archive({"a": b"1"})), target))
    every = version_of_all(run(asked).versions)
    (tmp_path / "record").write_text(json.dumps({"*": json.dumps(every.as_json())}))
    asked["recordFile"] = str(tmp_path / "record")
    run(asked)
    web.serve("/m.tar.gz", archive({"a": b"1"}), '"two"')
    with pytest.raises(LoadFailed) as caught:
        run(asked)
    assert caught.value.reason == "SourceMoved"


@pytest.mark.parametrize("letter", ["x", "ü", "\U0001f600", '"', "\\"])
def test_a_long_error_is_cut_to_fit(letter: str) -> None:
    text = message.failure(LoadFailed("ModelDataFailed", letter * 10_000))
    assert len(text.encode()) <= 4096
    assert json.loads(text)["error"].startswith(letter * 300)
