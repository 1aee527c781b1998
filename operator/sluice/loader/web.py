"""Model data at an https URL. The server is not trusted: redirects go to https only and never into the private network,
credentials stay with the host they were meant for."""

import base64
import ipaddress
import re
import socket
import ssl
from collections.abc import Iterator
from contextlib import closing
from typing import Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import urllib3
from botocore.httpsession import get_cert_path
from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError, SSLError
from urllib3.response import BaseHTTPResponse

from sluice.loader.deadline import LONGEST_SOCKET_WAIT_SECONDS
from sluice.loader.failure import LoadFailed, Transient, failed, named
from sluice.loader.item import Checks, Found, Item
from sluice.loader.paths import ARCHIVE, BadName, check_relative
from sluice.loader.request import Source
from sluice.loader.version import Version, moved

CHUNK_BYTES: Final = 256 * 1024
MAX_REDIRECTS: Final = 5
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_AGAIN: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_CONTENT_RANGE: Final = re.compile(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)")
_WORDS: Final = {401: "Unauthorized", 403: "Forbidden", 404: "Not Found", 410: "Gone"}


class Web:
    """The door to the web."""

    def __init__(self, concurrency: int, *, allow_loopback_http: bool = False) -> None:
        self._loopback = allow_loopback_http
        context = ssl.create_default_context()
        # Small images have no certificate authorities of their own.
        context.load_verify_locations(get_cert_path(True))
        self._context = context
        self._concurrency = concurrency
        self._pools: dict[tuple[str, str, int, str], urllib3.HTTPConnectionPool] = {}

    def find(self, source: Source) -> Found:
        """What the source is now. Raises LoadFailed or Transient.

        A GET of the first byte, not a HEAD: a presigned URL is signed for one method."""
        with closing(self.get(source.uri, {"Range": "bytes=0-0"})) as answer:
            total = _total(source.uri, answer)
            e_tag = answer.headers.get("ETag")
            strong = e_tag if e_tag is not None and e_tag.startswith('"') else None
            in_parts = answer.status in (206, 416) and strong is not None and total is not None
            version = Version(
                e_tag=e_tag.removeprefix("W/").strip('"') if e_tag is not None else None,
                size=total,
                last_modified=answer.headers.get("Last-Modified"),
            )
        name = ARCHIVE if source.unpacked else unquote(urlsplit(source.uri).path).rpartition("/")[2]
        try:
            check_relative(name)
        except BadName as bad:
            raise failed(source.uri, f"the URL's last part {named(name)} is to be the file's name: {bad}") from bad
        reader = WebFile(self, source.uri, version, strong)
        return Found(version, (Item(name, total, reader, in_parts),))

    def get(self, uri: str, headers: dict[str, str]) -> BaseHTTPResponse:
        """The answer to a GET, redirects followed. Raises LoadFailed or Transient unless it is 200, 206, 412 or 416."""
        first = url = urlsplit(uri)
        for _ in range(MAX_REDIRECTS + 1):
            answer = self._request(uri, first, url, headers)
            if answer.status in (200, 206, 412, 416):
                return answer
            answer.close()
            if answer.status not in _REDIRECTS:
                raise _refused(uri, answer)
            location = answer.headers.get("Location")
            if location is None:
                raise failed(uri, f"HTTP {answer.status} without a Location")
            url = self._follow(uri, url, location)
        raise failed(uri, f"more than {MAX_REDIRECTS} redirects")

    def _follow(self, uri: str, url: SplitResult, location: str) -> SplitResult:
        """The URL of a redirect. Raises LoadFailed unless it may be followed."""
        try:
            target = urlsplit(urljoin(url.geturl(), location))
            host, _ = target.hostname, target.port
        except ValueError:
            raise failed(uri, "it redirects to something that is not a URL") from None
        if target.scheme != "https" and not (self._loopback and target.scheme == "http"):
            raise failed(uri, f"it redirects to {target.scheme or 'nothing'}:, only https is followed")
        if not host:
            raise failed(uri, "it redirects to a URL without a host")
        return target

    def _request(self, uri: str, first: SplitResult, url: SplitResult, headers: dict[str, str]) -> BaseHTTPResponse:
        same_host = (url.scheme, url.hostname, url.port) == (first.scheme, first.hostname, first.port)
        host, port = url.hostname or "", url.port or (443 if url.scheme == "https" else 80)
        found = self._addresses(uri, host, port, anywhere=url.hostname == first.hostname, plain=url.scheme == "http")
        send = {"Accept-Encoding": "identity", "User-Agent": "sluice-loader", "Host": _host_header(url), **headers}
        if same_host and first.username is not None:
            pair = f"{unquote(first.username)}:{unquote(first.password or '')}"
            send["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        unreached: Exception = OSError("it has no address")
        for address in found:
            try:
                return self._pool(url.scheme, host, port, address).urlopen(
                    "GET",
                    path,
                    headers=send,
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    decode_content=False,
                )
            except (ConnectTimeoutError, NewConnectionError) as error:
                unreached = error
            except (HTTPError, ssl.SSLError) as error:
                raise _unreachable(uri, host, error) from error
        raise _unreachable(uri, host, unreached) from unreached

    def _pool(self, scheme: str, host: str, port: int, address: str) -> urllib3.HTTPConnectionPool:
        """Connections to the address that was looked at, so that a name that changes in between leads nowhere else."""
        key = (scheme, host, port, address)
        if key not in self._pools:
            timeout = urllib3.Timeout(connect=10, read=LONGEST_SOCKET_WAIT_SECONDS)
            if scheme == "http":
                pool = urllib3.HTTPConnectionPool(address, port, timeout=timeout, maxsize=self._concurrency)
            else:
                pool = urllib3.HTTPSConnectionPool(
                    address,
                    port,
                    timeout=timeout,
                    maxsize=self._concurrency,
                    ssl_context=self._context,
                    server_hostname=host,
                )
            self._pools[key] = pool
        return self._pools[key]

    def _addresses(self, uri: str, host: str, port: int, *, anywhere: bool, plain: bool) -> list[str]:
        """The addresses of the host. `anywhere`: it is the user's own host, which may well be a private one."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise Transient(f"the name {host} is not resolved: {error}") from error
        for *_, place in found:
            address = ipaddress.ip_address(str(place[0]).partition("%")[0])
            if plain and not address.is_loopback:
                raise failed(uri, f"plain http to {host}, which is not this host")
            if not anywhere and (not address.is_global or address.is_multicast):
                raise failed(uri, f"it redirects to {host}, which is in a private network")
        return [str(place[0]) for *_, place in found]


class WebFile:
    """One file at a URL. Implements Reader."""

    def __init__(self, web: Web, uri: str, version: Version, strong_e_tag: str | None) -> None:
        self._web = web
        self._uri = uri
        self._version = version
        self._e_tag = strong_e_tag

    def read(self, start: int, length: int | None) -> Iterator[bytes]:
        """See Reader. Each range begins at the original URL: what it redirects to may be short-lived."""
        if length == 0:
            return
        headers = {"If-Match": self._e_tag} if self._e_tag is not None else {}
        ranged = length is not None and not (start == 0 and length == self._version.size)
        if ranged and length is not None:
            headers["Range"] = f"bytes={start}-{start + length - 1}"
        with closing(self._web.get(self._uri, headers)) as answer:
            self._check(answer, start, length, ranged)
            got = 0
            try:
                while chunk := answer.read1(CHUNK_BYTES):
                    got += len(chunk)
                    yield chunk
            except (HTTPError, OSError) as error:
                raise Transient(f"{type(error).__name__}: the connection broke off") from error
        if length is not None and got != length:
            raise Transient(f"the connection ended after {got} of {length} bytes")

    def _check(self, answer: BaseHTTPResponse, start: int, length: int | None, ranged: bool) -> None:
        """Raises LoadFailed unless the answer is of the file found before, and of the range asked for."""
        e_tag = answer.headers.get("ETag")
        now = e_tag.removeprefix("W/").strip('"') if e_tag is not None else None
        modified = answer.headers.get("Last-Modified")
        known = self._version
        if answer.status in (412, 416) or now != known.e_tag or (now is None and modified != known.last_modified):
            found = f"ETag {now}" if now is not None else f"HTTP {answer.status}"
            raise moved(self._uri, str(known), found, "the download began with")
        if ranged:
            match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
            if answer.status != 206 or match is None or match[1] is None:
                raise failed(self._uri, "the server answered a part with something else")
            if int(match[3]) != known.size:
                raise moved(self._uri, str(known), f"size {match[3]}", "the download began with")
            if (int(match[1]), int(match[2])) != (start, start + (length or 0) - 1):
                raise failed(self._uri, "the server answered with another part than was asked for")
        elif answer.status != 200:
            raise failed(self._uri, f"the server answered the whole with HTTP {answer.status}")
        elif known.size is not None and answer.headers.get("Content-Length") not in (None, str(known.size)):
            size = answer.headers.get("Content-Length")
            raise moved(self._uri, str(known), f"size {size}", "the download began with")

    def checks(self) -> Checks:
        """See Reader: the web has none."""
        return Checks()


def _total(uri: str, answer: BaseHTTPResponse) -> int | None:
    if answer.status in (206, 416):
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", ""))
        if match is None or (answer.status == 416 and match[3] != "0"):
            raise failed(uri, f"HTTP {answer.status} with a Content-Range that says no size")
        return int(match[3])
    length = answer.headers.get("Content-Length")
    if answer.status != 200:
        raise failed(uri, f"HTTP {answer.status}")
    if length is None:
        if "chunked" not in answer.headers.get("Transfer-Encoding", ""):
            raise failed(uri, "the server says neither how long the file is nor where it ends")
        return None
    if not length.isdigit():
        raise failed(uri, "the server's Content-Length is not a number")
    return int(length)


def _refused(uri: str, answer: BaseHTTPResponse) -> LoadFailed | Transient:
    what = f"HTTP {answer.status} {_WORDS.get(answer.status, answer.reason or '')}".strip()
    if answer.status in _AGAIN:
        after = answer.headers.get("Retry-After", "")
        return Transient(what, float(after) if after.isdigit() else None)
    if answer.status in (401, 403):
        what += ": the URL may have expired, or needs credentials"
        if (urlsplit(uri).hostname or "").endswith(".amazonaws.com"):
            what += "; an object of S3 is fetched with the pod's credentials when it is written as s3://bucket/key"
    return failed(uri, what)


def _unreachable(uri: str, host: str, error: Exception) -> LoadFailed | Transient:
    if isinstance(error, SSLError) and "certificate" in str(error).lower():
        return failed(uri, f"the certificate of {host} is not trusted")
    # Errors of urllib3 may hold the path, and with it the secrets of a presigned URL.
    return Transient(f"{type(error).__name__}: no answer from {host}")


def _host_header(url: SplitResult) -> str:
    host = url.hostname or ""
    text = f"[{host}]" if ":" in host else host
    return text if url.port is None else f"{text}:{url.port}"
