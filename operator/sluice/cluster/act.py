"""Makes one change in the cluster. Each is idempotent: what exists already or is gone already is success.

An existing Deployment of a fleet is written in one way only, its scale subresource; nothing here could change its pod
template."""

import asyncio

from sluice.api import names
from sluice.api.reasons import Reason
from sluice.api.routes import EndpointRouteSpec
from sluice.cluster import records
from sluice.cluster.labels import endpoint_labels, endpoint_selector, is_of_fleet
from sluice.cluster.problems import FAILURES, problem
from sluice.cluster.rendering import Rendering, UnknownInstanceType
from sluice.cluster.router import updated_spec
from sluice.cluster.seen import is_current
from sluice.cluster.turns import RouterTurns
from sluice.core.cluster.actions import (
    ClusterAction,
    DeleteFleet,
    DeleteRoute,
    EnsureFleet,
    EnsureRouter,
    EvictRouter,
    RecordFleet,
    RemoveRouter,
    RetainRoute,
    ScaleFleet,
    WriteRoute,
)
from sluice.core.cluster.names import (
    ANNOTATION_OWNER,
    ANNOTATION_REPLICAS,
    ANNOTATION_TEMPLATE,
    LABEL_FLEET,
    ROUTER,
    record_name,
)
from sluice.core.cluster.observation import ClusterObservation, FleetRecord, FleetSeen
from sluice.core.identity import Owner
from sluice.core.observation import CallProblem
from sluice.core.revision import LABEL_MANAGED_BY, MANAGED_BY
from sluice.ports.backend import ActFailed
from sluice.ports.kube import Conflict, Gone, Kube, Object

POLICY = "NetworkPolicy"
FLEET_KINDS = ("Service", "PodDisruptionBudget", POLICY)
"""What goes by the fleet's name beside its Deployment."""
ROUTER_KINDS = ("Service", "PodDisruptionBudget", "RoleBinding", "ServiceAccount", "NetworkPolicy", "Deployment")
"""What a router consists of, in the order of its removal: the Deployment last, so that the pass after one that was
killed in between still finds a router to remove."""


class Actor:
    """Makes ClusterActions happen."""

    def __init__(self, kube: Kube, rendering: Rendering, turns: RouterTurns | None = None) -> None:
        self._kube = kube
        self._rendering = rendering
        self._turns = turns or RouterTurns()

    async def act(self, owner: Owner, action: ClusterAction, seen: ClusterObservation) -> None:
        """One action. `seen`: what it was decided from. Raises ActFailed, NotHeld, and Conflict where something is not
        as it was observed."""
        try:
            await self._act(owner, action, seen)
        except Gone as gone:
            raise Conflict(str(gone)) from gone  # it was there when it was observed
        except FAILURES as failure:
            raise ActFailed(problem(type(action).__name__, failure)) from failure

    async def _act(self, owner: Owner, action: ClusterAction, seen: ClusterObservation) -> None:
        match action:
            case EnsureFleet():
                await self._ensure_fleet(owner, action)
            case ScaleFleet(name=name, replicas=replicas):
                await self._scale(owner, seen.fleet(name), replicas)
            case RecordFleet(name=name, record=record):
                await self._record(owner, name, record)
            case DeleteFleet(name=name, uid=uid):
                await delete_fleet(self._kube, owner, name, uid)
            case WriteRoute(spec=spec, resource_version=version):
                await write_route(self._kube, owner, spec, version)
            case RetainRoute():
                await self._retain(owner)
            case DeleteRoute(uid=uid):
                await self._kube.delete(names.ENDPOINT_ROUTE, owner.namespace, owner.name, uid=uid)
            case EnsureRouter(update=True):
                with self._turns.write(owner.namespace):
                    await self._ensure_router(owner.namespace, update=True)
            case EnsureRouter():
                await self._ensure_router(owner.namespace, update=False)
            case RemoveRouter():
                await remove_router(self._kube, owner.namespace)
            case EvictRouter(pod=pod, uid=uid):
                seconds = self._rendering.router_eviction_seconds(owner.namespace)
                await self._kube.evict(owner.namespace, pod, uid=uid, grace_seconds=seconds)

    async def _ensure_fleet(self, owner: Owner, action: EnsureFleet) -> None:
        try:
            manifests = self._rendering.fleet(owner, action)
        except UnknownInstanceType as unknown:
            raise ActFailed(
                CallProblem(
                    "EnsureFleet",
                    Reason.UNKNOWN_INSTANCE_TYPE,
                    str(unknown),
                    transient=False,
                    retry_after_seconds=30.0,
                )
            ) from unknown
        for manifest in manifests:
            if await self._create(manifest):
                continue
            found = await self._check_ours(owner, manifest)
            if manifest["kind"] == POLICY:
                await self._renew(found, manifest)

    async def _record(self, owner: Owner, name: str, record: FleetRecord) -> None:
        manifest = records.config_map(owner, name, record)
        if await self._create(manifest):
            return
        # Looked for as a pass looks: what it does not find, or cannot read, it would try to record again and again.
        if any(records.read(found) is not None for found in await _records(self._kube, owner, name)):
            return
        raise _in_the_way("RecordFleet", manifest, "is not the fleet's record, or one that cannot be read; delete it")

    async def _check_ours(self, owner: Owner, manifest: Object) -> Object:
        """What of a fleet is there already must be seen as ours, or it would be made again and again. Raises Conflict
        where it went meanwhile."""
        kind, metadata = manifest["kind"], manifest["metadata"]
        found = await self._kube.get(kind, metadata["namespace"], metadata["name"])
        if found is None:
            raise Conflict(f"{kind} {metadata['name']} went meanwhile")
        if is_of_fleet(found, owner, metadata["name"]):
            return found
        raise _in_the_way(
            "EnsureFleet",
            manifest,
            f"does not bear the labels and the annotation {ANNOTATION_OWNER} that tell that it is this Endpoint's; "
            "delete it, or give it back what was taken away",
        )

    async def _renew(self, policy: Object, manifest: Object) -> None:
        """A policy without its Deployment is that of a fleet that went, left until its pods are gone. The fleet that is
        made again gets one of its own: the sweep for orphans may be about to delete the one that it found."""
        namespace, name = manifest["metadata"]["namespace"], manifest["metadata"]["name"]
        if await self._kube.get("Deployment", namespace, name) is None:
            await self._kube.delete(POLICY, namespace, name, uid=policy["metadata"]["uid"])
            await self._kube.create(POLICY, namespace, manifest)

    async def _scale(self, owner: Owner, fleet: FleetSeen | None, replicas: int) -> None:
        """The one that was seen, whatever count a scaler has given it since: a step that is decided goes by its own
        counts, and would take a scaler's, which were for the share before it, for growth."""
        if fleet is None:
            return
        try:
            await self._kube.scale("Deployment", owner.namespace, fleet.name, replicas, uid=fleet.uid)
        except Gone:
            return

    async def _retain(self, owner: Owner) -> None:
        try:
            await self._kube.patch_metadata(
                names.ENDPOINT_ROUTE,
                owner.namespace,
                owner.name,
                resource_version=None,
                annotations={names.RETAINED: "true"},
            )
        except Gone:
            return

    async def _create(self, manifest: Object) -> bool:
        """Create; False: it exists."""
        try:
            await self._kube.create(manifest["kind"], manifest["metadata"]["namespace"], manifest)
        except Conflict:
            return False
        return True

    async def _ensure_router(self, namespace: str, *, update: bool) -> None:
        for manifest in self._rendering.router(namespace):
            if await self._create(manifest):
                continue
            await self._check_or_update(manifest, update=update)

    async def _check_or_update(self, manifest: Object, *, update: bool) -> None:
        """An object of the router exists: it must be ours, and is replaced where it was rendered otherwise."""
        kind, metadata = manifest["kind"], manifest["metadata"]
        found = await self._kube.get(kind, metadata["namespace"], metadata["name"])
        if found is None:
            raise Conflict(f"{kind} {metadata['name']} went meanwhile")
        if not _is_managed(found):
            raise ActFailed(
                CallProblem(
                    "EnsureRouter",
                    Reason.NAME_CONFLICT,
                    f"{kind} {metadata['namespace']}/{metadata['name']} is somebody else's and bears the name of the "
                    "router; delete or rename it",
                    transient=False,
                    retry_after_seconds=30.0,
                )
            )
        said = metadata["annotations"]
        if not update or is_current(found, said.get(ANNOTATION_TEMPLATE), said.get(ANNOTATION_REPLICAS)):
            return
        if kind == "RoleBinding":  # what it binds can never be written; agents that lack it for a moment try again
            await self._kube.delete(kind, metadata["namespace"], metadata["name"], uid=found["metadata"]["uid"])
            await self._create(manifest)
            return
        marks = {
            field: {**(found["metadata"].get(field) or {}), **(metadata.get(field) or {})}
            for field in ("labels", "annotations")
        }
        spec = updated_spec(found, manifest) if kind == "Deployment" else manifest["spec"]
        await self._kube.replace(
            kind, metadata["namespace"], {**found, "metadata": {**found["metadata"], **marks}, "spec": spec}
        )


def _in_the_way(operation: str, manifest: Object, why: str) -> ActFailed:
    metadata = manifest["metadata"]
    text = f"{manifest['kind']} {metadata['namespace']}/{metadata['name']} {why}"
    return ActFailed(CallProblem(operation, Reason.NAME_CONFLICT, text, transient=False, retry_after_seconds=30.0))


async def delete_fleet(kube: Kube, owner: Owner, name: str, uid: str) -> None:
    """Delete a fleet's objects: the Deployment first, because what is left over is found by the orphan sweep, and a
    Deployment without its Service would go on costing nodes. Raises Conflict if it is another Deployment."""
    await kube.delete("Deployment", owner.namespace, name, uid=uid)
    await _delete_beside(kube, owner, name)


async def _delete_beside(kube: Kube, owner: Owner, name: str) -> None:
    """Delete what stands beside a fleet's Deployment and bears its marks; what only has its name is somebody else's.
    Its NetworkPolicy stays: its pods have the better part of a minute to end. The sweep for orphans takes it."""
    found, stored = await asyncio.gather(
        asyncio.gather(*(kube.get(kind, owner.namespace, name) for kind in FLEET_KINDS if kind != POLICY)),
        _records(kube, owner, name),
    )
    await asyncio.gather(
        *(
            kube.delete(item["kind"], owner.namespace, item["metadata"]["name"], uid=item["metadata"]["uid"])
            for item in (*found, *stored)
            if item is not None and is_of_fleet(item, owner, name)
        )
    )


async def _records(kube: Kube, owner: Owner, fleet: str) -> list[Object]:
    """The fleet's record, if it stands: the operator may list ConfigMaps and read none by its name."""
    selector = f"{endpoint_selector(owner.name)},{LABEL_FLEET}={fleet}"
    listed = [item async for item in kube.list("ConfigMap", owner.namespace, selector)]
    return [item for item in listed if item["metadata"]["name"] == record_name(fleet)]


async def write_route(kube: Kube, owner: Owner, spec: EndpointRouteSpec, resource_version: str | None) -> None:
    """Create or replace an Endpoint's route. Raises Conflict if it is not as it was observed."""
    metadata: Object = {
        "name": owner.name,
        "namespace": owner.namespace,
        "labels": endpoint_labels(owner.name),
        "annotations": {ANNOTATION_OWNER: str(owner)},
    }
    body: Object = {
        "apiVersion": names.API_VERSION,
        "kind": names.ENDPOINT_ROUTE,
        "metadata": metadata,
        "spec": spec.to_manifest(),
    }
    if resource_version is None:
        await kube.create(names.ENDPOINT_ROUTE, owner.namespace, body)
        return
    metadata["resourceVersion"] = resource_version
    await kube.replace(names.ENDPOINT_ROUTE, owner.namespace, body)


async def remove_router(kube: Kube, namespace: str) -> None:
    """Delete everything of a namespace's router that is ours. Each by its name: the operator may delete no other
    ServiceAccount and no other RoleBinding."""
    for kind in ROUTER_KINDS:
        found = await kube.get(kind, namespace, ROUTER)
        if found is not None and _is_managed(found) and not found["metadata"].get("deletionTimestamp"):
            await kube.delete(kind, namespace, ROUTER, uid=found["metadata"]["uid"])


def _is_managed(item: Object) -> bool:
    return bool((item["metadata"].get("labels") or {}).get(LABEL_MANAGED_BY) == MANAGED_BY)
