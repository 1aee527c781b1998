"""What the loader says in its termination message, as much of it as kubelet lets through, and what the operator reads.

Kubelet keeps the last 4096 bytes of a container's message and of these the first 12288 / (containers and init
containers of the pod): 722 in a pipeline of fifteen."""

import json
from typing import Any

import pytest
from tests.cluster_manifests.golden import DEFAULTS, TYPES, a_fleet

from sluice.cluster import fleet as manifests
from sluice.cluster import pods, records
from sluice.cluster.template import Fleet
from sluice.core.cluster.observation import FleetRecord
from sluice.core.identity import Owner
from sluice.loader import message
from sluice.loader.failure import LoadFailed
from sluice.loader.load import Loaded
from sluice.loader.version import Version, read_record, version_of_all

Object = dict[str, Any]
POD_BYTES = 12288
CONTAINER_BYTES = 4096
READY = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:02:00Z"}


def prefix(name: str) -> Object:
    return {"s3Uri": f"s3://models/{name}/", "s3DataType": "S3Prefix", "compressionType": "None"}


def a_fleet_of(containers: int, channels: int = 5) -> Fleet:
    """A pipeline whose containers have as much model data as the API admits."""
    listed = [
        {
            "image": f"registry.example/step-{n}:1",
            "modelDataSource": {"s3DataSource": prefix(f"{n}")},
            "additionalModelDataSources": [
                {"channelName": f"{'c' * 60}{channel}", "s3DataSource": prefix(f"{n}/{channel}")}
                for channel in range(channels)
            ],
        }
        for n in range(containers)
    ]
    return a_fleet({"containers": listed})


def template_of(fleet: Fleet) -> Object:
    kind = TYPES.find("ml.m5.large")
    assert kind is not None
    made: Object = manifests.deployment(fleet, kind, DEFAULTS, replicas=1)
    return made


def loaded(fleet: Fleet, e_tag: str = "e") -> Loaded:
    """What a loader brings: of each source an object in a bucket that keeps versions."""
    version = Version(e_tag * 32, "v" * 32, 123_456_789, "2026-01-01T00:00:00+00:00")
    return Loaded({source.name: version for source in fleet.sources}, 2**40, 1234.5)


def kept(text: str, template: Object, injected: int = 0) -> str:
    """What kubelet lets through of a message, beside so many containers of webhooks."""
    spec = template["spec"]["template"]["spec"]
    count = len(spec["containers"]) + len(spec["initContainers"]) + injected
    return text.encode()[-CONTAINER_BYTES:][: POD_BYTES // count].decode()


def pod(deployment: Object, told: str, *, code: int = 0, name: str = "churn-1") -> Object:
    """A pod of it whose loader ended so; ready, if it ended well."""
    spec = deployment["spec"]["template"]["spec"]
    ended = {"exitCode": code, "message": told, "finishedAt": "2026-01-01T00:01:00Z"}
    metadata = {"name": name, "namespace": "team", "creationTimestamp": "2026-01-01T00:00:00Z"}
    served = [
        {"name": one["name"], "ready": True, "imageID": f"{one['image'].partition(':')[0]}@sha256:{'a' * 64}"}
        for one in spec["containers"]
    ]
    return {
        "metadata": metadata,
        "spec": spec,
        "status": {
            "phase": "Running",
            "conditions": [READY] if code == 0 else [],
            "initContainerStatuses": [{"name": "loader", "restartCount": 0, "state": {"terminated": ended}}],
            "containerStatuses": served if code == 0 else [],
        },
    }


@pytest.mark.parametrize("injected", [0, 1, 4, 9])
@pytest.mark.parametrize("channels", [0, 1, 5])
@pytest.mark.parametrize("containers", range(1, 16))
def test_the_record_says_which_versions_run_however_many_containers_a_pod_has(
    containers: int, channels: int, injected: int, tmp_path: Any
) -> None:
    fleet = a_fleet_of(containers, channels)
    deployment = template_of(fleet)
    judged = pods.judge([pod(deployment, kept(message.success(loaded(fleet)), deployment, injected))], None, deployment)
    assert judged.ready == 1
    assert judged.candidate is not None
    recorded = records.config_map(Owner("prod", "team", "churn"), fleet.name, judged.candidate)["data"]
    (tmp_path / "record").write_text(recorded[records.RECORD_KEY])
    required = read_record(str(tmp_path / "record"))
    versions = loaded(fleet).versions
    assert {name: version.identity for name, version in required.items()} in (
        {name: version.identity for name, version in versions.items()},
        {"*": version_of_all(versions).identity},
    ), "the next pod's loader holds its own to these"
    other = pod(deployment, kept(message.success(loaded(fleet, "f")), deployment, injected), name="churn-2")
    assert pods.judge([other], judged.candidate, deployment).strangers == ("churn-2",)


@pytest.mark.parametrize("containers", [1, 15])
@pytest.mark.parametrize("letter", ["x", "ü", "\U0001f600", '"', "\\"])
def test_why_a_loader_failed_is_told_however_many_containers_a_pod_has(containers: int, letter: str) -> None:
    deployment = template_of(a_fleet_of(containers))
    text = message.failure(LoadFailed("SourceMoved", letter * 2000))
    for injected in range(20):
        found = pods.trouble(pod(deployment, kept(text, deployment, injected), code=1))
        assert found is not None
        assert (found.reason, found.final) == ("SourceMoved", True), injected
        assert found.message.startswith(letter * 20)
        assert found.message.encode(), "it can be written into a status"


CUT = json.dumps({"versions": {f"container-{n}/model": {"eTag": "e" * 32} for n in range(15)}})[:722]
"""Of a loader that did not yet put first what matters most."""


@pytest.mark.parametrize(
    "told",
    [CUT, "", "Unable to get init container status from container runtime", "[]", '{"versions": []}', '{"bytes": 1}'],
)
def test_a_pod_that_does_not_say_what_it_loaded_is_not_what_the_others_are_held_to(told: str) -> None:
    """It would be recorded without versions, and one fleet could come to serve two models."""
    deployment = template_of(a_fleet_of(15))
    mute = pod(deployment, told, name="mute")
    judged = pods.judge([mute], None, deployment)
    assert (judged.candidate, judged.ready, judged.existing, judged.strangers) == (None, 0, 1, ())
    (trouble,) = judged.troubles
    assert (trouble.reason, trouble.pods, trouble.final) == ("ModelDataFailed", 1, True)
    assert "sluice.dev/redeploy" in trouble.message
    speaking = pod(deployment, '{"versions": {"container-1/model": {"eTag": "e"}}}', name="speaking")
    judged = pods.judge([mute, speaking], None, deployment)
    assert judged.candidate is not None
    assert list(judged.candidate.versions) == ["container-1/model"]
    assert (judged.ready, judged.troubles) == (2, ())


def test_what_stands_on_record_is_served_by_pods_that_do_not_tell() -> None:
    """Whoever looks into a running pod (kubectl debug) may cost its loader's last words."""
    deployment = template_of(a_fleet_of(15))
    for record in (FleetRecord(), FleetRecord(versions={"*": '{"digest":"sha256:1"}'})):
        judged = pods.judge([pod(deployment, CUT)], record, deployment)
        assert (judged.ready, judged.strangers, judged.troubles) == (1, (), ())


def test_another_init_container_is_not_asked_what_was_loaded() -> None:
    deployment = template_of(a_fleet_of(1))
    found = pod(deployment, '{"versions": {"model": {"eTag": "e"}}}')
    injected = {"exitCode": 0, "message": '{"versions": {"model": {"eTag": "theirs"}, "more": {"eTag": "x"}}}'}
    found["status"]["initContainerStatuses"].append({"name": "webhook", "state": {"terminated": injected}})
    candidate = pods.judge([found], None, deployment).candidate
    assert candidate is not None
    assert candidate.versions == {"model": '{"eTag":"e"}'}


def test_whether_versions_are_told_one_by_one_does_not_hang_on_how_long_it_took() -> None:
    """Two pods of a fleet would else tell them in two forms, which cannot be compared."""
    forms = set()
    for count in range(1, 100):
        versions = {f"container-{n}/model": Version("e" * 32) for n in range(count)}
        told = [message.success(Loaded(versions, size, took)) for size, took in ((0, 0.0), (2**62, 86_400.0))]
        assert all(len(text.encode()) <= CONTAINER_BYTES for text in told)
        first, second = (json.loads(text)["versions"] for text in told)
        assert first == second, count
        forms.add("*" in first)
    assert forms == {True, False}
