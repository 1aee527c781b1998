"""The routers of a namespace, for whoever asks them something: in which pods they run, and at which addresses."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class RouterAddress:
    """A router pod that exists, in any phase."""

    pod: str
    uid: str
    address: str
    """Its IP; empty: it has none yet."""


class RouterPods(Protocol):
    """Finds routers by the UIDs of their owners, never by labels alone. Raises KubeUnavailable, Forbidden."""

    async def __call__(self, namespace: str) -> tuple[RouterAddress, ...]:
        """The namespace's, live."""
        ...
