"""Directories of model data: made readable for everybody, built out of sight, moved into the target at the end."""

import os
import shutil
import stat
from pathlib import Path
from typing import Final

from sluice.loader.paths import STAGING

FILE_MODE: Final = 0o644
DIRECTORY_MODE: Final = 0o755
# Volumes of some kinds have it; it is root's and stays.
_KEPT: Final = frozenset({STAGING, "lost+found"})


def staging(target: Path) -> Path:
    """The loader's own directory in the target. Inside, because the target may be a mount point: what is beside it is
    then another file system."""
    return target / STAGING


def make_target(target: Path) -> None:
    """The target and its staging directory exist. Raises OSError."""
    make_directories(target, Path("/"))
    staging(target).mkdir(mode=0o700, exist_ok=True)


def make_directories(path: Path, root: Path) -> None:
    """The directory below `root`, with its parents; everybody may read them, whatever the umask."""
    if path == root or path.is_dir():
        return
    make_directories(path.parent, root)
    path.mkdir(exist_ok=True)
    path.chmod(DIRECTORY_MODE)


def move_in(tree: Path, target: Path) -> None:
    """What is in `tree` becomes the whole content of the target, by renames. What else was there goes: it is what an
    earlier run of this container left. On failure nothing of the tree is left in the target. Raises OSError."""
    for entry in os.listdir(target):
        if entry not in _KEPT:
            remove(target / entry)
    moved: list[Path] = []
    try:
        for entry in sorted(os.listdir(tree)):
            place = target / entry
            moved.append(place)
            (tree / entry).rename(place)
    except OSError:
        for place in moved:
            remove(place)
        raise
    remove(staging(target))


def remove(path: Path) -> None:
    """Remove a file, link or directory with all that is in it, if it is there. Raises OSError."""
    try:
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path)
        else:
            path.unlink()
    except FileNotFoundError:
        return
