"""Instance types: the built-in table against SageMaker's own list, and a ConfigMap that is refused by key."""

from typing import Any

import botocore.session
import pytest

from sluice.core.instance_types import BUILT_IN, NEURON, NVIDIA, InstanceTypesError, parse, unknown
from sluice.core.quantity import cpu, memory
from sluice.core.quantity import parse as number

GIB = 1024**3


def test_every_hosting_type_of_the_built_in_families_is_there() -> None:
    service = botocore.session.get_session().get_service_model("sagemaker")
    names = service.shape_for("ProductionVariantInstanceType").metadata["enum"]
    families = {name.split(".")[1] for name in BUILT_IN}
    assert [name for name in names if name.split(".")[1] in families and name not in BUILT_IN] == []
    assert {"t2", "m5", "c5", "c7g", "r5", "g4dn", "g5", "g6e", "p4d", "p5", "inf2", "trn1"} <= families


@pytest.mark.parametrize(
    ("name", "vcpus", "gibibytes", "accelerators", "resource"),
    [
        ("ml.t2.medium", 2, 4, 0, NVIDIA),
        ("ml.m5.large", 2, 8, 0, NVIDIA),
        ("ml.c5.18xlarge", 72, 144, 0, NVIDIA),
        ("ml.r6i.32xlarge", 128, 1024, 0, NVIDIA),
        ("ml.g5.12xlarge", 48, 192, 4, NVIDIA),
        ("ml.p4d.24xlarge", 96, 1152, 8, NVIDIA),
        ("ml.inf2.48xlarge", 192, 768, 12, NEURON),
        ("ml.trn1.2xlarge", 8, 32, 1, NEURON),
    ],
)
def test_a_built_in_type_fits_a_node_of_its_size(
    name: str, vcpus: int, gibibytes: int, accelerators: int, resource: str
) -> None:
    found = BUILT_IN[name]
    assert 80 * vcpus <= 100 * number(found.cpu) <= 96 * vcpus
    assert 7 * gibibytes * GIB <= 10 * number(found.memory) <= 9 * gibibytes * GIB - 7680 * 1024**2
    assert (found.gpu, found.gpu_resource) == (accelerators, resource)
    assert [toleration["key"] for toleration in found.tolerations] == ([resource] if accelerators else [])


def test_graviton_types_run_on_their_architecture() -> None:
    assert BUILT_IN["ml.c7g.large"].node_selector == {"kubernetes.io/arch": "arm64"}


def test_an_override_keeps_what_it_does_not_name_and_a_new_type_is_added() -> None:
    types = parse(
        {
            "ml.g5.xlarge": {"nodeSelector": {"pool": "a10"}, "tolerations": [{"key": "gpu", "operator": "Exists"}]},
            "ml.tiny.one": {"cpu": 0.5, "memory": "512Mi"},
        }
    )
    gpu, tiny = types.find("ml.g5.xlarge"), types.find("ml.tiny.one")
    assert gpu is not None
    assert (gpu.cpu, gpu.gpu, dict(gpu.node_selector)) == (BUILT_IN["ml.g5.xlarge"].cpu, 1, {"pool": "a10"})
    assert gpu.tolerations == ({"key": "gpu", "operator": "Exists"},)
    assert tiny is not None
    assert (tiny.cpu, tiny.memory, tiny.gpu, tiny.tolerations) == ("0.5", "512Mi", 0, ())
    assert types.find("ml.m5.large") == BUILT_IN["ml.m5.large"]
    assert types.find("ml.none.one") is None
    assert parse(None).types == BUILT_IN


def test_the_remedy_for_an_unknown_type_is_itself_understood() -> None:
    assert 'ml.none.one: {cpu: "4", memory: 16Gi, gpu: 0}' in unknown("ml.none.one")
    assert parse({"ml.none.one": {"cpu": "4", "memory": "16Gi", "gpu": 0}}).find("ml.none.one") is not None


GOOD = {"cpu": 1, "memory": "1Gi"}
REFUSED: list[tuple[Any, str]] = [
    ([], "instance-types.yaml: found [], allowed is a map"),
    ({"m5.large": GOOD}, "found 'm5.large', allowed is names of instance types"),
    ({1: GOOD}, "found 1, allowed is names of instance types"),
    ({"ml.x.y": None}, "ml.x.y: found None, allowed is a map with cpu, memory"),
    ({"ml.x.y": {**GOOD, "gpus": 1}}, "ml.x.y: found 'gpus', allowed is the keys cpu, memory, gpu"),
    ({"ml.x.y": {"cpu": 1}}, "ml.x.y.memory: is missing"),
    ({"ml.x.y": {**GOOD, "cpu": "-1"}}, "ml.x.y.cpu: found '-1', allowed is a quantity greater than zero"),
    ({"ml.x.y": {**GOOD, "cpu": 0}}, "ml.x.y.cpu: found 0"),
    ({"ml.x.y": {**GOOD, "cpu": True}}, "ml.x.y.cpu: found True"),
    ({"ml.x.y": {**GOOD, "memory": "8GB"}}, "ml.x.y.memory: found '8GB'"),
    ({"ml.x.y": {**GOOD, "gpu": "1"}}, "ml.x.y.gpu: found '1', allowed is an integer"),
    ({"ml.x.y": {**GOOD, "gpu": True}}, "ml.x.y.gpu: found True"),
    ({"ml.x.y": {**GOOD, "gpuResource": "gpu"}}, "ml.x.y.gpuResource: found 'gpu'"),
    ({"ml.x.y": {**GOOD, "nodeSelector": ["a"]}}, "ml.x.y.nodeSelector: found ['a']"),
    ({"ml.x.y": {**GOOD, "nodeSelector": {"a": True}}}, "ml.x.y.nodeSelector[a]: found True"),
    ({"ml.x.y": {**GOOD, "nodeSelector": {"a b": "x"}}}, "ml.x.y.nodeSelector: found 'a b'"),
    ({"ml.x.y": {**GOOD, "tolerations": "gpu"}}, "ml.x.y.tolerations: found 'gpu'"),
    ({"ml.x.y": {**GOOD, "tolerations": [{"effect": "No"}]}}, "tolerations[0].effect: found 'No', allowed is NoSched"),
    ({"ml.x.y": {**GOOD, "tolerations": [{"taint": "x"}]}}, "tolerations[0]: found 'taint'"),
]


@pytest.mark.parametrize(("document", "message"), REFUSED)
def test_what_cannot_be_read_is_named_by_its_key(document: Any, message: str) -> None:
    with pytest.raises(InstanceTypesError) as refused:
        parse(document)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("text", "value"), [("500m", 0.5), ("2", 2), ("1.5", 1.5), ("1e3", 1000), ("4Gi", 4 * GIB), ("1k", 1000), (3, 3)]
)
def test_quantities(text: str | int, value: float) -> None:
    assert number(text) == value


def test_quantities_are_written_whole() -> None:
    assert (cpu(number("1.7")), cpu(number("4")), memory(number("1.5Gi"))) == ("1700m", "4", "1536Mi")
    for text in ("", "4GB", "-1", "lots", "1 Gi"):
        with pytest.raises(ValueError, match="allowed is a quantity"):
            number(text)
