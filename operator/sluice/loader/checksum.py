"""The checksums of whole files that stores know: hashlib's, and the CRCs."""

import hashlib
import zlib
from collections.abc import Callable, Iterable
from typing import Final

from awscrt.checksums import crc32c, crc64nvme

STRENGTH: Final = ("sha256", "sha1", "md5", "crc64nvme", "crc32c", "crc32")
"""The strongest that the store knows is compared."""

# How each goes on with the next chunk, and how many hexadecimal digits it has.
_CRCS: Final[dict[str, tuple[Callable[[bytes, int], int], int]]] = {
    "crc32": (zlib.crc32, 8),
    "crc32c": (crc32c, 8),
    "crc64nvme": (crc64nvme, 16),
}


def hexdigest(algorithm: str, chunks: Iterable[bytes]) -> str:
    """The checksum of all chunks together; a CRC's highest byte comes first, as S3 writes it."""
    if algorithm in _CRCS:
        following, digits = _CRCS[algorithm]
        value = 0
        for chunk in chunks:
            value = following(chunk, value)
        return f"{value:0{digits}x}"
    hashed = hashlib.new(algorithm, usedforsecurity=False)
    for chunk in chunks:
        hashed.update(chunk)
    return hashed.hexdigest()
