"""ports.kube.Kube in memory: resourceVersions, preconditions and outages, for tests on stepped time. What a real API
server does beyond that is tested against one."""

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from copy import deepcopy

from sluice.ports.kube import Conflict, Gone, KubeUnavailable, Object


class MemoryKube:
    """Objects by kind, namespace and name. `calls` records verbs; `away` makes every call fail."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Object] = {}
        self.calls: list[tuple[str, str, str]] = []
        self.events: list[tuple[str, str, str]] = []
        self.away = False
        self.before: dict[str, list[object]] = {}
        """Per verb: callables that run once before the next such call (to change something in between)."""
        self.refused: dict[tuple[str, str], Exception] = {}
        """Per verb and kind: what such calls raise, and nothing is done."""
        self.lost: list[Exception | None] = []
        """What the next writes of a status raise instead of answering; they are done all the same."""
        self._versions = itertools.count(1000)

    def put(self, item: Object) -> Object:
        """Write as somebody else; returns the stored object."""
        stored = deepcopy(item)
        stored["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[self._place(stored)] = stored
        return deepcopy(stored)

    def writes(self) -> list[tuple[str, str, str]]:
        """The calls that changed something."""
        return [call for call in self.calls if call[0] not in {"get", "list"}]

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        self._call("get", kind, name)
        return deepcopy(self.objects.get((kind, namespace, name)))

    async def list(self, kind: str, namespace: str | None = None, label_selector: str = "") -> AsyncIterator[Object]:
        self._call("list", kind, namespace or "")
        for (other, place, _), item in sorted(self.objects.items()):
            if other == kind and namespace in (None, place):
                yield deepcopy(item)

    async def list_metadata(
        self, kind: str, namespace: str | None = None, label_selector: str = ""
    ) -> AsyncIterator[Object]:
        async for item in self.list(kind, namespace, label_selector):
            yield {key: item[key] for key in ("apiVersion", "kind", "metadata")}

    async def create(self, kind: str, namespace: str, body: Object) -> Object:
        self._call("create", kind, body["metadata"]["name"])
        item = deepcopy(body)
        item["metadata"].setdefault("uid", f"uid-{kind}-{body['metadata']['name']}")
        if self._place(item) in self.objects:
            raise Conflict("already exists")
        return self.put(item)

    async def replace(self, kind: str, namespace: str, body: Object) -> Object:
        self._call("replace", kind, body["metadata"]["name"])
        self._check(self._place(body), body["metadata"]["resourceVersion"])
        return self.put(body)

    async def replace_status(self, kind: str, namespace: str, body: Object) -> Object:
        self._call("replace_status", kind, body["metadata"]["name"])
        current = self._check(self._place(body), body["metadata"]["resourceVersion"])
        stored = self.put({**current, "status": body["status"]})
        failure = self.lost.pop(0) if self.lost else None
        if failure is not None:
            raise failure
        return stored

    async def patch_metadata(
        self,
        kind: str,
        namespace: str,
        name: str,
        *,
        resource_version: str | None,
        finalizers: Sequence[str] | None = None,
        annotations: Mapping[str, str | None] | None = None,
    ) -> Object:
        self._call("patch", kind, name)
        item = deepcopy(self._check((kind, namespace, name), resource_version))
        if finalizers is not None:
            item["metadata"]["finalizers"] = list(finalizers)
        merged = {**(item["metadata"].get("annotations") or {}), **(annotations or {})}
        item["metadata"]["annotations"] = {key: value for key, value in merged.items() if value is not None}
        stored = self.put(item)
        if item["metadata"].get("deletionTimestamp") and not item["metadata"].get("finalizers"):
            del self.objects[kind, namespace, name]
        return stored

    async def delete(self, kind: str, namespace: str, name: str, *, uid: str | None = None) -> None:
        self._call("delete", kind, name)
        current = self.objects.get((kind, namespace, name))
        if current is not None and uid not in (None, current["metadata"]["uid"]):
            raise Conflict("it has another uid")
        self.objects.pop((kind, namespace, name), None)

    async def scale(self, kind: str, namespace: str, name: str, replicas: int, *, uid: str) -> None:
        self._call("scale", kind, name)
        item = deepcopy(self._check((kind, namespace, name), None))
        if item["metadata"]["uid"] != uid:
            raise Conflict("it has another uid")
        item["spec"]["replicas"] = replicas
        self.put(item)

    async def evict(self, namespace: str, pod: str, *, uid: str, grace_seconds: int) -> None:
        await self.delete("Pod", namespace, pod, uid=uid)

    async def event(self, regarding: Object, *, type_: str, reason: str, message: str) -> None:
        self.events.append((regarding["metadata"]["name"], reason, message))

    def _call(self, verb: str, kind: str, name: str) -> None:
        self.calls.append((verb, kind, name))
        if self.away:
            raise KubeUnavailable("away")
        if (verb, kind) in self.refused:
            raise self.refused[verb, kind]
        waiting = self.before.pop(verb, [])
        for act in waiting:
            assert callable(act)
            act()

    def _check(self, place: tuple[str, str, str], version: str | None) -> Object:
        current = self.objects.get(place)
        if current is None:
            raise Gone("not found")
        if version is not None and current["metadata"]["resourceVersion"] != version:
            raise Conflict("the object has been modified")
        return current

    @staticmethod
    def _place(item: Object) -> tuple[str, str, str]:
        return item["kind"], item["metadata"]["namespace"], item["metadata"]["name"]
