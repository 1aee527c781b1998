"""Whatever is in an archive: it comes out as it went in, or it is refused, and nothing is ever written outside."""

import gzip
import io
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.loader.test_archives import tar

from sluice.loader.budget import Budget
from sluice.loader.deadline import Deadline
from sluice.loader.failure import LoadFailed
from sluice.loader.unpack import unpack

URI = "s3://models/m.tar.gz"
PARTS = st.sampled_from(["a", "b", "c", ".", "..", "", "A", "ü", "x" * 255, "x" * 256, "in", "out", "\udc80"])
PATHS = st.lists(PARTS, min_size=1, max_size=6).map("/".join) | st.text(max_size=12)
KINDS = st.sampled_from(
    [tarfile.REGTYPE] * 4
    + [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
MEMBERS = st.tuples(KINDS, PATHS, PATHS, st.binary(max_size=20), st.integers(0, 0o7777))


def made(members: list[tuple[bytes, str, str, bytes, int]]) -> bytes:
    parts = []
    for kind, name, link, data, mode in members:
        info = tarfile.TarInfo(name)
        info.type, info.linkname, info.mode = kind, link, mode
        info.size = len(data) if kind == tarfile.REGTYPE else 0
        body = data if kind == tarfile.REGTYPE else b""
        parts.append(info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogatepass") + body + b"\0" * (-len(body) % 512))
    return gzip.compress(tar(*parts), compresslevel=1)


class Place:
    """A directory with a secret beside the tree, as deep as no chain of `..` in these tests reaches by chance."""

    def __enter__(self) -> "Place":
        self.root = Path(tempfile.mkdtemp(prefix="loader-"))
        self.above = self.root / "1/2/3/4/5/6/7/8"
        self.above.mkdir(parents=True)
        (self.above / "out").write_bytes(b"secret")
        self.tree = self.above / "tree"
        self.before = self.seen()
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.root)

    def seen(self) -> dict[str, tuple[int, int, bytes]]:
        found = {}
        for folder, folders, files in os.walk(self.root):
            folders[:] = [name for name in folders if Path(folder) / name != self.tree]
            for name in [*folders, *files]:
                path = Path(folder) / name
                if path != self.tree:
                    status = path.lstat()
                    is_file = path.is_file()
                    links = status.st_nlink if is_file else 0
                    found[str(path)] = (status.st_mode, links, path.read_bytes() if is_file else b"")
        return found

    def unpack(self, body: bytes) -> bool:
        archive = self.root / "archive"
        archive.write_bytes(body)
        self.before[str(archive)] = (archive.stat().st_mode, 1, body)
        try:
            unpack(archive, self.tree, URI, Budget(2**20), Deadline(30))
        except LoadFailed as failed:
            if failed.reason not in ("BadArchive", "TooLarge"):
                raise
            return False
        return True


@settings(max_examples=400, deadline=None)
@given(st.lists(MEMBERS, max_size=8))
def test_nothing_is_written_outside_and_no_link_leads_there(
    members: list[tuple[bytes, str, str, bytes, int]],
) -> None:
    with Place() as place:
        whole = place.unpack(made(members))
        assert place.seen() == place.before
        if not whole:
            return
        for path in place.tree.rglob("*"):
            real = os.path.realpath(path)
            assert real == str(place.tree) or real.startswith(f"{place.tree}/"), path
            if not path.is_symlink():
                assert path.is_dir() or path.is_file()
                assert path.stat().st_mode & 0o7022 == 0
                assert path.stat().st_mode & 0o444 == 0o444


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=2000), st.integers(0, 4000), st.lists(MEMBERS, min_size=1, max_size=4))
def test_any_bytes_end_in_an_answer(noise: bytes, at: int, members: list[tuple[bytes, str, str, bytes, int]]) -> None:
    plain = gzip.decompress(made(members))
    with Place() as place:
        place.unpack(plain[:at] + noise + plain[at + len(noise) :])
        assert place.seen() == place.before


NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1, max_size=20).filter(
    lambda name: name not in (".", "..", ".sluice-loader")
)
TREES = st.recursive(
    st.binary(max_size=3000), lambda inner: st.dictionaries(NAMES, inner, max_size=4), max_leaves=12
).filter(lambda tree: isinstance(tree, dict) and tree)


def flat(tree: dict[str, object], prefix: str = "") -> dict[str, bytes | None]:
    found: dict[str, bytes | None] = {}
    for name, inner in tree.items():
        if isinstance(inner, dict):
            found[prefix + name] = None
            found |= flat(inner, f"{prefix}{name}/")
        elif isinstance(inner, bytes):
            found[prefix + name] = inner
    return found


@settings(max_examples=100, deadline=None)
@given(TREES, st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]), st.sampled_from(["w", "w:gz"]))
def test_any_tree_comes_out_as_it_went_in(tree: dict[str, object], format_: int, mode: str) -> None:
    files = flat(tree)
    body = io.BytesIO()
    with tarfile.open(fileobj=body, mode=mode, format=format_) as out:  # type: ignore[call-overload]
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if data is None else tarfile.REGTYPE
            info.size = len(data or b"")
            out.addfile(info, io.BytesIO(data or b""))
    with Place() as place:
        assert place.unpack(body.getvalue())
        found = {
            str(path.relative_to(place.tree)): None if path.is_dir() else path.read_bytes()
            for path in place.tree.rglob("*")
        }
        assert found == files
