"""What the loader is asked for: the JSON of SLUICE_LOADER, checked field by field."""

import json
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar, cast
from urllib.parse import urlsplit

from sluice.loader.failure import BadRequest, shown

FORMAT_VERSION: Final = 1
MAX_SOURCES: Final = 200
MAX_TIMEOUT_SECONDS: Final = 24 * 3600
MAX_CONCURRENCY: Final = 64
MIN_PART_BYTES: Final = 64 * 1024
MAX_PART_BYTES: Final = 1024**3

Kind = Literal["Archive", "Object", "Prefix"]
Compression = Literal["Gzip", "None"]
T = TypeVar("T")

_SOURCE_FIELDS: Final = frozenset(
    {"name", "uri", "kind", "compression", "target", "eTag", "manifestUri", "manifestEtag"}
)
_FIELDS: Final = frozenset(
    {
        "formatVersion",
        "sources",
        "sizeLimitBytes",
        "timeoutSeconds",
        "region",
        "endpointUrl",
        "assumeRoleArn",
        "externalId",
        "cacheDirectory",
        "recordFile",
        "concurrency",
        "partBytes",
        "allowLoopbackHttp",
    }
)


@dataclass(frozen=True, slots=True)
class Source:
    """One piece of model data and where it goes."""

    name: str
    uri: str
    """s3://bucket/key, https://..., or file:///... of a mounted volume. Without its secrets: shown()."""
    kind: Kind
    compression: Compression
    target: str
    """The directory that gets the data. It belongs to the loader: what else is in it goes."""
    e_tag: str | None = None
    """The ETag that the object must have."""
    manifest_uri: str | None = None
    manifest_e_tag: str | None = None

    @property
    def scheme(self) -> str:
        """s3, https, http or file."""
        return self.uri.partition(":")[0]

    @property
    def unpacked(self) -> bool:
        """Whether the object is an archive whose members are the data."""
        return self.kind == "Archive" or (self.kind == "Object" and self.compression == "Gzip")


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """All that one init container does."""

    sources: tuple[Source, ...]
    size_limit_bytes: int | None = None
    """For all sources together, once for what is downloaded and once for what is unpacked."""
    timeout_seconds: float = 3600
    region: str | None = None
    endpoint_url: str | None = None
    """Another S3 than AWS'; buckets are then addressed by path."""
    assume_role_arn: str | None = None
    external_id: str | None = None
    cache_directory: str | None = None
    record_file: str | None = None
    """May be absent: nothing is recorded yet."""
    concurrency: int = 8
    part_bytes: int = 16 * 1024 * 1024
    allow_loopback_http: bool = False
    """For tests: plain http to loopback hosts."""


def parse(text: str | None) -> LoadRequest:
    """The request. Raises BadRequest, which names the field, what was found and what is allowed."""
    if not text:
        raise BadRequest("SLUICE_LOADER is not set: it holds the JSON that says what to load")
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise BadRequest(f"SLUICE_LOADER is not JSON: {error}") from error
    fields = _Fields(raw, "", _FIELDS)
    version = fields.get("formatVersion", int)
    if version != FORMAT_VERSION:
        raise BadRequest(f"formatVersion: found {version}, this loader knows {FORMAT_VERSION}")
    listed = fields.get("sources", list)
    if not listed or len(listed) > MAX_SOURCES:
        raise BadRequest(f"sources: found {len(listed or ())}, allowed are 1 to {MAX_SOURCES}")
    loopback = fields.get("allowLoopbackHttp", bool) or False
    sources = tuple(_source(item, f"sources[{index}]", loopback) for index, item in enumerate(listed))
    _check_apart(sources)
    return LoadRequest(
        sources=sources,
        size_limit_bytes=fields.number("sizeLimitBytes", 1, 2**62),
        timeout_seconds=fields.number("timeoutSeconds", 1, MAX_TIMEOUT_SECONDS) or 3600,
        region=fields.get("region", str),
        endpoint_url=fields.get("endpointUrl", str),
        assume_role_arn=fields.get("assumeRoleArn", str),
        external_id=fields.get("externalId", str),
        cache_directory=_directory(fields, "cacheDirectory"),
        record_file=fields.get("recordFile", str),
        concurrency=fields.number("concurrency", 1, MAX_CONCURRENCY) or 8,
        part_bytes=fields.number("partBytes", MIN_PART_BYTES, MAX_PART_BYTES) or 16 * 1024 * 1024,
        allow_loopback_http=loopback,
    )


class _Fields:
    """A JSON object whose fields are taken with their types."""

    def __init__(self, raw: Any, path: str, known: frozenset[str]) -> None:
        if not isinstance(raw, dict):
            raise BadRequest(f"{path or 'SLUICE_LOADER'}: found {type(raw).__name__}, allowed is an object")
        unknown = sorted(set(raw) - known)
        if unknown:
            raise BadRequest(f"{path}{'.' if path else ''}{unknown[0]}: this loader does not know the field")
        self._raw = cast(Mapping[str, Any], raw)
        self._path = f"{path}." if path else ""

    def get(self, name: str, kind: type[T]) -> T | None:
        """The field, or None where it is absent or null."""
        value = self._raw.get(name)
        if value is None:
            return None
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise BadRequest(f"{self._path}{name}: found {type(value).__name__}, allowed is {kind.__name__}")
        return value

    def required(self, name: str) -> str:
        """A text that must be there."""
        value = self.get(name, str)
        if not value:
            raise BadRequest(f"{self._path}{name}: is missing")
        return value

    def number(self, name: str, least: int, most: int) -> int | None:
        """A number within bounds."""
        value = self.get(name, int)
        if value is not None and not least <= value <= most:
            raise BadRequest(f"{self._path}{name}: found {value}, allowed are {least} to {most}")
        return value

    def wrong(self, name: str, found: object, allowed: str) -> BadRequest:
        """The error for a value that is not allowed."""
        return BadRequest(f"{self._path}{name}: found {found}, allowed is {allowed}")


def _source(raw: Any, path: str, loopback: bool) -> Source:
    fields = _Fields(raw, path, _SOURCE_FIELDS)
    kind, compression = fields.required("kind"), fields.get("compression", str)
    if kind not in ("Archive", "Object", "Prefix"):
        raise fields.wrong("kind", kind, "Archive, Object or Prefix")
    compression = compression or ("Gzip" if kind == "Archive" else "None")
    if compression not in ("Gzip", "None"):
        raise fields.wrong("compression", compression, "Gzip or None")
    target = _directory(fields, "target")
    if target is None:
        raise BadRequest(f"{path}.target: is missing")
    source = Source(
        name=fields.required("name"),
        uri=fields.required("uri"),
        kind=cast(Kind, kind),
        compression=cast(Compression, compression),
        target=target,
        e_tag=fields.get("eTag", str),
        manifest_uri=fields.get("manifestUri", str),
        manifest_e_tag=fields.get("manifestEtag", str),
    )
    _check_uri(source, fields, loopback)
    return source


def _check_uri(source: Source, fields: _Fields, loopback: bool) -> None:
    try:
        parts = urlsplit(source.uri)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise fields.wrong(
            "uri", "something that is not a URI", "s3://bucket/key, https://... or file:///..."
        ) from None
    allowed = ("s3", "https", "file", "http") if loopback else ("s3", "https", "file")
    if parts.scheme not in allowed:
        raise fields.wrong("uri", shown(source.uri), "s3://bucket/key, https://... or file:///...")
    if parts.scheme == "file":
        # The path is taken as it stands, without %-decoding: an encoded .. must not become one.
        path = source.uri.removeprefix("file://")
        if not path.startswith("/") or posixpath.normpath(path) != path.rstrip("/") or path.startswith("//"):
            raise fields.wrong("uri", shown(source.uri), "file:// with an absolute path without . and ..")
    elif not host:
        raise fields.wrong("uri", shown(source.uri), f"{parts.scheme}:// with a {_host_word(parts.scheme)}")


def _host_word(scheme: str) -> str:
    return "bucket" if scheme == "s3" else "host"


def _directory(fields: _Fields, name: str) -> str | None:
    """An absolute, normal path that is not directly under the root: everything in it may be replaced."""
    path = fields.get(name, str)
    if path is None:
        return None
    path = path.rstrip("/")
    if not path.startswith("/") or posixpath.normpath(path) != path or path.count("/") < 2:
        raise fields.wrong(name, repr(path), "an absolute path of two or more parts, without . and ..")
    return path


def _check_apart(sources: tuple[Source, ...]) -> None:
    """Names are keys; and a target inside another one would go when the other is put in place."""
    names: set[str] = set()
    targets: list[str] = []
    for index, source in enumerate(sources):
        if source.name in names:
            raise BadRequest(f"sources[{index}].name: {source.name} is there twice, names are unique")
        names.add(source.name)
        for other in targets:
            if f"{source.target}/".startswith(f"{other}/") or f"{other}/".startswith(f"{source.target}/"):
                raise BadRequest(f"sources[{index}].target: {source.target} and {other} overlap")
        targets.append(source.target)
