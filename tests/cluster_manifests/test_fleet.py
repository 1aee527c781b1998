"""What the pods of a fleet are made of, rule by rule; the whole stands in the golden files."""

import json
from dataclasses import replace
from typing import Any

import pytest
from tests.api.limits import spots
from tests.api.manifests import FULL

from sluice.cluster import containers, fleet, modeldata
from sluice.cluster.template import Fleet, pod_template
from sluice.core.classification import Class, classify
from sluice.core.cluster.actions import EnsureFleet
from sluice.core.cluster.names import fleet_name
from sluice.core.identity import Owner
from sluice.core.instance_types import InstanceType

from .golden import DEFAULTS, FLEETS, HASH, OWNER, Object, a_fleet, type_of

SMALL = InstanceType(cpu="4", memory="16Gi")
GPUS = InstanceType(cpu="46", memory="160Gi", gpu=4)


def spec(item: Fleet, **changes: Any) -> Object:
    """The pod spec of a fleet."""
    made: Object = pod_template(item, type_of(item), replace(DEFAULTS, **changes))["spec"]
    return made


def variables(container: Object) -> dict[str, Any]:
    """The plain environment of a container."""
    return {each["name"]: each["value"] for each in container["env"] if "value" in each}


def one(**container: Any) -> dict[str, Any]:
    """A Model of one container."""
    return {"primaryContainer": {"image": "i", **container}}


# The container contract ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FLEETS)
def test_containers_are_started_as_sagemaker_starts_them(name: str) -> None:
    item, defaults = FLEETS[name]
    pod = pod_template(item, type_of(item), defaults)["spec"]
    for container in pod["containers"]:
        if container["name"] == "pipeline":
            continue
        assert container["args"] == ["serve"]
        assert "command" not in container
        assert {container[probe]["httpGet"]["path"] for probe in ("startupProbe", "readinessProbe")} == {"/ping"}
        assert container["readinessProbe"]["timeoutSeconds"] == 2
    for container in (*pod["containers"], *pod.get("initContainers", ())):
        assert container["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_the_stop_leaves_30_seconds_after_the_routers_have_let_go() -> None:
    for asked, seconds in ((None, 7), (3, 7), (480, 480)):
        model = one() if asked is None else {**one(), "kubernetes": {"preStopSeconds": asked}}
        pod = spec(a_fleet(model), pre_stop_seconds=7, stop_seconds=30)
        assert pod["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": seconds}}}
        assert pod["terminationGracePeriodSeconds"] == seconds + 30
    pod = spec(a_fleet(one()), pre_stop_seconds=7)
    assert pod["containers"][0]["lifecycle"] == {"preStop": {"sleep": {"seconds": 7}}}
    assert pod["terminationGracePeriodSeconds"] == 37


@pytest.mark.parametrize(("seconds", "failures"), [(None, 96), (60, 12), (61, 13), (3600, 720)])
def test_the_startup_budget(seconds: int | None, failures: int) -> None:
    variant = {"containerStartupHealthCheckTimeoutInSeconds": seconds} if seconds else {}
    probe = spec(a_fleet(one(), variant))["containers"][0]["startupProbe"]
    assert (probe["periodSeconds"], probe["failureThreshold"]) == (5, failures)


def _expanded(value: str, known: dict[str, str]) -> str:
    """What kubelet makes of a value: `$$` is a dollar, `$(NAME)` a variable, and anything else stays."""
    out, place = [], 0
    while place < len(value):
        if value.startswith("$$", place):
            out.append("$")
            place += 2
        elif value.startswith("$(", place) and (end := value.find(")", place)) > 0:
            name = value[place + 2 : end]
            out.append(known.get(name, f"$({name})"))
            place = end + 1
        else:
            out.append(value[place])
            place += 1
    return "".join(out)


@pytest.mark.parametrize("value", ["", "$", "$$", "$(HOME)", "$$(HOME)", "a$b$(", "$HOME $5", "ünïcødé 🙂\n\t"])
def test_environment_values_reach_the_process_as_written(value: str) -> None:
    written = variables(spec(a_fleet(one(environment={"A": value, "HOME": "/root"})))["containers"][0])["A"]
    assert _expanded(written, {"HOME": "/root"}) == value


def test_what_the_model_sets_counts_more_than_what_the_platform_would() -> None:
    model = one(environment={"SAGEMAKER_MODEL_SERVER_WORKERS": "3"})
    reference = {"name": "AWS_REGION", "valueFrom": {"configMapKeyRef": {"name": "c", "key": "k"}}}
    container = spec(a_fleet({**model, "kubernetes": {"env": [reference]}}), region="eu-west-1")["containers"][0]
    assert variables(container) == {
        "AWS_DEFAULT_REGION": "eu-west-1",
        "SAGEMAKER_MODEL_SERVER_WORKERS": "3",
        "SAGEMAKER_REGION": "eu-west-1",
    }
    assert reference in container["env"]


@pytest.mark.parametrize(
    ("limits", "cpu", "workers"),
    [({}, "1700m", 2), ({}, "4", 4), ({}, "100m", 1), ({"nvidia.com/gpu": "4"}, "46", 4), ({"memory": "1Gi"}, "3", 3)],
)
def test_workers_by_accelerators_or_cpus(limits: dict[str, str], cpu: str, workers: int) -> None:
    assert containers.workers({"requests": {"cpu": cpu}, "limits": limits}, "nvidia.com/gpu") == workers


ACCELERATORS = (
    "nvidia.com/gpu", "nvidia.com/gpu.shared", "nvidia.com/mig-1g.5gb", "nvidia.com/mig-1g.10gb.me", "amd.com/gpu",
    "amd.com/cpx_nps4", "aws.amazon.com/neuron", "aws.amazon.com/neuroncore", "aws.amazon.com/neurondevice",
    "gpu.intel.com/i915", "gpu.intel.com/xe", "habana.ai/gaudi", "google.com/tpu", "example.com/own-accelerator",
)  # fmt: skip
NO_ACCELERATORS = (
    "vpc.amazonaws.com/pod-eni", "vpc.amazonaws.com/efa", "rdma/hca", "rdma/hca_shared_devices_a", "example.com/foo",
    "gpu.intel.com/i915_monitoring", "gpu.intel.com/xe_monitoring", "nvidia.com/hostdev", "nvidia.com/gpumem",
    "hugepages-2Mi", "hugepages-1Gi", "ephemeral-storage", "smarter-devices/fuse",
)  # fmt: skip


@pytest.mark.parametrize(
    ("resource", "workers"), [*((name, 2) for name in ACCELERATORS), *((name, 3) for name in NO_ACCELERATORS)]
)
def test_only_accelerators_have_workers_of_their_own(resource: str, workers: int) -> None:
    """A Model that asks for 100 addresses or a network card is not served by so many processes. What no plugin is known
    to call an accelerator is one where the instance type says so."""
    model = {**one(), "kubernetes": {"resources": {"limits": {resource: "2"}, "requests": {"cpu": "3"}}}}
    own = InstanceType(cpu="3", memory="4Gi", gpu_resource="example.com/own-accelerator")
    (container,) = pod_template(a_fleet(model), own, DEFAULTS)["spec"]["containers"]
    assert variables(container)["SAGEMAKER_MODEL_SERVER_WORKERS"] == str(workers)


@pytest.mark.parametrize("amount", [-1, "-1", "-500m", "1e1.5", "1e-100"])
@pytest.mark.parametrize("resource", ["cpu", "nvidia.com/gpu"])
def test_an_amount_that_is_none_is_the_api_servers_to_refuse(resource: str, amount: Any) -> None:
    """The schema lets it through, and every pass renders the pods that are asked for: it ended them all."""
    asked = {"limits": {resource: amount}}
    (container,) = spec(a_fleet({**one(), "kubernetes": {"resources": asked}}))["containers"]
    assert container["resources"]["limits"][resource] == str(amount)
    assert int(variables(container)["SAGEMAKER_MODEL_SERVER_WORKERS"]) >= 1


@pytest.mark.parametrize(
    ("instance_type", "overrides", "count", "expected"),
    [
        (SMALL, {}, 1, [({"cpu": "4", "memory": "16384Mi"}, {"memory": "16384Mi"})]),
        (SMALL, {}, 2, [({"cpu": "2", "memory": "8192Mi"}, {"memory": "8192Mi"})] * 2),
        (
            SMALL,
            {"requests": {"cpu": 1, "memory": "1Gi"}},
            1,
            [({"cpu": "1", "memory": "1Gi"}, {"memory": "1Gi"})],
        ),
        (
            SMALL,
            {"limits": {"cpu": "2", "memory": "2Gi"}},
            1,
            [({"cpu": "2", "memory": "2Gi"}, {"cpu": "2", "memory": "2Gi"})],
        ),
        (
            SMALL,
            {"requests": {"memory": "1Gi"}, "limits": {"memory": "2Gi"}},
            1,
            [({"cpu": "4", "memory": "1Gi"}, {"memory": "2Gi"})],
        ),
        (
            SMALL,
            {"limits": {"nvidia.com/mig-1g.5gb": 1}},
            1,
            [
                (
                    {"cpu": "4", "memory": "16384Mi", "nvidia.com/mig-1g.5gb": "1"},
                    {"memory": "16384Mi", "nvidia.com/mig-1g.5gb": "1"},
                )
            ],
        ),
    ],
)
def test_resources(
    instance_type: InstanceType, overrides: dict[str, Any], count: int, expected: list[tuple[Object, Object]]
) -> None:
    made = containers.resource_shares(instance_type, overrides, count)
    assert [(each["requests"], each["limits"]) for each in made] == expected


def test_accelerators_are_given_out_whole() -> None:
    shares = containers.resource_shares(GPUS, {}, 3)
    assert [share["limits"].get("nvidia.com/gpu") for share in shares] == ["2", "1", "1"]
    shares = containers.resource_shares(replace(GPUS, gpu=1), {}, 2)
    assert [share["limits"].get("nvidia.com/gpu") for share in shares] == ["1", None]


# Containers and ports -----------------------------------------------------------------------------------------------

TWO = [{"image": "a", "containerHostname": "One"}, {"image": "b", "containerHostname": "two"}]
DIRECT = {"inferenceExecutionConfig": {"mode": "Direct"}}


@pytest.mark.parametrize(
    ("model", "containers_and_ports", "service"),
    [
        (one(), {"model": 8080}, {"http": 8080}),
        ({"containers": TWO[:1]}, {"model": 8080}, {"http": 8080}),
        ({"containers": TWO[:1], **DIRECT}, {"model": 8080}, {"http": 8080}),
        ({"containers": TWO}, {"container-1": 8081, "container-2": 8082, "pipeline": 8080}, {"http": 8080}),
        (
            {"containers": TWO, **DIRECT},
            {"container-1": 8080, "container-2": 8081},
            {"container-1": 8080, "container-2": 8081},
        ),
    ],
)
def test_ports(model: dict[str, Any], containers_and_ports: dict[str, int], service: dict[str, int]) -> None:
    item = a_fleet(model)
    pod = spec(item)
    assert {each["name"]: each["ports"][0]["containerPort"] for each in pod["containers"]} == containers_and_ports
    assert {each["name"]: each["port"] for each in fleet.service(item)["spec"]["ports"]} == service
    (rule,) = fleet.network_policy(item, DEFAULTS)["spec"]["ingress"]
    assert [each["port"] for each in rule["ports"]] == list(service.values())
    if len(containers_and_ports) > 1:
        assert pod["hostAliases"] == [{"ip": "127.0.0.1", "hostnames": ["one", "two"]}]
        for container in pod["containers"]:
            bound = variables(container).get("SAGEMAKER_BIND_TO_PORT")
            assert container["name"] == "pipeline" or bound == str(containers_and_ports[container["name"]])


def test_safe_port_ranges_do_not_overlap() -> None:
    model = {"containers": [{"image": "i", "containerHostname": f"c{n}"} for n in range(15)], **DIRECT}
    seen: set[int] = set()
    for container in spec(a_fleet(model))["containers"]:
        first, last = map(int, variables(container)["SAGEMAKER_SAFE_PORT_RANGE"].split("-"))
        ports = set(range(first, last + 1))
        assert not ports & seen
        # Above this the kernel hands ports to outgoing connections.
        assert max(ports) < 32768
        seen |= ports


# Model data ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("container", "uri", "kind", "compression"),
    [
        ({"modelDataUrl": "s3://b/m.tar.gz"}, "s3://b/m.tar.gz", "Archive", "Gzip"),
        ({"modelDataUrl": "https://h/m.tar.gz"}, "https://h/m.tar.gz", "Archive", "Gzip"),
        ({"modelDataUrl": "pvc://c/m.tar.gz"}, "file:///mnt/sluice/claims/c/m.tar.gz", "Archive", "Gzip"),
        ({"modelDataUrl": "pvc://c/m/"}, "file:///mnt/sluice/claims/c/m/", "Prefix", "None"),
        ({"modelDataUrl": "pvc://c"}, "file:///mnt/sluice/claims/c/", "Prefix", "None"),
        (
            {
                "modelDataSource": {
                    "s3DataSource": {"s3Uri": "s3://b/p/", "s3DataType": "S3Prefix", "compressionType": "None"}
                }
            },
            "s3://b/p/",
            "Prefix",
            "None",
        ),
        (
            {
                "modelDataSource": {
                    "s3DataSource": {"s3Uri": "s3://b/o", "s3DataType": "S3Object", "compressionType": "Gzip"}
                }
            },
            "s3://b/o",
            "Object",
            "Gzip",
        ),
    ],
)
def test_sources(container: dict[str, Any], uri: str, kind: str, compression: str) -> None:
    (source,) = modeldata.sources(0, container, "")
    assert source.request() == {
        "name": "model",
        "uri": uri,
        "kind": kind,
        "compression": compression,
        "target": "/mnt/sluice/data/0/model",
    }
    assert source.mount_path == "/opt/ml/model"


def test_without_model_data_there_is_no_loader() -> None:
    pod = spec(a_fleet(one()))
    assert not {"initContainers", "volumes"} & set(pod)
    assert "volumeMounts" not in pod["containers"][0]


def _request(pod: Object) -> Object:
    made: Object = json.loads(variables(pod["initContainers"][0])["SLUICE_LOADER"])
    return made


def test_the_size_limit_holds_for_the_data_and_the_volume_has_room_for_its_archive() -> None:
    pod = spec(a_fleet(one(modelDataUrl="s3://b/m.tar.gz"), {"volumeSizeInGB": 10}))
    assert _request(pod)["sizeLimitBytes"] == 10 * 1024**3
    assert pod["volumes"][0]["emptyDir"] == {"sizeLimit": "20Gi"}


@pytest.mark.parametrize(
    ("access", "config", "role"),
    [
        ({}, {}, None),
        ({"assumeExecutionRole": False}, {}, None),
        ({"assumeExecutionRole": True}, {}, "model-role"),
        ({"assumeExecutionRole": True}, {"executionRoleArn": "config-role"}, "config-role"),
    ],
)
def test_the_role_is_assumed_only_when_asked(access: dict[str, Any], config: dict[str, str], role: str | None) -> None:
    model = {**one(modelDataUrl="s3://b/m.tar.gz"), "executionRoleArn": "model-role"}
    request = _request(spec(a_fleet({**model, "kubernetes": {"modelDataAccess": access}}, **config)))
    assert request.get("assumeRoleArn") == role
    assert request.get("externalId") == ("prod-1/team-a" if role else None)


def test_credentials_reach_the_loader_only() -> None:
    item, defaults = FLEETS["direct"]
    pod = pod_template(item, type_of(item), defaults)["spec"]
    assert any(each["name"] == "AWS_SECRET_ACCESS_KEY" for each in pod["initContainers"][0]["env"])
    for container in pod["containers"]:
        assert not [each for each in container["env"] if each["name"].startswith("AWS_")]
        mounted = {mount["name"] for mount in container.get("volumeMounts", ())}
        assert mounted <= {"model-data", "shared-memory"}
        assert all(mount["readOnly"] for mount in container.get("volumeMounts", ()))


# Policies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "ports"),
    [
        (one(), None),
        (one(modelDataUrl="pvc://c/m.tar.gz"), None),
        (one(modelDataUrl="s3://b/m.tar.gz"), [443]),
        (one(modelDataUrl="https://h:8443/m.tar.gz"), [443, 8443]),
        (
            {
                **one(modelDataUrl="s3://b/m.tar.gz"),
                "kubernetes": {"modelDataAccess": {"s3EndpointUrl": "http://minio:9000"}},
            },
            [443, 9000],
        ),
        ({**one(modelDataUrl="s3://b/m.tar.gz"), "kubernetes": {"serviceAccountName": "churn"}}, [80, 443]),
    ],
)
def test_isolation_leaves_the_download_its_way(model: dict[str, Any], ports: list[int] | None) -> None:
    assert "egress" not in fleet.network_policy(a_fleet(model), DEFAULTS)["spec"]
    for item in (a_fleet({**model, "enableNetworkIsolation": True}), a_fleet(model, enableNetworkIsolation=True)):
        policy = fleet.network_policy(item, DEFAULTS)["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        if ports is None:
            assert policy["egress"] == []
            continue
        dns, download = policy["egress"]
        assert {(each["protocol"], each["port"]) for each in dns["ports"]} == {("UDP", 53), ("TCP", 53)}
        assert [each["port"] for each in download["ports"]] == ports
        assert "to" not in download
        narrowed = fleet.network_policy(item, replace(DEFAULTS, isolated_egress_cidrs=("10.0.0.0/8",)))
        assert narrowed["spec"]["egress"][1]["to"] == [{"ipBlock": {"cidr": "10.0.0.0/8"}}]


# Names, digests, revisions ------------------------------------------------------------------------------------------


def test_names_and_labels_fit_at_the_limits() -> None:
    owner = Owner("i" * 63, "n" * 63, "e" * 63)
    seen = set()
    for variant in ("V" * 63, "v" * 63, "0"):
        action = EnsureFleet(
            name=fleet_name(owner.name, variant, HASH),
            variant=variant,
            revision="r",
            fleet_hash=HASH,
            endpoint_config={"productionVariants": [{"variantName": variant, "modelName": "m"}]},
            models={"m": one(modelDataUrl="s3://b/m.tar.gz")},
            replicas=1,
        )
        item = fleet.fleet_of(owner, action)
        for made in fleet.objects(item, SMALL, DEFAULTS, 1):
            assert len(made["metadata"]["name"]) <= 63
            assert all(len(value) <= 63 for value in made["metadata"]["labels"].values())
        seen.add(item.name)
    assert len(seen) == 3


def test_a_shadow_variant_is_a_fleet_like_any_other() -> None:
    config = {
        "productionVariants": [{"variantName": "a", "modelName": "m"}],
        "shadowProductionVariants": [{"variantName": "s", "modelName": "n"}],
    }
    action = EnsureFleet("x", "s", "r", HASH, config, {"m": one(), "n": one(modelDataUrl="s3://b/n")}, 1, shadow=True)
    assert fleet.fleet_of(OWNER, action).sources[0].uri == "s3://b/n"


def test_the_digest_tells_what_another_operator_would_render_otherwise() -> None:
    item = a_fleet(one(modelDataUrl="s3://b/m.tar.gz"))
    standing = fleet.template_digest(item, SMALL, DEFAULTS)
    stored = fleet.deployment(item, SMALL, DEFAULTS, 3)["metadata"]["annotations"]["sluice.dev/template"]
    assert stored == standing == fleet.template_digest(item, SMALL, DEFAULTS)
    assert fleet.template_digest(item, replace(SMALL, cpu="3"), DEFAULTS) != standing
    assert fleet.template_digest(item, SMALL, replace(DEFAULTS, image="newer")) != standing
    without = a_fleet(one())
    assert fleet.template_digest(without, SMALL, replace(DEFAULTS, image="newer")) == fleet.template_digest(
        without, SMALL, DEFAULTS
    )


# The table that decides about new fleets, against the manifests that are made ---------------------------------------

# Of class fleet, and seen in no manifest: mode MultiModel is refused before (findings.py), and nothing calls the one
# container of a pod by its name.
NOT_IN_THE_MANIFESTS = {"primaryContainer.mode", "containers[].mode", "primaryContainer.containerHostname"}
SERIAL = {"spec": {"containers": TWO, "inferenceExecutionConfig": {"mode": "Serial"}}}


@pytest.mark.parametrize(("path", "meaning"), classify("Model", "Cluster").items())
def test_a_field_of_a_model_changes_the_manifests_if_and_only_if_its_class_says_so(path: str, meaning: Class) -> None:
    changes = [
        _everything(manifest["spec"]) != _everything(spot.replaced(manifest, _other(spot.value(manifest)))["spec"])
        for manifest in [*FULL["Model"], SERIAL]
        for spot in spots(manifest, path)
    ]
    assert any(changes) == (meaning is Class.FLEET and path not in NOT_IN_THE_MANIFESTS)


def _other(value: Any) -> Any:
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case "S3Prefix":
            return "S3Object"
        case "S3Object":
            return "S3Prefix"
        case "None":
            return "Gzip"
        case "Serial":
            return "Direct"
        case str():
            return f"{value}/x" if "://" in value else f"{value}x"
        case dict():
            return {**value, "ANOTHER": "1"}
        case list():
            return [*value, "another"]
    raise AssertionError(value)


def _everything(model: dict[str, Any]) -> tuple[Object, ...]:
    return fleet.objects(a_fleet(model), SMALL, DEFAULTS, 1)
