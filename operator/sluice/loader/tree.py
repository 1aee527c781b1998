"""The picture of an archive's tree: what each name is, and where each link ends. Knows no file system."""

import tarfile
from collections.abc import Iterator
from typing import Final

from sluice.loader.failure import named, size_text
from sluice.loader.paths import MAX_PATH_BYTES, STAGING, BadName, check_component, encoded

MAX_DEPTH: Final = 256
"""Directories one below the other; what removes a tree goes through them by recursion."""
MAX_ENTRIES: Final = 1_000_000
MAX_NAMES_BYTES: Final = 128 * 1024**2
"""Of all names together, those of directories that are only implied and what links name included: the picture is held
in memory."""
MAX_LINK_HOPS: Final = 40
"""As many as Linux follows."""
_DIRECTORY: Final = 1
_IMPLIED: Final = 2
_FILE: Final = 3
_LINK: Final = 4


class BadMember(Exception):
    """What is wrong with an archive; says with which member."""


class Tree:
    """Takes members one by one, and refuses those that are not fit for a tree of their own."""

    def __init__(self, root_bytes: int) -> None:
        self._kinds: dict[str, int] = {}
        self._targets: dict[str, str] = {}
        self._names_bytes = 0
        # The kernel takes 4096 bytes with the terminating zero, and the tree's own path comes before.
        self._longest = MAX_PATH_BYTES - 2 - root_bytes

    def add(self, member: tarfile.TarInfo) -> str | None:
        """The member's path in the tree; None for the root itself. Raises BadMember."""
        path = self._normal(member.name, member.name)
        kind = self._kind(member)
        if not path:
            if kind != _DIRECTORY:
                raise BadMember(f"{named(member.name)} is the root of the tree, and no directory")
            return None
        if path.split("/", 1)[0] == STAGING:
            raise BadMember(f"{named(member.name)} has the loader's own name")
        known = self._kinds.get(path)
        if known is not None and not (known == _IMPLIED and kind == _DIRECTORY):
            raise BadMember(f"{named(member.name)} is there twice")
        self._imply(path, member.name)
        if member.islnk():
            self.linked(member)
        elif kind == _LINK:
            self._targets[path] = target = self._target(member)
            self._names_bytes += len(target)
        self._enter(path, kind)
        return path

    def linked(self, member: tarfile.TarInfo) -> str:
        """The path of the file that a hard link is another name of. Raises BadMember."""
        path = self._normal(member.linkname, member.name)
        if self._kinds.get(path) != _FILE:
            raise BadMember(
                f"{named(member.name)} is a hard link to {named(member.linkname)}, which is no file before it"
            )
        return path

    def links(self) -> Iterator[tuple[str, str]]:
        """(path, target) of the symbolic links, each seen to end in the tree. For when all members are known, because
        what comes later changes where a link ends. Raises BadMember."""
        for path, target in self._targets.items():
            self._check_inside(path)
            yield path, target

    def _kind(self, member: tarfile.TarInfo) -> int:
        if "GNU.sparse.major" in member.pax_headers or member.issparse():
            raise BadMember(f"{named(member.name)} is a sparse file")
        if member.isreg() and member.type in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE):
            if member.size < 0:
                raise BadMember(f"{named(member.name)} has a size below 0")
            return _FILE
        if member.isdir():
            return _DIRECTORY
        if member.issym():
            return _LINK
        if member.islnk():
            return _FILE
        what = {tarfile.CHRTYPE: "a device", tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a pipe"}
        raise BadMember(f"{named(member.name)} is {what.get(member.type, f'of the unknown type {member.type!r}')}")

    def _normal(self, name: str, member: str) -> str:
        """The name without what means nothing in it (`./a`, `a//b`, `a/`). Raises BadMember."""
        if name.startswith("/"):
            raise BadMember(f"{named(member)}: an absolute path ({named(name)})")
        parts = [part for part in name.split("/") if part not in ("", ".")]
        try:
            for part in parts:
                check_component(part)
            path = "/".join(parts)
            length = len(encoded(path))
        except BadName as bad:
            raise BadMember(f"{named(member)}: {bad}") from bad
        if len(parts) > MAX_DEPTH:
            raise BadMember(f"{named(member)}: lies more than {MAX_DEPTH} folders deep")
        if length > self._longest:
            raise BadMember(f"{named(member)}: the name has {length} bytes, allowed are {self._longest} in its place")
        return path

    def _imply(self, path: str, name: str) -> None:
        """The directories that the path goes through are there from now on."""
        parent = path.rpartition("/")[0]
        while parent:
            known = self._kinds.get(parent)
            if known in (_FILE, _LINK):
                raise BadMember(f"{named(name)} lies below {named(parent)}, which is a {_WORDS[known]}")
            if known is not None:
                return
            self._enter(parent, _IMPLIED)
            parent = parent.rpartition("/")[0]

    def _enter(self, path: str, kind: int) -> None:
        if path not in self._kinds:
            self._names_bytes += len(path)
        self._kinds[path] = kind
        if len(self._kinds) > MAX_ENTRIES or self._names_bytes > MAX_NAMES_BYTES:
            raise BadMember(
                f"it has more than {MAX_ENTRIES} files and folders, or {size_text(MAX_NAMES_BYTES)} of names"
            )

    def _target(self, member: tarfile.TarInfo) -> str:
        target = member.linkname
        if target.startswith("/"):
            raise BadMember(f"{named(member.name)} is a link to the absolute path {named(target)}")
        try:
            size = len(encoded(target))
        except BadName as bad:
            raise BadMember(f"{named(member.name)} is a link: {bad}") from bad
        if not target or "\0" in target or size >= MAX_PATH_BYTES:
            raise BadMember(f"{named(member.name)} is a link to nothing, or to too long a path")
        return target

    def _check_inside(self, path: str) -> None:
        """Follow a link as the kernel would, through other links; it may dangle, but never leave the tree."""
        at = path.split("/")[:-1]
        todo = self._targets[path].split("/")[::-1]
        hops = 1
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                if not at:
                    raise BadMember(
                        f"{named(path)} is a link that leads out of the tree ({named(self._targets[path])})"
                    )
                at.pop()
                continue
            at.append(part)
            further = self._targets.get("/".join(at))
            if further is None:
                continue
            hops += 1
            if hops > MAX_LINK_HOPS:
                raise BadMember(f"{named(path)} is a link that goes in circles")
            at.pop()
            todo.extend(further.split("/")[::-1])


_WORDS: Final = {_FILE: "file", _LINK: "link"}
