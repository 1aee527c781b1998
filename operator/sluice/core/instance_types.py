"""What an instance type stands for in the cluster: resources of a pod, the nodes it may run on.

The administrator's ConfigMap `sluice-instance-types` adds types and overrides the built-in ones field by field; an
override of `ml.g5.xlarge` that only has a nodeSelector keeps the built-in resources. Fleets that stand are not changed:
their pod template was rendered once.

A built-in type requests less than its nominal size, so that one instance fits a node of that very size beside what the
node needs for itself: CPU less 4 % and at least 300m, memory less 10 % and 768 MiB. A node of 2 CPUs and 8 GiB offers
about 1.93 CPUs and 6.9 GiB after kernel, kubelet and eviction threshold, and its DaemonSets take some of that.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final

from sluice.core import quantity

CONFIG_MAP: Final = "sluice-instance-types"
DATA_KEY: Final = "instance-types.yaml"

NVIDIA: Final = "nvidia.com/gpu"
NEURON: Final = "aws.amazon.com/neuron"

_NAME = re.compile(r"ml\.[a-z0-9-]+\.[a-z0-9-]+")
_RESOURCE = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?")
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_FIELDS = ("cpu", "memory", "gpu", "gpuResource", "nodeSelector", "tolerations")
_TOLERATION: Final[Mapping[str, tuple[str, ...]]] = {
    "key": (),
    "operator": ("Exists", "Equal"),
    "value": (),
    "effect": ("NoSchedule", "PreferNoSchedule", "NoExecute"),
}


class InstanceTypesError(ValueError):
    """The ConfigMap cannot be read; the message names the key, what was found and what is allowed."""


@dataclass(frozen=True, slots=True)
class InstanceType:
    """One instance type. `cpu` and `memory` are what the pod requests, as quantities."""

    cpu: str
    memory: str
    gpu: int = 0
    gpu_resource: str = NVIDIA
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, str], ...] = ()

    def described(self) -> dict[str, Any]:
        """As the ConfigMap would have it."""
        return {
            "cpu": self.cpu,
            "memory": self.memory,
            "gpu": self.gpu,
            "gpuResource": self.gpu_resource,
            "nodeSelector": dict(self.node_selector),
            "tolerations": [dict(toleration) for toleration in self.tolerations],
        }


@dataclass(frozen=True, slots=True)
class InstanceTypes:
    """Every known type, by its name."""

    types: Mapping[str, InstanceType]

    def find(self, name: str) -> InstanceType | None:
        """The type of that name."""
        return self.types.get(name)


def unknown(name: str) -> str:
    """What to do about a type that nobody knows."""
    return (
        f"found {name}, which is neither built in nor in ConfigMap {CONFIG_MAP} of the operator's namespace; add it "
        f'there under data["{DATA_KEY}"]: `{name}: {{cpu: "4", memory: 16Gi, gpu: 0}}`'
    )


def parse(document: Any) -> InstanceTypes:
    """From the ConfigMap's YAML, decoded (None: only the built-in types). Raises InstanceTypesError."""
    if document is None:
        return InstanceTypes(BUILT_IN)
    if not isinstance(document, Mapping):
        raise _error("", document, "a map from instance types to {cpu, memory, gpu, ...}")
    types = dict(BUILT_IN)
    for name, raw in document.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise _error("", name, "names of instance types as keys, such as ml.m5.large")
        types[name] = _parsed(name, raw, BUILT_IN.get(name))
    return InstanceTypes(types)


def _parsed(name: str, raw: Any, base: InstanceType | None) -> InstanceType:
    if not isinstance(raw, Mapping):
        raise _error(name, raw, f"a map with {', '.join(_FIELDS)}")
    for key in raw:
        if key not in _FIELDS:
            raise _error(name, key, f"the keys {', '.join(_FIELDS)}")
    values = {**(base.described() if base else {}), **raw}
    for key in ("cpu", "memory"):
        if key not in values:
            raise InstanceTypesError(f"{DATA_KEY}: {name}.{key}: is missing, required for a type that is not built in")
    gpu, resource = values.get("gpu", 0), values.get("gpuResource", NVIDIA)
    if isinstance(gpu, bool) or not isinstance(gpu, int) or not 0 <= gpu <= 1024:
        raise _error(f"{name}.gpu", gpu, "an integer from 0 to 1024")
    if not isinstance(resource, str) or not _RESOURCE.fullmatch(resource):
        raise _error(f"{name}.gpuResource", resource, f"the name of an extended resource, such as {NVIDIA}")
    return InstanceType(
        cpu=_quantity(f"{name}.cpu", values["cpu"]),
        memory=_quantity(f"{name}.memory", values["memory"]),
        gpu=gpu,
        gpu_resource=resource,
        node_selector=_selector(f"{name}.nodeSelector", values.get("nodeSelector") or {}),
        tolerations=_tolerations(f"{name}.tolerations", values.get("tolerations") or []),
    )


def _quantity(path: str, value: Any) -> str:
    # YAML reads `cpu: 1.5` as a float; its text is what was meant.
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise _error(path, value, "a quantity such as 500m, 2 or 4Gi")
    try:
        if quantity.parse(str(value)) <= 0:
            raise ValueError
    except ValueError:
        raise _error(path, value, "a quantity greater than zero, such as 500m, 2 or 4Gi") from None
    return str(value)


def _selector(path: str, value: Any) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise _error(path, value, "a map from labels to values")
    for key, text in value.items():
        if not isinstance(key, str) or not _LABEL_KEY.fullmatch(key):
            raise _error(path, key, "a label's name")
        if not isinstance(text, str) or not _LABEL_VALUE.fullmatch(text):
            raise _error(f"{path}[{key}]", text, "a label's value, a string (in YAML, quote true, false and numbers)")
    return dict(value)


def _tolerations(path: str, value: Any) -> tuple[Mapping[str, str], ...]:
    if not isinstance(value, list):
        raise _error(path, value, "a list of tolerations")
    for index, toleration in enumerate(value):
        here = f"{path}[{index}]"
        if not isinstance(toleration, Mapping):
            raise _error(here, toleration, f"a map with {', '.join(_TOLERATION)}")
        for key, text in toleration.items():
            if key not in _TOLERATION:
                raise _error(here, key, f"the keys {', '.join(_TOLERATION)}")
            if not isinstance(text, str) or (_TOLERATION[key] and text not in _TOLERATION[key]):
                raise _error(f"{here}.{key}", text, " or ".join(_TOLERATION[key]) or "a string")
    return tuple(dict(toleration) for toleration in value)


def _error(path: str, found: Any, allowed: str) -> InstanceTypesError:
    place = f"{DATA_KEY}: {path}: " if path else f"{DATA_KEY}: "
    return InstanceTypesError(f"{place}found {found!r:.100}, allowed is {allowed}")


_GPU_NODES: Final = ({"key": NVIDIA, "operator": "Exists", "effect": "NoSchedule"},)
_NEURON_NODES: Final = ({"key": NEURON, "operator": "Exists", "effect": "NoSchedule"},)
_ARM: Final = {"kubernetes.io/arch": "arm64"}

# Families whose sizes all have four vCPUs per `xlarge`: GiB per vCPU, sizes, node selector.
_FAMILIES: Final[Mapping[str, tuple[int, str, Mapping[str, str]]]] = {
    "t2": (4, "large xlarge 2xlarge", {}),
    "t3": (4, "large xlarge 2xlarge", {}),
    "m5": (4, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge", {}),
    "m5d": (4, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge", {}),
    "m6i": (4, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge", {}),
    "m7i": (4, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge", {}),
    "c5": (2, "large xlarge 2xlarge 4xlarge 9xlarge 12xlarge 18xlarge 24xlarge", {}),
    "c5d": (2, "large xlarge 2xlarge 4xlarge 9xlarge 12xlarge 18xlarge 24xlarge", {}),
    "c6i": (2, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge", {}),
    "c7i": (2, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 48xlarge", {}),
    "c6g": (2, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge", _ARM),
    "c7g": (2, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge", _ARM),
    "r5": (8, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge", {}),
    "r6i": (8, "large xlarge 2xlarge 4xlarge 8xlarge 12xlarge 16xlarge 24xlarge 32xlarge", {}),
}

# Everything else, by size: vCPUs, GiB, accelerators.
_SIZES: Final[Mapping[str, Mapping[str, tuple[int, int, int]]]] = {
    "t2": {"medium": (2, 4, 0)},
    "t3": {"medium": (2, 4, 0)},
    "g4dn": {
        "xlarge": (4, 16, 1), "2xlarge": (8, 32, 1), "4xlarge": (16, 64, 1), "8xlarge": (32, 128, 1),
        "12xlarge": (48, 192, 4), "16xlarge": (64, 256, 1),
    },
    "g5": {
        "xlarge": (4, 16, 1), "2xlarge": (8, 32, 1), "4xlarge": (16, 64, 1), "8xlarge": (32, 128, 1),
        "12xlarge": (48, 192, 4), "16xlarge": (64, 256, 1), "24xlarge": (96, 384, 4), "48xlarge": (192, 768, 8),
    },
    "g6": {
        "xlarge": (4, 16, 1), "2xlarge": (8, 32, 1), "4xlarge": (16, 64, 1), "8xlarge": (32, 128, 1),
        "12xlarge": (48, 192, 4), "16xlarge": (64, 256, 1), "24xlarge": (96, 384, 4), "48xlarge": (192, 768, 8),
    },
    "g6e": {
        "xlarge": (4, 32, 1), "2xlarge": (8, 64, 1), "4xlarge": (16, 128, 1), "8xlarge": (32, 256, 1),
        "12xlarge": (48, 384, 4), "16xlarge": (64, 512, 1), "24xlarge": (96, 768, 4), "48xlarge": (192, 1536, 8),
    },
    "p3": {"2xlarge": (8, 61, 1), "8xlarge": (32, 244, 4), "16xlarge": (64, 488, 8)},
    "p4d": {"24xlarge": (96, 1152, 8)},
    "p4de": {"24xlarge": (96, 1152, 8)},
    "p5": {"4xlarge": (16, 256, 1), "48xlarge": (192, 2048, 8)},
    "inf1": {"xlarge": (4, 8, 1), "2xlarge": (8, 16, 1), "6xlarge": (24, 48, 4), "24xlarge": (96, 192, 16)},
    "inf2": {"xlarge": (4, 16, 1), "8xlarge": (32, 128, 1), "24xlarge": (96, 384, 6), "48xlarge": (192, 768, 12)},
    "trn1": {"2xlarge": (8, 32, 1), "32xlarge": (128, 512, 16)},
}  # fmt: skip
_NEURON_FAMILIES: Final = frozenset({"inf1", "inf2", "trn1"})


def _vcpus(size: str) -> int:
    return 2 if size == "large" else 4 * int(size.removesuffix("xlarge") or 1)


def _built_in(family: str, vcpus: int, gibibytes: int, accelerators: int, selector: Mapping[str, str]) -> InstanceType:
    neuron = family in _NEURON_FAMILIES
    tolerations = _NEURON_NODES if neuron else _GPU_NODES
    cores = vcpus - max(Fraction(3, 10), Fraction(4, 100) * vcpus)
    return InstanceType(
        cpu=quantity.cpu(cores),
        memory=quantity.memory(Fraction(gibibytes * 1024**3) * 9 / 10 - 768 * 1024**2),
        gpu=accelerators,
        gpu_resource=NEURON if neuron else NVIDIA,
        node_selector=selector,
        tolerations=tolerations if accelerators else (),
    )


def _table() -> dict[str, InstanceType]:
    table = {
        f"ml.{family}.{size}": _built_in(family, _vcpus(size), _vcpus(size) * ratio, 0, selector)
        for family, (ratio, sizes, selector) in _FAMILIES.items()
        for size in sizes.split()
    }
    for family, sizes in _SIZES.items():
        selector = _FAMILIES[family][2] if family in _FAMILIES else {}
        for size, (vcpus, gibibytes, accelerators) in sizes.items():
            table[f"ml.{family}.{size}"] = _built_in(family, vcpus, gibibytes, accelerators, selector)
    return table


BUILT_IN: Final[Mapping[str, InstanceType]] = _table()
