"""Which version of a source was found, and whether it is the one that the fleet runs.

All pods of a fleet serve the same data: the first one's versions are recorded, every later one must find the same."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

from sluice.loader.failure import LoadFailed, failed
from sluice.loader.request import Source

ALL_SOURCES: Final = "*"
"""The name of the one version that stands for all, where the list of them would not fit into a termination message."""


@dataclass(frozen=True, slots=True)
class Version:
    """What identifies the content of a source. As JSON it is what the termination message says and the record holds."""

    e_tag: str | None = None
    """Without quotes."""
    version_id: str | None = None
    size: int | None = None
    last_modified: str | None = None
    digest: str | None = None
    """Of a prefix or folder: over the sorted names, ETags and sizes. `sha256:...`"""

    def as_json(self) -> dict[str, Any]:
        """Without what is not known."""
        fields = {
            "eTag": self.e_tag,
            "versionId": self.version_id,
            "size": self.size,
            "lastModified": self.last_modified,
            "digest": self.digest,
        }
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def identity(self) -> str:
        """One word for this content; equal for equal content only."""
        return hashlib.sha256(json.dumps(self._marks(), sort_keys=True).encode()).hexdigest()

    def _marks(self) -> dict[str, Any]:
        """What two versions of one content have in common: not lastModified, where there is anything better."""
        marks = replace(self, last_modified=None).as_json()
        if self.e_tag is None and self.digest is None and self.version_id is None:
            marks["lastModified"] = self.last_modified
        return marks

    def same_as(self, other: "Version") -> bool:
        """Whether both are one content, judged by all that both know."""
        mine, others = self._marks(), other._marks()
        shared = mine.keys() & others.keys()
        if not shared & {"eTag", "digest", "versionId", "lastModified"}:
            return mine.keys() == others.keys() and mine == others
        return all(mine[name] == others[name] for name in shared)

    def __str__(self) -> str:
        words = {"eTag": "ETag", "versionId": "version", "size": "size", "lastModified": "modified", "digest": "digest"}
        marks = self.as_json()
        if "eTag" in marks or "digest" in marks:
            marks.pop("lastModified", None)
        return ", ".join(f"{words[name]} {value}" for name, value in marks.items()) or "nothing that identifies it"


def version_from_json(raw: Any) -> Version:
    """The version that as_json() made. Raises ValueError."""
    if not isinstance(raw, dict):
        raise ValueError("not an object")
    fields = cast(Mapping[str, Any], raw)
    for name, kind in (("eTag", str), ("versionId", str), ("size", int), ("lastModified", str), ("digest", str)):
        if fields.get(name) is not None and not isinstance(fields[name], kind):
            raise ValueError(f"{name} is not a {kind.__name__}")
    return Version(
        e_tag=fields.get("eTag"),
        version_id=fields.get("versionId"),
        size=fields.get("size"),
        last_modified=fields.get("lastModified"),
        digest=fields.get("digest"),
    )


def digest_of(entries: Iterable[tuple[str, str, int]]) -> str:
    """The digest over (name, ETag, size) of the objects of a prefix."""
    hashed = hashlib.sha256()
    for entry in sorted(entries):
        hashed.update(json.dumps(entry).encode() + b"\n")
    return f"sha256:{hashed.hexdigest()}"


def version_of_all(versions: Mapping[str, Version]) -> Version:
    """The one version that stands for all of them."""
    entries = ((name, version.identity, version.size or 0) for name, version in versions.items())
    return Version(digest=digest_of(entries))


def read_record(path: str | None) -> dict[str, Version]:
    """What is recorded for the fleet, by source name; empty while nothing is. Raises LoadFailed for what cannot be
    read: going on without it could mix two versions in one fleet."""
    if path is None:
        return {}
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise LoadFailed("ModelDataFailed", f"the fleet's recorded versions cannot be read: {error}") from error
    if not text.strip():
        return {}
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict):
            raise ValueError("not an object")
        return {str(name): version_from_json(json.loads(value)) for name, value in raw.items()}
    except (ValueError, TypeError) as error:
        raise LoadFailed(
            "ModelDataFailed", f"the fleet's recorded versions are not what was written: {error}"
        ) from error


def check_version(source: Source, found: Version, recorded: Version | None) -> None:
    """Raises SourceMoved when what was found is not what was asked for, or not what the fleet runs."""
    if source.e_tag is not None and source.e_tag.strip('"') != found.e_tag:
        raise moved(source.uri, f"ETag {source.e_tag.strip(chr(34))}", str(found), "the Model's eTag asks for")
    if recorded is not None and not found.same_as(recorded):
        raise moved(source.uri, str(recorded), str(found), "this fleet runs")


def moved(uri: str, wanted: str, found: str, who: str) -> LoadFailed:
    """The failure when the content is not the one wanted; says both."""
    return failed(
        uri,
        f"it has changed: {who} {wanted}, but now there is {found}. Put the content back, or deploy it as a new "
        "revision (annotation sluice.dev/redeploy)",
        "SourceMoved",
    )
