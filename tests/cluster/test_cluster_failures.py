"""What keeps an Endpoint from serving, and what takes it out of service, is said in words that a person can act on.

All the broken Endpoints are made at once, as most of what is wrong takes its time to show."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from tests.cluster.conftest import ModelServer
from tests.cluster.hosting import JSON, Hosting, archive, ask, is_ready
from tests.cluster.nodes import ZONE, FakeNode, FakeNodes

from demo.install import OPERATOR_NAMESPACE

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

TYPES = "sluice-instance-types"
POOL = "example.com/pool"
TAINT = "example.com/simulated"
LOCKED = "locked"
IRIS = "[[5.1, 3.5, 1.4, 0.2]]"
QUOTA = "accelerators"
SAMPLE = {"body": IRIS, "contentType": JSON, "timeoutSeconds": 10}
ROOT = {"runAsRoot": True}
ROOMY, TINY = {"cpu": "4", "memory": "8Gi"}, {"cpu": "1m", "memory": "1Mi"}
NODES = (
    *(FakeNode(f"wide-{zone}", {ZONE: zone, POOL: "wide"}, [f"{TAINT}=yes:NoSchedule"], ROOMY) for zone in "abc"),
    FakeNode("narrow-a", {ZONE: "a", POOL: "narrow"}, [f"{TAINT}=yes:NoSchedule"], ROOMY),
    FakeNode("narrow-b", {ZONE: "b", POOL: "narrow"}, [f"{TAINT}=yes:NoSchedule"], TINY),
)
SAYS = {
    "crash": r"(CrashLooping|CreationFailed): variant crash: 1 pod: container model ended with exit code 3.*no licence",
    "absent": r"ImagePullFailed: variant absent: 1 pod: image localhost/absent:1 of container model cannot be pulled",
    "mute": r"PingFailing: variant mute: 1 pod: container model .* stopped \(exit code 0.*GET /ping is not answered",
    "denied": r"ModelDataFailed: .*failed to download model data from s3://locked/denied/model.tar.gz: .*AccessDenied",
    "hostile": r"failed to download model data from s3://\S+: .*'\.\./\.\./etc/passwd'",
    "poolless": r"Unschedulable: .*asks for cpu 20m, memory 64Mi on nodes with example.com/pool=basement: 0/\d+ nodes",
    "greedy": rf"QuotaExceeded: .*exceeded quota: {QUOTA}, requested: requests.nvidia.com/gpu=1",
    "odd": rf"UnknownInstanceType: .*found ml.q1.large; ConfigMap {TYPES} .* does not know it: add the key ml.q1.large",
    "liar": r"SampleInvocationFailed: variant liar: 1 pod: ready pods do not answer the sample invocation .*: "
    r"liar-liar-\S+ (answers \d+|does not answer)",
}
CHAIN = ("first", "second")
FAILED = ("crash", "hostile")
EVERY = (*SAYS, "flap", "nearest", "spread", "bunched", "strict")


@pytest.fixture(scope="module", autouse=True)
def broken(hosting: Hosting, mms: ModelServer, contrary_image: str) -> Iterator[None]:
    """An Endpoint for everything that may be wrong, some that are well beside them, and nodes in three zones."""
    size = {"cpu": "20m", "memory": "64Mi", "tolerations": [{"key": TAINT, "operator": "Exists"}]}
    pools = {f"ml.{pool}.test": {**size, "nodeSelector": {POOL: pool}} for pool in ("wide", "narrow", "basement")}
    types = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": TYPES}}
    hosting.kube.apply({**types, "data": {"instance-types.yaml": json.dumps(pools)}}, OPERATOR_NAMESPACE)
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": QUOTA, "namespace": hosting.namespace}}
    no_gpu = json.dumps({**quota, "spec": {"hard": {"requests.nvidia.com/gpu": "0"}}})
    hosting.stage.surroundings.run_kubectl("apply", "-f", "-", stdin=no_gpu)
    with FakeNodes(hosting.kube, *NODES, run_pods=True):
        deploy(hosting, mms, contrary_image)
        yield
        hosting.delete(*EVERY)
        hosting.gone(*EVERY)
    hosting.kube.delete("ConfigMap", OPERATOR_NAMESPACE, TYPES)
    hosting.stage.surroundings.run_kubectl("delete", "resourcequota", QUOTA, "-n", hosting.namespace)


def deploy(hosting: Hosting, mms: ModelServer, contrary: str) -> None:
    """Make them all."""
    hosting.model("crash", image=contrary, environment={"LAST_WORDS": "no licence was found"})
    hosting.model("mute", image=contrary, environment={"PING": "503"})
    hosting.model_of("flap", {"containers": [{"image": contrary, "environment": {"NAME": name}} for name in CHAIN]})
    hosting.model("absent", image="localhost/absent:1")
    hosting.model("denied", hosting.locked(LOCKED, "denied", b""))
    hosting.model("hostile", hosting.upload("hostile", archive({"model": "good", "../../etc/passwd": "bad"})))
    for name, data in (("liar", "incomplete"), ("nearest", "nearest")):
        packed = hosting.upload(name, mms.archives[data].read_bytes())
        hosting.model(name, packed, image=mms.image, securityContext=ROOT, sampleInvocation=SAMPLE)
    hosting.model("plain", resources=None)

    variants: dict[str, dict[str, Any]] = {
        "mute": {"containerStartupHealthCheckTimeoutInSeconds": 60},
        "poolless": {"modelName": "plain", "instanceType": "ml.basement.test"},
        "greedy": {"modelName": "plain", "instanceType": "ml.g5.xlarge"},
        "odd": {"modelName": "plain", "instanceType": "ml.q1.large"},
        "spread": {"modelName": "plain", "instanceType": "ml.wide.test", "initialInstanceCount": 2},
        "bunched": {"modelName": "plain", "instanceType": "ml.narrow.test", "initialInstanceCount": 2},
        "strict": {
            "modelName": "plain",
            "instanceType": "ml.narrow.test",
            "initialInstanceCount": 2,
            "kubernetes": {"zoneSpread": "Required"},
        },
    }
    for name in EVERY:
        hosting.endpoint(name, [{"variantName": name, **variants.get(name, {})}])


def test_amazons_model_server_is_in_service_when_it_answers_and_not_when_its_ping_says_so(hosting: Hosting) -> None:
    hosting.ready("nearest")

    answer = hosting.runtime().invoke_endpoint(EndpointName="nearest", Body=IRIS.encode(), ContentType=JSON)
    assert answer["Body"].read() == b'["setosa"]'
    hosting.until("liar", lambda: all(map(is_ready, hosting.fleet("liar", "liar"))) or None)
    assert hosting.status("liar")["endpointStatus"] == "Creating"


def test_a_ping_that_flaps_takes_the_endpoint_out_of_service_and_back(hosting: Hosting) -> None:
    """The Model is a chain of two containers, of which the first has the say about its own /ping."""
    hosting.ready("flap")
    [pod] = hosting.fleet("flap", "flap")

    answer = hosting.runtime().invoke_endpoint(EndpointName="flap", Body=b'{"ping": 500}', ContentType=JSON)
    told = json.loads(answer["Body"].read())
    assert (told["name"], json.loads(told["body"])["name"]) == CHAIN[::-1], "each container gets the answer before it"
    hosting.told("flap", r"PingFailing: no ready pod of variant flap: .*does not answer GET /ping with 200 any more")
    assert hosting.status("flap")["endpointStatus"] == "OutOfService"
    ask(pod, b'{"ping": 200}')

    hosting.ready("flap", lambda status: status["endpointStatus"] == "InService")
    assert hosting.fleet("flap", "flap")[0]["metadata"]["uid"] == pod["metadata"]["uid"]


def test_two_instances_go_to_two_zones(hosting: Hosting) -> None:
    hosting.ready("spread")

    nodes = {pod["spec"]["nodeName"] for pod in hosting.fleet("spread", "spread")}
    assert len(nodes) == 2
    assert nodes < {"wide-a", "wide-b", "wide-c"}
    assert not hosting.condition("spread", "ZoneSpreadUnmet")


def test_without_room_in_a_second_zone_they_share_one_and_it_is_said(hosting: Hosting) -> None:
    hosting.ready("bunched")
    hosting.told("bunched", r"ZoneSpreadUnmet=True ZoneSpreadUnmet: all pods of bunched-\S+ run in one zone, .* has 3")

    assert {pod["spec"]["nodeName"] for pod in hosting.fleet("bunched", "bunched")} == {"narrow-a"}


def test_where_the_spread_is_required_the_second_instance_waits(hosting: Hosting) -> None:
    hosting.told("strict", r"Unschedulable: variant strict: 1 pod: .*didn't match pod topology spread constraints")

    assert sorted(pod["spec"].get("nodeName", "") for pod in hosting.fleet("strict", "strict")) == ["", "narrow-a"]
    assert hosting.status("strict")["endpointStatus"] == "Creating"


# Last, as these need their time.
@pytest.mark.parametrize("name", SAYS)
def test_what_is_wrong_is_said(hosting: Hosting, name: str) -> None:
    hosting.told(name, SAYS[name])

    assert hosting.status(name).get("endpointStatus") in (None, "Creating", "Failed")


@pytest.mark.parametrize("name", FAILED)
def test_what_will_not_mend_by_itself_ends_in_failed_with_its_reason(hosting: Hosting, name: str) -> None:
    status = hosting.until(
        name, lambda: found if (found := hosting.status(name))["endpointStatus"] == "Failed" else None
    )

    assert re.search(SAYS[name].partition(": ")[2], status["failureReason"])
