"""Which names of files are taken: SageMaker's rules for objects under a prefix, and what a file system can hold."""

from collections.abc import Iterable
from typing import Final

MAX_COMPONENT_BYTES: Final = 255
MAX_PATH_BYTES: Final = 4096
ARCHIVE: Final = "archive"
"""What a downloaded archive is called until it is unpacked."""
STAGING: Final = ".sluice-loader"
"""The loader's own directory in a target while it works."""


class BadName(Exception):
    """A name that is not taken; says why."""


def check_relative(path: str) -> None:
    """Raises BadName for an object's name under its prefix that SageMaker does not take."""
    for part in path.split("/"):
        if not part.strip():
            raise BadName(
                "a part of the name is empty or blank (the S3 console makes such objects as folders: delete it)"
            )
        check_component(part)
    if len(encoded(path)) > MAX_PATH_BYTES:
        raise BadName(f"the name has more than {MAX_PATH_BYTES} bytes")
    if path.split("/")[0] == STAGING:
        raise BadName("the name is the loader's own")


def check_component(part: str) -> None:
    """Raises BadName for a file's or directory's name that cannot be one."""
    if part in (".", ".."):
        raise BadName(f"a part of the name is {part}")
    if "\0" in part:
        raise BadName("the name holds a null byte")
    if len(encoded(part)) > MAX_COMPONENT_BYTES:
        raise BadName(f"a part of the name has more than {MAX_COMPONENT_BYTES} bytes")


def encoded(name: str) -> bytes:
    """The bytes as the file system gets them. Raises BadName where there are none."""
    try:
        return name.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise BadName("the name is not valid text") from None


def check_no_clash(paths: Iterable[str]) -> None:
    """Raises BadName when one path is a file and also the directory of another, or is there twice."""
    files: set[str] = set()
    for path in paths:
        if path in files:
            raise BadName(f"{path!a} is there twice")
        files.add(path)
    for path in files:
        parent = path.rpartition("/")[0]
        while parent:
            if parent in files:
                raise BadName(f"{parent!a} is a file and also a directory, of {path!a}")
            parent = parent.rpartition("/")[0]
