"""From listed objects to what a pass decides from. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from sluice.api.routes import EndpointRouteSpec, RouterReportSpec
from sluice.cluster import pods, records
from sluice.cluster.labels import fleet_of, is_retained
from sluice.core.cluster.names import (
    ANNOTATION_FLEET_HASH,
    ANNOTATION_REPLICAS,
    ANNOTATION_TEMPLATE,
    ANNOTATION_VARIANT,
    ROUTER,
    record_name,
)
from sluice.core.cluster.observation import FleetSeen, RouterDeployment, RouterSeen, RouteSeen

Object = Mapping[str, Any]


def fleet(
    deployment: Object,
    fleet_pods: Iterable[Object],
    record: Object | None,
    zone_of: Mapping[str, str],
    *,
    reachable: bool = True,
) -> FleetSeen:
    """One fleet. `zone_of`: node -> zone; `reachable`: its Service stands."""
    metadata = deployment["metadata"]
    annotations = metadata.get("annotations") or {}
    stored = records.read(record) if record is not None else None
    found = pods.judge(fleet_pods, stored, deployment)
    return FleetSeen(
        name=metadata["name"],
        variant=annotations.get(ANNOTATION_VARIANT, ""),
        fleet_hash=annotations.get(ANNOTATION_FLEET_HASH, ""),
        uid=metadata["uid"],
        replicas=int(deployment["spec"].get("replicas", 1)),
        ready=found.ready,
        existing=found.existing,
        terminating=found.terminating,
        deleting=bool(metadata.get("deletionTimestamp")),
        created=pods.moment(metadata.get("creationTimestamp")),
        template=annotations.get(ANNOTATION_TEMPLATE, ""),
        record=stored,
        candidate=found.candidate,
        strangers=found.strangers,
        troubles=found.troubles,
        zones=len({zone_of[node] for node in found.ready_nodes if node in zone_of}),
        reachable=reachable,
    )


def fleets(
    deployments: Iterable[Object],
    replica_sets: Iterable[Object],
    all_pods: Iterable[Object],
    stored: Iterable[Object],
    services: Iterable[Object],
    zone_of: Mapping[str, str],
) -> tuple[FleetSeen, ...]:
    """The fleets that these Deployments are, with their pods and records. Pods by the UIDs of their owners: those of a
    Deployment of the same name that was deleted a moment ago bear the same label and are still ready."""
    deployment_of = {item["metadata"]["uid"]: _controller(item) for item in replica_sets}
    by_deployment: dict[str | None, list[Object]] = {}
    for pod in all_pods:
        by_deployment.setdefault(deployment_of.get(_controller(pod)), []).append(pod)
    of_fleet = by_fleet(stored)
    reachable = standing(services)
    found = (
        fleet(
            deployment,
            by_deployment.get(deployment["metadata"]["uid"], ()),
            of_fleet.get(name),
            zone_of,
            reachable=name in reachable,
        )
        for deployment in deployments
        for name in (str(deployment["metadata"]["name"]),)
    )
    return tuple(sorted(found, key=lambda one: one.name))


def route(item: Object) -> RouteSeen:
    """An EndpointRoute. One whose spec cannot be read counts as one that routes nothing: it is written anew."""
    metadata = item["metadata"]
    try:
        spec = EndpointRouteSpec.from_manifest(item["spec"])
    except (KeyError, ValidationError):
        spec = EndpointRouteSpec(endpoint_name="")
    return RouteSeen(
        uid=metadata["uid"],
        generation=int(metadata["generation"]),
        resource_version=metadata["resourceVersion"],
        spec=spec,
        retained=is_retained(item),
    )


def router_pods(
    deployment: Object | None, replica_sets: Iterable[Object], labelled: Iterable[Object]
) -> tuple[Object, ...]:
    """The pods of a router Deployment that can hold requests: by the UIDs of their owners, because a label is what
    anybody can write. Finished pods run nothing."""
    if deployment is None:
        return ()
    ours = {item["metadata"]["uid"] for item in replica_sets if _controller(item) == deployment["metadata"]["uid"]}
    return tuple(pod for pod in labelled if _controller(pod) in ours and not pods.is_finished(pod))


def routers(router: Iterable[Object], reports: Iterable[Object], endpoint: str) -> tuple[RouterSeen, ...]:
    """Router pods with what each reports of one Endpoint, in whichever part of its report; a report counts for the very
    pod that wrote it."""
    by_pod: dict[str, list[Mapping[str, Any]]] = {}
    for item in reports:
        spec = item.get("spec") or {}
        by_pod.setdefault(str(spec.get("podUID")), []).append(spec)
    found = []
    for pod in router:
        metadata = pod["metadata"]
        found.append(
            RouterSeen(
                pod=metadata["name"],
                uid=metadata["uid"],
                ready=pods.is_ready(pod),
                terminating=pods.is_terminating(pod),
                since=pods.moment(metadata.get("creationTimestamp")),
                stops_by=pods.moment(metadata.get("deletionTimestamp")),
                report=_report(by_pod.get(metadata["uid"], []), endpoint),
                readiness_since=pods.readiness_since(pod),
                never_ran=not pods.is_ready(pod) and not pods.has_run(pod),
            )
        )
    return tuple(sorted(found, key=lambda one: one.pod))


def router_deployment(
    deployment: Object | None, *, complete: bool, current: bool, held: str = "", held_by: str = ""
) -> RouterDeployment:
    """The namespace's router; `current`: all of it is what this operator would render, `held`: why it may not be
    replaced."""
    if deployment is None:
        return RouterDeployment(exists=False)
    return RouterDeployment(
        exists=True,
        complete=complete,
        current=current,
        ready=int((deployment.get("status") or {}).get("readyReplicas") or 0),
        replicas=int(deployment["spec"].get("replicas", 1)),
        held=held,
        held_by=held_by,
    )


def is_current(item: Object, template: str | None, replicas: str | None = None) -> bool:
    """Whether an object of a router is what this operator would render, with so many pods asked for (None: it is always
    the same, and nobody asks)."""
    wanted = {ANNOTATION_TEMPLATE: template, ANNOTATION_REPLICAS: replicas}
    said = item["metadata"].get("annotations") or {}
    return all(value is None or said.get(name) == value for name, value in wanted.items())


def is_rolling(deployment: Object, template: str) -> bool:
    """Whether the pods of a router's Deployment are being replaced, or were by this operator's (`template`) and lack
    one: what goes wrong in one namespace goes no further. One that lacks a pod of an older template is not being
    replaced; no pod of it goes before its successor is available."""
    status, wanted = deployment.get("status") or {}, int(deployment["spec"].get("replicas", 1))
    return (
        int(status.get("observedGeneration") or 0) < int(deployment["metadata"].get("generation") or 0)
        or has_two_templates(deployment)
        or int(status.get("replicas") or 0) > wanted
        or (is_current(deployment, template) and int(status.get("availableReplicas") or 0) < wanted)
    )


def has_two_templates(deployment: Object) -> bool:
    """Whether pods of an older template stand beside those of the newest, or in place of them."""
    status = deployment.get("status") or {}
    return int(status.get("updatedReplicas") or 0) < int(status.get("replicas") or 0)


def find_router(deployments: Iterable[Object]) -> Object | None:
    """The router's Deployment among those that carry its label."""
    return next((item for item in deployments if item["metadata"]["name"] == ROUTER), None)


def _report(parts: Sequence[Mapping[str, Any]], endpoint: str) -> RouterReportSpec | None:
    """What a report says about one Endpoint. A router serves hundreds; the others' entries are not even parsed."""
    if not parts:
        return None

    def mine(field: str) -> list[Any]:
        return [entry for part in parts for entry in part.get(field) or () if entry.get("name") == endpoint]

    try:
        return RouterReportSpec.from_manifest({**parts[0], "routes": mine("routes"), "rejected": mine("rejected")})
    except ValidationError:
        return None


def explain(replica_sets: Iterable[Object], labelled: Iterable[Object]) -> bool:
    """Whether these ReplicaSets are all that pods name as theirs."""
    known = {item["metadata"]["uid"] for item in replica_sets}
    return all(owner is None or owner in known for owner in map(_controller, labelled))


def standing(items: Iterable[Object]) -> set[str]:
    """The names of those that nobody has deleted."""
    return {item["metadata"]["name"] for item in items if not item["metadata"].get("deletionTimestamp")}


def _controller(item: Object) -> str | None:
    """The UID of the object's controlling owner."""
    owners = item["metadata"].get("ownerReferences") or ()
    return next((owner["uid"] for owner in owners if owner.get("controller")), None)


def by_fleet(stored: Iterable[Object]) -> dict[str, Object]:
    """Fleet -> its record, by its name and label: a copy under another name is none."""
    return {fleet_of(item): item for item in stored if item["metadata"]["name"] == record_name(fleet_of(item))}
