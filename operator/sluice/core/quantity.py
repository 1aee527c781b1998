"""Kubernetes quantities (500m, 2, 4Gi) as numbers, for the few places that must divide or compare them."""

import re
from fractions import Fraction

_SUFFIXES = {
    "": Fraction(1), "n": Fraction(1, 10**9), "u": Fraction(1, 10**6), "m": Fraction(1, 1000),
    **{letter: Fraction(1000 ** (power + 1)) for power, letter in enumerate(("k", "M", "G", "T", "P", "E"))},
    **{f"{letter}i": Fraction(1024 ** (power + 1)) for power, letter in enumerate(("K", "M", "G", "T", "P", "E"))},
}  # fmt: skip
_FORM = re.compile(r"\+?(\d+(?:\.\d*)?|\.\d+)(?:([eE][+-]?\d{1,2})|([numkMGTPE]|[KMGTPE]i)?)")


def parse(text: str | int) -> Fraction:
    """The number that a quantity stands for. Raises ValueError (negative ones included: no resource is negative)."""
    match = _FORM.fullmatch(str(text))
    if match is None:
        raise ValueError(f"found {text!r}, allowed is a quantity such as 500m, 2 or 4Gi")
    number, exponent, suffix = match.groups()
    return Fraction(number) * Fraction(f"1{exponent}" if exponent else 1) * _SUFFIXES[suffix or ""]


def cpu(cores: Fraction) -> str:
    """CPUs as a quantity in whole millicores, at least one."""
    milli = max(1, int(cores * 1000))
    return str(milli // 1000) if milli % 1000 == 0 else f"{milli}m"


def memory(size_bytes: Fraction) -> str:
    """Bytes as a quantity in whole mebibytes, at least one."""
    return f"{max(1, int(size_bytes // 1024**2))}Mi"
