"""What pods say, as a table: the status that kubelet writes -> what a person reads."""

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from sluice.cluster import pods, records
from sluice.core.cluster.observation import FleetRecord, ImageSeen, PodTrouble
from sluice.core.identity import Owner

Object = dict[str, Any]
IMAGE = "registry.example/churn:1"
DIGEST = "registry.example/churn@sha256:" + "a" * 64
OTHER = "registry.example/churn@sha256:" + "b" * 64
BORN = "2026-01-01T00:00:00Z"
READY = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:02:00Z"}


def container(name: str = "model", *, ready: bool = False, **status: Any) -> Object:
    return {"name": name, "image": IMAGE, "ready": ready, "restartCount": 0, "imageID": DIGEST, **status}


def running(at: str = "2026-01-01T00:01:00Z") -> Object:
    return {"running": {"startedAt": at}}


def ended(code: int, message: str = "", reason: str = "Error") -> Object:
    return {
        "terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": "2026-01-01T00:05:00Z"}
    }


def waiting(reason: str, message: str = "") -> Object:
    return {"waiting": {"reason": reason, "message": message}}


def pod(name: str = "churn-1", **status: Any) -> Object:
    spec = status.pop("spec", {})
    metadata = status.pop("metadata", {})
    return {
        "metadata": {"name": name, "namespace": "team", "creationTimestamp": BORN, **metadata},
        "spec": {"containers": [{"name": "model", "image": IMAGE}], "nodeName": "node-1", **spec},
        "status": {"phase": "Running", **status},
    }


def ready_pod(name: str, digest: str = DIGEST, versions: Object | None = None, **metadata: Any) -> Object:
    loader = [container("loader", ready=True, state=ended(0, json.dumps({"versions": versions}), "Completed"))]
    return pod(
        name,
        metadata=metadata,
        conditions=[READY],
        containerStatuses=[container(ready=True, started=True, state=running(), imageID=digest)],
        initContainerStatuses=loader if versions else [],
    )


TEMPLATE: Object = {"containers": [{"name": "model", "image": IMAGE}]}
LOADED: Object = {**TEMPLATE, "initContainers": [{"name": "loader", "image": "sluice:1"}]}


def deployment(template: Object = TEMPLATE, **status: Any) -> Object:
    spec = {"replicas": 3, "template": {"spec": template}}
    return {"metadata": {"name": "churn"}, "spec": spec, "status": status}


@dataclass(frozen=True)
class Case:
    name: str
    pod: Object
    reason: str
    says: tuple[str, ...]
    final: bool = False
    never_says: tuple[str, ...] = field(default=())


LOADER = {"initContainers": [{"name": "loader", "image": "sluice:1"}]}

CASES = [
    Case(
        "unschedulable, with a pool",
        pod(
            phase="Pending",
            spec={
                "nodeSelector": {"pool": "gpu"},
                "containers": [
                    {
                        "name": "model",
                        "image": IMAGE,
                        "resources": {"requests": {"cpu": "4", "memory": "16Gi"}, "limits": {"nvidia.com/gpu": "1"}},
                    }
                ],
            },
            conditions=[
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "0/3 nodes are available: 3 Insufficient nvidia.com/gpu. preemption: 0/3 nodes are "
                    "available: 3 No preemption victims found for incoming pod.",
                    "lastTransitionTime": BORN,
                }
            ],
        ),
        "Unschedulable",
        ("cpu 4, memory 16Gi, nvidia.com/gpu 1", "nodes with pool=gpu", "3 Insufficient nvidia.com/gpu"),
        never_says=("preemption",),
    ),
    Case(
        "unschedulable, anywhere",
        pod(conditions=[{"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}]),
        "Unschedulable",
        ("nothing on any node", "SchedulingGated"),
    ),
    Case(
        "the registry refuses",
        pod(
            containerStatuses=[container(state=waiting("ImagePullBackOff", "pull access denied, repository not found"))]
        ),
        "ImagePull",
        (IMAGE, "pull access denied"),
    ),
    Case(
        "no image could have that name",
        pod(containerStatuses=[container(state=waiting("InvalidImageName", "couldn't parse image name"))]),
        "ImagePull",
        ("couldn't parse image name",),
        final=True,
    ),
    Case(
        "the loader's image does not come",
        pod(spec=LOADER, initContainerStatuses=[container("loader", state=waiting("ErrImagePull", "not found"))]),
        "ImagePull",
        ("image sluice:1 of container loader", "not found"),
    ),
    Case(
        "a Secret is missing",
        pod(containerStatuses=[container(state=waiting("CreateContainerConfigError", 'secret "token" not found'))]),
        "ContainerConfig",
        ('secret "token" not found',),
    ),
    Case(
        "crash loop, with last words",
        pod(
            containerStatuses=[
                container(
                    state=waiting("CrashLoopBackOff", "back-off 40s"),
                    lastState=ended(1, "Traceback ...\nModuleNotFoundError: torch"),
                    restartCount=4,
                )
            ]
        ),
        "CrashLoop",
        ("exit code 1", "restarted 4 times", "ModuleNotFoundError: torch"),
        final=True,
    ),
    Case(
        "crashed for the first time",
        pod(containerStatuses=[container(state=ended(3, "no model"))]),
        "CrashLoop",
        ("exit code 3", "no model"),
    ),
    Case(
        "crashed and is being tried again",
        pod(containerStatuses=[container(state=running(), started=False, lastState=ended(3), restartCount=1)]),
        "CrashLoop",
        ("exit code 3", "restarted 1 times"),
    ),
    Case(
        "the server ends although all is well",
        pod(containerStatuses=[container(state=ended(0, reason="Completed"))]),
        "CrashLoop",
        ("exit code 0",),
    ),
    Case(
        "out of memory",
        pod(
            spec={"containers": [{"name": "model", "image": IMAGE, "resources": {"limits": {"memory": "2Gi"}}}]},
            containerStatuses=[
                container(state=waiting("CrashLoopBackOff"), lastState=ended(137, reason="OOMKilled"), restartCount=2)
            ],
        ),
        "CrashLoop",
        ("more memory than its limit (2Gi)", "restarted 2 times"),
    ),
    Case(
        "the loader was refused",
        pod(
            spec=LOADER,
            initContainerStatuses=[
                container(
                    "loader",
                    state=waiting("CrashLoopBackOff"),
                    lastState=ended(
                        1,
                        '{"reason": "ModelDataFailed", "error": "failed to download model data from s3://models/churn/'
                        'model.tar.gz: AccessDenied"}',
                    ),
                    restartCount=5,
                )
            ],
        ),
        "ModelDataFailed",
        ("failed to download model data from s3://models/churn/model.tar.gz: AccessDenied",),
    ),
    Case(
        "the loader tries again",
        pod(
            spec=LOADER,
            initContainerStatuses=[
                container(
                    "loader", state=running(), started=True, lastState=ended(1, '{"error": "away"}'), restartCount=1
                )
            ],
        ),
        "ModelDataFailed",
        ("away",),
    ),
    Case(
        "the object has changed",
        pod(
            spec=LOADER,
            initContainerStatuses=[container("loader", state=ended(1, '{"reason": "SourceMoved", "error": "ETag b"}'))],
        ),
        "SourceMoved",
        ("ETag b",),
        final=True,
    ),
    Case(
        "a hostile archive",
        pod(
            spec=LOADER,
            initContainerStatuses=[container("loader", state=ended(1, '{"reason": "BadArchive", "error": "../x"}'))],
        ),
        "ModelDataFailed",
        ("../x",),
        final=True,
    ),
    Case(
        "the loader itself broke",
        pod(spec=LOADER, initContainerStatuses=[container("loader", state=ended(2, "Traceback: bug"))]),
        "ModelDataFailed",
        ("init container loader ended with exit code 2", "Traceback: bug"),
    ),
    Case(
        "an init container of somebody else's ends with brackets in brackets",
        pod(spec=LOADER, initContainerStatuses=[container("loader", state=ended(2, "[" * 4096))]),
        "ModelDataFailed",
        ("init container loader ended with exit code 2",),
    ),
    Case(
        "the loader is at work",
        pod(spec=LOADER, initContainerStatuses=[container("loader", state=running())]),
        "Starting",
        ("downloads the model data",),
    ),
    Case(
        "no answer yet",
        pod(containerStatuses=[container(state=running(), started=False)], conditions=[{**READY, "status": "False"}]),
        "Starting",
        ("has not answered GET /ping with 200 yet",),
    ),
    Case(
        "restarted because /ping was not answered",
        pod(
            containerStatuses=[container(state=running(), started=False, lastState=ended(137), restartCount=2)],
        ),
        "PingFailing",
        ("exit code 137", "GET /ping", "restarted 2 times"),
    ),
    *(
        Case(
            f"ended well after {began} to 00:05:00",
            pod(
                spec={"containers": [{"name": "model", "startupProbe": {"periodSeconds": 5, "failureThreshold": 12}}]},
                containerStatuses=[
                    container(
                        state=running(),
                        started=False,
                        restartCount=1,
                        lastState={"terminated": ended(0)["terminated"] | {"startedAt": f"2026-01-01T{began}Z"}},
                    )
                ],
            ),
            reason,
            (says, "exit code 0"),
        )
        for began, reason, says in (
            ("00:04:00", "PingFailing", "ended as one that was stopped"),
            ("00:04:10", "CrashLoop", "ended with"),
        )
    ),
    Case(
        "answers no more",
        pod(
            conditions=[{**READY, "status": "False", "lastTransitionTime": "2026-01-01T00:09:00Z"}],
            containerStatuses=[container(state=running(), started=True)],
        ),
        "PingFailing",
        ("does not answer GET /ping with 200 any more",),
    ),
    Case("nothing is known", pod(phase="Pending"), "Starting", ("being created",)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_blocks_a_pod(case: Case) -> None:
    found = pods.trouble(case.pod)
    assert found is not None
    assert (found.reason, found.final) == (case.reason, case.final), found.message
    for words in case.says:
        assert words in found.message
    for words in case.never_says:
        assert words not in found.message
    assert found.reason in pods.WORST_FIRST


REFUSALS = [
    (
        'pods "churn-7d" is forbidden: exceeded quota: gpus, requested: requests.nvidia.com/gpu=1, used: 4, limited: 4',
        "Quota",
    ),
    ('pods "churn-7d" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true', "Refused"),
    (
        'pods "churn-" is forbidden: error looking up service account team/churn: serviceaccount "churn" not found',
        "Refused",
    ),
]


@pytest.mark.parametrize(("message", "reason"), REFUSALS)
def test_what_keeps_pods_from_being_created(message: str, reason: str) -> None:
    condition = {"type": "ReplicaFailure", "status": "True", "reason": "FailedCreate", "message": message}
    found = pods.judge([], None, deployment(conditions=[condition], replicas=1)).troubles
    assert [(one.reason, one.pods) for one in found] == [(reason, 2)]
    assert message in found[0].message
    mended = deployment(conditions=[{**condition, "status": "False"}])
    assert pods.judge([], None, mended).troubles == ()


def test_pods_are_counted_as_documented() -> None:
    gone = {"deletionTimestamp": "2026-01-01T01:00:00Z"}
    found = pods.judge(
        [
            ready_pod("a"),
            ready_pod("b"),
            ready_pod("leaving", **gone),
            pod("starting", containerStatuses=[container(state=running())]),
            pod("evicted", phase="Failed"),
            pod("done", phase="Succeeded"),
        ],
        None,
        deployment(),
    )
    assert (found.ready, found.existing, found.terminating) == (2, 4, 1)
    assert [one.reason for one in found.troubles] == ["Starting"]


def test_the_worst_speaks_first_and_for_all_alike() -> None:
    crash = {"state": waiting("CrashLoopBackOff"), "lastState": ended(1)}
    found = pods.judge(
        [
            pod("a", containerStatuses=[container(state=running())]),
            pod("b", containerStatuses=[container(**{**crash, "restartCount": 1})]),
            pod("c", containerStatuses=[container(**{**crash, "restartCount": 9})]),
            pod("d", containerStatuses=[container(state=waiting("ErrImagePull", "denied"))]),
        ],
        None,
        deployment(),
    ).troubles
    assert [(one.reason, one.pods, one.final) for one in found] == [
        ("CrashLoop", 2, True),
        ("ImagePull", 1, False),
        ("Starting", 1, False),
    ]
    assert "restarted 9 times" in found[0].message


def test_a_message_is_never_longer_than_a_condition_bears() -> None:
    found = pods.trouble(pod(containerStatuses=[container(state=ended(1, "x" * 4000))]))
    assert isinstance(found, PodTrouble)
    assert len(found.message) <= pods.MAX_MESSAGE_LENGTH


VERSION = {"eTag": "e1", "lastModified": "2026-01-01", "size": 3}


def test_the_oldest_ready_pod_is_the_candidate() -> None:
    younger = ready_pod("a", OTHER, creationTimestamp="2026-01-02T00:00:00Z")
    found = pods.judge([younger, ready_pod("b", versions={"model": VERSION})], None, deployment(LOADED))
    assert found.candidate is not None
    assert found.candidate.images == (ImageSeen(IMAGE, DIGEST),)
    assert {name: json.loads(text) for name, text in found.candidate.versions.items()} == {"model": VERSION}
    assert found.candidate.at == datetime(2026, 1, 1, 0, 2, tzinfo=UTC)
    assert found.strangers == ()
    assert pods.judge([younger], found.candidate, deployment(LOADED)).candidate is None, (
        "only while nothing is recorded"
    )


def test_a_pod_that_runs_something_else_is_a_stranger() -> None:
    record = pods.ran(ready_pod("first", versions={"model": VERSION}), LOADED)
    found = pods.judge(
        [
            ready_pod("same", versions={"model": VERSION}),
            ready_pod("same-bytes", versions={"model": {**VERSION, "lastModified": "2026-02-02"}}),
            ready_pod("untold"),
            ready_pod("image", OTHER, versions={"model": VERSION}),
            ready_pod("data", versions={"model": {**VERSION, "eTag": "e2"}}),
        ],
        record,
        deployment(LOADED),
    )
    assert found.strangers == ("data", "image")
    assert found.ready == 3
    assert [(one.reason, one.pods) for one in found.troubles] == [("ImageDrift", 2)]


def injected(name: str, tag_of_day: str) -> Object:
    """A ready pod into which a webhook put a container whose tag stands for another image each day."""
    agent = f"registry.example/agent@sha256:{tag_of_day * 64}"
    found = ready_pod(name)
    found["spec"]["containers"].append({"name": "agent", "image": "registry.example/agent:7"})
    found["status"]["containerStatuses"].append(
        {**container("agent", ready=True, imageID=agent), "image": "registry.example/agent:7"}
    )
    return found


def test_what_a_webhook_puts_beside_the_model_is_none_of_its_fleet() -> None:
    """Its tag moves when it likes: each pod that came then was out of service, until none was left."""
    found = pods.judge([injected("monday", "1")], None, deployment())
    assert found.candidate is not None
    assert found.candidate.images == (ImageSeen(IMAGE, DIGEST),)
    # As older operators recorded it.
    agent = ImageSeen("registry.example/agent:7", "registry.example/agent@sha256:" + "1" * 64)
    for record in (found.candidate, FleetRecord(images=(agent, *found.candidate.images))):
        later = pods.judge([injected("monday", "1"), injected("tuesday", "2")], record, deployment())
        assert (later.ready, later.strangers, later.troubles) == (2, (), ())


def test_what_calls_the_containers_is_the_operators_as_the_loader_is() -> None:
    """An operator's image that was pushed anew under its tag is no other model."""
    pipeline = {"name": "pipeline", "image": "sluice:1"}
    serial = deployment({"containers": [*TEMPLATE["containers"], pipeline]})

    def found_with(digest: str) -> Object:
        found = ready_pod(digest)
        found["spec"]["containers"].append(pipeline)
        status = container("pipeline", ready=True, imageID=f"sluice@sha256:{digest * 64}")
        found["status"]["containerStatuses"].append({**status, "image": "sluice:1"})
        return found

    candidate = pods.judge([found_with("1")], None, serial).candidate
    assert candidate is not None
    assert candidate.images == (ImageSeen(IMAGE, DIGEST),)
    with_it = FleetRecord(images=(*candidate.images, ImageSeen("sluice:1", "sluice@sha256:" + "1" * 64)))
    assert pods.judge([found_with("2")], with_it, serial).strangers == ()


def test_an_image_that_a_node_has_by_another_name_is_the_same() -> None:
    """A node that has it from a mirror too reports that name: the pod ran what the others ran, and got no requests."""
    mirrored = DIGEST.replace("registry.example", "mirror.example")
    for first, second in ((DIGEST, mirrored), (mirrored, "docker-pullable://" + DIGEST)):
        record = pods.ran(ready_pod("first", first), TEMPLATE)
        found = pods.judge([ready_pod("first", first), ready_pod("second", second)], record, deployment())
        assert (found.ready, found.strangers) == (2, ())
        assert pods.differences(ready_pod("other", OTHER), record, TEMPLATE)


def test_what_is_recorded_is_read_back() -> None:
    record = pods.ran(ready_pod("first", versions={"model": VERSION, "additional/x": {"digest": "sha256:1"}}), LOADED)
    item = records.config_map(Owner("prod", "team", "churn"), "churn-a-1", record)
    assert item["immutable"] is True
    assert records.read(item) == record
    told = json.loads(item["data"][records.RECORD_KEY])
    assert json.loads(told["model"]) == VERSION, "as the loader reads it: source -> JSON of the version"


DEEP = "[" * 100_000
"""Anybody who may write ConfigMaps of the namespace may write this."""


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        {"images.json": "x", "versions.json": "{}"},
        {"versions.json": "[]"},
        pytest.param({"images.json": "[]", "versions.json": DEEP}, id="deep versions"),
        pytest.param({"images.json": DEEP, "versions.json": "{}"}, id="deep images"),
    ],
)
def test_a_record_that_is_none_is_none(data: Any) -> None:
    assert records.read({"data": data}) is None


def test_a_version_that_cannot_be_read_is_another_one() -> None:
    assert not records.same_version(DEEP, '{"eTag":"a"}')
    assert records.same_version(DEEP, DEEP)


@pytest.mark.parametrize(
    ("image_id", "expected"),
    [
        (DIGEST, DIGEST),
        ("docker-pullable://" + DIGEST, DIGEST),
        ("sha256:" + "c" * 64, "localhost:5000/team/churn@sha256:" + "c" * 64),
        ("", ""),
    ],
)
def test_digests_are_named_whatever_the_runtime_writes(image_id: str, expected: str) -> None:
    assert pods.resolved_image("localhost:5000/team/churn:1.2", image_id) == expected


def test_a_record_names_only_what_the_pod_shows() -> None:
    bare = pod(conditions=[READY], containerStatuses=[container(ready=True, imageID="")])
    assert pods.ran(bare, TEMPLATE) == FleetRecord(images=(), versions={}, at=datetime(2026, 1, 1, 0, 2, tzinfo=UTC))


@pytest.mark.parametrize(
    ("status", "has_run"),
    [
        ({"phase": "Pending"}, False),
        ({}, False),
        ({"containerStatuses": [{"state": {"waiting": {"reason": "ImagePullBackOff"}}, "lastState": {}}]}, False),
        ({"containerStatuses": [{"state": {}}]}, False),
        ({"containerStatuses": [{"state": {"running": {}}}]}, True),
        ({"containerStatuses": [{"state": {"terminated": {"exitCode": 1}}}]}, True),
        ({"containerStatuses": [{"state": {"waiting": {}}, "lastState": {"terminated": {"exitCode": 1}}}]}, True),
        ({"initContainerStatuses": [{"state": {"running": {}}}], "containerStatuses": [{"state": {}}]}, True),
    ],
)
def test_whether_a_pod_has_ever_run(status: dict[str, Any], has_run: bool) -> None:
    assert pods.has_run({"status": status}) is has_run
