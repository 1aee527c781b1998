"""Valid manifests: small ones that cases change, and full ones that together set every field of the API."""

from copy import deepcopy
from typing import Any

from sluice.api.names import API_VERSION

Manifest = dict[str, Any]

ROLE = "arn:aws:iam::111122223333:role/churn"
DIGEST = "sha256:" + "0" * 64


def manifest(kind: str, spec: Manifest, name: str = "churn") -> Manifest:
    """An object of that kind."""
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": deepcopy(spec)}


def container(**fields: Any) -> Manifest:
    """A small ContainerDefinition; a field given as None is left out."""
    return _present({"image": "registry.example/churn:1", **fields})


def model(name: str = "churn", **spec: Any) -> Manifest:
    """A small Model with one container, unless `containers` are given."""
    first = {} if "containers" in spec or "primaryContainer" in spec else {"primaryContainer": container()}
    return manifest("Model", {**first, **spec}, name)


def variant(**fields: Any) -> Manifest:
    """A small production variant on one instance; a field given as None is left out."""
    small = {"variantName": "a", "modelName": "churn", "instanceType": "ml.m5.large", "initialInstanceCount": 1}
    return _present({**small, **fields})


def serverless(**fields: Any) -> Manifest:
    """A small serverless variant."""
    config = {"memorySizeInMB": 2048, "maxConcurrency": 20}
    return variant(instanceType=None, initialInstanceCount=None, serverlessConfig={**config, **fields})


def config(*variants: Manifest, name: str = "churn", **spec: Any) -> Manifest:
    """An EndpointConfig with those variants, or a small one."""
    return manifest("EndpointConfig", {"productionVariants": list(variants) or [variant()], **spec}, name)


def endpoint(name: str = "churn", **spec: Any) -> Manifest:
    """A small Endpoint on SageMaker."""
    return manifest("Endpoint", _present({"backend": "SageMaker", "endpointConfigName": "churn", **spec}), name)


def blue_green(type: str = "ALL_AT_ONCE", wait: int = 0, **fields: Any) -> Manifest:
    """A DeploymentConfig with a blueGreenUpdatePolicy; sizes go into the routing, the rest into the policy."""
    sizes = {name: fields.pop(name) for name in ("canarySize", "linearStepSize") if name in fields}
    routing = {"type": type, "waitIntervalInSeconds": wait, **sizes}
    return {"blueGreenUpdatePolicy": {"trafficRoutingConfiguration": routing, **fields}}


def rolling(percent: int = 50, wait: int = 0, **fields: Any) -> Manifest:
    """A DeploymentConfig with a rollingUpdatePolicy."""
    policy = {"maximumBatchSize": capacity_percent(percent), "waitIntervalInSeconds": wait}
    return {"rollingUpdatePolicy": {**policy, **fields}}


def capacity_percent(value: int) -> Manifest:
    """A CapacitySize in percent."""
    return {"type": "CAPACITY_PERCENT", "value": value}


def instance_count(value: int) -> Manifest:
    """A CapacitySize in instances."""
    return {"type": "INSTANCE_COUNT", "value": value}


def _present(fields: Manifest) -> Manifest:
    return {name: value for name, value in fields.items() if value is not None}


_S3 = {
    "s3Uri": "s3://models/churn/",
    "s3DataType": "S3Prefix",
    "compressionType": "None",
    "modelAccessConfig": {"acceptEula": True},
    "hubAccessConfig": {"hubContentArn": "arn:aws:sagemaker:eu-west-1:111122223333:hub-content/h/Model/m"},
    "manifestS3Uri": "s3://models/churn/manifest.csv",
    "eTag": "abc",
    "manifestEtag": "def",
}
_S3_OBJECT = {"s3Uri": "s3://models/churn/model", "s3DataType": "S3Object", "compressionType": "None"}

_FULL_CONTAINER = {
    "containerHostname": "first",
    "image": "registry.example/churn@" + DIGEST,
    "imageConfig": {
        "repositoryAccessMode": "Vpc",
        "repositoryAuthConfig": {
            "repositoryCredentialsProviderArn": "arn:aws:lambda:eu-west-1:111122223333:function:pull"
        },
    },
    "mode": "SingleModel",
    "modelDataSource": {"s3DataSource": _S3},
    "additionalModelDataSources": [{"channelName": "adapter", "s3DataSource": _S3}],
    "environment": {"LOG_LEVEL": "info"},
    "modelPackageName": "arn:aws:sagemaker:eu-west-1:111122223333:model-package/churn/1",
    "inferenceSpecificationName": "spec",
    "multiModelConfig": {"modelCacheSetting": "Enabled"},
    "containerMetricsConfig": {
        "metricsEndpoints": [{"metricsEndpointPath": "/metrics", "metricPublishFrequencyInSeconds": 60}]
    },
}
_OTHER_CONTAINER = {
    "image": "registry.example/churn:1",
    "modelDataUrl": "s3://models/churn/model.tar.gz",
    "additionalModelDataSources": [{"channelName": "draft", "s3DataSource": _S3_OBJECT}],
}
_OBJECT_CONTAINER = {"image": "registry.example/churn:1", "modelDataSource": {"s3DataSource": _S3_OBJECT}}
_ENV = [
    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "churn", "key": "token"}}},
    {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "churn", "key": "mode"}}},
]

FULL_MODELS = [
    manifest("Model", {"containers": [_OTHER_CONTAINER]}),
    manifest(
        "Model",
        {
            "primaryContainer": _FULL_CONTAINER,
            "executionRoleArn": ROLE,
            "vpcConfig": {"securityGroupIds": ["sg-1"], "subnets": ["subnet-1", "subnet-2"]},
            "enableNetworkIsolation": True,
            "tags": [{"key": "team", "value": "churn"}],
            "kubernetes": {
                "serviceAccountName": "churn",
                "imagePullSecrets": [{"name": "registry"}],
                "env": _ENV,
                "resources": {"requests": {"cpu": 1, "memory": "1Gi"}, "limits": {"memory": "1Gi"}},
                "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 1000},
                "sampleInvocation": {
                    "body": "1,2,3",
                    "contentType": "text/csv",
                    "expectedStatus": 200,
                    "timeoutSeconds": 5,
                },
                "modelDataAccess": {
                    "credentialsSecretName": "bucket",
                    "s3EndpointUrl": "https://s3.example:9000",
                    "region": "eu-west-1",
                    "cacheHostPath": "/var/cache/sluice",
                },
                "priorityClassName": "serving",
                "preStopSeconds": 120,
            },
        },
    ),
    manifest(
        "Model",
        {
            "containers": [_FULL_CONTAINER],
            "inferenceExecutionConfig": {"mode": "Serial"},
            "kubernetes": {
                "env": _ENV[:1],
                "securityContext": {"runAsRoot": True, "fsGroup": 1000},
                "sampleInvocation": {"body": "1", "periodSeconds": 60},
                "modelDataAccess": {"assumeExecutionRole": True},
            },
            "executionRoleArn": ROLE,
        },
    ),
    manifest("Model", {"primaryContainer": _OTHER_CONTAINER, "kubernetes": {"env": _ENV[1:]}}),
    manifest("Model", {"primaryContainer": _OBJECT_CONTAINER}),
    manifest("Model", {"containers": [_OBJECT_CONTAINER, _OTHER_CONTAINER]}),
    model(primaryContainer=container(environment={"A": "b"})),
    model(containers=[container(environment={"A": "b"})]),
]

_FULL_VARIANT = {
    "variantName": "a",
    "modelName": "churn",
    "initialInstanceCount": 2,
    "instanceType": "ml.g5.xlarge",
    "variantInstanceProvisionTimeoutInSeconds": 600,
    "initialVariantWeight": 1.5,
    "acceleratorType": "ml.eia2.medium",
    "coreDumpConfig": {"destinationS3Uri": "s3://dumps/churn", "kmsKeyId": "alias/dumps"},
    "volumeSizeInGB": 64,
    "modelDataDownloadTimeoutInSeconds": 600,
    "containerStartupHealthCheckTimeoutInSeconds": 600,
    "enableSSMAccess": True,
    "managedInstanceScaling": {
        "status": "ENABLED",
        "minInstanceCount": 0,
        "scaleInPolicy": {"strategy": "IDLE_RELEASE", "maximumStepSize": 1, "cooldownInMinutes": 20},
    },
    "routingConfig": {
        "routingStrategy": "PREFIX_AWARE",
        "prefixAwareRoutingConfig": {"prefixLength": 4096, "concurrencyThreshold": 16},
    },
    "inferenceAmiVersion": "al2-ami-sagemaker-inference-gpu-2",
    "capacityReservationConfig": {
        "capacityReservationPreference": "capacity-reservations-only",
        "mlReservationArn": "arn:aws:sagemaker:eu-west-1:111122223333:training-plan/churn",
    },
    "acceleratorPartitionLayouts": [{"acceleratorPartitionTypes": ["mig-1g.5gb+me"]}],
    "kubernetes": {"zoneSpread": "Required", "maxConcurrentRequestsPerInstance": 16},
}
_POOL_VARIANT = {
    "variantName": "b",
    "modelName": "churn",
    "initialInstanceCount": 1,
    "instancePools": [{"instanceType": "ml.g5.xlarge", "modelNameOverride": "churn-g5", "priority": 1}],
    "managedInstanceScaling": {"maxInstanceCount": 4},
}
_SERVERLESS_VARIANTS = [
    serverless(maxConcurrency=200, provisionedConcurrency=10),
    serverless(),
]

FULL_CONFIGS = [
    manifest(
        "EndpointConfig",
        {
            "productionVariants": [_FULL_VARIANT],
            "shadowProductionVariants": [{**_FULL_VARIANT, "variantName": "shadow"}],
            "dataCaptureConfig": {
                "enableCapture": True,
                "initialSamplingPercentage": 10,
                "destinationS3Uri": "s3://capture/churn",
                "kmsKeyId": "alias/capture",
                "captureOptions": [{"captureMode": "Input"}],
                "captureContentTypeHeader": {
                    "csvContentTypes": ["text/csv"],
                    "jsonContentTypes": ["application/json"],
                },
            },
            "asyncInferenceConfig": {
                "clientConfig": {"maxConcurrentInvocationsPerInstance": 4},
                "outputConfig": {
                    "kmsKeyId": "alias/results",
                    "s3OutputPath": "s3://results/churn",
                    "notificationConfig": {
                        "successTopic": "arn:aws:sns:eu-west-1:111122223333:done",
                        "errorTopic": "arn:aws:sns:eu-west-1:111122223333:failed",
                        "includeInferenceResponseIn": ["SUCCESS_NOTIFICATION_TOPIC"],
                    },
                    "s3FailurePath": "s3://results/failures",
                },
            },
            "explainerConfig": {
                "clarifyExplainerConfig": {
                    "enableExplanations": "`true`",
                    "inferenceConfig": {
                        "featuresAttribute": "features",
                        "contentTemplate": '{"features":$features}',
                        "maxRecordCount": 10,
                        "maxPayloadInMB": 5,
                        "probabilityIndex": 0,
                        "labelIndex": 0,
                        "probabilityAttribute": "p",
                        "labelAttribute": "l",
                        "labelHeaders": ["leaves"],
                        "featureHeaders": ["age"],
                        "featureTypes": ["numerical"],
                    },
                    "shapConfig": {
                        "shapBaselineConfig": {
                            "mimeType": "text/csv",
                            "shapBaseline": "1,2,3",
                            "shapBaselineUri": "s3://baselines/churn.csv",
                        },
                        "numberOfSamples": 100,
                        "useLogit": False,
                        "seed": 1,
                        "textConfig": {"language": "en", "granularity": "token"},
                    },
                }
            },
            "kmsKeyId": "alias/volumes",
            "executionRoleArn": ROLE,
            "vpcConfig": {"securityGroupIds": ["sg-1"], "subnets": ["subnet-1"]},
            "enableNetworkIsolation": True,
            "metricsConfig": {
                "enableEnhancedMetrics": True,
                "enableDetailedObservability": True,
                "metricPublishFrequencyInSeconds": 60,
            },
            "tags": [{"key": "team", "value": "churn"}],
        },
    ),
    config(
        _POOL_VARIANT,
        shadowProductionVariants=[{**_POOL_VARIANT, "variantName": "shadow"}],
        crossRegionTrafficConfig={"maxInvocationsPerSecondPerInstance": 10, "maxCrossRegionPercentPerEndpoint": 50},
    ),
    *(config(each) for each in _SERVERLESS_VARIANTS),
    *(config(variant(), shadowProductionVariants=[{**each, "variantName": "shadow"}]) for each in _SERVERLESS_VARIANTS),
    config(variant(initialVariantWeight=0), variant(variantName="b")),
    config(
        variant(initialVariantWeight=1), shadowProductionVariants=[variant(variantName="s", initialVariantWeight=0)]
    ),
]

_ALARMS = [
    {
        "name": "errors",
        "traffic": {
            "metric": "Invocation5XXErrors",
            "threshold": 0.01,
            "comparison": "GreaterThanThreshold",
            "windowSeconds": 60,
            "minimumRequests": 100,
            "relativeToServing": False,
            "variantName": "main",
        },
        "onInsufficientData": "Hold",
    },
    {"name": "latency", "traffic": {"metric": "ModelLatency", "percentile": 99, "threshold": 250000}},
    {"name": "burn", "prometheusAlert": {"alertName": "ChurnErrorBudgetBurn", "matchLabels": {"team": "churn"}}},
    {
        "name": "queue",
        "promql": {
            "expression": "sum(queue_depth)",
            "comparison": "GreaterThanThreshold",
            "threshold": 10,
            "forSeconds": 30,
        },
    },
]

FULL_ENDPOINTS = [
    endpoint(
        endpointName="Churn",
        deploymentConfig={
            **blue_green(
                "CANARY",
                60,
                canarySize=capacity_percent(10),
                terminationWaitInSeconds=60,
                maximumExecutionTimeoutInSeconds=28800,
            ),
            "autoRollbackConfiguration": {"alarms": [{"alarmName": "churn-5xx"}]},
        },
        retainAllVariantProperties=True,
        excludeRetainedVariantProperties=[{"variantPropertyType": "DesiredWeight"}],
        retainDeploymentConfig=True,
        tags=[{"key": "team", "value": "churn"}],
        sagemaker={"region": "eu-west-1", "assumeRoleArn": ROLE},
        driftPolicy="Report",
        deletionPolicy="Delete",
        kubernetes={"alarms": [each]},
    )
    for each in _ALARMS
] + [
    endpoint(deploymentConfig=blue_green("CANARY", 0, canarySize=instance_count(2))),
    endpoint(deploymentConfig=blue_green("LINEAR", 60, linearStepSize=capacity_percent(25))),
    endpoint(deploymentConfig=blue_green("LINEAR", 0, linearStepSize=instance_count(2))),
    endpoint(deploymentConfig=blue_green(maximumExecutionTimeoutInSeconds=1200)),
    endpoint(
        backend="Cluster",
        deploymentConfig=rolling(
            25,
            60,
            maximumExecutionTimeoutInSeconds=28800,
            rollbackMaximumBatchSize=capacity_percent(100),
        ),
        kubernetes={
            "alarms": _ALARMS,
            "invocationTimeoutSeconds": 300,
            "maxPayloadBytes": 1048576,
            "replaceFirst": True,
        },
    ),
    endpoint(
        deploymentConfig=rolling(
            maximumExecutionTimeoutInSeconds=1200,
            maximumBatchSize=instance_count(1),
            rollbackMaximumBatchSize=instance_count(1),
        )
    ),
    endpoint(
        retainAllVariantProperties=True,
        excludeRetainedVariantProperties=[{"variantPropertyType": "DesiredInstanceCount"}],
    ),
]

FULL = {"Model": FULL_MODELS, "EndpointConfig": FULL_CONFIGS, "Endpoint": FULL_ENDPOINTS}
