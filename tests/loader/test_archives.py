"""Archives that nobody vouches for: each way to get out of the tree, to fill a disk or a memory, or to be damaged."""

import bz2
import contextlib
import gzip
import io
import logging
import lzma
import os
import stat
import struct
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.loader.loading import archive, content, request, run, source

from sluice.loader.budget import Budget
from sluice.loader.deadline import Deadline
from sluice.loader.failure import LoadFailed
from sluice.loader.paths import STAGING
from sluice.loader.place import remove
from sluice.loader.tree import BadMember, Tree
from sluice.loader.unpack import Bounds, unpack

LONG = "n" * 255


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", data: bytes = b"", **more: Any) -> bytes:
    """One member, header and data."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(data)
    for field, value in more.items():
        setattr(info, field, value)
    header = info.tobuf(tarfile.PAX_FORMAT, "utf-8", "surrogateescape")
    return header + data + b"\0" * (-len(data) % 512)


def symlink(name: str, to: str) -> bytes:
    return member(name, tarfile.SYMTYPE, to)


def hardlink(name: str, to: str) -> bytes:
    return member(name, tarfile.LNKTYPE, to)


def folder(name: str) -> bytes:
    return member(name, tarfile.DIRTYPE)


def raw(name: bytes, kind: bytes, size: int, data: bytes = b"", link: bytes = b"") -> bytes:
    """A member as tarfile would not write it: the size is what it says, not what follows."""
    header = bytearray(512)
    header[0 : len(name)] = name
    header[100:108] = b"0000644\0"
    header[108:116] = header[116:124] = b"0000000\0"
    if size < 0:
        header[124:136] = b"\xff" * 4 + struct.pack(">q", size)
    else:
        header[124:136] = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    header[136:148] = b"00000000000\0"
    header[156:157] = kind
    header[157 : 157 + len(link)] = link
    header[257:265] = b"ustar\x0000"
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + data + b"\0" * (-len(data) % 512)


def pax(fields: dict[str, str], kind: bytes = b"x") -> bytes:
    records = b"".join(_record(key, value) for key, value in fields.items())
    return raw(b"pax", kind, len(records), records)


def _record(key: str, value: str) -> bytes:
    rest = f" {key}={value}\n".encode()
    length = len(rest) + len(str(len(rest) + len(str(len(rest)))))
    return str(length).encode() + rest


def tar(*members: bytes, end: bytes = b"\0" * 1024) -> bytes:
    return b"".join(members) + end


def packed(*members: bytes) -> bytes:
    return gzip.compress(tar(*members), compresslevel=1)


FILE = member("fine", data=b"1")

REFUSED: dict[str, tuple[bytes, str]] = {
    # Names that lead out.
    "absolute path": (packed(FILE, member("/etc/evil", data=b"1")), "an absolute path"),
    "absolute path by pax": (packed(pax({"path": "/etc/evil"}), FILE), "an absolute path"),
    "double slash": (packed(member("//evil", data=b"1")), "an absolute path"),
    "dot dot": (packed(member("../evil", data=b"1")), "is .."),
    "dot dot within": (packed(folder("a"), member("a/../../evil", data=b"1")), "is .."),
    "dot dot that stays inside": (packed(folder("a"), member("a/../b", data=b"1")), "is .."),
    "dot dot as directory": (packed(folder("..")), "is .."),
    "null byte by pax": (packed(pax({"path": "a\0b"}), FILE), "null byte"),
    "root as a file": (packed(member(".", data=b"1")), "the root of the tree"),
    "root as a link": (packed(symlink("./", "elsewhere")), "the root of the tree"),
    "the loader's own directory": (packed(member(f"{STAGING}/tree/x", data=b"1")), "the loader's own name"),
    # Links.
    "absolute symlink": (packed(symlink("l", "/etc/passwd")), "a link to the absolute path"),
    "symlink out": (packed(symlink("l", "../x")), "leads out of the tree"),
    "symlink out from below": (packed(symlink("a/b/l", "../../../x")), "leads out of the tree"),
    "symlink out and back in": (packed(symlink("l", "../model/fine"), FILE), "leads out of the tree"),
    "symlink out by pax": (packed(pax({"linkpath": "../../x"}), symlink("l", "fine")), "leads out of the tree"),
    "symlink through a link": (packed(symlink("a/up", ".."), symlink("l", "a/up/../x")), "leads out of the tree"),
    "chain of links": (
        packed(folder("a/b"), symlink("one", "a/b/two"), symlink("a/b/two", "../../three"), symlink("three", "..")),
        "leads out of the tree",
    ),
    "symlink to itself": (packed(symlink("l", "l")), "goes in circles"),
    "circle": (packed(symlink("a", "b"), symlink("b", "a")), "goes in circles"),
    "link with a null byte": (packed(pax({"linkpath": "a\0b"}), symlink("l", "x")), "link to nothing"),
    "link that is too long": (packed(symlink("l", "x/" * 2048 + "x")), "too long"),
    "file below a symlink": (packed(folder("d"), symlink("l", "d"), member("l/x", data=b"1")), "which is a link"),
    "file through a symlink out": (packed(symlink("l", "../.."), member("l/x", data=b"1")), "which is a link"),
    "symlink over a used directory": (packed(member("d/x", data=b"1"), symlink("d", "..")), "is there twice"),
    "file over a symlink": (packed(symlink("l", "../evil"), member("l", data=b"1")), "is there twice"),
    "directory over a symlink": (packed(symlink("l", ".."), folder("l"), member("l/x", data=b"1")), "is there twice"),
    "hard link out": (packed(hardlink("l", "../../etc/passwd")), "is .."),
    "absolute hard link": (packed(hardlink("l", "/etc/passwd")), "an absolute path"),
    "hard link to a symlink": (packed(symlink("s", "fine"), hardlink("l", "s")), "which is no file before it"),
    "hard link through a symlink": (
        packed(folder("d"), member("d/f", data=b"1"), symlink("s", "d"), hardlink("l", "s/f")),
        "which is no file before it",
    ),
    "hard link to a directory": (packed(folder("d"), hardlink("l", "d")), "which is no file before it"),
    "hard link to nothing": (packed(hardlink("l", "nothing")), "which is no file before it"),
    "hard link to itself": (packed(hardlink("l", "l")), "which is no file before it"),
    # Kinds.
    "character device": (packed(member("d", tarfile.CHRTYPE, devmajor=1, devminor=3)), "is a device"),
    "block device": (packed(member("d", tarfile.BLKTYPE, devmajor=8, devminor=0)), "is a device"),
    "pipe": (packed(member("p", tarfile.FIFOTYPE)), "is a pipe"),
    "unknown type": (packed(raw(b"s", b"Z", 0)), "unknown type"),
    "multi volume": (packed(raw(b"s", b"M", 0)), "unknown type"),
    # Twice.
    "twice": (packed(FILE, FILE), "is there twice"),
    "twice with a dot": (packed(FILE, member("./fine", data=b"2")), "is there twice"),
    "twice with slashes": (packed(member("a/b", data=b"1"), member("a//b", data=b"2")), "is there twice"),
    "twice with a dot within": (packed(member("a/b", data=b"1"), member("a/./b", data=b"2")), "is there twice"),
    "directory twice": (packed(folder("d"), folder("d/")), "is there twice"),
    "file and directory": (packed(FILE, folder("fine")), "is there twice"),
    "file below a file": (packed(FILE, member("fine/x", data=b"1")), "which is a file"),
    "file over an implied directory": (packed(member("d/x", data=b"1"), member("d", data=b"1")), "is there twice"),
    # Long.
    "long component": (packed(member(LONG + "n", data=b"1")), "more than 255 bytes"),
    "long component in bytes": (packed(member("ü" * 128, data=b"1")), "more than 255 bytes"),
    "long path": (packed(member("/".join([LONG] * 17), data=b"1")), "the name has 4351 bytes"),
    "long path by gnu": (
        packed(raw(b"././@LongLink", b"L", 4400, b"/".join([LONG.encode()] * 17)[:4400].ljust(4400, b"\0")), FILE),
        "the name has",
    ),
    "too deep": (packed(member("a/" * 256 + "f", data=b"1")), "more than 256 folders deep"),
    # Hostile headers.
    "huge pax header": (packed(raw(b"p", b"x", 2**20, b"1" * 2**20), FILE), "a header has 1.0 MiB"),
    "huge gnu name": (packed(raw(b"p", b"L", 2**30), FILE), "a header has 1.0 GiB"),
    "huge gnu link": (packed(raw(b"p", b"K", 2**30), FILE), "a header has 1.0 GiB"),
    "huge global header": (packed(raw(b"p", b"g", 2**31), FILE), "a header has 2.0 GiB"),
    "endless headers": (packed(*[pax({"comment": "x"})] * 5000, FILE), "headers stand before one member"),
    "endless global fields": (
        packed(*(part for n in range(300) for part in (pax({f"f{n}": "x"}, b"g"), member(f"m{n}")))),
        "global headers have more than",
    ),
    "negative size": (packed(raw(b"f", b"0", -512), FILE), "a size below 0"),
    "negative size by pax": (packed(pax({"size": "-1024"}), FILE), ""),
    "negative size of a header": (packed(raw(b"f", b"x", -512), FILE), "a size below 0"),
    "size that is no number": (packed(pax({"size": "x"}), member("f", data=b"1")), ""),
    "size of 5000 digits": (packed(pax({"GNU.sparse.size": "9" * 5000}), FILE), ""),
    "size beyond the end": (packed(raw(b"f", b"0", 10**6, b"1" * 100)), ""),
    "size of a petabyte": (packed(raw(b"f", b"0", 2**50, b"1" * 100)), ""),
    "pax record of length 0": (packed(raw(b"p", b"x", 10, b"0 path=x\n"), FILE), ""),
    "two headers and nothing": (packed(pax({"path": "x"})), ""),
    # Sparse files.
    "gnu sparse": (packed(raw(b"f", b"S", 0), FILE), "is a sparse file"),
    "pax sparse 0.0": (packed(pax({"GNU.sparse.size": str(2**40), "GNU.sparse.offset": "0"}), FILE), "sparse file"),
    "pax sparse 0.1": (packed(pax({"GNU.sparse.map": "0,1", "GNU.sparse.size": str(2**40)}), FILE), "sparse file"),
    "pax sparse 1.0": (
        packed(pax({"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}), raw(b"f", b"0", 2**40, b"1" * 512)),
        "sparse file",
    ),
    "pax real size alone": (packed(pax({"GNU.sparse.realsize": str(2**40)}), FILE), ""),
    # Damaged.
    "nothing": (b"", "cut off"),
    "empty": (packed(), "it is empty"),
    "text": (b"<html>not found</html>" * 100, "damaged"),
    "gzipped text": (gzip.compress(b"<html>not found</html>" * 100), "damaged"),
    "short text": (b"hello", ""),
    "half of the gzip": (packed(FILE, member("big", data=os.urandom(50_000)))[:20_000], "damaged"),
    "gzip without its end": (packed(FILE)[:-4], "damaged"),
    "gzip with another checksum": (packed(FILE)[:-8] + b"\0" * 8, "damaged"),
    "gzip with another checksum far behind the end": (
        gzip.compress(tar(FILE, end=b"\0" * (2**22 - len(FILE))))[:-8] + b"\0" * 8,
        "damaged",
    ),
    "gzip with a flipped bit": (
        (lambda body: body[:3000] + bytes([body[3000] ^ 1]) + body[3001:])(packed(member("a", data=os.urandom(9000)))),
        "damaged",
    ),
    "gzip and garbage": (packed(FILE) + b"garbage", "damaged"),
    "tar without its end": (tar(FILE, end=b""), "cut off"),
    "tar within a header": (tar(FILE, member("b", data=b"2"))[:1300], "cut off"),
    "tar within data": (tar(member("b", data=b"2" * 5000))[:3000], ""),
    "tar with a broken header": (tar(FILE, b"\1" * 512), "damaged"),
    "header with another checksum": (
        (lambda body: body[:1024] + b"X" + body[1025:])(tar(FILE, member("b", data=b"2"))),
        "damaged",
    ),
    "zip": (b"PK\3\4" + b"\0" * 600, ""),
    "bzip2": (bz2.compress(tar(FILE)), ""),
    "xz": (lzma.compress(tar(FILE)), ""),
}


@pytest.fixture
def load(tmp_path: Path, target: Path) -> Callable[..., Any]:
    def loading(body: bytes, **more: Any) -> Any:
        (tmp_path / "volume").mkdir(exist_ok=True)
        path = tmp_path / "volume" / "model.tar.gz"
        path.write_bytes(body)
        return run(request(source(f"file://{path}", target), **more))

    return loading


@contextlib.contextmanager
def nothing_written_outside(tmp_path: Path) -> Iterator[None]:
    """Beside the target and the archive nothing changes, and no directory above it gets anything."""

    def surroundings() -> set[str]:
        return {
            str(path)
            for path in tmp_path.rglob("*")
            if not str(path).startswith((f"{tmp_path}/opt/model", f"{tmp_path}/volume"))
        }

    (tmp_path / "opt").mkdir(exist_ok=True)
    before, above = surroundings(), set(os.listdir(tmp_path.parent))
    yield
    assert surroundings() == before
    assert set(os.listdir(tmp_path.parent)) == above


@pytest.mark.parametrize("name", REFUSED)
def test_a_hostile_or_damaged_archive_is_refused(
    load: Callable[..., Any], tmp_path: Path, target: Path, name: str
) -> None:
    body, words = REFUSED[name]
    with nothing_written_outside(tmp_path), pytest.raises(LoadFailed) as caught:
        load(body)
    assert caught.value.reason in ("BadArchive", "TooLarge"), caught.value
    assert caught.value.reason == "BadArchive" or "petabyte" in name or "real size" in name
    assert words in str(caught.value)
    assert not content(target)
    assert not (target / STAGING / "tree").exists()


def test_a_link_through_a_directory_that_is_a_link_later(load: Callable[..., Any], target: Path) -> None:
    """By its text alone `d/../../x` leads out; through d -> e/f it ends at the root."""
    load(packed(symlink("l", "d/../../x"), symlink("d", "e/f"), folder("e/f"), member("x", data=b"1")))
    assert (target / "l").read_bytes() == b"1"
    with pytest.raises(LoadFailed, match="leads out"):
        load(packed(symlink("l", "d/../../x"), symlink("d", "e"), folder("e")))


def test_links_within_the_tree(load: Callable[..., Any], target: Path) -> None:
    loaded = load(
        packed(
            folder("./"),
            member("a/b/real", data=b"1234"),
            symlink("a/up", "../top"),
            symlink("top", "a/b/real"),
            symlink("self", "."),
            symlink("root", "a/.."),
            symlink("dangling", "nowhere/../x"),
            hardlink("hard", "./a//b/real"),
            hardlink("harder", "hard"),
        )
    )
    for name in ("a/up", "top", "self/top", "root/top", "hard", "harder"):
        assert (target / name).read_bytes() == b"1234", name
    assert (target / "hard").stat().st_ino == (target / "a/b/real").stat().st_ino
    assert (target / "dangling").is_symlink()
    assert loaded.placed_bytes == 12  # a copy may need the bytes once for each name


def test_names_that_differ_by_case_or_are_odd_are_fine(load: Callable[..., Any], target: Path) -> None:
    names = ["A", "a", "ü", "u\u0308", " ", "...", "-rf", "a b\nc", LONG, "c/..d", "bytes\udcff", "back\\slash"]
    load(packed(*(member(name, data=name.encode("utf-8", "surrogateescape")) for name in names)))
    assert {name: (target / name).read_bytes() for name in names} == {
        name: name.encode("utf-8", "surrogateescape") for name in names
    }


def test_modes_are_made_readable_and_harmless(load: Callable[..., Any], target: Path) -> None:
    before = os.umask(0o077)
    try:
        load(
            packed(
                member("d", tarfile.DIRTYPE, mode=0),
                member("d/secret", data=b"1", mode=0),
                member("d/tool", data=b"1", mode=0o6700),
                member("implied/sticky", data=b"1", mode=0o1777, uid=4711, gid=4711),
            )
        )
    finally:
        os.umask(before)
    modes = {str(p.relative_to(target)): stat.S_IMODE(p.stat().st_mode) for p in target.rglob("*")}
    assert modes == {
        "d": 0o755,
        "d/secret": 0o644,
        "d/tool": 0o755,
        "implied": 0o755,
        "implied/sticky": 0o755,
    }
    assert stat.S_IMODE(target.stat().st_mode) == 0o755
    assert (target / "implied/sticky").stat().st_uid == os.getuid()


def test_archives_of_all_formats_and_tools(load: Callable[..., Any], target: Path) -> None:
    for format_ in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        made = io.BytesIO()
        with tarfile.open(fileobj=made, mode="w:gz", format=format_) as out:
            for name in ("a/" * 60 + "long", "short"):
                info = tarfile.TarInfo(name)
                info.size = 3
                out.addfile(info, io.BytesIO(b"abc"))
        load(made.getvalue())
        assert (target / ("a/" * 60 + "long")).read_bytes() == b"abc"
    load(gzip.compress(tar(FILE)[:700]) + gzip.compress(tar(FILE)[700:]))
    assert content(target) == {"fine": b"1"}
    load(packed(FILE) + b"\0" * 5000)  # padding of tapes
    load(gzip.compress(tar(FILE, end=b"\0" * 512 * 40)))


class Zeros(io.RawIOBase):
    """So many zero bytes."""

    def __init__(self, count: int) -> None:
        self._left = count

    def read(self, size: int = -1) -> bytes:
        size = min(self._left, 2**20 if size < 0 else size)
        self._left -= size
        return b"\0" * size


def bomb(count: int, name: str = "zeros") -> bytes:
    made = io.BytesIO()
    with gzip.GzipFile(fileobj=made, mode="wb", compresslevel=1) as out:
        out.write(raw(name.encode(), b"0", count))
        zeros = Zeros(count)
        while chunk := zeros.read():
            out.write(chunk)
        out.write(b"\0" * (-count % 512) + b"\0" * 1024)
    return made.getvalue()


@pytest.fixture
def narrow(tmp_path: Path) -> Callable[..., None]:
    """Unpack with narrow bounds."""

    def unpacking(body: bytes, bounds: Bounds) -> None:
        (tmp_path / "archive").write_bytes(body)
        remove(tmp_path / "tree")
        unpack(tmp_path / "archive", tmp_path / "tree", "s3://b/k", Budget(None), Deadline(60), bounds)

    return unpacking


def test_a_bomb_is_stopped_by_the_ratio_where_there_is_no_limit(narrow: Callable[..., None]) -> None:
    assert (Bounds().ratio, Bounds().ratio_from_bytes) == (200, 2**30)
    with pytest.raises(LoadFailed, match="unpacks to more than 200 times its size") as caught:
        narrow(bomb(2**25), Bounds(ratio_from_bytes=2**22))
    assert caught.value.reason == "TooLarge"
    narrow(bomb(2**21), Bounds(ratio_from_bytes=2**22))


def test_a_bomb_behind_the_end_of_the_archive(narrow: Callable[..., None]) -> None:
    with pytest.raises(LoadFailed) as caught:
        narrow(gzip.compress(tar(FILE) + b"\0" * 2**25), Bounds(ratio_from_bytes=2**22))
    assert caught.value.reason == "TooLarge"


def test_a_bomb_is_stopped_by_the_limit_before_it_is_written(load: Callable[..., Any], target: Path) -> None:
    with pytest.raises(LoadFailed, match="volumeSizeInGB") as caught:
        load(bomb(2**25), sizeLimitBytes=2**24)
    assert caught.value.reason == "TooLarge"
    load(bomb(2**25), sizeLimitBytes=2**25)
    assert (target / "zeros").stat().st_size == 2**25


def test_hard_links_count_as_often_as_they_are_there(load: Callable[..., Any]) -> None:
    """A copy of the tree, into another file system, would hold the bytes that often."""
    links = [hardlink(f"l{number}", "big") for number in range(50)]
    with pytest.raises(LoadFailed) as caught:
        load(packed(member("big", data=b"x" * 100_000), *links), sizeLimitBytes=1_000_000)
    assert caught.value.reason == "TooLarge"


def test_too_many_members(narrow: Callable[..., None]) -> None:
    assert Bounds().members == 1_000_000
    narrow(packed(*(member(f"m{number}") for number in range(100))), Bounds(members=100))
    with pytest.raises(LoadFailed, match="more than 100 members"):
        narrow(packed(*(member(f"m{number}") for number in range(101))), Bounds(members=100))


def test_names_that_would_fill_the_memory() -> None:
    """One short member implies hundreds of folders with long names."""
    tree, added = Tree(0), []

    def add_all() -> None:
        for number in range(2000):
            tree.add(tarfile.TarInfo(f"{number:04}/" * 255 + "f"))
            added.append(number)

    with pytest.raises(BadMember, match="of names"):
        add_all()
    assert len(added) < 1000


def test_links_whose_targets_would_fill_the_memory() -> None:
    tree, added = Tree(0), []

    def add_all() -> None:
        for number in range(100_000):
            link = tarfile.TarInfo(str(number))
            link.type, link.linkname = tarfile.SYMTYPE, f"{number:06}" * 600
            tree.add(link)
            added.append(number)

    with pytest.raises(BadMember, match="of names"):
        add_all()
    assert len(added) < 50_000


def test_a_member_larger_than_the_disk_is_refused_before_it_is_written(load: Callable[..., Any]) -> None:
    with pytest.raises(LoadFailed, match="are free on the volume") as caught:
        load(packed(raw(b"f", b"0", 2**55, b"1" * 512)))
    assert caught.value.reason == "TooLarge"


def test_the_log_says_how_far_the_unpacking_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "archive"
    path.write_bytes(packed(member("a", data=b"1" * 1024), member("b", data=b"2" * 1024)))
    with caplog.at_level(logging.INFO, logger="sluice.loader"):
        unpack(path, tmp_path / "tree", "s3://b/k", Budget(None), Deadline(60), told_every_seconds=0.0)
    told = [record.getMessage().partition("unpacked: ")[2].split(",")[0] for record in caplog.records]
    assert [each for each in told if each] == ["1.0 KiB", "2.0 KiB", "2.0 KiB"]


def test_times_are_kept(load: Callable[..., Any], target: Path) -> None:
    load(packed(member("a", data=b"1", mtime=1_000_000_000), pax({"mtime": "nan"}), member("b", data=b"1")))
    assert (target / "a").stat().st_mtime == 1_000_000_000
    assert (target / "b").exists()


def test_what_is_well_formed_comes_out_as_it_went_in(load: Callable[..., Any], target: Path) -> None:
    files = {f"dir{n % 7}/file{n}": os.urandom(n * 100) for n in range(200)}
    load(archive(files))
    assert {name: data for name, data in content(target).items() if data is not None} == files
