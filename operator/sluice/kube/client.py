"""The one adapter over the official asyncio client: ports.kube.Kube with plain JSON bodies.

The client's typed models are not used: they drop fields that they do not know, so reading and writing back through
them would lose data. What is used are its configuration, its token refresh, its TLS and its connection pool."""

import asyncio
import hashlib
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode, urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.aio.client.rest import RESTResponse

from sluice.kube.configuration import Login, login
from sluice.kube.fenced import Rest, checked
from sluice.kube.resources import RESOURCES, Resource
from sluice.ports.kube import (
    Conflict,
    Forbidden,
    Gone,
    HeldByBudget,
    KubeUnavailable,
    Listing,
    NotHeld,
    Object,
    Rejected,
    WatchEvent,
)
from sluice.ports.telemetry import NoTelemetry, Telemetry

logger = logging.getLogger(__name__)

CALL_TIMEOUT_SECONDS = 15.0
WATCH_SECONDS = 30
CHUNK_SIZE = 500
EVENT_SOURCE = "sluice"
JSON = "application/json"
METADATA_ONLY = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
YAML = "application/yaml"
_METHODS = {
    "create": "POST", "evict": "POST", "update": "PUT", "update_status": "PUT", "patch": "PATCH", "scale": "PATCH",
    "delete": "DELETE",
}  # fmt: skip
_CONTENT_TYPES = {"patch": MERGE_PATCH, "scale": JSON_PATCH}
# A ControllerRevision's data may never change, and the API server compares bytes: JSON with spaces, as the client
# library writes it, counts as changed once a patch of the metadata has normalised it. What is sent as YAML is
# normalised when it is created.
_CREATED_AS = {"ControllerRevision": YAML}
_WITHOUT_LEASE = ("Lease", "Event")
"""What is written without it: itself, and what happened while it was held."""


class KubeClient:
    """ports.kube.Kube. Calls are bounded in number and in time; calls on Leases are never held up by others."""

    def __init__(
        self,
        configuration: Configuration,
        *,
        identity: str,
        telemetry: Telemetry | None = None,
        concurrency: int = 32,
        call_timeout_seconds: float = CALL_TIMEOUT_SECONDS,
    ) -> None:
        configuration.connection_pool_maxsize = concurrency + 4
        configuration.retries = None
        # Else aiohttp looks for a proxy, and for ~/.netrc, before each call anew, each time on a thread.
        configuration.client_session_kwargs = {"trust_env": False}
        configuration.proxy = configuration.proxy or proxy_to(configuration.host)
        self._api = ApiClient(configuration)
        self._api.rest_client = Rest(configuration)
        self._api.user_agent = "sluice-operator"
        self._identity = identity
        self._telemetry = telemetry or NoTelemetry()
        self._slots = asyncio.Semaphore(concurrency)
        self._timeout = aiohttp.ClientTimeout(total=call_timeout_seconds)
        self._held: Callable[[], bool] = lambda: True

    def write_only_while(self, held: Callable[[], bool]) -> None:
        """From now on writes raise NotHeld where this says no. It is asked last of all before a request goes out, when
        that has its connection: what a write had to wait for may be as long as another process needs to take over."""
        self._held = held

    async def login(self) -> Login:
        """The credentials of these calls, for whoever makes others."""
        return await login(self._api.configuration)

    async def close(self) -> None:
        """Close the connections."""
        await self._api.close()  # type: ignore[no-untyped-call] # the library is typed in parts

    async def get(self, kind: str, namespace: str, name: str) -> Object | None:
        """A live read; None if it does not exist."""
        resource = RESOURCES[kind]
        try:
            return await self._call("get", resource, resource.path(namespace, name))
        except Gone:
            return None

    async def list(self, kind: str, namespace: str | None = None, label_selector: str = "") -> AsyncIterator[Object]:
        """A chunked listing. A listing that expired between two chunks raises KubeUnavailable: start again."""
        async for item in self._list(RESOURCES[kind], namespace, label_selector, JSON):
            yield item

    async def list_metadata(
        self, kind: str, namespace: str | None = None, label_selector: str = ""
    ) -> AsyncIterator[Object]:
        """As `list`, but only each object's metadata."""
        async for item in self._list(RESOURCES[kind], namespace, label_selector, METADATA_ONLY):
            yield item

    async def list_at(self, kind: str, namespace: str | None = None, label_selector: str = "") -> Listing:
        """A listing and where to watch on from. Raises Gone if the kind is not served."""
        items: list[Object] = []
        version = ""
        async for page in self._pages(RESOURCES[kind], namespace, label_selector, JSON):
            items += page["items"] or ()
            version = page["metadata"]["resourceVersion"]
        return Listing(tuple(items), version)

    async def watch(
        self, kind: str, namespace: str | None, label_selector: str, resource_version: str
    ) -> AsyncIterator[WatchEvent]:
        """What changes from there on, until the API server ends the watch after a minute or less. Raises Gone if that
        is too old: list again."""
        resource = RESOURCES[kind]
        seconds = random.randint(WATCH_SECONDS, 2 * WATCH_SECONDS)  # noqa: S311 - spreads load, guards nothing
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": resource_version,
            "timeoutSeconds": str(seconds),
        }
        if label_selector:
            query["labelSelector"] = label_selector
        path = resource.path(namespace)
        # A connection that died without a word is noticed a little after the API server would have ended the watch.
        timeout = aiohttp.ClientTimeout(
            total=seconds + CALL_TIMEOUT_SECONDS, sock_connect=CALL_TIMEOUT_SECONDS, ceil_threshold=1
        )
        started, code = time.monotonic(), "error"
        try:
            response = await self._open("GET", path + "?" + urlencode(query), JSON, JSON, None, timeout)
            stream: aiohttp.ClientResponse = response.response
            try:
                code = str(stream.status)
                if stream.status != 200:
                    data = await stream.read()
                    raise _failure(stream.status, f"watch {path}: {stream.status} {_message(data)}", listing=False)
                async for line in stream.content:
                    event = json.loads(line)
                    if event["type"] == "ERROR":
                        raise _failure(int(event["object"]["code"]), f"watch {path}: {_message(line)}", listing=False)
                    yield WatchEvent(event["type"], event["object"])
            finally:
                stream.close()
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise KubeUnavailable(f"watch {path}: {type(error).__name__}: {error}") from error
        finally:
            self._telemetry.kube_call("watch", resource.kind, code, time.monotonic() - started)

    async def create(self, kind: str, namespace: str, body: Object) -> Object:
        """Create. Raises Conflict if it exists."""
        resource = RESOURCES[kind]
        return await self._call("create", resource, resource.path(namespace), body=body)

    async def replace(self, kind: str, namespace: str, body: Object) -> Object:
        """Replace with the body's resourceVersion as precondition. Raises Conflict, Gone."""
        resource = RESOURCES[kind]
        return await self._call("update", resource, resource.path(namespace, body["metadata"]["name"]), body=body)

    async def replace_status(self, kind: str, namespace: str, body: Object) -> Object:
        """Write the status subresource with the body's resourceVersion as precondition. Raises Conflict, Gone."""
        resource = RESOURCES[kind]
        path = resource.path(namespace, body["metadata"]["name"], "status")
        return await self._call("update_status", resource, path, body=body)

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
        """Merge-patch metadata; finalizers replaces the list. Raises Conflict, Gone."""
        resource = RESOURCES[kind]
        metadata: dict[str, Any] = {}
        if resource_version is not None:
            metadata["resourceVersion"] = resource_version
        if finalizers is not None:
            metadata["finalizers"] = [*finalizers]
        if annotations:
            metadata["annotations"] = dict(annotations)
        return await self._call("patch", resource, resource.path(namespace, name), body={"metadata": metadata})

    async def delete(self, kind: str, namespace: str, name: str, *, uid: str | None = None) -> None:
        """Delete, dependants in the background; a missing object is fine. Raises Conflict if it has another uid."""
        resource = RESOURCES[kind]
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            options["preconditions"] = {"uid": uid}
        try:
            await self._call("delete", resource, resource.path(namespace, name), body=options)
        except Gone:
            return

    async def scale(self, kind: str, namespace: str, name: str, replicas: int, *, uid: str) -> None:
        """Write replicas through the scale subresource: nothing else of the object can change. Raises Conflict if it
        has another uid; Gone."""
        resource = RESOURCES[kind]
        patch: list[Object] = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/spec/replicas", "value": replicas},
        ]
        try:
            await self._call("scale", resource, resource.path(namespace, name, "scale"), body=patch)
        except Rejected:
            # The API server does not say which line of a patch it refuses, nor that it was a test.
            found = await self.get(kind, namespace, name)
            if found is None:
                raise Gone(f"{kind} {namespace}/{name} went meanwhile") from None
            if found["metadata"]["uid"] != uid:
                text = f"{kind} {namespace}/{name} has uid {found['metadata']['uid']}, and had {uid} when observed"
                raise Conflict(text) from None
            raise

    async def evict(self, namespace: str, pod: str, *, uid: str, grace_seconds: int) -> None:
        """Evict a pod, which has so long to end; a missing one is fine. Raises Conflict if it has another uid,
        HeldByBudget."""
        resource = RESOURCES["Pod"]
        body: Object = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
            "deleteOptions": {"preconditions": {"uid": uid}, "gracePeriodSeconds": grace_seconds},
        }
        try:
            await self._call("evict", resource, resource.path(namespace, pod, "eviction"), body=body)
        except Gone:
            return

    async def event(self, regarding: Object, *, type_: str, reason: str, message: str) -> None:
        """Record an Event about one state of an object. The name holds what it says about which state, so that a
        pass that is repeated after a crash does not say it twice."""
        metadata = regarding["metadata"]
        said = json.dumps([metadata.get("uid"), metadata.get("resourceVersion"), type_, reason, message])
        digest = hashlib.sha256(said.encode()).hexdigest()[:16]
        body: Object = {
            "apiVersion": RESOURCES["Event"].api_version,
            "kind": "Event",
            # Cut where a name may end: what stands before a dot must be a letter or a digit.
            "metadata": {"name": f"{metadata['name'][:230].rstrip('-.')}.{digest}", "namespace": metadata["namespace"]},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": EVENT_SOURCE,
            "reportingInstance": self._identity[:128],
            "action": "Reconcile",
            "type": type_,
            "reason": reason[:128],
            "note": message,
            "regarding": {
                "apiVersion": regarding["apiVersion"],
                "kind": regarding["kind"],
                "namespace": metadata["namespace"],
                "name": metadata["name"],
                "uid": metadata.get("uid"),
                "resourceVersion": metadata.get("resourceVersion"),
            },
        }
        try:
            await self.create("Event", metadata["namespace"], body)
        except Conflict:
            return
        except (KubeUnavailable, Forbidden, Gone, Rejected) as error:
            logger.warning(
                "event %s of %s/%s was not recorded: %s", reason, metadata["namespace"], metadata["name"], error
            )

    async def _list(
        self, resource: Resource, namespace: str | None, label_selector: str, accept: str
    ) -> AsyncIterator[Object]:
        async for page in self._pages(resource, namespace, label_selector, accept):
            for item in page["items"] or ():  # null for an empty list of metadata
                # Items of built-in kinds do not carry these two.
                item["apiVersion"], item["kind"] = resource.api_version, resource.kind
                yield item

    async def _pages(
        self, resource: Resource, namespace: str | None, label_selector: str, accept: str
    ) -> AsyncIterator[Object]:
        query = {"limit": str(CHUNK_SIZE)}
        if label_selector:
            query["labelSelector"] = label_selector
        while True:
            page = await self._call("list", resource, resource.path(namespace), query=query, accept=accept)
            yield page
            token = page["metadata"].get("continue")
            if not token:
                return
            query["continue"] = token

    def _slot(self, resource: Resource) -> AbstractAsyncContextManager[None]:
        return nullcontext() if resource.kind == "Lease" else self._slots

    async def _call(
        self,
        verb: str,
        resource: Resource,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Object | Sequence[Object] | None = None,
        accept: str = JSON,
    ) -> Object:
        method = _METHODS.get(verb, "GET")
        fenced = verb in _METHODS and resource.kind not in _WITHOUT_LEASE
        url = path + ("?" + urlencode(query) if query else "")
        async with self._slot(resource):
            started = time.monotonic()
            code = "error"
            try:
                content_type = _CONTENT_TYPES.get(verb, JSON)
                if verb == "create":
                    content_type = _CREATED_AS.get(resource.kind, JSON)
                status, data = await self._request(method, url, content_type, accept, body, fenced=fenced)
                code = str(status)
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise KubeUnavailable(f"{verb} {path}: {type(error).__name__}: {error}") from error
            finally:
                self._telemetry.kube_call(verb, resource.kind, code, time.monotonic() - started)
        if 200 <= status < 300:
            try:
                answer: Object = json.loads(data)
            except ValueError as error:
                raise KubeUnavailable(
                    f"{verb} {path}: {status} without JSON; is a proxy in between? {error}"
                ) from error
            return answer
        message = f"{verb} {path}: {status} {_message(data)}"
        if status == 429 and _is_budget(data):
            raise HeldByBudget(message)
        if status == 404 and not _is_an_api_servers(data):
            raise KubeUnavailable(f"{message}; is a proxy in between?")
        raise _failure(status, message, listing=verb == "list")

    async def _request(
        self,
        method: str,
        url: str,
        content_type: str,
        accept: str,
        body: Object | Sequence[Object] | None,
        *,
        fenced: bool,
    ) -> tuple[int, bytes]:
        response = await self._open(method, url, content_type, accept, body, self._timeout, fenced=fenced)
        return int(response.status), await response.read()  # type: ignore[no-untyped-call] # as above

    async def _open(
        self,
        method: str,
        url: str,
        content_type: str,
        accept: str,
        body: Object | Sequence[Object] | None,
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's own
        *,
        fenced: bool = False,
    ) -> RESTResponse:
        """The answer's head; its body is still to be read."""
        _, address, headers, _, _ = await self._api.param_serialize(
            method,
            url,
            header_params={"Accept": accept, "Content-Type": content_type},
            auth_settings=["BearerToken"],
        )
        sent = json.dumps(body, ensure_ascii=False).encode() if content_type == YAML else body

        def check() -> None:
            if fenced and not self._held():
                raise NotHeld(f"the lease is not held: {method} {url} was not sent")

        check()  # before a connection is made for it in vain
        with checked(check):
            return await self._api.call_api(method, address, headers, sent, _request_timeout=timeout)


def proxy_to(address: str) -> str | None:
    """The proxy on the way to this address, by the environment of the process (HTTPS_PROXY, NO_PROXY)."""
    parts = urlsplit(address)
    if not parts.hostname or proxy_bypass(parts.hostname):
        return None
    return getproxies().get(parts.scheme)


def _failure(status: int, message: str, *, listing: bool) -> Exception:
    """The port's word for an HTTP status. 401 is an outage: the token is read again before the next call."""
    if status == 404:
        return Gone(message)
    if status == 409:
        return Conflict(message)
    if status == 403:
        return Forbidden(message)
    if status in (401, 408, 429) or status >= 500 or (status == 410 and listing):
        return KubeUnavailable(message)
    if status == 410:
        return Gone(message)
    return Rejected(message)


def _is_an_api_servers(data: bytes) -> bool:
    """Whether a 404 is an API server's, of an object (a Status) or of a kind that it does not serve. What something on
    the way says must not pass for the end of an object: it would be forgotten."""
    try:
        return bool(json.loads(data)["kind"] == "Status")
    except (ValueError, KeyError, TypeError):
        return data.strip() == b"404 page not found"


def _is_budget(data: bytes) -> bool:
    """Whether a 429 is a PodDisruptionBudget's: an API server that is too busy answers with the same status."""
    try:
        causes = json.loads(data)["details"]["causes"]
        return any(cause.get("reason") == "DisruptionBudget" for cause in causes)
    except (ValueError, KeyError, TypeError):
        return False


def _message(data: bytes) -> str:
    """The message of a Status object, or what else the server (or a proxy on the way) said."""
    try:
        return str(json.loads(data)["message"])
    except (ValueError, KeyError, TypeError):
        return data[:200].decode(errors="replace")
