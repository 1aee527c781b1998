"""Decides what a change of each field of the API means, per backend.

Every leaf of the three specs has one class per backend:

- fleet: a change needs a new fleet, that is a deployment under deploymentConfig;
- live: a change is made on the serving fleet (UpdateEndpointWeightsAndCapacities, routes), without a deployment;
- metadata: a change is written or read, and never deploys (tags, policies, names that stand for other objects);
- ignored: the backend cannot honour the field; condition FieldsIgnored names it.

The tables are written out leaf by leaf, so that a new field of the schema fails a test until somebody decides. A path
is written `productionVariants[].initialVariantWeight`; a list or map of scalars is one leaf.
"""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from functools import cache
from types import MappingProxyType
from typing import Any, Final

from sluice.api.names import BACKEND_CLUSTER, BACKEND_SAGEMAKER, ENDPOINT, ENDPOINT_CONFIG, MODEL


class Class(StrEnum):
    """What a change of a field means."""

    FLEET = "fleet"
    LIVE = "live"
    METADATA = "metadata"
    IGNORED = "ignored"


# Pairs of (SageMaker, Cluster).
_Pair = tuple[Class, Class]
_FLEET: Final[_Pair] = (Class.FLEET, Class.FLEET)
_LIVE: Final[_Pair] = (Class.LIVE, Class.LIVE)
_METADATA: Final[_Pair] = (Class.METADATA, Class.METADATA)
_SAGEMAKER_FLEET: Final[_Pair] = (Class.FLEET, Class.IGNORED)
_FLEET_LIVE: Final[_Pair] = (Class.FLEET, Class.LIVE)
_CLUSTER_FLEET: Final[_Pair] = (Class.IGNORED, Class.FLEET)
_CLUSTER_LIVE: Final[_Pair] = (Class.IGNORED, Class.LIVE)
_CLUSTER_METADATA: Final[_Pair] = (Class.IGNORED, Class.METADATA)
_SAGEMAKER_METADATA: Final[_Pair] = (Class.METADATA, Class.IGNORED)


def _below(prefix: str, table: Mapping[str, _Pair]) -> dict[str, _Pair]:
    return {f"{prefix}.{path}": pair for path, pair in table.items()}


_S3_DATA_SOURCE: Final[Mapping[str, _Pair]] = {
    "s3Uri": _FLEET,
    "s3DataType": _FLEET,
    "compressionType": _FLEET,
    "modelAccessConfig.acceptEula": _SAGEMAKER_FLEET,
    "hubAccessConfig.hubContentArn": _SAGEMAKER_FLEET,
    "manifestS3Uri": _FLEET,
    "eTag": _FLEET,
    "manifestEtag": _FLEET,
}

_CONTAINER: Final[Mapping[str, _Pair]] = {
    "containerHostname": _FLEET,
    "image": _FLEET,
    "imageConfig.repositoryAccessMode": _SAGEMAKER_FLEET,
    "imageConfig.repositoryAuthConfig.repositoryCredentialsProviderArn": _SAGEMAKER_FLEET,
    "mode": _FLEET,
    "modelDataUrl": _FLEET,
    **_below("modelDataSource.s3DataSource", _S3_DATA_SOURCE),
    "additionalModelDataSources[].channelName": _FLEET,
    **_below("additionalModelDataSources[].s3DataSource", _S3_DATA_SOURCE),
    "environment": _FLEET,
    "modelPackageName": _SAGEMAKER_FLEET,
    "inferenceSpecificationName": _SAGEMAKER_FLEET,
    "multiModelConfig.modelCacheSetting": _SAGEMAKER_FLEET,
    "containerMetricsConfig.metricsEndpoints[].metricsEndpointPath": _SAGEMAKER_FLEET,
    "containerMetricsConfig.metricsEndpoints[].metricPublishFrequencyInSeconds": _SAGEMAKER_FLEET,
}

_VPC_CONFIG: Final[Mapping[str, _Pair]] = {
    "vpcConfig.securityGroupIds": _SAGEMAKER_FLEET,
    "vpcConfig.subnets": _SAGEMAKER_FLEET,
}

_TAGS: Final[Mapping[str, _Pair]] = {"tags[].key": _SAGEMAKER_METADATA, "tags[].value": _SAGEMAKER_METADATA}

_MODEL: Final[Mapping[str, _Pair]] = {
    **_below("primaryContainer", _CONTAINER),
    **_below("containers[]", _CONTAINER),
    "inferenceExecutionConfig.mode": _FLEET,
    "executionRoleArn": _FLEET,
    **_VPC_CONFIG,
    "enableNetworkIsolation": _FLEET,
    **_TAGS,
    "kubernetes.serviceAccountName": _CLUSTER_FLEET,
    "kubernetes.imagePullSecrets[].name": _CLUSTER_FLEET,
    "kubernetes.env[].name": _CLUSTER_FLEET,
    "kubernetes.env[].valueFrom.secretKeyRef.name": _CLUSTER_FLEET,
    "kubernetes.env[].valueFrom.secretKeyRef.key": _CLUSTER_FLEET,
    "kubernetes.env[].valueFrom.configMapKeyRef.name": _CLUSTER_FLEET,
    "kubernetes.env[].valueFrom.configMapKeyRef.key": _CLUSTER_FLEET,
    "kubernetes.resources.requests": _CLUSTER_FLEET,
    "kubernetes.resources.limits": _CLUSTER_FLEET,
    "kubernetes.securityContext.runAsRoot": _CLUSTER_FLEET,
    "kubernetes.securityContext.runAsUser": _CLUSTER_FLEET,
    "kubernetes.securityContext.runAsGroup": _CLUSTER_FLEET,
    "kubernetes.securityContext.fsGroup": _CLUSTER_FLEET,
    # The routers send it: a new one is tried on the pods that stand.
    "kubernetes.sampleInvocation.body": _CLUSTER_LIVE,
    "kubernetes.sampleInvocation.contentType": _CLUSTER_LIVE,
    "kubernetes.sampleInvocation.expectedStatus": _CLUSTER_LIVE,
    "kubernetes.sampleInvocation.timeoutSeconds": _CLUSTER_LIVE,
    "kubernetes.sampleInvocation.periodSeconds": _CLUSTER_LIVE,
    "kubernetes.modelDataAccess.credentialsSecretName": _CLUSTER_FLEET,
    "kubernetes.modelDataAccess.assumeExecutionRole": _CLUSTER_FLEET,
    "kubernetes.modelDataAccess.s3EndpointUrl": _CLUSTER_FLEET,
    "kubernetes.modelDataAccess.region": _CLUSTER_FLEET,
    "kubernetes.modelDataAccess.cacheHostPath": _CLUSTER_FLEET,
    "kubernetes.priorityClassName": _CLUSTER_FLEET,
    "kubernetes.preStopSeconds": _CLUSTER_FLEET,
}

_VARIANT: Final[Mapping[str, _Pair]] = {
    "variantName": _FLEET,
    # A revision holds the content of the Models themselves; what they are called does not matter.
    "modelName": _METADATA,
    "initialInstanceCount": _LIVE,
    "instanceType": _FLEET,
    "instancePools[].instanceType": _FLEET,
    "instancePools[].modelNameOverride": _METADATA,
    "instancePools[].priority": _FLEET,
    "variantInstanceProvisionTimeoutInSeconds": (Class.FLEET, Class.METADATA),
    "initialVariantWeight": _LIVE,
    "acceleratorType": _SAGEMAKER_FLEET,
    "coreDumpConfig.destinationS3Uri": _SAGEMAKER_FLEET,
    "coreDumpConfig.kmsKeyId": _SAGEMAKER_FLEET,
    "serverlessConfig.memorySizeInMB": _FLEET,
    "serverlessConfig.maxConcurrency": _FLEET,
    "serverlessConfig.provisionedConcurrency": _FLEET,
    "volumeSizeInGB": _FLEET,
    "modelDataDownloadTimeoutInSeconds": _FLEET,
    "containerStartupHealthCheckTimeoutInSeconds": _FLEET,
    "enableSSMAccess": _SAGEMAKER_FLEET,
    "managedInstanceScaling.status": _SAGEMAKER_FLEET,
    "managedInstanceScaling.minInstanceCount": _SAGEMAKER_FLEET,
    "managedInstanceScaling.maxInstanceCount": _SAGEMAKER_FLEET,
    "managedInstanceScaling.scaleInPolicy.strategy": _SAGEMAKER_FLEET,
    "managedInstanceScaling.scaleInPolicy.maximumStepSize": _SAGEMAKER_FLEET,
    "managedInstanceScaling.scaleInPolicy.cooldownInMinutes": _SAGEMAKER_FLEET,
    "routingConfig.routingStrategy": _FLEET_LIVE,
    "routingConfig.prefixAwareRoutingConfig.prefixLength": _SAGEMAKER_FLEET,
    "routingConfig.prefixAwareRoutingConfig.concurrencyThreshold": _SAGEMAKER_FLEET,
    "inferenceAmiVersion": _SAGEMAKER_FLEET,
    "capacityReservationConfig.capacityReservationPreference": _SAGEMAKER_FLEET,
    "capacityReservationConfig.mlReservationArn": _SAGEMAKER_FLEET,
    "acceleratorPartitionLayouts[].acceleratorPartitionTypes": _SAGEMAKER_FLEET,
    "kubernetes.zoneSpread": _CLUSTER_FLEET,
    "kubernetes.maxConcurrentRequestsPerInstance": _CLUSTER_LIVE,
}

# UpdateEndpointWeightsAndCapacities is documented for production variants; a shadow's size takes a deployment.
_SHADOW_VARIANT: Final[Mapping[str, _Pair]] = {
    **_VARIANT,
    "initialInstanceCount": _FLEET_LIVE,
    "initialVariantWeight": _FLEET_LIVE,
}

_ENDPOINT_CONFIG: Final[Mapping[str, _Pair]] = {
    **_below("productionVariants[]", _VARIANT),
    **_below("shadowProductionVariants[]", _SHADOW_VARIANT),
    "dataCaptureConfig.enableCapture": _SAGEMAKER_FLEET,
    "dataCaptureConfig.initialSamplingPercentage": _SAGEMAKER_FLEET,
    "dataCaptureConfig.destinationS3Uri": _SAGEMAKER_FLEET,
    "dataCaptureConfig.kmsKeyId": _SAGEMAKER_FLEET,
    "dataCaptureConfig.captureOptions[].captureMode": _SAGEMAKER_FLEET,
    "dataCaptureConfig.captureContentTypeHeader.csvContentTypes": _SAGEMAKER_FLEET,
    "dataCaptureConfig.captureContentTypeHeader.jsonContentTypes": _SAGEMAKER_FLEET,
    "asyncInferenceConfig.clientConfig.maxConcurrentInvocationsPerInstance": _FLEET,
    "asyncInferenceConfig.outputConfig.kmsKeyId": _SAGEMAKER_FLEET,
    "asyncInferenceConfig.outputConfig.s3OutputPath": _FLEET,
    "asyncInferenceConfig.outputConfig.notificationConfig.successTopic": _FLEET,
    "asyncInferenceConfig.outputConfig.notificationConfig.errorTopic": _FLEET,
    "asyncInferenceConfig.outputConfig.notificationConfig.includeInferenceResponseIn": _FLEET,
    "asyncInferenceConfig.outputConfig.s3FailurePath": _FLEET,
    **_below(
        "explainerConfig.clarifyExplainerConfig",
        {
            "enableExplanations": _SAGEMAKER_FLEET,
            "inferenceConfig.featuresAttribute": _SAGEMAKER_FLEET,
            "inferenceConfig.contentTemplate": _SAGEMAKER_FLEET,
            "inferenceConfig.maxRecordCount": _SAGEMAKER_FLEET,
            "inferenceConfig.maxPayloadInMB": _SAGEMAKER_FLEET,
            "inferenceConfig.probabilityIndex": _SAGEMAKER_FLEET,
            "inferenceConfig.labelIndex": _SAGEMAKER_FLEET,
            "inferenceConfig.probabilityAttribute": _SAGEMAKER_FLEET,
            "inferenceConfig.labelAttribute": _SAGEMAKER_FLEET,
            "inferenceConfig.labelHeaders": _SAGEMAKER_FLEET,
            "inferenceConfig.featureHeaders": _SAGEMAKER_FLEET,
            "inferenceConfig.featureTypes": _SAGEMAKER_FLEET,
            "shapConfig.shapBaselineConfig.mimeType": _SAGEMAKER_FLEET,
            "shapConfig.shapBaselineConfig.shapBaseline": _SAGEMAKER_FLEET,
            "shapConfig.shapBaselineConfig.shapBaselineUri": _SAGEMAKER_FLEET,
            "shapConfig.numberOfSamples": _SAGEMAKER_FLEET,
            "shapConfig.useLogit": _SAGEMAKER_FLEET,
            "shapConfig.seed": _SAGEMAKER_FLEET,
            "shapConfig.textConfig.language": _SAGEMAKER_FLEET,
            "shapConfig.textConfig.granularity": _SAGEMAKER_FLEET,
        },
    ),
    "kmsKeyId": _SAGEMAKER_FLEET,
    "executionRoleArn": _FLEET,
    **_VPC_CONFIG,
    "enableNetworkIsolation": _FLEET,
    "metricsConfig.enableEnhancedMetrics": _SAGEMAKER_FLEET,
    "metricsConfig.enableDetailedObservability": _SAGEMAKER_FLEET,
    "metricsConfig.metricPublishFrequencyInSeconds": _SAGEMAKER_FLEET,
    "crossRegionTrafficConfig.maxInvocationsPerSecondPerInstance": _SAGEMAKER_FLEET,
    "crossRegionTrafficConfig.maxCrossRegionPercentPerEndpoint": _SAGEMAKER_FLEET,
    **_TAGS,
}

_CAPACITY_SIZE: Final[Mapping[str, _Pair]] = {"type": _METADATA, "value": _METADATA}

_ENDPOINT: Final[Mapping[str, _Pair]] = {
    "backend": _METADATA,
    "endpointName": _METADATA,
    "endpointConfigName": _METADATA,
    **_below(
        "deploymentConfig",
        {
            "blueGreenUpdatePolicy.trafficRoutingConfiguration.type": _METADATA,
            "blueGreenUpdatePolicy.trafficRoutingConfiguration.waitIntervalInSeconds": _METADATA,
            **_below("blueGreenUpdatePolicy.trafficRoutingConfiguration.canarySize", _CAPACITY_SIZE),
            **_below("blueGreenUpdatePolicy.trafficRoutingConfiguration.linearStepSize", _CAPACITY_SIZE),
            "blueGreenUpdatePolicy.terminationWaitInSeconds": _METADATA,
            "blueGreenUpdatePolicy.maximumExecutionTimeoutInSeconds": _METADATA,
            **_below("rollingUpdatePolicy.maximumBatchSize", _CAPACITY_SIZE),
            "rollingUpdatePolicy.waitIntervalInSeconds": _METADATA,
            "rollingUpdatePolicy.maximumExecutionTimeoutInSeconds": _METADATA,
            **_below("rollingUpdatePolicy.rollbackMaximumBatchSize", _CAPACITY_SIZE),
            "autoRollbackConfiguration.alarms[].alarmName": _METADATA,
        },
    ),
    "retainAllVariantProperties": _METADATA,
    "excludeRetainedVariantProperties[].variantPropertyType": _METADATA,
    "retainDeploymentConfig": _METADATA,
    **_TAGS,
    "sagemaker.region": _SAGEMAKER_METADATA,
    "sagemaker.assumeRoleArn": _SAGEMAKER_METADATA,
    "driftPolicy": _SAGEMAKER_METADATA,
    "deletionPolicy": _METADATA,
    "kubernetes.alarms[].name": _CLUSTER_METADATA,
    "kubernetes.alarms[].prometheusAlert.alertName": _CLUSTER_METADATA,
    "kubernetes.alarms[].prometheusAlert.matchLabels": _CLUSTER_METADATA,
    "kubernetes.alarms[].promql.expression": _CLUSTER_METADATA,
    "kubernetes.alarms[].promql.comparison": _CLUSTER_METADATA,
    "kubernetes.alarms[].promql.threshold": _CLUSTER_METADATA,
    "kubernetes.alarms[].promql.forSeconds": _CLUSTER_METADATA,
    "kubernetes.alarms[].traffic.metric": _CLUSTER_METADATA,
    "kubernetes.alarms[].traffic.percentile": _CLUSTER_METADATA,
    "kubernetes.alarms[].traffic.threshold": _CLUSTER_METADATA,
    "kubernetes.alarms[].traffic.comparison": _CLUSTER_METADATA,
    "kubernetes.alarms[].traffic.windowSeconds": _CLUSTER_METADATA,
    "kubernetes.alarms[].traffic.minimumRequests": _CLUSTER_METADATA,
    "kubernetes.alarms[].traffic.relativeToServing": _CLUSTER_METADATA,
    "kubernetes.alarms[].traffic.variantName": _CLUSTER_METADATA,
    "kubernetes.alarms[].onInsufficientData": _CLUSTER_METADATA,
    "kubernetes.invocationTimeoutSeconds": _CLUSTER_METADATA,
    "kubernetes.maxPayloadBytes": _CLUSTER_METADATA,
    "kubernetes.replaceFirst": _CLUSTER_METADATA,
}

_TABLES: Final[Mapping[str, Mapping[str, _Pair]]] = {
    MODEL: _MODEL,
    ENDPOINT_CONFIG: _ENDPOINT_CONFIG,
    ENDPOINT: _ENDPOINT,
}
_BACKENDS: Final = (BACKEND_SAGEMAKER, BACKEND_CLUSTER)

# Lists whose order means nothing, by the key that tells their items apart ("" for lists of scalars). Views sort them:
# server-side apply may reorder such lists, and that must not change a hash.
UNORDERED: Final[Mapping[str, Mapping[str, str]]] = {
    MODEL: {
        "primaryContainer.additionalModelDataSources": "channelName",
        "containers[].additionalModelDataSources": "channelName",
        "vpcConfig.securityGroupIds": "",
        "vpcConfig.subnets": "",
        "tags": "key",
        "kubernetes.imagePullSecrets": "name",
        "kubernetes.env": "name",
    },
    ENDPOINT_CONFIG: {
        "productionVariants": "variantName",
        "shadowProductionVariants": "variantName",
        "asyncInferenceConfig.outputConfig.notificationConfig.includeInferenceResponseIn": "",
        "vpcConfig.securityGroupIds": "",
        "vpcConfig.subnets": "",
        "tags": "key",
    },
    ENDPOINT: {
        "deploymentConfig.autoRollbackConfiguration.alarms": "alarmName",
        "excludeRetainedVariantProperties": "variantPropertyType",
        "tags": "key",
        "kubernetes.alarms": "name",
    },
}


@cache
def classify(kind: str, backend: str) -> Mapping[str, Class]:
    """The class of every leaf of a kind's spec under a backend. Raises KeyError for an unknown kind or backend."""
    if backend not in _BACKENDS:
        raise KeyError(backend)
    index = _BACKENDS.index(backend)
    return MappingProxyType({path: pair[index] for path, pair in _TABLES[kind].items()})


def fleet_view(kind: str, backend: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """What of the users' raw JSON needs a new fleet when it changes.

    Lists whose order means nothing are sorted. Absent, null, empty list and empty map are the same; an empty object is
    not (`outputConfig: {}` makes an endpoint asynchronous).
    """
    return _view(kind, backend, spec, Class.FLEET)


def live_view(kind: str, backend: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """What of the users' raw JSON is changed on the serving fleet, with the keys that name the list items."""
    return _view(kind, backend, spec, Class.LIVE)


def ignored_fields(kind: str, backend: str, spec: Mapping[str, Any]) -> tuple[str, ...]:
    """The paths that the user set and the backend cannot honour, sorted.

    A field that this operator does not know (its CRD is newer) counts as one.
    """
    classes = classify(kind, backend)
    found = (path for path in _leaves(spec, "", classes) if classes.get(path, Class.IGNORED) is Class.IGNORED)
    return tuple(sorted(set(found)))


def _view(kind: str, backend: str, spec: Mapping[str, Any], wanted: Class) -> dict[str, Any]:
    view = _kept(spec, "", classify(kind, backend), UNORDERED[kind], wanted)
    return view if isinstance(view, dict) else {}


def _kept(value: Any, path: str, classes: Mapping[str, Class], unordered: Mapping[str, str], wanted: Class) -> Any:
    """The part of `value` that has the wanted class, or None."""
    if path in classes:
        if classes[path] is not wanted or value is None or value in ([], {}):
            return None
        return sorted(value) if unordered.get(path) == "" else value
    if isinstance(value, Mapping):
        if not value:
            return {} if _any_below(path, classes, wanted) else None
        children = {
            name: _kept(child, f"{path}.{name}" if path else name, classes, unordered, wanted)
            for name, child in value.items()
        }
        return {name: child for name, child in children.items() if child is not None} or None
    if isinstance(value, list):
        key = unordered.get(path)
        items = [(item, _kept(item, f"{path}[]", classes, unordered, wanted)) for item in value]
        kept = [{key: item[key], **view} if key else view for item, view in items if view is not None]
        return (sorted(kept, key=lambda item: item[key]) if key else kept) or None
    return None


def _any_below(path: str, classes: Mapping[str, Class], wanted: Class) -> bool:
    return any(each is wanted for leaf, each in classes.items() if leaf.startswith((f"{path}.", f"{path}[]")))


def _leaves(value: Any, path: str, classes: Mapping[str, Class]) -> Iterator[str]:
    if value is None or value in ([], {}):
        return
    if path in classes:
        yield path
    elif isinstance(value, Mapping):
        for name, child in value.items():
            yield from _leaves(child, f"{path}.{name}" if path else name, classes)
    elif isinstance(value, list) and any(isinstance(item, Mapping) for item in value):
        for item in value:
            yield from _leaves(item, f"{path}[]", classes)
    else:
        yield path
