"""A revision: what an Endpoint, its EndpointConfig and its Models resolve to, closed and immutable.

It is stored as a ControllerRevision, and an Endpoint serves, repairs and rolls back from stored ones, whatever
happened to the objects since."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sluice.api.status import RevisionStatus
from sluice.core.classification import fleet_view, live_view
from sluice.core.hashing import canonical, digest, short
from sluice.core.identity import Owner
from sluice.core.requests import HostingRequests, hosting_requests

RawSpec = Mapping[str, Any]
DATA_FORMAT = 1
LABEL_ENDPOINT = "sluice.dev/endpoint"
LABEL_MANAGED_BY = "sluice.dev/managed-by"
MANAGED_BY = "sluice"
ANNOTATION_OUTCOME = "sluice.dev/outcome"
ANNOTATION_OUTCOME_MESSAGE = "sluice.dev/outcome-message"


@dataclass(frozen=True, slots=True)
class Revision:
    """One revision. `endpoint_config` and `models` are the users' raw specs, tags and counts as they were."""

    name: str
    backend: str
    fleet_hash: str
    content_hash: str
    endpoint_config: RawSpec
    models: Mapping[str, RawSpec]
    redeploy: str
    requests: HostingRequests

    def data(self) -> dict[str, Any]:
        """The ControllerRevision's data."""
        return {
            "formatVersion": DATA_FORMAT,
            "backend": self.backend,
            "fleetHash": self.fleet_hash,
            "contentHash": self.content_hash,
            "redeploy": self.redeploy,
            "endpointConfig": dict(self.endpoint_config),
            "models": {name: dict(spec) for name, spec in self.models.items()},
            "sagemaker": {
                "endpointConfigName": self.requests.endpoint_config_name,
                "modelNames": list(self.requests.model_names),
            },
        }

    def execution_roles(self) -> tuple[str, ...]:
        """The roles that SageMaker is handed with it, sorted."""
        specs = (self.endpoint_config, *self.models.values())
        return tuple(sorted({str(spec["executionRoleArn"]) for spec in specs if spec.get("executionRoleArn")}))

    def assumed_roles(self) -> tuple[str, ...]:
        """The roles that its pods' loaders are to assume in the cluster, sorted."""
        found = {
            str(self.endpoint_config.get("executionRoleArn") or model.get("executionRoleArn") or "")
            for model in self.models.values()
            if ((model.get("kubernetes") or {}).get("modelDataAccess") or {}).get("assumeExecutionRole")
        }
        return tuple(sorted(found - {""}))

    def status(self) -> RevisionStatus:
        """The revision as an Endpoint's status names it."""
        return RevisionStatus(
            name=self.name,
            fleet_hash=self.fleet_hash,
            endpoint_config_name=self.requests.endpoint_config_name,
        )


@dataclass(frozen=True, slots=True)
class StoredRevision:
    """A ControllerRevision read back. AWS names are taken as stored, never computed anew."""

    name: str
    number: int
    fleet_hash: str
    content_hash: str
    endpoint_config: RawSpec
    models: Mapping[str, RawSpec]
    backend: str
    redeploy: str
    endpoint_config_name: str
    model_names: tuple[str, ...]
    outcome: str
    outcome_message: str

    def collectable(self, owner: Owner) -> tuple[str, tuple[str, ...]]:
        """(AWS EndpointConfig or "", AWS Models) that this owner may delete: names that its content hashes to for this
        owner. Who may write a ControllerRevision may not have the operator delete somebody else's objects."""
        requests = self.revision(owner).requests
        config = self.endpoint_config_name if self.endpoint_config_name == requests.endpoint_config_name else ""
        return config, tuple(name for name in self.model_names if name in requests.model_names)

    def revision(self, owner: Owner) -> Revision:
        """The revision in full, for deploying it again (rollback, repair)."""
        return Revision(
            name=self.name,
            backend=self.backend,
            fleet_hash=self.fleet_hash,
            content_hash=self.content_hash,
            endpoint_config=self.endpoint_config,
            models=self.models,
            redeploy=self.redeploy,
            requests=hosting_requests(owner, self.fleet_hash, self.endpoint_config, self.models),
        )


def build_revision(
    owner: Owner, backend: str, endpoint_config: RawSpec, models: Mapping[str, RawSpec], redeploy: str = ""
) -> Revision:
    """Close the users' fields into a revision; `models` by metadata.name, all that the config names."""
    fleet_hash = fleet_digest(backend, endpoint_config, models, redeploy)
    requests = hosting_requests(owner, fleet_hash, endpoint_config, models)
    content = {key: value for key, value in requests.endpoint_config.items() if key != "Tags"}
    content_hash = digest(
        {"fleet": fleet_hash, "endpointConfig": content, **_live_beside(backend, endpoint_config, models)}
    )
    return Revision(
        name=f"{owner.name[:200].rstrip('-.')}-{short(fleet_hash)}-{short(content_hash, length=8)}",
        backend=backend,
        fleet_hash=fleet_hash,
        content_hash=content_hash,
        endpoint_config=endpoint_config,
        models=models,
        redeploy=redeploy,
        requests=requests,
    )


def edited_live(backend: str, one: "Revision | StoredRevision", other: "Revision | StoredRevision") -> bool:
    """Whether two revisions of one fleet differ in what is live and does not stand in an Endpoint's status: all but
    weights and counts."""

    def rest(revision: "Revision | StoredRevision") -> Any:
        config = live_view("EndpointConfig", backend, dict(revision.endpoint_config))
        counted = {"initialVariantWeight", "initialInstanceCount"}
        variants = {
            name: [{key: value for key, value in item.items() if key not in counted} for item in config.pop(name, ())]
            for name in ("productionVariants", "shadowProductionVariants")
        }
        models = {name: live_view("Model", backend, dict(spec)) for name, spec in revision.models.items()}
        return digest({"config": config, "variants": variants, "models": models})

    return bool(rest(one) != rest(other))


def _live_beside(backend: str, endpoint_config: RawSpec, models: Mapping[str, RawSpec]) -> Mapping[str, Any]:
    """What is live in the cluster and stands under `kubernetes`, which no AWS request carries."""
    variants = {
        variant["variantName"]: {key: value for key, value in variant.items() if key in {"variantName", "kubernetes"}}
        for name in ("productionVariants", "shadowProductionVariants")
        for variant in live_view("EndpointConfig", backend, dict(endpoint_config)).get(name) or ()
        if variant.get("kubernetes")
    }
    samples = {name: view for name, spec in models.items() if (view := live_view("Model", backend, dict(spec)))}
    return {"live": {"variants": variants, "models": samples}} if variants or samples else {}


def fleet_digest(backend: str, endpoint_config: RawSpec, models: Mapping[str, RawSpec], redeploy: str) -> str:
    """The fleet hash: what decides whether a new fleet is needed.

    Names of Models do not count, their content does; the order of variants does not count, that of containers does."""
    config = dict(fleet_view("EndpointConfig", backend, dict(endpoint_config)))
    for list_name in ("productionVariants", "shadowProductionVariants"):
        raw = {variant["variantName"]: variant for variant in endpoint_config.get(list_name) or ()}
        kept = {variant["variantName"]: dict(variant) for variant in config.get(list_name) or ()}
        for name, variant in kept.items():
            named = raw[name].get("modelName")
            if named:
                variant["model"] = fleet_view("Model", backend, dict(models[named]))
            pools = [dict(pool) for pool in variant.get("instancePools") or ()]
            for pool, raw_pool in zip(pools, raw[name].get("instancePools") or (), strict=True):
                override = pool.pop("modelNameOverride", None) or raw_pool.get("modelNameOverride")
                if override:
                    pool["model"] = fleet_view("Model", backend, dict(models[override]))
            if pools:
                variant["instancePools"] = pools
        if kept:
            config[list_name] = [kept[name] for name in sorted(kept)]
    # The digest leaves empty objects out, and this one is the whole difference: asynchronous, with every default.
    asynchronous = config.get("asyncInferenceConfig")
    by_default = {"asynchronous": True} if asynchronous is not None and not canonical(asynchronous) else {}
    return digest({"endpointConfig": config, "redeploy": redeploy or None, **by_default})


def stored_revision(controller_revision: Mapping[str, Any]) -> StoredRevision:
    """Read a ControllerRevision back. Raises ValueError if it is none of Sluice's: the labels that select ours can
    stand on others (a StatefulSet hands its own down), and people can write what they like."""
    metadata = controller_revision["metadata"]
    data: Any = controller_revision.get("data")
    annotations = metadata.get("annotations") or {}
    try:
        stored = StoredRevision(
            name=metadata["name"],
            number=int(controller_revision.get("revision") or 0),
            fleet_hash=_text(data["fleetHash"], 80),
            content_hash=_text(data["contentHash"], 80),
            endpoint_config=dict(data["endpointConfig"]),
            models=dict(data["models"]),
            backend=_text(data["backend"], 32),
            redeploy=str(data.get("redeploy") or ""),
            endpoint_config_name=_text(data["sagemaker"]["endpointConfigName"], 63),
            model_names=tuple(_text(name, 63) for name in data["sagemaker"]["modelNames"]),
            outcome=str(annotations.get(ANNOTATION_OUTCOME, "")),
            outcome_message=str(annotations.get(ANNOTATION_OUTCOME_MESSAGE, ""))[:1000],
        )
        if not all(variant["variantName"] for variant in stored.endpoint_config["productionVariants"]):
            raise ValueError("a variant without a name")
        stored.revision(Owner("", "", ""))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:  # also of hundreds of levels
        raise ValueError(
            f"ControllerRevision {metadata['name']} carries Sluice's label but is no revision of Sluice's "
            f"({type(error).__name__}: {error}); it is left alone"
        ) from error
    return stored


def _text(value: Any, longest: int) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise ValueError(f"found {value!r:.80}, allowed is text of at most {longest} characters")
    return value


def controller_revision(endpoint: Mapping[str, Any], name: str, data: Mapping[str, Any], number: int) -> dict[str, Any]:
    """The ControllerRevision to create. No ownerReference: foreground deletion would take it away before the
    finalizer has used it to collect the AWS objects; the finalizer deletes it."""
    metadata = endpoint["metadata"]
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": {
            "name": name,
            "namespace": metadata["namespace"],
            "labels": {LABEL_MANAGED_BY: MANAGED_BY, LABEL_ENDPOINT: metadata["name"][:63].rstrip("-.")},
            "annotations": {LABEL_ENDPOINT: metadata["name"]},
        },
        "data": dict(data),
        "revision": number,
    }
