"""A revision as AWS requests: the manifest's words with an upper-case first letter, under hashed names.

Names are at most 63 characters of SageMaker's pattern. They hold the namespace and the Endpoint for people, and hashes
over the owner (installation/namespace/name) and the content for the machine: `team-a-churn-<fleet>-<content>` for an
EndpointConfig, `team-a-churn-<model>-<content>` for a Model. The fleet part alone tells whether a living endpoint runs
the revision that a rebuilt cluster asks for, whatever its counts and weights were when it was made."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sluice.api.names import OWNER_TAG
from sluice.core.hashing import canonical, digest, short
from sluice.core.identity import Owner

_FREE_MAPS = frozenset({"environment"})
_NOT_SENT = frozenset({"kubernetes", "tags"})


@dataclass(frozen=True, slots=True)
class HostingRequests:
    """CreateModel requests (in the order of first use) and the CreateEndpointConfig request of one revision."""

    models: tuple[Mapping[str, Any], ...]
    endpoint_config: Mapping[str, Any]

    @property
    def endpoint_config_name(self) -> str:
        """The AWS EndpointConfig's name."""
        return str(self.endpoint_config["EndpointConfigName"])

    @property
    def model_names(self) -> tuple[str, ...]:
        """The AWS Models' names."""
        return tuple(str(model["ModelName"]) for model in self.models)


def sagemaker_words(value: Any) -> Any:
    """The manifest's JSON with SageMaker's member names; free maps (environment) keep their keys."""
    if isinstance(value, Mapping):
        return {
            _upper(key): dict(item) if key in _FREE_MAPS else sagemaker_words(item)
            for key, item in value.items()
            if key not in _NOT_SENT and item is not None
        }
    if isinstance(value, (list, tuple)):
        return [sagemaker_words(item) for item in value]
    return value


def aws_tags(tags: Any, owner: Owner) -> list[dict[str, str]]:
    """A tag list as SageMaker takes it: the users' tags and the ownership tag."""
    wanted = tag_map(tags, owner)
    return [{"Key": key, "Value": wanted[key]} for key in sorted(wanted)]


def tag_map(tags: Any, owner: Owner) -> dict[str, str]:
    """Tags as a map, with the ownership tag."""
    wanted = {str(tag["key"]): str(tag.get("value", "")) for tag in tags or ()}
    wanted[OWNER_TAG] = str(owner)
    return wanted


def hosting_requests(
    owner: Owner, fleet_hash: str, endpoint_config: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]
) -> HostingRequests:
    """The requests of one revision.

    endpoint_config: an EndpointConfig's raw spec; models: raw Model specs by metadata.name, all that it names."""
    requests: dict[str, Mapping[str, Any]] = {}
    config = sagemaker_words(endpoint_config)
    for variant in _variants(config):
        for holder, member in model_members(variant):
            name = holder[member]
            if name not in requests:
                requests[name] = _model_request(owner, name, models[name])
            holder[member] = requests[name]["ModelName"]
    content = digest(config)
    config["EndpointConfigName"] = "-".join(
        (_prefix(f"{owner.namespace}-{owner.name}", 41), fleet_part(owner, fleet_hash), short(str(owner), content))
    )
    config["Tags"] = aws_tags(endpoint_config.get("tags"), owner)
    return HostingRequests(models=tuple(requests.values()), endpoint_config=config)


def fleet_part(owner: Owner, fleet_hash: str) -> str:
    """The part of an AWS EndpointConfig's name that stands for owner and fleet hash."""
    return short(str(owner), fleet_hash)


def runs_fleet(owner: Owner, fleet_hash: str, endpoint_config_name: str) -> bool:
    """Whether an AWS EndpointConfig of this name was made for this owner and fleet hash."""
    parts = endpoint_config_name.rsplit("-", 2)
    return len(parts) == 3 and parts[1] == fleet_part(owner, fleet_hash)


def named_for(owner: Owner, endpoint_config_name: str) -> bool:
    """Whether an AWS EndpointConfig's name is one that this owner's have, whatever its fleet hash is."""
    parts = endpoint_config_name.rsplit("-", 2)
    return len(parts) == 3 and parts[0] == _prefix(f"{owner.namespace}-{owner.name}", 41)


def model_names(endpoint_config: Mapping[str, Any]) -> tuple[str, ...]:
    """The Models that a raw EndpointConfig spec names, in order of first use."""
    names: dict[str, None] = {}
    for list_name in ("productionVariants", "shadowProductionVariants"):
        for variant in endpoint_config.get(list_name) or ():
            if variant.get("modelName"):
                names[variant["modelName"]] = None
            for pool in variant.get("instancePools") or ():
                if pool.get("modelNameOverride"):
                    names[pool["modelNameOverride"]] = None
    return tuple(names)


def model_members(variant: dict[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Where a variant, in SageMaker's words, names models: (what holds the name, under which member)."""
    found = [(variant, "ModelName")] if variant.get("ModelName") else []
    return found + [(p, "ModelNameOverride") for p in variant.get("InstancePools", ()) if p.get("ModelNameOverride")]


def _model_request(owner: Owner, name: str, spec: Mapping[str, Any]) -> Mapping[str, Any]:
    request: dict[str, Any] = sagemaker_words(spec)
    content = digest(canonical(request))
    request["ModelName"] = "-".join(
        (_prefix(f"{owner.namespace}-{owner.name}-{name}", 52), short(str(owner), name, content))
    )
    request["Tags"] = aws_tags(spec.get("tags"), owner)
    return request


def _variants(config: dict[str, Any]) -> list[dict[str, Any]]:
    return [*config.get("ProductionVariants", ()), *config.get("ShadowProductionVariants", ())]


def _prefix(text: str, length: int) -> str:
    return text.replace(".", "-")[:length].rstrip("-")


def _upper(key: str) -> str:
    return key[:1].upper() + key[1:]
