"""EndpointRoutes and EndpointSlices as values. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError

from sluice.api.routes import SCHEMA_VERSION, EndpointRouteSpec

Object = dict[str, Any]

SERVICE_LABEL: Final = "kubernetes.io/service-name"


@dataclass(frozen=True, slots=True)
class Route:
    """An EndpointRoute as it was read last."""

    uid: str
    name: str
    generation: int
    created: str
    spec: EndpointRouteSpec | None
    """None: it cannot be applied, and `problem` says why."""
    problem: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """Whose route, which generation."""
        return self.uid, self.generation


@dataclass(frozen=True, slots=True)
class Pod:
    """One address of a Service."""

    name: str
    """The pod's, or its address where the slice names none."""
    address: str
    ready: bool
    lingering: bool
    """It is terminating and still serves."""


def read_route(item: Object) -> Route:
    """An EndpointRoute. One that this code does not understand is kept, with the reason."""
    metadata, spec = item["metadata"], item.get("spec") or {}
    parsed, problem = None, ""
    version = spec.get("schemaVersion", SCHEMA_VERSION)
    if not isinstance(version, int) or version > SCHEMA_VERSION:
        problem = f"schemaVersion {version} is newer than this router, which knows up to {SCHEMA_VERSION}"
    else:
        try:
            parsed = EndpointRouteSpec.model_validate(spec)
        except ValidationError as error:
            first = error.errors()[0]
            problem = f"spec.{'.'.join(map(str, first['loc']))}: {first['msg']}"
    return Route(
        uid=metadata["uid"],
        name=metadata["name"],
        generation=int(metadata.get("generation", 1)),
        created=metadata.get("creationTimestamp") or "",
        spec=parsed,
        problem=problem,
    )


def read_slice(item: Object) -> tuple[str, tuple[Pod, ...]]:
    """An EndpointSlice: its Service and the pods in it."""
    service = (item["metadata"].get("labels") or {}).get(SERVICE_LABEL, "")
    pods = []
    for endpoint in item.get("endpoints") or ():
        conditions = endpoint.get("conditions") or {}
        address = endpoint["addresses"][0]
        terminating = conditions.get("terminating") is True
        pods.append(
            Pod(
                name=(endpoint.get("targetRef") or {}).get("name") or address,
                address=address,
                ready=conditions.get("ready") is not False and not terminating,
                lingering=terminating and conditions.get("serving") is not False,
            )
        )
    return service, tuple(pods)


def serving_pods(pods: Iterable[Pod], excluded: Iterable[str]) -> tuple[Pod, ...]:
    """The pods that get requests: the ready ones, or if there is none, those that still serve while they terminate."""
    left_out = frozenset(excluded)
    known = {pod.address: pod for pod in pods if pod.name not in left_out}
    chosen = [pod for pod in known.values() if pod.ready] or [pod for pod in known.values() if pod.lingering]
    return tuple(sorted(chosen, key=lambda pod: pod.address))


class Objects:
    """Everything that was read of the namespace, by key."""

    def __init__(self) -> None:
        self._routes: dict[str, Route] = {}
        self._slices: dict[str, tuple[str, tuple[Pod, ...]]] = {}
        self._by_service: dict[str, set[str]] = {}
        self._pods: dict[str, tuple[Pod, ...]] = {}

    def replace_routes(self, items: Iterable[Object]) -> None:
        """A listing of all EndpointRoutes."""
        self._routes = {item["metadata"]["name"]: self._route(item) for item in items}

    def put_route(self, item: Object) -> None:
        """One that was added or modified."""
        self._routes[item["metadata"]["name"]] = self._route(item)

    def drop_route(self, item: Object) -> None:
        """One that was deleted."""
        self._routes.pop(item["metadata"]["name"], None)

    def replace_slices(self, items: Iterable[Object]) -> None:
        """A listing of all EndpointSlices."""
        self._slices, self._by_service, self._pods = {}, {}, {}
        for item in items:
            self.put_slice(item)

    def put_slice(self, item: Object) -> None:
        """One that was added or modified."""
        self.drop_slice(item)
        name = item["metadata"]["name"]
        self._slices[name] = read_slice(item)
        service = self._slices[name][0]
        self._by_service.setdefault(service, set()).add(name)
        self._pods.pop(service, None)

    def drop_slice(self, item: Object) -> None:
        """One that was deleted."""
        name = item["metadata"]["name"]
        before = self._slices.pop(name, None)
        if before is not None:
            service = before[0]
            self._by_service[service].discard(name)
            if not self._by_service[service]:
                del self._by_service[service]
            self._pods.pop(service, None)

    def pods(self, service: str) -> tuple[Pod, ...]:
        """All pods of a Service, over its slices: the same tuple while none of them changed."""
        if service not in self._by_service:
            return ()
        found = self._pods.get(service)
        if found is None:
            names = sorted(self._by_service[service])
            found = self._pods[service] = tuple(pod for name in names for pod in self._slices[name][1])
        return found

    @property
    def routes(self) -> Mapping[str, Route]:
        """EndpointRoutes by object name."""
        return self._routes

    def _route(self, item: Object) -> Route:
        """The same value for an unchanged generation, so that what was compiled from it is found again."""
        metadata = item["metadata"]
        known = self._routes.get(metadata["name"])
        if known is not None and known.key == (metadata["uid"], int(metadata.get("generation", 1))):
            return known
        return read_route(item)
