"""Who calls: account, role and region, from the SigV4 header and the access keys the simulator knows."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import count

DEFAULT_REGION = "us-east-1"
_CREDENTIAL = re.compile(r"Credential=(?P<key>[^/,\s]+)/\d{8}/(?P<region>[a-z0-9-]+)/(?P<service>[a-z0-9-]+)/")


@dataclass(frozen=True, slots=True)
class Caller:
    """One caller. ``role`` is empty for an access key nobody has introduced."""

    access_key: str
    account: str
    role: str = ""
    session: str = ""

    @property
    def arn(self) -> str:
        """The ARN AWS names in messages and GetCallerIdentity."""
        if self.role:
            return f"arn:aws:sts::{self.account}:assumed-role/{self.role}/{self.session or 'session'}"
        return f"arn:aws:iam::{self.account}:user/{self.access_key}"

    @property
    def label(self) -> str:
        """The role, or the access key where no role is known: what the request log counts by."""
        return self.role or self.access_key


@dataclass(frozen=True, slots=True)
class Signature:
    """What a request's Authorization header says."""

    access_key: str
    region: str
    service: str


def signature(authorization: str) -> Signature | None:
    """The credential scope of a SigV4 header; None for a request that is not signed."""
    found = _CREDENTIAL.search(authorization)
    return Signature(found["key"], found["region"], found["service"]) if found else None


class Callers:
    """Access keys by whom they belong to: introduced by a test, or issued by AssumeRole."""

    def __init__(self, account: str) -> None:
        self.account = account
        self.external_ids: dict[str, str] = {}
        """By role ARN: the ExternalId its trust policy asks for."""
        self._known: dict[str, Caller] = {}
        self._issued = count(1)

    def introduce(self, access_key: str, account: str, role: str = "", session: str = "") -> Caller:
        """Says to whom an access key belongs."""
        caller = Caller(access_key, account, role, session)
        self._known[access_key] = caller
        return caller

    def issue(self, account: str, role: str, session: str) -> Caller:
        """A new access key for a session of a role."""
        return self.introduce(f"ASIASIMULATOR{next(self._issued):07d}", account, role, session)

    def caller(self, access_key: str) -> Caller:
        """Whose key it is; unknown keys belong to the default account and have no role."""
        return self._known.get(access_key) or Caller(access_key, self.account)
