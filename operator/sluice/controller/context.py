"""What a log line says besides its message: the object whose pass runs, and the revision it is about."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar

_NOTHING: Mapping[str, str] = {}
_context: ContextVar[Mapping[str, str]] = ContextVar("log context", default=_NOTHING)


def log_context() -> Mapping[str, str]:
    """The fields of the running pass."""
    return _context.get()


@contextmanager
def about(**fields: str) -> Iterator[None]:
    """Log lines within say these fields too."""
    token = _context.set({**_context.get(), **fields})
    try:
        yield
    finally:
        _context.reset(token)
