"""What an Endpoint in the cluster must not ask for: fields that the backend cannot honour and that may not be ignored,
because the endpoint would then be another thing than its manifests say. Judged before any side effect.

What can be ignored without that is class `ignored` in the classification, and only shown (FieldsIgnored)."""

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from sluice.api.reasons import Reason
from sluice.core.finding import Finding
from sluice.core.revision import RawSpec

_VARIANT_LISTS: Final = ("productionVariants", "shadowProductionVariants")
_BALANCED_OTHERWISE: Final = frozenset({"PREFIX_AWARE", "KV_AWARE"})


def check(
    config_name: str,
    endpoint_config: RawSpec,
    models: Mapping[str, RawSpec],
    cache_directories: tuple[str, ...] = (),
) -> Finding | None:
    """The first thing that backend Cluster cannot do. `models`: by metadata.name, all that the config names;
    `cache_directories`: directories of the nodes that the administrator lets Models keep downloads in."""
    return next(_all(config_name, endpoint_config, models, cache_directories), None)


def claims_on_sagemaker(models: Mapping[str, RawSpec]) -> Finding | None:
    """Model data in a PersistentVolumeClaim, which SageMaker cannot reach."""
    for name, model in sorted(models.items()):
        for path, container in _containers(model):
            url = str(container.get("modelDataUrl") or "")
            if url.startswith("pvc://"):
                return Finding(
                    Reason.NOT_SUPPORTED_BY_BACKEND,
                    f"found {url}, allowed on backend SageMaker are s3:// and https://; copy the archive to S3",
                    f"Model/{name}.spec.{path}.modelDataUrl",
                )
    return None


def unlisted_cache(models: Mapping[str, RawSpec], allowed: tuple[str, ...]) -> Finding | None:
    """A directory of the nodes that the administrator does not let Models keep downloads in: what was judged when a
    revision was new may be another list now, and who may write ControllerRevisions is not the administrator."""
    return next((finding for name, model in sorted(models.items()) for finding in _cache(name, model, allowed)), None)


def unhonoured_values(endpoint_config: RawSpec) -> tuple[str, ...]:
    """Paths of fields that the backend honours, with values that it does not (condition FieldsIgnored): requests are
    balanced by LEAST_OUTSTANDING_REQUESTS then."""
    return tuple(
        f"{field}[].routingConfig.routingStrategy"
        for field in _VARIANT_LISTS
        if any(
            (variant.get("routingConfig") or {}).get("routingStrategy") in _BALANCED_OTHERWISE
            for variant in endpoint_config.get(field) or ()
        )
    )


def _all(
    config_name: str, endpoint_config: RawSpec, models: Mapping[str, RawSpec], cache_directories: tuple[str, ...]
) -> Iterator[Finding]:
    here = f"EndpointConfig/{config_name}.spec"
    if endpoint_config.get("asyncInferenceConfig") is not None:
        yield _unsupported(
            "asynchronous endpoints are not there yet; remove the field, or use backend SageMaker",
            f"{here}.asyncInferenceConfig",
        )
    for field in _VARIANT_LISTS:
        for variant in endpoint_config.get(field) or ():
            yield from _variant(f"{here}.{field}[{variant['variantName']}]", variant)
    for name, model in sorted(models.items()):
        for path, container in _containers(model):
            yield from _container(f"Model/{name}.spec.{path}", container)
        yield from _cache(name, model, cache_directories)
        access = (model.get("kubernetes") or {}).get("modelDataAccess") or {}
        yield from _url(access.get("s3EndpointUrl"), f"Model/{name}.spec.kubernetes.modelDataAccess.s3EndpointUrl")


def _variant(path: str, variant: Mapping[str, Any]) -> Iterator[Finding]:
    if variant.get("serverlessConfig"):
        yield _unsupported(
            "serverless variants are not there yet; give the variant an instanceType and an initialInstanceCount",
            f"{path}.serverlessConfig",
        )
    if variant.get("instancePools"):
        yield _unsupported(
            "a variant has one instance type here; set instanceType, and let ConfigMap sluice-instance-types say which "
            "nodes it stands for",
            f"{path}.instancePools",
        )
    if not variant.get("modelName"):
        yield _unsupported(
            "inference components are not there yet; name the Model that the variant runs", f"{path}.modelName"
        )


def _container(path: str, container: Mapping[str, Any]) -> Iterator[Finding]:
    if container.get("mode") == "MultiModel":
        yield _unsupported(
            "found MultiModel, allowed is SingleModel: multi-model containers are not there yet; make one Model of "
            "each, or use backend SageMaker",
            f"{path}.mode",
        )
    if not container.get("image"):
        yield _unsupported(
            "only SageMaker knows model packages; set image, and the model data beside it", f"{path}.modelPackageName"
        )
    yield from _url(container.get("modelDataUrl"), f"{path}.modelDataUrl")
    for source in container.get("additionalModelDataSources") or ():
        if source["channelName"] in {".", ".."}:
            yield Finding(
                Reason.INVALID_SPEC,
                f"found {source['channelName']!r}, allowed is a name that a directory can have",
                f"{path}.additionalModelDataSources[].channelName",
            )


def _url(url: str | None, field: str) -> Iterator[Finding]:
    """A host or port that is none: the API server's pattern, which is SageMaker's, lets it through, and neither the
    NetworkPolicy nor the loader can be made of it."""
    if not (url or "").startswith(("https://", "http://")):
        return
    try:
        parts = urlsplit(url)
        why = "" if parts.hostname and parts.port != 0 else "no host, or port 0"
    except ValueError as error:
        why = str(error)
    if why:
        place = str(url).split("/")[2].rpartition("@")[2]  # a password and a signature are nobody's to read
        yield Finding(
            Reason.INVALID_SPEC,
            f"found {place!r:.200}, allowed is a host, and perhaps a port from 1 to 65535 ({why}); correct it",
            field,
        )


def _cache(name: str, model: RawSpec, allowed: tuple[str, ...]) -> Iterator[Finding]:
    path = ((model.get("kubernetes") or {}).get("modelDataAccess") or {}).get("cacheHostPath")
    if not path:
        return
    normal = posixpath.normpath(path)
    if not any(f"{normal}/".startswith(f"{directory.rstrip('/')}/") for directory in allowed):
        yield Finding(
            Reason.NOT_PERMITTED,
            f"found {path}, allowed by the administrator are directories below {', '.join(allowed) or 'none'}; remove "
            "the field, or have the directory allowed",
            f"Model/{name}.spec.kubernetes.modelDataAccess.cacheHostPath",
        )


def _containers(model: RawSpec) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if model.get("primaryContainer"):
        yield "primaryContainer", model["primaryContainer"]
    for index, container in enumerate(model.get("containers") or ()):
        yield f"containers[{index}]", container


def _unsupported(message: str, field: str) -> Finding:
    return Finding(Reason.NOT_SUPPORTED_BY_BACKEND, message, field)
