"""What a backend cannot do is said before anything is done: by field, with a remedy, and where the spec is resolved."""

from typing import Any

import pytest

from sluice.api.reasons import Reason
from sluice.core.cluster.findings import check, unhonoured_values
from sluice.core.finding import Finding
from sluice.core.resolve import Resolution, ResolveSettings, resolve

VARIANT = {"variantName": "a", "modelName": "m", "instanceType": "ml.m5.large", "initialInstanceCount": 1}
IMAGE = {"image": "i"}
S3 = {"s3Uri": "s3://b/o", "s3DataType": "S3Object", "compressionType": "None"}


def model(**container: Any) -> dict[str, Any]:
    """A Model of one container."""
    return {"primaryContainer": {**IMAGE, **container}}


def judged(model_spec: dict[str, Any], variant: dict[str, Any] | None = None, **config: Any) -> Finding | None:
    """The finding about a config `c` of one variant of Model `m`."""
    return check("c", {"productionVariants": [{**VARIANT, **(variant or {})}], **config}, {"m": model_spec})


REFUSED: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any], str]] = [
    (model(), {}, {"asyncInferenceConfig": {"outputConfig": {}}}, "EndpointConfig/c.spec.asyncInferenceConfig"),
    (
        model(),
        {"serverlessConfig": {"memorySizeInMB": 1024}, "instanceType": None},
        {},
        "EndpointConfig/c.spec.productionVariants[a].serverlessConfig",
    ),
    (
        model(),
        {"instancePools": [{"instanceType": "ml.m5.large", "priority": 1}]},
        {},
        "EndpointConfig/c.spec.productionVariants[a].instancePools",
    ),
    (model(), {"modelName": None}, {}, "EndpointConfig/c.spec.productionVariants[a].modelName"),
    (
        model(),
        {},
        {"shadowProductionVariants": [{**VARIANT, "variantName": "s", "modelName": None}]},
        "EndpointConfig/c.spec.shadowProductionVariants[s].modelName",
    ),
    (model(mode="MultiModel"), {}, {}, "Model/m.spec.primaryContainer.mode"),
    ({"containers": [IMAGE, {**IMAGE, "mode": "MultiModel"}]}, {}, {}, "Model/m.spec.containers[1].mode"),
    (
        {"primaryContainer": {"modelPackageName": "churn"}},
        {},
        {},
        "Model/m.spec.primaryContainer.modelPackageName",
    ),
]


@pytest.mark.parametrize(("model_spec", "variant", "config", "field"), REFUSED)
def test_what_the_cluster_cannot_do(
    model_spec: dict[str, Any], variant: dict[str, Any], config: dict[str, Any], field: str
) -> None:
    finding = judged(model_spec, variant, **config)
    assert finding is not None
    assert (finding.reason, finding.field) == (Reason.NOT_SUPPORTED_BY_BACKEND, field)
    assert any(word in finding.message for word in ("use ", "set ", "give ", "name ", "make ")), finding.message


def test_what_it_can_do() -> None:
    assert judged(model(mode="SingleModel", modelDataUrl="pvc://claim/m.tar.gz")) is None
    assert judged({"containers": [IMAGE, IMAGE]}, {"routingConfig": {"routingStrategy": "KV_AWARE"}}) is None


@pytest.mark.parametrize("channel", [".", ".."])
def test_a_channel_is_a_directory(channel: str) -> None:
    finding = judged(model(additionalModelDataSources=[{"channelName": channel, "s3DataSource": S3}]))
    assert finding is not None
    assert finding.reason is Reason.INVALID_SPEC
    assert judged(model(additionalModelDataSources=[{"channelName": "...", "s3DataSource": S3}])) is None


@pytest.mark.parametrize("place", ["u:secret@minio:99999", "minio:http", "[::1", "a]b", ":443", "minio:0"])
def test_a_url_has_a_host_and_a_port(place: str) -> None:
    """The schema's patterns let these through."""
    url = f"https://{place}/m.tar.gz"
    access = {"kubernetes": {"modelDataAccess": {"s3EndpointUrl": f"https://{place}"}}}
    for finding in (judged(model(modelDataUrl=url)), judged({**model(), **access})):
        assert finding is not None
        assert finding.reason is Reason.INVALID_SPEC
        assert "secret" not in finding.message
        assert place.rpartition("@")[2] in finding.message


@pytest.mark.parametrize("place", ["minio", "minio:9000", "[::1]:9000", "user:secret@minio"])
def test_a_url_that_can_be_called(place: str) -> None:
    access = {"kubernetes": {"modelDataAccess": {"s3EndpointUrl": f"http://{place}"}}}
    assert judged({**model(modelDataUrl=f"https://{place}/m.tar.gz?signature=1"), **access}) is None


@pytest.mark.parametrize(
    ("path", "allowed", "permitted"),
    [
        ("/var/cache/sluice", (), False),
        ("/var/cache/sluice", ("/var/cache/sluice",), True),
        ("/var/cache/sluice/team-a", ("/mnt", "/var/cache/sluice/"), True),
        ("/var/cache/sluice-other", ("/var/cache/sluice",), False),
        ("/var/cache/sluice/../..", ("/var/cache/sluice",), False),
        ("/etc", ("/",), True),
    ],
)
def test_a_directory_of_the_node_is_the_administrators_to_give(
    path: str, allowed: tuple[str, ...], permitted: bool
) -> None:
    kubernetes = {"modelDataAccess": {"cacheHostPath": path}}
    finding = check("c", {"productionVariants": [VARIANT]}, {"m": {**model(), "kubernetes": kubernetes}}, allowed)
    assert (finding is None) == permitted
    assert finding is None or (finding.reason is Reason.NOT_PERMITTED and path in finding.message)


def test_values_that_are_not_honoured_are_named_once() -> None:
    prefix = {"routingConfig": {"routingStrategy": "PREFIX_AWARE"}}
    config = {
        "productionVariants": [{**VARIANT, **prefix}, {**VARIANT, "variantName": "b", **prefix}],
        "shadowProductionVariants": [{**VARIANT, "routingConfig": {"routingStrategy": "RANDOM"}}],
    }
    assert unhonoured_values(config) == ("productionVariants[].routingConfig.routingStrategy",)


def _resolved(backend: str, model_spec: dict[str, Any], variant: dict[str, Any] | None = None) -> Resolution:
    def stored(kind: str, name: str, spec: dict[str, Any]) -> dict[str, Any]:
        return {"kind": kind, "metadata": {"name": name, "namespace": "n", "uid": "u", "generation": 1}, "spec": spec}

    config = {"productionVariants": [{**VARIANT, **(variant or {})}]}
    objects = {
        ("EndpointConfig", "c"): stored("EndpointConfig", "c", config),
        ("Model", "m"): stored("Model", "m", model_spec),
    }
    endpoint = stored("Endpoint", "e", {"backend": backend, "endpointConfigName": "c"})
    return resolve(endpoint, lambda kind, name: objects.get((kind, name)), ResolveSettings("i", "eu-west-1"))


def test_resolving_judges_by_the_backend() -> None:
    claim = model(modelDataUrl="pvc://claim/m.tar.gz")
    on_sagemaker = _resolved("SageMaker", claim).finding
    assert on_sagemaker is not None
    assert (on_sagemaker.reason, on_sagemaker.field) == (
        Reason.NOT_SUPPORTED_BY_BACKEND,
        "Model/m.spec.primaryContainer.modelDataUrl",
    )
    assert _resolved("Cluster", claim).finding is None
    multi = model(mode="MultiModel", modelDataUrl="s3://b/models/")
    assert _resolved("SageMaker", multi).finding is None
    in_cluster = _resolved("Cluster", multi).finding
    assert in_cluster is not None
    assert in_cluster.reason is Reason.NOT_SUPPORTED_BY_BACKEND


def test_resolving_shows_values_that_are_not_honoured() -> None:
    variant = {"routingConfig": {"routingStrategy": "KV_AWARE"}}
    path = "EndpointConfig/c.spec.productionVariants[].routingConfig.routingStrategy"
    assert path in _resolved("Cluster", model(), variant).ignored_fields
    assert path not in _resolved("SageMaker", model(), variant).ignored_fields
