"""What pods say: which of them are ready, what they run, and what blocks the others, in words a person can act on.

Pure functions over objects as the API server has them. Everything is read from status: no events, no logs (the last
words of a container are in its termination message)."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final

from sluice.cluster.containers import PIPELINE
from sluice.cluster.messages import POD_BYTES, said
from sluice.cluster.records import same_version, version_text
from sluice.core.cluster.observation import FleetRecord, ImageSeen, PodTrouble

Object = Mapping[str, Any]

MAX_MESSAGE_LENGTH: Final = 600
REPEATED_CRASHES: Final = 3
"""A container that ended by itself so often will not do better the next time."""
WORST_FIRST: Final = (
    "SourceMoved", "ModelDataFailed", "ImagePull", "ContainerConfig", "CrashLoop", "Refused", "Quota", "Unschedulable",
    "PingFailing", "ImageDrift", "Starting",
)  # fmt: skip
_NEVER_LOADS: Final = frozenset({"SourceMoved", "TooLarge", "BadArchive"})
"""Reasons of the loader that another try does not mend."""
_KILLED: Final = frozenset({137, 143})
"""Exit codes of SIGKILL and SIGTERM: how a container ends whose startup or liveness probe failed."""
_PULLING: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable",
     "SignatureValidationFailed", "ImageInspectError"}
)  # fmt: skip
_CONFIGURING: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})


@dataclass(frozen=True, slots=True)
class FleetPods:
    """The pods of one fleet, counted and judged."""

    ready: int
    existing: int
    terminating: int
    candidate: FleetRecord | None
    strangers: tuple[str, ...]
    troubles: tuple[PodTrouble, ...]
    ready_nodes: tuple[str, ...]


def judge(pods: Iterable[Object], record: FleetRecord | None, deployment: Object) -> FleetPods:
    """Count a fleet's pods and say what blocks those that are not ready. Finished pods do not count as existing. While
    nothing is on record, pods none of which says which model data it took do not count as ready: nobody could hold
    another one to it."""
    template = deployment["spec"]["template"]["spec"]
    existing = [pod for pod in pods if not is_finished(pod)]
    staying = sorted((pod for pod in existing if not is_terminating(pod)), key=_age)
    ready = [pod for pod in staying if is_ready(pod)]
    strangers = [pod for pod in ready if record is not None and differences(pod, record, template)]
    own = [pod for pod in ready if pod not in strangers]
    told = [pod for pod in own if _versions(pod, template) or not template.get("initContainers")]
    mute = own if record is None and not told else []
    own = [] if mute else own
    troubles = [found for pod in staying if not is_ready(pod) for found in (trouble(pod),) if found is not None]
    troubles += [_drift(pod, record, template) for pod in strangers if record is not None]
    troubles += [_untold(pod) for pod in mute]
    refused = refusal(deployment)
    return FleetPods(
        ready=len(own),
        existing=len(existing),
        terminating=len(existing) - len(staying),
        candidate=ran(told[0], template) if told and record is None else None,
        strangers=tuple(_name(pod) for pod in strangers),
        troubles=grouped([*troubles, *([refused] if refused else [])]),
        ready_nodes=tuple(node for pod in own if (node := str(pod["spec"].get("nodeName") or ""))),
    )


# State ----------------------------------------------------------------------------------------------------------------


def is_finished(pod: Object) -> bool:
    """No container of it runs or will run again (an evicted pod stays behind like this)."""
    return (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}


def is_terminating(pod: Object) -> bool:
    """It is being deleted."""
    return bool(pod["metadata"].get("deletionTimestamp"))


def is_ready(pod: Object) -> bool:
    """Its condition Ready is True."""
    return (_condition(pod, "Ready") or {}).get("status") == "True"


def readiness_since(pod: Object) -> datetime | None:
    """Since when it is ready, or since when it is not, to the second."""
    return moment((_condition(pod, "Ready") or {}).get("lastTransitionTime"))


def has_run(pod: Object) -> bool:
    """Whether a container of it runs or has run."""
    status = pod.get("status") or {}
    containers = (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ()))
    return any(one.get("lastState") or (one.get("state") or {}).keys() - {"waiting"} for one in containers)


# What it runs ---------------------------------------------------------------------------------------------------------


def ran(pod: Object, template: Object) -> FleetRecord:
    """What a ready pod runs: the image of each of the Model's containers with the digest that kubelet resolved, and the
    versions of the model data that the loader reported in its termination message. What webhooks put beside them moves
    without the fleet, and so may the operator's own image: only what `template`, the fleet's pod spec, has is asked."""
    return FleetRecord(images=_images(pod, template), versions=_versions(pod, template), at=readiness_since(pod))


def differences(pod: Object, record: FleetRecord, template: Object) -> tuple[str, ...]:
    """What a pod runs otherwise than the record says. What the pod does not tell is no difference, and what the record
    names beyond the Model's containers (older operators did) is not looked at."""
    known = {image.specified: image.resolved for image in record.images}
    found = [
        f"image {image.specified} is {image.resolved}, the fleet runs {known[image.specified]}"
        for image in _images(pod, template)
        if not _same_image(known.get(image.specified, image.resolved), image.resolved)
    ]
    found += [
        f"model data {name} is {version}, the fleet runs {record.versions[name]}"
        for name, version in _versions(pod, template).items()
        if not same_version(record.versions.get(name, version), version)
    ]
    return tuple(found)


def resolved_image(specified: str, image_id: str) -> str:
    """name@sha256:... of what kubelet reports: with a transport in front (`docker-pullable://`), or without a name
    where the image was never pulled from a registry."""
    plain = image_id.rpartition("://")[2]
    if "@" in plain or not plain:
        return plain
    return f"{_without_tag(specified)}@{plain}"


def _same_image(one: str, other: str) -> bool:
    """Whether two resolved images are the same content. A node that has an image from two repositories reports either
    name for both (kubernetes/kubernetes#95385); the digest is what runs."""
    return one.rpartition("@")[2] == other.rpartition("@")[2]


def _images(pod: Object, template: Object) -> tuple[ImageSeen, ...]:
    models = {container["name"] for container in template["containers"]} - {PIPELINE}
    specified = {
        container["name"]: str(container["image"])
        for container in pod["spec"].get("containers") or ()
        if container["name"] in models
    }
    seen = {
        ImageSeen(specified[status["name"]], resolved_image(specified[status["name"]], str(status["imageID"])))
        for status in (pod.get("status") or {}).get("containerStatuses") or ()
        if status["name"] in specified and status.get("imageID")
    }
    return tuple(sorted(seen, key=lambda image: (image.specified, image.resolved)))


def _versions(pod: Object, template: Object) -> dict[str, str]:
    """Source name -> canonical JSON of what the loader said about the object."""
    found: dict[str, str] = {}
    for status in _loaders(pod, template):
        ended = (status.get("state") or {}).get("terminated") or {}
        versions = said(ended).get("versions") if ended.get("exitCode") == 0 else None
        if isinstance(versions, Mapping):
            found |= {str(name): version_text(version) for name, version in versions.items()}
    return found


def _loaders(pod: Object, template: Object) -> list[Object]:
    """What kubelet says of the init containers that are the fleet's own."""
    own = {container["name"] for container in template.get("initContainers") or ()}
    return [one for one in (pod.get("status") or {}).get("initContainerStatuses") or () if one["name"] in own]


def _without_tag(image: str) -> str:
    name = image.partition("@")[0]
    head, slash, last = name.rpartition("/")
    return f"{head}{slash}{last.partition(':')[0]}"


# What blocks it -------------------------------------------------------------------------------------------------------


def trouble(pod: Object) -> PodTrouble | None:
    """What keeps a pod that is not ready from being ready. None: nothing can be said of it yet."""
    unscheduled = _unschedulable(pod)
    if unscheduled is not None:
        return unscheduled
    starters, servers = _statuses(pod)
    for container in starters:
        found = _image_or_config(pod, container) or _loader(container)
        if found is not None:
            return found
    for container in servers:
        found = _image_or_config(pod, container) or _crash(pod, container)
        if found is not None:
            return found
    for container in servers:
        found = _ping(pod, container)
        if found is not None:
            return found
    return _starting(pod)


def refusal(deployment: Object) -> PodTrouble | None:
    """Why the API server does not let a Deployment's pods be created: quota, Pod Security, no such ServiceAccount."""
    condition = _condition(deployment, "ReplicaFailure") or {}
    if condition.get("status") != "True":
        return None
    text = str(condition.get("message") or condition.get("reason") or "")
    reason = "Quota" if "exceeded quota" in text else "Refused"
    why = "the namespace's quota does not allow more pods" if reason == "Quota" else "the API server refuses the pods"
    status, spec = deployment.get("status") or {}, deployment.get("spec") or {}
    missing = int(spec.get("replicas") or 0) - int(status.get("replicas") or 0)
    return PodTrouble(
        reason, _cut(f"{why}: {text}"), pods=max(1, missing), since=moment(condition.get("lastTransitionTime"))
    )


def grouped(troubles: Sequence[PodTrouble]) -> tuple[PodTrouble, ...]:
    """One trouble for each reason, with the number of pods; final ones first, then the worst."""
    found: dict[str, PodTrouble] = {}
    for one in troubles:
        known = found.get(one.reason)
        if known is None:
            found[one.reason] = one
            continue
        speaks = one if one.final and not known.final else known
        since = min((t for t in (known.since, one.since) if t is not None), default=None)
        found[one.reason] = replace(speaks, pods=known.pods + one.pods, since=since)
    return tuple(sorted(found.values(), key=lambda one: (not one.final, _rank(one.reason))))


def _rank(reason: str) -> int:
    return WORST_FIRST.index(reason) if reason in WORST_FIRST else len(WORST_FIRST)


def _unschedulable(pod: Object) -> PodTrouble | None:
    condition = _condition(pod, "PodScheduled") or {}
    if condition.get("status") != "False":
        return None
    # The scheduler goes on with what preemption could not do, which says nothing new.
    said = str(condition.get("message") or condition.get("reason") or "").partition(" preemption:")[0].rstrip(". ")
    text = f"no node takes the pod, which asks for {_asks_for(pod)} on {_pool(pod)}: {said or 'not scheduled yet'}"
    return PodTrouble("Unschedulable", _cut(text), since=moment(condition.get("lastTransitionTime")))


def _asks_for(pod: Object) -> str:
    """The pod's largest requests, as the scheduler adds them: of all containers together."""
    requests: dict[str, list[str]] = {}
    for container in pod["spec"].get("containers") or ():
        resources = container.get("resources") or {}
        for name, amount in {**(resources.get("limits") or {}), **(resources.get("requests") or {})}.items():
            requests.setdefault(str(name), []).append(str(amount))
    return ", ".join(f"{name} {' + '.join(amounts)}" for name, amounts in sorted(requests.items())) or "nothing"


def _pool(pod: Object) -> str:
    selector = pod["spec"].get("nodeSelector") or {}
    wanted = ", ".join(f"{key}={value}" for key, value in sorted(selector.items()))
    return f"nodes with {wanted}" if wanted else "any node"


def _image_or_config(pod: Object, status: Object) -> PodTrouble | None:
    """The container cannot be started: its image does not come, or what it refers to is missing."""
    waiting = (status.get("state") or {}).get("waiting") or {}
    reason, said = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    since = moment(pod["metadata"].get("creationTimestamp"))
    if reason in _PULLING:
        image = _image_of(pod, status["name"])
        text = f"image {image} of container {status['name']} cannot be pulled: {said or reason}"
        return PodTrouble("ImagePull", _cut(text), since=since, final=reason == "InvalidImageName")
    if reason in _CONFIGURING:
        text = f"container {status['name']} cannot be created: {said or reason}"
        return PodTrouble("ContainerConfig", _cut(text), since=since)
    return None


def _loader(status: Object) -> PodTrouble | None:
    """An init container that failed: the loader says why in JSON, another in its last words."""
    ended = _failed_end(status, starter=True)
    if ended is None:
        return None
    told = said(ended)
    since = moment(ended.get("finishedAt"))
    if "error" in told:
        why = str(told.get("reason") or "")
        reason = why if why == "SourceMoved" else "ModelDataFailed"
        return PodTrouble(reason, _cut(str(told["error"])), since=since, final=why in _NEVER_LOADS)
    text = f"init container {status['name']} ended with {_exit(ended)}{_last_words(ended)}"
    repeats = int(status.get("restartCount") or 0) >= REPEATED_CRASHES
    return PodTrouble("ModelDataFailed", _cut(text), since=since, final=repeats)


def _crash(pod: Object, status: Object) -> PodTrouble | None:
    """A container that ends by itself, or is ended for its memory or for not answering."""
    ended = _failed_end(status)
    if ended is None:
        return None
    restarts = int(status.get("restartCount") or 0)
    name, times = status["name"], f", restarted {restarts} times" if restarts else ""
    since = moment(ended.get("finishedAt"))
    stopped = ended.get("exitCode") in _KILLED and ended.get("reason") != "OOMKilled"
    if stopped or _obeyed(pod, status, ended):
        how = "was stopped" if stopped else "ended as one that was stopped"
        text = (
            f"container {name} {how} ({_exit(ended)}{times}), as kubelet does where GET /ping is not answered "
            f"with 200 in time{_last_words(ended)}"
        )
        return PodTrouble("PingFailing", _cut(text), since=since)
    if ended.get("reason") == "OOMKilled":
        text = f"container {name} was killed for using more memory than its limit{_limit(pod, name, 'memory')}{times}"
    else:
        text = f"container {name} ended with {_exit(ended)}{times}"
    return PodTrouble("CrashLoop", _cut(text + _last_words(ended)), since=since, final=restarts >= REPEATED_CRASHES)


def _obeyed(pod: Object, status: Object, ended: Object) -> bool:
    """Whether a container that ended well had run for as long as its start may take: a server that heeds SIGTERM ends
    like this when its startup probe fails, and no server ends well by itself."""
    probe = _spec_of(pod, status["name"]).get("startupProbe") or {}
    began, finished = moment(ended.get("startedAt")), moment(ended.get("finishedAt"))
    if ended.get("exitCode") != 0 or not probe or began is None or finished is None:
        return False
    failures, period = int(probe.get("failureThreshold") or 3), int(probe.get("periodSeconds") or 10)
    return (finished - began).total_seconds() >= (failures - 1) * period


def _ping(pod: Object, status: Object) -> PodTrouble | None:
    """A container that answered GET /ping once and does not any more."""
    running = (status.get("state") or {}).get("running") or {}
    ready = _condition(pod, "Ready") or {}
    began, changed = moment(running.get("startedAt")), moment(ready.get("lastTransitionTime"))
    if status.get("started") and not status.get("ready") and began and changed and changed > began:
        text = f"container {status['name']} runs and does not answer GET /ping with 200 any more"
        return PodTrouble("PingFailing", text, since=changed)
    return None


def _starting(pod: Object) -> PodTrouble:
    """Nothing is wrong yet: what is being waited for."""
    since = moment(pod["metadata"].get("creationTimestamp"))
    starters, servers = _statuses(pod)
    for container in starters:
        running = (container.get("state") or {}).get("running")
        if running is not None:
            text = f"init container {container['name']} is running (it downloads the model data)"
            return PodTrouble("Starting", text, since=moment(running.get("startedAt")) or since)
    for container in servers:
        running = (container.get("state") or {}).get("running")
        if running is not None and not container.get("ready"):
            text = f"container {container['name']} runs and has not answered GET /ping with 200 yet"
            return PodTrouble("Starting", text, since=moment(running.get("startedAt")) or since)
    return PodTrouble("Starting", "its containers are being created", since=since)


def _drift(pod: Object, record: FleetRecord, template: Object) -> PodTrouble:
    text = f"pod {_name(pod)} gets no requests: {'; '.join(differences(pod, record, template))}"
    return PodTrouble("ImageDrift", _cut(text), since=moment(pod["metadata"].get("creationTimestamp")))


def _untold(pod: Object) -> PodTrouble:
    spec = pod["spec"]
    count = len(spec.get("containers") or ()) + len(spec.get("initContainers") or ())
    text = (
        f"pod {_name(pod)} is ready and does not say which model data it took: its loader's termination message "
        f"cannot be read (of {count} containers kubelet keeps {POD_BYTES // max(1, count)} bytes each). Annotation "
        "sluice.dev/redeploy makes the fleet anew"
    )
    return PodTrouble("ModelDataFailed", _cut(text), since=readiness_since(pod), final=True)


def _statuses(pod: Object) -> tuple[list[Object], list[Object]]:
    """The statuses of the containers that run before the others, and of those that serve (sidecars among them)."""
    status = pod.get("status") or {}
    sidecars = {
        spec["name"] for spec in pod["spec"].get("initContainers") or () if spec.get("restartPolicy") == "Always"
    }
    first: list[Object] = list(status.get("initContainerStatuses") or ())
    starters = [one for one in first if one["name"] not in sidecars]
    servers = [one for one in first if one["name"] in sidecars]
    return starters, [*servers, *(status.get("containerStatuses") or ())]


def _failed_end(status: Object, *, starter: bool = False) -> Object | None:
    """How a container ended the last time, unless it has recovered since or has done what it had to do. A `starter`
    runs before the others and has recovered only when it has ended well."""
    state = status.get("state") or {}
    if status.get("ready") or (state.get("running") and status.get("started") and not starter):
        return None
    ended: Object = state.get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    return ended or None


def _exit(ended: Object) -> str:
    code = f"exit code {ended.get('exitCode')}"
    reason = ended.get("reason")
    return f"{code} ({reason})" if reason and reason not in {"Error", "Completed"} else code


def _last_words(ended: Object) -> str:
    words = " ".join(str(ended.get("message") or "").split())
    return f": {words[-400:]}" if words else ""


def _image_of(pod: Object, container: str) -> str:
    return str(_spec_of(pod, container).get("image") or "?")


def _limit(pod: Object, container: str, resource: str) -> str:
    limit = ((_spec_of(pod, container).get("resources") or {}).get("limits") or {}).get(resource)
    return f" ({limit})" if limit else ""


def _spec_of(pod: Object, container: str) -> Object:
    found: Iterator[Object] = (
        spec
        for field in ("initContainers", "containers")
        for spec in pod["spec"].get(field) or ()
        if spec["name"] == container
    )
    return next(found, {})


def _condition(item: Object, type_: str) -> Object | None:
    conditions: Iterable[Object] = (item.get("status") or {}).get("conditions") or ()
    return next((condition for condition in conditions if condition.get("type") == type_), None)


def _name(pod: Object) -> str:
    return str(pod["metadata"]["name"])


def _age(pod: Object) -> tuple[str, str]:
    return str(pod["metadata"].get("creationTimestamp") or ""), _name(pod)


def moment(text: Any) -> datetime | None:
    """A time as the API server writes it."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(re.sub(r"Z$", "+00:00", str(text)))
    except ValueError:
        return None


def _cut(text: str) -> str:
    flat = " ".join(text.encode(errors="replace").decode().split())  # half a character could not be written
    return flat if len(flat) <= MAX_MESSAGE_LENGTH else f"{flat[: MAX_MESSAGE_LENGTH - 3]}..."
