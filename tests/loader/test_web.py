"""Model data from servers that nobody vouches for: https, redirects, changes midway, breakages. And S3's own errors,
from a server that can be told to make them."""

import base64
import hashlib
import socket
import threading
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from tests.loader.loading import QUICK, archive, content, refused, request, run, source, start
from tests.loader.webserver import Answering, Asked, WebServer

from sluice.loader.checksum import hexdigest
from sluice.loader.failure import LoadFailed

BODY = bytes(range(256)) * 2048  # 512 KiB, eight parts
FILES = {"model.bin": b"w" * 5000}


def test_an_archive_over_http(web: WebServer, target: Path) -> None:
    loaded = run(request(source(web.serve("/m.tar.gz", archive(FILES)), target)))
    assert content(target) == FILES
    assert loaded.versions["model"].e_tag == "one"


def test_a_file_comes_in_parts_each_once_and_of_one_version(web: WebServer, target: Path) -> None:
    run(request(source(web.serve("/dir/m.bin", BODY), target, kind="Object")))
    assert content(target) == {"m.bin": BODY}
    parts = Counter(asked.range for asked in web.asked[1:])
    assert parts == {(at, at + 65535): 1 for at in range(0, len(BODY), 65536)}
    assert {asked.headers["if-match"] for asked in web.asked[1:]} == {'"one"'}


def test_of_several_addresses_the_next_is_asked_where_one_does_not_answer(
    web: WebServer, target: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a host has an IPv6 address, too, that this node does not reach."""
    known = socket.getaddrinfo

    def both(host: str, port: int, *rest: Any, **more: Any) -> Any:
        first = known("::1", port, *rest, **more)
        return first if host == "::1" else first + known("127.0.0.1", port, *rest, **more)

    uri = web.serve("/m.bin", BODY)
    monkeypatch.setattr(socket, "getaddrinfo", both)
    run(request(source(uri, target, kind="Object")), replace(QUICK, attempts=1))
    assert content(target) == {"m.bin": BODY}


def test_an_empty_file(web: WebServer, target: Path) -> None:
    run(request(source(web.serve("/empty.bin", b""), target, kind="Object")))
    assert content(target) == {"empty.bin": b""}


@pytest.mark.parametrize("e_tag", [None, 'W/"weak"'])
def test_without_a_strong_e_tag_the_file_comes_in_one_stream(web: WebServer, target: Path, e_tag: str | None) -> None:
    run(request(source(web.serve("/m.bin", BODY, e_tag), target, kind="Object")))
    assert content(target) == {"m.bin": BODY}
    assert [asked.range for asked in web.asked] == [(0, 0), None]


def test_a_server_without_ranges(web: WebServer, target: Path) -> None:
    uri = web.answer("/m.bin", lambda handler, _: handler.plain(200, BODY, ETag='"one"'))
    run(request(source(uri, target, kind="Object")))
    assert content(target) == {"m.bin": BODY}


def chunked(handler: Answering, _: Asked) -> None:
    handler.head(200, Transfer_Encoding="chunked")
    for at in range(0, len(BODY), 100_000):
        piece = BODY[at : at + 100_000]
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(piece), piece))
    handler.wfile.write(b"0\r\n\r\n")


def test_a_server_that_does_not_say_the_size(web: WebServer, target: Path) -> None:
    uri = web.answer("/m.bin", chunked)
    run(request(source(uri, target, kind="Object")))
    assert content(target) == {"m.bin": BODY}
    other = target.with_name("other")
    assert refused(request(source(uri, other, kind="Object"), sizeLimitBytes=len(BODY) - 1)).reason == "TooLarge"


def test_what_comes_anew_without_a_size_is_counted_once_and_leaves_nothing_of_the_first_try(
    web: WebServer, target: Path
) -> None:
    asked_for = iter(range(100))

    def breaking(handler: Answering, asked: Asked) -> None:
        if asked.range is not None:
            chunked(handler, asked)
            return
        handler.head(200, Transfer_Encoding="chunked")
        body = BODY if next(asked_for) == 0 else b"short"
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(body), body))
        if body is BODY:
            handler.close_connection = True
        else:
            handler.wfile.write(b"0\r\n\r\n")

    uri = web.answer("/m.bin", breaking)
    run(request(source(uri, target, kind="Object"), sizeLimitBytes=len(BODY)))
    assert content(target) == {"m.bin": b"short"}


def test_the_object_changes_between_its_parts(web: WebServer, target: Path) -> None:
    asked_for = iter(range(100))

    def changing(handler: Answering, asked: Asked) -> None:
        old = next(asked_for) < 3
        handler.part(asked, BODY if old else BODY[::-1], '"old"' if old else '"new"')

    failed = refused(request(source(web.answer("/m.bin", changing), target, kind="Object")))
    assert failed.reason == "SourceMoved"
    assert "old" in str(failed)


def test_a_server_that_ignores_if_match_is_noticed(web: WebServer, target: Path) -> None:
    asked_for = iter(range(100))

    def changing(handler: Answering, asked: Asked) -> None:
        asked.headers.pop("if-match", None)
        handler.part(asked, BODY, '"old"' if next(asked_for) < 3 else '"new"')

    failed = refused(request(source(web.answer("/m.bin", changing), target, kind="Object")))
    assert failed.reason == "SourceMoved"
    assert "new" in str(failed)


def test_a_part_that_breaks_off_goes_on_where_it_ended(web: WebServer, target: Path) -> None:
    lock, broken = threading.Lock(), set[int]()

    def breaking(handler: Answering, asked: Asked) -> None:
        assert asked.range is not None
        start, end = asked.range
        with lock:
            breaks = start % 65536 == 0 and start not in broken and end > 0
            broken.add(start)
        if not breaks:
            handler.part(asked, BODY, '"one"')
            return
        where = f"bytes {start}-{end}/{len(BODY)}"
        handler.head(206, ETag='"one"', Content_Range=where, Content_Length=str(end - start + 1))
        handler.wfile.write(BODY[start : start + 10_000])
        handler.close_connection = True

    run(request(source(web.answer("/m.bin", breaking), target, kind="Object")))
    assert content(target) == {"m.bin": BODY}
    again = {asked.range[0] % 65536 for asked in web.asked[1:] if asked.range is not None}
    assert again == {0, 10_000}


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_transient_answers_are_tried_again(web: WebServer, target: Path, status: int) -> None:
    asked_for = iter(range(100))

    def failing(handler: Answering, asked: Asked) -> None:
        if next(asked_for) % 3 == 2:
            handler.part(asked, BODY[:1000], '"one"')
        else:
            handler.plain(status, b"", Retry_After="0")

    run(request(source(web.answer("/m.bin", failing), target, kind="Object")))
    assert content(target) == {"m.bin": BODY[:1000]}


def test_transient_answers_without_end_fail(web: WebServer, target: Path) -> None:
    uri = web.answer("/m.bin", lambda handler, _: handler.plain(503, b""))
    failed = refused(request(source(uri, target, kind="Object")))
    assert str(failed).endswith("HTTP 503 Service Unavailable; tried 4 times")
    assert len(web.asked) == 4


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_final_answers_are_not_tried_again(web: WebServer, target: Path, status: int) -> None:
    uri = web.answer("/m.bin", lambda handler, _: handler.plain(status, b""))
    failed = refused(request(source(uri + "?X-Amz-Signature=secret", target, kind="Object")))
    assert f"{web.url}/m.bin?...: HTTP {status}" in str(failed)
    assert len(web.asked) == 1


def test_secrets_of_urls_are_in_no_message(web: WebServer, target: Path, tmp_path: Path) -> None:
    """Not even where the connection itself fails, whose errors hold paths."""
    with WebServer() as gone:
        port = gone.port
    for uri in (
        f"http://user:hunter2@127.0.0.1:{web.port}/none?sig=hunter2",
        f"http://user:hunter2@127.0.0.1:{port}/m.tar.gz?sig=hunter2#hunter2",
        "https://user:hunter2@name.invalid/m.tar.gz?sig=hunter2",
        "ftp://user:hunter2@host/m?sig=hunter2",
        "https://user:hunter2@[host/m?sig=hunter2",
    ):
        asked = request(source(uri, target), timeoutSeconds=2)
        code, message, log = start(asked, tmp_path / "message").end()
        assert code in (1, 2)
        assert message["error"]
        assert "hunter2" not in str(message) + log, uri


def test_redirects_to_the_same_host_are_followed_with_the_password(web: WebServer, target: Path) -> None:
    web.serve("/real.bin", BODY)
    web.answer("/m.bin", lambda handler, _: handler.plain(302, b"", Location="/real.bin?signature=1"))
    run(request(source(web.url.replace("//", "//user:p%40ss@") + "/m.bin", target, kind="Object")))
    assert content(target) == {"m.bin": BODY}
    assert {asked.headers.get("authorization") for asked in web.asked} == {"Basic dXNlcjpwQHNz"}


def test_the_password_does_not_go_to_another_port(web: WebServer, target: Path) -> None:
    with WebServer() as other:
        place = other.serve("/real.bin", BODY)
        web.answer("/m.bin", lambda handler, _: handler.plain(307, b"", Location=place))
        run(request(source(web.url.replace("//", "//user:pass@") + "/m.bin", target, kind="Object")))
        assert content(target) == {"m.bin": BODY}
        assert other.asked
        assert all("authorization" not in asked.headers for asked in other.asked)


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("file:///etc/passwd", "redirects to file:, only https"),
        ("ftp://127.0.0.1/x", "redirects to ftp:, only https"),
        ("http://localhost:{port}/x", "in a private network"),
        ("https://10.0.0.1/x", "in a private network"),
        ("https://169.254.169.254/latest/meta-data", "in a private network"),
        ("http://169.254.169.254/latest/meta-data", "plain http to 169.254.169.254"),
        ("https://[::1]/x", "in a private network"),
        ("https://[::ffff:10.0.0.1]/x", "in a private network"),
        ("http://192.0.2.1/x", "plain http to 192.0.2.1"),
        ("https://[broken/x", "not a URL"),
        ("https:///x", "without a host"),
        ("/m.bin", "more than 5 redirects"),
    ],
)
def test_redirects_that_are_not_followed(web: WebServer, target: Path, location: str, words: str) -> None:
    place = location.format(port=web.port)
    uri = web.answer("/m.bin", lambda handler, _: handler.plain(302, b"", Location=place))
    assert words in str(refused(request(source(uri, target, kind="Object"))))


def test_plain_http_is_for_tests_only(web: WebServer, target: Path, tmp_path: Path) -> None:
    uri = web.serve("/m.bin", BODY)
    asked = request(source(uri, target, kind="Object")) | {"allowLoopbackHttp": False}
    code, message, _ = start(asked, tmp_path / "message").end()
    assert code == 2
    assert "allowed is s3://bucket/key, https://... or file:///..." in message["error"]
    assert not web.asked


class FakeS3:
    """One object of an S3 that misbehaves as told."""

    def __init__(self, web: WebServer, body: bytes) -> None:
        self.body = body
        self.e_tag = f'"{hashlib.md5(body, usedforsecurity=False).hexdigest()}"'
        self.headers: dict[str, str] = {}
        self.refusals: list[tuple[int, str]] = []
        self.web = web
        web.answer("/models/m.bin", self._answer)

    def _answer(self, handler: Answering, asked: Asked) -> None:
        if self.refusals:
            status, code = self.refusals.pop(0)
            handler.plain(status, f"<Error><Code>{code}</Code><Message>because</Message></Error>".encode())
            return
        handler.part(asked, self.body, self.e_tag, **self.headers)

    def ask(self, target: Path, **more: Any) -> dict[str, Any]:
        return request(source("s3://models/m.bin", target, kind="Object"), endpointUrl=self.web.url, **more)


@pytest.fixture
def fake(web: WebServer) -> FakeS3:
    return FakeS3(web, BODY)


def test_a_denied_object_says_what_is_needed(fake: FakeS3, target: Path) -> None:
    fake.refusals = [(403, "AccessDenied")] * 2
    failed = refused(fake.ask(target))
    assert str(failed).startswith("failed to download model data from s3://models/m.bin: AccessDenied: because")
    assert "s3:GetObject" in str(failed)
    assert [asked.method for asked in fake.web.asked] == ["HEAD", "GET"]


def test_a_server_that_is_no_s3_is_named(web: WebServer, target: Path) -> None:
    """The console of another S3 service answers every path with a page."""
    web.answer("/models/m.bin", lambda handler, _: handler.plain(200, b"<html>"))
    failed = refused(request(source("s3://models/m.bin", target, kind="Object"), endpointUrl=web.url))
    assert f"the answer of {web.url} has no ETag: it is no S3 service" in str(failed)


def test_a_slow_down_is_outlived(fake: FakeS3, target: Path) -> None:
    fake.refusals = [(503, "SlowDown")] * 2
    run(fake.ask(target))
    assert content(target) == {"m.bin": BODY}


def test_every_part_of_s3_is_asked_for_by_e_tag(fake: FakeS3, target: Path) -> None:
    run(fake.ask(target))
    parts = [asked for asked in fake.web.asked if asked.method == "GET"]
    assert {asked.range for asked in parts} == {(at, at + 65535) for at in range(0, len(BODY), 65536)}
    assert {asked.headers.get("if-match") for asked in parts} == {fake.e_tag}


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "has md5"),
        ({"x_amz_checksum_sha256": "LCa0a2j/xo/5m0U8HTBBNBNCLXBkg7+g+YpeiGJm564="}, "has sha256"),
        ({"x_amz_checksum_crc32": "AAAAAA==", "x_amz_checksum_type": "FULL_OBJECT"}, "has crc32 "),
        ({"x_amz_checksum_crc32c": "AAAAAA==", "x_amz_checksum_type": "FULL_OBJECT"}, "has crc32c "),
        ({"x_amz_checksum_crc64nvme": "AAAAAAAAAAA=", "x_amz_checksum_type": "FULL_OBJECT"}, "has crc64nvme "),
    ],
    ids=["md5", "sha256", "crc32", "crc32c", "crc64nvme"],
)
def test_damaged_bytes_are_refused_and_fetched_anew(
    fake: FakeS3, target: Path, headers: dict[str, str], words: str
) -> None:
    good = fake.body
    if headers:
        fake.e_tag, fake.headers = '"5d41402abc4b2a76b9719d911017c592-2"', dict(headers)
    else:
        fake.body = b"\1" + BODY[1:]
    failed = refused(fake.ask(target))
    assert failed.reason == "ModelDataFailed"
    assert words in str(failed)
    fake.body, fake.headers = good, {}
    fake.web.forget()
    run(fake.ask(target))
    assert content(target) == {"m.bin": BODY}
    assert len([asked for asked in fake.web.asked if asked.method == "GET"]) == 8


CATALOGUE = {"crc32": "cbf43926", "crc32c": "e3069283", "crc64nvme": "ae8b14860a799888"}
CRCS = {"crc32": (0xEDB88320, 4), "crc32c": (0x82F63B78, 4), "crc64nvme": (0x9A6C9329AC4BC9B5, 8)}


def crc(data: bytes, polynomial: int, size: int) -> bytes:
    """A CRC by its definition (bits reflected, all ones before and after), independent of the library that is used."""
    table = []
    for value in range(256):
        for _ in range(8):
            value = value >> 1 ^ (polynomial if value & 1 else 0)
        table.append(value)
    ones = (1 << 8 * size) - 1
    register = ones
    for byte in data:
        register = register >> 8 ^ table[(register ^ byte) & 0xFF]
    return (register ^ ones).to_bytes(size, "big")


@pytest.mark.parametrize("algorithm", CRCS)
def test_a_crc_of_an_object_of_several_parts_is_compared(web: WebServer, target: Path, algorithm: str) -> None:
    """The ETag of such an object says nothing. The file is longer than what is read of it at a time."""
    good = BODY * 3 + b"the rest"
    fake = FakeS3(web, good)
    fake.e_tag = '"5d41402abc4b2a76b9719d911017c592-2"'
    fake.headers = {
        f"x_amz_checksum_{algorithm}": base64.b64encode(crc(good, *CRCS[algorithm])).decode(),
        "x_amz_checksum_type": "FULL_OBJECT",
    }
    run(fake.ask(target))
    assert content(target) == {"m.bin": good}
    fake.e_tag, fake.body = '"5d41402abc4b2a76b9719d911017c593-2"', good[:-1] + b"T"
    with pytest.raises(LoadFailed, match=f"has {algorithm} [0-9a-f]+, but the store says"):
        run(fake.ask(target))


def test_the_crcs_are_those_of_their_catalogue() -> None:
    """Each CRC is defined by its parameters and by what it makes of "123456789"."""
    found = {name: (crc(b"123456789", *CRCS[name]).hex(), hexdigest(name, [b"1234", b"56789"])) for name in CRCS}
    assert found == {name: (value, value) for name, value in CATALOGUE.items()}


@pytest.mark.parametrize("value", ["AAAAAA==-2", "AAAAAA=="])
@pytest.mark.parametrize("algorithm", ["crc32", "crc32c"])
def test_a_checksum_of_checksums_is_not_compared(fake: FakeS3, target: Path, algorithm: str, value: str) -> None:
    fake.e_tag = '"5d41402abc4b2a76b9719d911017c592-2"'
    fake.headers = {f"x_amz_checksum_{algorithm}": value, "x_amz_checksum_type": "COMPOSITE"}
    run(fake.ask(target))
    assert content(target) == {"m.bin": BODY}


def test_the_library_for_checksums_does_not_sign(
    fake: FakeS3, target: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """botocore would leave signing to it, and says so in its User-Agent."""
    monkeypatch.delenv("BOTO_DISABLE_CRT", raising=False)
    code, _, log = start(fake.ask(target), tmp_path / "message").end()
    assert code == 0, log
    agents = {asked.headers["user-agent"] for asked in fake.web.asked}
    assert [agent for agent in agents if "Botocore/" in agent and "awscrt" not in agent] == list(agents)


@pytest.mark.parametrize(
    "headers",
    [
        {"x_amz_server_side_encryption": "aws:kms"},
        {"x_amz_server_side_encryption_customer_algorithm": "AES256"},
    ],
    ids=str,
)
def test_an_e_tag_that_is_no_md5_is_not_compared(fake: FakeS3, target: Path, headers: dict[str, str]) -> None:
    fake.e_tag, fake.headers = '"5d41402abc4b2a76b9719d911017c592"', headers
    run(fake.ask(target))
    assert content(target) == {"m.bin": BODY}


def test_an_object_of_s3_that_changes_between_its_parts(fake: FakeS3, target: Path) -> None:
    asked_for = iter(range(100))

    def changing(handler: Answering, asked: Asked) -> None:
        if next(asked_for) == 3:
            fake.e_tag = '"0123456789abcdef0123456789abcdef"'
        handler.part(asked, BODY, fake.e_tag)

    fake.web.answer("/models/m.bin", changing)
    failed = refused(fake.ask(target))
    assert failed.reason == "SourceMoved"


ASSUMED = """<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials>
<AccessKeyId>ASSUMEDKEY</AccessKeyId><SecretAccessKey>none</SecretAccessKey><SessionToken>session</SessionToken>
<Expiration>2999-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>"""
ROLE = {"assumeRoleArn": "arn:aws:iam::111122223333:role/churn", "externalId": "prod/team-a/churn"}


def test_the_role_is_assumed_with_the_external_id(fake: FakeS3, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", fake.web.url)
    fake.web.answer("/", lambda handler, _: handler.plain(200, ASSUMED.encode(), Content_Type="text/xml"))
    run(fake.ask(target, **ROLE))
    assert content(target) == {"m.bin": BODY}
    [sts] = [asked for asked in fake.web.asked if asked.method == "POST"]
    form = parse_qs(sts.body.decode())
    assert form["RoleArn"] == [ROLE["assumeRoleArn"]]
    assert form["ExternalId"] == [ROLE["externalId"]]
    assert "Credential=loader/" in sts.headers["authorization"]
    for asked in fake.web.asked:
        if asked.method != "POST":
            assert "Credential=ASSUMEDKEY/" in asked.headers["authorization"]
            assert asked.headers["x-amz-security-token"] == "session"


def test_a_role_that_may_not_be_assumed(fake: FakeS3, target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", fake.web.url)
    refusal = b"<ErrorResponse><Error><Code>AccessDenied</Code><Message>no trust</Message></Error></ErrorResponse>"
    fake.web.answer("/", lambda handler, _: handler.plain(403, refusal, Content_Type="text/xml"))
    assert "AccessDenied from AssumeRole: no trust" in str(refused(fake.ask(target, **ROLE)))
