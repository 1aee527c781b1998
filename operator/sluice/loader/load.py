"""One load from begin to end: look at all sources, judge, bring, and put into place when everything is there."""

import functools
import json
import logging
import time
from dataclasses import dataclass, field
from pathlib import Path

from sluice.loader.budget import Budget, NoRoom, write_failed
from sluice.loader.cache import Cache, Entry, cache_key, copy_tree, tree_bytes
from sluice.loader.deadline import Deadline
from sluice.loader.download import Download
from sluice.loader.failure import failed, shown, size_text
from sluice.loader.item import Found
from sluice.loader.journal import boot_id
from sluice.loader.place import DIRECTORY_MODE, make_target, move_in, remove, staging
from sluice.loader.request import LoadRequest, Source
from sluice.loader.retry import Tuning, until_final
from sluice.loader.s3 import S3
from sluice.loader.unpack import unpack
from sluice.loader.version import ALL_SOURCES, Version, check_version, moved, read_record, version_of_all
from sluice.loader.volume import find_in_volume
from sluice.loader.web import Web

logger = logging.getLogger("sluice.loader")


@dataclass(frozen=True, slots=True)
class Loaded:
    """What is in place now."""

    versions: dict[str, Version]
    """By source name."""
    placed_bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _Doors:
    """Where sources are, and the bounds of this load."""

    s3: S3
    web: Web
    budget: Budget
    deadline: Deadline
    tuning: Tuning
    cache: Cache | None
    started: float = field(default_factory=time.monotonic)


def load(request: LoadRequest, deadline: Deadline | None = None, tuning: Tuning | None = None) -> Loaded:
    """Bring all sources into their targets. Raises LoadFailed; the targets then hold nothing but, in a directory of the
    loader's own, what the next try can go on with."""
    doors = _Doors(
        s3=S3(request),
        web=Web(request.concurrency, allow_loopback_http=request.allow_loopback_http),
        budget=Budget(request.size_limit_bytes),
        deadline=deadline or Deadline(request.timeout_seconds),
        tuning=tuning or Tuning(concurrency=request.concurrency, part_bytes=request.part_bytes),
        cache=Cache(Path(request.cache_directory)) if request.cache_directory is not None else None,
    )
    found = _find_all(request, doors)
    versions = {source.name: found[source.name].version for source in request.sources}
    # Every source is whole before the first one is put into place.
    for source in request.sources:
        try:
            _prepare(source, found[source.name], doors)
        except OSError as error:
            raise write_failed(source.uri, error) from error
    for source in request.sources:
        doors.deadline.check()
        target = Path(source.target)
        try:
            # A run that is cut off among the moves leaves a part of the tree, which the next one must not take for all.
            remove(staging(target) / "ready")
            move_in(staging(target) / "tree", target)
        except OSError as error:
            raise write_failed(source.uri, error) from error
    return Loaded(versions, doors.budget.placed_bytes, time.monotonic() - doors.started)


def _find_all(request: LoadRequest, doors: _Doors) -> dict[str, Found]:
    """What every source is now; all of them as recorded."""
    record = read_record(request.record_file)
    found: dict[str, Found] = {}
    for source in request.sources:
        _refuse(source)
        recorded = record.get(source.name)
        look = functools.partial(_find, source, recorded, doors)
        seen = until_final(source.uri, look, doors.deadline, doors.tuning)
        check_version(source, seen.version, recorded)
        found[source.name] = seen
        size = "unknown size" if seen.size is None else size_text(seen.size)
        logger.info("%s: found %s, %s", source.name, shown(source.uri), size)
    every = record.get(ALL_SOURCES)
    if every is not None:
        now = version_of_all({name: seen.version for name, seen in found.items()})
        if not now.same_as(every):
            raise moved(request.sources[0].uri, f"{every} over all sources", str(now), "this fleet runs")
    return found


def _find(source: Source, recorded: Version | None, doors: _Doors) -> Found:
    match source.scheme:
        case "s3":
            return doors.s3.find(source, recorded)
        case "file":
            return find_in_volume(source)
        case _:
            return doors.web.find(source)


def _refuse(source: Source) -> None:
    """Raises LoadFailed for what SageMaker's own description leaves no meaning to."""
    if source.manifest_uri is not None or source.manifest_e_tag is not None:
        raise failed(
            source.uri,
            "manifestS3Uri and manifestEtag are not supported: SageMaker does not document what is in that file; name "
            "the prefix without it",
        )
    if source.kind != "Prefix":
        return
    if source.compression == "Gzip":
        raise failed(
            source.uri,
            "compressionType Gzip goes with s3DataType S3Object, one .tar.gz; under a prefix objects are laid out as "
            "they are (None)",
        )
    if source.e_tag is not None:
        raise failed(source.uri, "eTag cannot be required of a prefix, which has none; name one object")
    if source.scheme not in ("s3", "file"):
        raise failed(source.uri, "only S3 and volumes have prefixes; an https URL names one file")
    if not source.uri.endswith("/"):
        raise failed(source.uri, "a prefix ends with a slash")


def _prepare(source: Source, found: Found, doors: _Doors) -> None:
    """The source's tree stands ready in its target's staging directory."""
    target = Path(source.target)
    make_target(target)
    place = staging(target)
    ready = _Ready(place / "ready", found.version.identity)
    if (count := ready.bytes()) is not None:
        logger.info("%s: is here from an earlier try", source.name)
        doors.budget.place(source.uri, count)
        return
    remove(place / "tree")
    remove(place / "ready")
    if (
        doors.cache is not None
        and source.scheme != "file"
        and found.version.as_json().keys() & {"eTag", "digest"}
        and _from_cache(source, found, doors.cache, place, doors)
    ):
        return
    before = doors.budget.placed_bytes
    _build(source, found, place, doors)
    ready.note(doors.budget.placed_bytes - before)


def _from_cache(source: Source, found: Found, cache: Cache, place: Path, doors: _Doors) -> bool:
    """Take the source from the node's cache, into which it is brought if it is not there. False: it has no room."""
    # Another S3 service, which any Model may name, says of the same URI and version what it likes.
    service = doors.s3.endpoint_url if source.scheme == "s3" else None
    key = cache_key(source.uri, found.version.identity, f"{source.kind} {source.unpacked}", service)
    with cache.entry(key, doors.deadline, to_build=False) as entry:
        if entry.whole():
            logger.info("%s: is in this node's cache", source.name)
            _take(source, entry, place, doors)
            return True
    with cache.entry(key, doors.deadline, to_build=True) as entry:
        if not entry.whole():
            try:
                _build_entry(source, found, entry, doors)
            except NoRoom as full:
                # Nothing is ever evicted: no pod of this node would start any more.
                logger.warning("%s: this node's cache has no room, the data comes without it: %s", source.name, full)
                remove(entry.building)
                return False
        _take(source, entry, place, doors)
    return True


def _build_entry(source: Source, found: Found, entry: Entry, doors: _Doors) -> None:
    # What goes into the cache is counted when it is taken from it.
    budget = Budget(doors.budget.limit_bytes)
    try:
        remove(entry.directory)
        entry.building.mkdir(exist_ok=True)
        remove(entry.building / "tree")
        _build(source, found, entry.building, _Doors(doors.s3, doors.web, budget, doors.deadline, doors.tuning, None))
        entry.publish()
    except OSError as error:
        raise write_failed(source.uri, error) from error


def _take(source: Source, entry: Entry, place: Path, doors: _Doors) -> None:
    doors.budget.place(source.uri, tree_bytes(entry.tree))
    try:
        copy_tree(entry.tree, place / "tree", doors.deadline)
    except BaseException:
        remove(place / "tree")
        raise


def _build(source: Source, found: Found, place: Path, doors: _Doors) -> None:
    """Make `place`/tree. On failure there is none; what was downloaded is kept for the next try."""
    tree, directory = place / "tree", place / "download"
    try:
        if not source.unpacked:
            content = Download(source.uri, found, directory, doors.budget, doors.deadline, doors.tuning).run()
            doors.budget.place(source.uri, tree_bytes(content))
            content.chmod(DIRECTORY_MODE)
            content.rename(tree)
        elif found.local_path is not None:
            unpack(Path(found.local_path), tree, source.uri, doors.budget, doors.deadline)
            now = find_in_volume(source).version
            if now != found.version:
                raise moved(source.uri, str(found.version), str(now), "the unpacking began with")
        else:
            content = Download(source.uri, found, directory, doors.budget, doors.deadline, doors.tuning).run()
            unpack(content / found.items[0].path, tree, source.uri, doors.budget, doors.deadline)
    except BaseException:
        remove(tree)
        raise
    remove(directory)


class _Ready:
    """Says that the tree beside it is whole, so that a failure of another source does not cost this one."""

    def __init__(self, path: Path, identity: str) -> None:
        self._path = path
        self._mark = {"version": identity, "boot": boot_id()}

    def bytes(self) -> int | None:
        """What the tree holds, if it is whole and of this version."""
        try:
            noted = json.loads(self._path.read_text(encoding="utf-8"))
            count = noted.pop("bytes")
        except (OSError, ValueError, KeyError, AttributeError):
            return None
        return int(count) if noted == self._mark else None

    def note(self, count: int) -> None:
        """The tree is whole. Raises OSError."""
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps({**self._mark, "bytes": count}), encoding="utf-8")
        fresh.rename(self._path)
