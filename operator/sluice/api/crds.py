"""The CustomResourceDefinitions: names, printer columns and schemas of the three kinds that people write, and of the
two between the operator and the routers."""

from dataclasses import dataclass
from typing import Any, Final

from sluice.api.base import VALIDATIONS, ApiModel, Rule
from sluice.api.cel import NAME_RULE
from sluice.api.endpoint import ENDPOINT_NAME_RULE, EndpointSpec
from sluice.api.endpointconfig import EndpointConfigSpec
from sluice.api.model import ModelSpec
from sluice.api.names import (
    CATEGORY,
    ENDPOINT,
    ENDPOINT_CONFIG,
    ENDPOINT_CONFIGS,
    ENDPOINT_ROUTE,
    ENDPOINT_ROUTES,
    ENDPOINTS,
    GROUP,
    MODEL,
    MODELS,
    ROUTER_REPORT,
    ROUTER_REPORTS,
    VERSION,
)
from sluice.api.routes import EndpointRouteSpec, RouterReportSpec
from sluice.api.schema import internal_schema, spec_schema, status_schema
from sluice.api.status import EndpointConfigStatus, EndpointStatus, ModelStatus


@dataclass(frozen=True, slots=True)
class Column:
    """A printer column. Priority 1 shows only with `-o wide`."""

    name: str
    json_path: str
    description: str
    type: str = "string"
    priority: int = 0

    def manifest(self) -> dict[str, Any]:
        """The column as it stands in a CRD."""
        column: dict[str, Any] = {
            "name": self.name,
            "type": self.type,
            "jsonPath": self.json_path,
            "description": self.description,
        }
        if self.priority:
            column["priority"] = self.priority
        return column


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of the API."""

    name: str
    plural: str
    short_name: str
    description: str
    spec: type[ApiModel]
    status: type[ApiModel]
    columns: tuple[Column, ...]
    rules: tuple[Rule, ...]

    @property
    def crd_name(self) -> str:
        """metadata.name of the CRD."""
        return f"{self.plural}.{GROUP}"


def _condition(kind: str, field: str = "status") -> str:
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


_AGE = Column("AGE", ".metadata.creationTimestamp", "Time since creation.", "date")
_READY = Column("READY", _condition("Ready"), "Whether the spec is accepted.")
_ROLLED_OUT = Column("ROLLED-OUT", _condition("RolledOut"), "Whether every Endpoint that uses it runs it.")
_MESSAGE = Column("MESSAGE", _condition("Ready", "message"), "Why.", priority=1)

KINDS: Final = (
    Kind(
        MODEL,
        MODELS,
        "smodel",
        "Model declares containers, model data and environment, as CreateModel takes them.",
        ModelSpec,
        ModelStatus,
        (
            _READY,
            _ROLLED_OUT,
            Column("IMAGE", ".spec.primaryContainer.image", "The image of the primary container.", priority=1),
            _MESSAGE,
            _AGE,
        ),
        (NAME_RULE,),
    ),
    Kind(
        ENDPOINT_CONFIG,
        ENDPOINT_CONFIGS,
        "sepc",
        "EndpointConfig declares the variants of an endpoint and their sizes, as CreateEndpointConfig takes them.",
        EndpointConfigSpec,
        EndpointConfigStatus,
        (
            _READY,
            _ROLLED_OUT,
            # An API server prints the first match alone.
            Column("FIRST-VARIANT", ".spec.productionVariants[0].variantName", "The first variant.", priority=1),
            Column("FIRST-MODEL", ".spec.productionVariants[0].modelName", "Its Model.", priority=1),
            _MESSAGE,
            _AGE,
        ),
        (NAME_RULE,),
    ),
    Kind(
        ENDPOINT,
        ENDPOINTS,
        "sep",
        "Endpoint makes an EndpointConfig and its Models real, on SageMaker or in the cluster.",
        EndpointSpec,
        EndpointStatus,
        (
            Column("STATUS", ".status.endpointStatus", "SageMaker's EndpointStatus."),
            Column("READY", _condition("Ready"), "Whether the revision asked for is in service."),
            Column("CONFIG", ".spec.endpointConfigName", "The EndpointConfig asked for."),
            Column("STAGE", ".status.deployment.stage", "The stage of the deployment that runs."),
            Column("STEP", ".status.deployment.stepText", "Its step."),
            Column("TRAFFIC", ".status.deployment.trafficText", "Its share of the traffic."),
            Column("ALARMS", ".status.alarmsText", "The alarms that guard it."),
            Column("BACKEND", ".spec.backend", "Where the endpoint runs.", priority=1),
            Column("REVISION", ".status.revision.name", "The revision in service.", priority=1),
            _MESSAGE,
            _AGE,
        ),
        (NAME_RULE, ENDPOINT_NAME_RULE),
    ),
)


@dataclass(frozen=True, slots=True)
class InternalKind:
    """A kind that only Sluice's own processes write and read: no short name, no category, no status, no rules."""

    name: str
    plural: str
    description: str
    spec: type[ApiModel]
    columns: tuple[Column, ...]

    @property
    def crd_name(self) -> str:
        """metadata.name of the CRD."""
        return f"{self.plural}.{GROUP}"


INTERNAL_KINDS: Final = (
    InternalKind(
        ENDPOINT_ROUTE,
        ENDPOINT_ROUTES,
        "EndpointRoute is what the routers of a namespace apply for one Endpoint. The operator writes it, nobody else.",
        EndpointRouteSpec,
        (Column("ENDPOINT", ".spec.endpointName", "The name in the path of requests."), _AGE),
    ),
    InternalKind(
        ROUTER_REPORT,
        ROUTER_REPORTS,
        "RouterReport is what one router pod has applied. The agent in that pod writes it, nobody else.",
        RouterReportSpec,
        (Column("SCHEMA", ".spec.schemaVersion", "The newest EndpointRoute it understands.", "integer"), _AGE),
    ),
)


def kind(name: str) -> Kind:
    """The kind of that name. Raises KeyError."""
    return {each.name: each for each in KINDS}[name]


def object_schema(of: Kind) -> dict[str, Any]:
    """The schema of a whole object: what a CRD has as openAPIV3Schema."""
    return {
        "type": "object",
        "description": of.description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": spec_schema(of.spec),
            "status": status_schema(of.status),
        },
        VALIDATIONS: [rule.json_schema() for rule in of.rules],
    }


def internal_object_schema(of: InternalKind) -> dict[str, Any]:
    """The schema of a whole object of an internal kind."""
    return {
        "type": "object",
        "description": of.description,
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": internal_schema(of.spec),
        },
    }


def crd(of: Kind | InternalKind) -> dict[str, Any]:
    """The CustomResourceDefinition of a kind."""
    names: dict[str, Any] = {
        "kind": of.name,
        "listKind": f"{of.name}List",
        "plural": of.plural,
        "singular": of.name.lower(),
    }
    version: dict[str, Any] = {"name": VERSION, "served": True, "storage": True}
    columns = [column.manifest() for column in of.columns]
    if isinstance(of, InternalKind):
        schema = internal_object_schema(of)
    else:
        schema = object_schema(of)
        names |= {"shortNames": [of.short_name], "categories": [CATEGORY]}
        version["subresources"] = {"status": {}}
    version |= {"additionalPrinterColumns": columns, "schema": {"openAPIV3Schema": schema}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        # Helm keeps it when the chart is removed: deleting a CRD deletes every object of the kind.
        "metadata": {"name": of.crd_name, "annotations": {"helm.sh/resource-policy": "keep"}},
        "spec": {"group": GROUP, "scope": "Namespaced", "names": names, "versions": [version]},
    }
