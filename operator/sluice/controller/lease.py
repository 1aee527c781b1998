"""Who may act: the holder of one Lease (coordination.k8s.io), and only while its own clock says that it still holds it.

No two machines' clocks are compared: a holder counts from the moment before its last successful renewal was sent, and
a challenger from the moment at which it first saw the record that it sees now. Losing the Lease to another holder ends
the process; an API server that cannot be asked does not: nothing is written meanwhile, and it goes on when the Lease
can be renewed."""

import asyncio
import logging
import uuid
from datetime import datetime
from typing import Any

from sluice.controller.queue import Sleep
from sluice.ports.clock import Clock
from sluice.ports.kube import Conflict, Forbidden, Gone, Kube, KubeUnavailable, Object, Rejected

logger = logging.getLogger(__name__)

LEASE_NAME = "sluice-operator"
PROCESS = "sluice.dev/process"
"""Annotation: which process of the holder renews. A restarted container takes its pod's Lease back with a new one."""


class LeaseLostError(Exception):
    """Another process holds the Lease."""


class LeaseHolder:
    """One process' part in the Lease."""

    def __init__(
        self,
        kube: Kube,
        clock: Clock,
        *,
        namespace: str,
        identity: str,
        duration_seconds: int,
        name: str = LEASE_NAME,
        sleep: Sleep = asyncio.sleep,
    ) -> None:
        self._kube = kube
        self._clock = clock
        self._namespace = namespace
        self._name = name
        self._identity = identity
        self._process = uuid.uuid4().hex
        self._duration = duration_seconds
        self._margin = max(1.0, duration_seconds / 5)
        self._sleep = sleep
        self._record: Object | None = None
        self._renewed: float | None = None
        self._fresh = False
        """The last renewal succeeded."""
        self._seen: tuple[str, float] | None = None
        """A foreign record's resourceVersion and when it was first seen."""

    def held(self) -> bool:
        """Whether this process may act now."""
        return self._renewed is not None and self._clock.monotonic() - self._renewed < self._duration - self._margin

    @property
    def holder(self) -> str:
        """The holder as last seen."""
        return str(((self._record or {}).get("spec") or {}).get("holderIdentity") or "")

    async def acquire(self) -> None:
        """Wait until the Lease is ours."""
        told = ""
        while not await self._try():
            if self.holder and self.holder != told:
                told = self.holder
                logger.info("waiting for the lease, which %s holds", told)
            await self._sleep(min(2.0, self._duration / 5))
        logger.info("holding the lease as %s", self._identity)

    async def keep(self) -> None:
        """Renew for ever, every third of the duration. Raises LeaseLostError."""
        while True:
            await self._sleep(self._duration / 3 if self._fresh else 1.0)
            self._fresh = await self._renew()

    async def release(self) -> None:
        """Give the Lease up, so that a successor need not wait. Call when `keep` was ended. Failing is fine: it runs
        out by itself."""
        record, self._renewed = self._record, None
        try:
            while record is not None and (record.get("spec") or {}).get("holderIdentity") == self._identity:
                try:
                    await self._write(record, holder="")
                    return
                except Conflict:
                    # A renewal that was cut off may have arrived all the same.
                    record = await self._kube.get("Lease", self._namespace, self._name)
        except (Gone, KubeUnavailable, Forbidden, Rejected) as error:
            logger.warning("the lease was not released and runs out by itself: %s", error)

    async def _try(self) -> bool:
        """One attempt to become the holder."""
        started = self._clock.monotonic()
        try:
            record = await self._kube.get("Lease", self._namespace, self._name)
            if record is None:
                self._record = await self._kube.create("Lease", self._namespace, self._body(None, self._identity))
            elif self._may_take(record):
                self._record = await self._write(record, holder=self._identity)
            else:
                self._record = record
                return False
        except (Conflict, Gone):
            return False
        except (KubeUnavailable, Forbidden, Rejected) as error:
            logger.warning("cannot ask for the lease: %s", error)
            return False
        self._renewed, self._fresh = started, True
        return True

    def _may_take(self, record: Object) -> bool:
        spec = record.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self._identity):
            return True
        now = self._clock.monotonic()
        version = record["metadata"]["resourceVersion"]
        if self._seen is None or self._seen[0] != version:
            self._seen = (version, now)
        return now - self._seen[1] >= float(spec.get("leaseDurationSeconds") or self._duration)

    async def _renew(self) -> bool:
        started = self._clock.monotonic()
        try:
            if self._record is None:
                self._record = await self._kube.create("Lease", self._namespace, self._body(None, self._identity))
            else:
                self._record = await self._write(self._record, holder=self._identity)
        except Gone:
            self._record = None
            return False
        except Conflict:
            await self._look_again()
            return False
        except (KubeUnavailable, Forbidden, Rejected) as error:
            logger.warning("the lease was not renewed: %s", error)
            return False
        self._renewed = started
        return True

    async def _look_again(self) -> None:
        """Somebody wrote the record since: a lost answer of ours, a person, or another holder."""
        try:
            record = await self._kube.get("Lease", self._namespace, self._name)
        except (KubeUnavailable, Forbidden, Rejected) as error:
            logger.warning("the lease could not be read: %s", error)
            return
        if record is not None:
            holder = (record.get("spec") or {}).get("holderIdentity") or ""
            process = (record["metadata"].get("annotations") or {}).get(PROCESS)
            if holder != self._identity or process != self._process:
                self._renewed = None
                raise LeaseLostError(
                    f"the lease {self._namespace}/{self._name} was taken by {holder or 'nobody'} ({process})"
                )
        self._record = record

    async def _write(self, record: Object, *, holder: str) -> Object:
        try:
            async with asyncio.timeout(max(1.0, self._duration / 3)):
                return await self._kube.replace("Lease", self._namespace, self._body(record, holder))
        except TimeoutError:
            raise KubeUnavailable("no answer in time") from None

    def _body(self, record: Object | None, holder: str) -> Object:
        """The record to write over `record`, with its resourceVersion as precondition."""
        now = _micro_time(self._clock.now())
        before: dict[str, Any] = dict((record or {}).get("spec") or {})
        metadata: dict[str, Any] = dict((record or {}).get("metadata") or {})
        metadata |= {"name": self._name, "namespace": self._namespace}
        metadata["annotations"] = {**(metadata.get("annotations") or {}), PROCESS: self._process}
        taken = before.get("holderIdentity") != holder
        spec = before | {
            "holderIdentity": holder,
            "leaseDurationSeconds": self._duration if holder else 1,
            "renewTime": now,
            "acquireTime": now if taken else before.get("acquireTime", now),
            "leaseTransitions": int(before.get("leaseTransitions") or 0) + (1 if taken and holder and record else 0),
        }
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}


def _micro_time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
