"""Every CEL rule of the three kinds with manifests that keep it and manifests that break it.

A rule is known by its kind, its place in the schema and its fixed message. Rules of a type that stands in several
places (containers, variants) are listed for each place.
"""

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from sluice.api.names import OWNER_TAG

from .manifests import (
    ROLE,
    Manifest,
    blue_green,
    capacity_percent,
    config,
    container,
    endpoint,
    instance_count,
    model,
    rolling,
    serverless,
    variant,
)


@dataclass(frozen=True, slots=True)
class Broken:
    """A manifest that breaks one rule, the field the API server must name, and what its message must say."""

    manifest: Manifest
    field: str
    message: str
    old: Manifest | None = None
    """The stored object that the manifest would replace; None for a creation."""


@dataclass(frozen=True, slots=True)
class RuleCases:
    """One rule."""

    kind: str
    path: str
    rule: str
    """How its fixed message begins."""
    kept: tuple[Manifest | tuple[Manifest, Manifest], ...]
    """Manifests that are accepted, or pairs of a stored object and what may replace it."""
    broken: tuple[Broken, ...]


def _containers() -> Iterator[RuleCases]:
    places: list[tuple[str, str, Callable[..., Manifest]]] = [
        ("spec.primaryContainer", "spec.primaryContainer", lambda **c: model(primaryContainer=container(**c))),
        ("spec.containers[]", "spec.containers[1]", lambda **c: model(containers=[container(), container(**c)])),
    ]
    url, source = "s3://models/a.tar.gz", {"s3DataSource": _s3("s3://models/a/", "S3Prefix")}
    for schema, place, build in places:
        yield RuleCases(
            "Model",
            schema,
            "at most one of modelDataUrl and modelDataSource",
            (build(), build(modelDataUrl=url), build(modelDataSource=source)),
            (Broken(build(modelDataUrl=url, modelDataSource=source), place, "at most one of modelDataUrl and model"),),
        )
        yield RuleCases(
            "Model",
            schema,
            "image is required unless",
            (build(image=None, modelPackageName="churn"), build(modelPackageName="churn")),
            (Broken(build(image=None), place, "image is required unless modelPackageName"),),
        )
        yield RuleCases(
            "Model",
            schema,
            "modelDataSource: is set, allowed only when mode is SingleModel",
            (build(mode="SingleModel", modelDataSource=source), build(mode="MultiModel", modelDataUrl=url)),
            (
                Broken(
                    build(mode="MultiModel", modelDataSource=source),
                    f"{place}.modelDataSource",
                    "allowed only when mode is SingleModel",
                ),
            ),
        )
        yield RuleCases(
            "Model",
            f"{schema}.environment",
            "environment keys are",
            (
                build(environment={"_a1": "", "A" * 1024: "x", "PATH": "*" * 1024}),
                build(environment={}),
            ),
            (
                Broken(
                    build(environment={"1A": "x"}), f"{place}.environment", 'found the key "1A", allowed are letters'
                ),
                Broken(build(environment={"A-B": "x"}), f"{place}.environment", 'found the key "A-B"'),
                Broken(build(environment={"OK": "x", "": "x"}), f"{place}.environment", 'found the key ""'),
                Broken(build(environment={"A" * 1025: "x"}), f"{place}.environment", "at most 1024 characters"),
            ),
        )
        for name, wrap in _data_sources():
            yield RuleCases(
                "Model",
                f"{schema}.{name}",
                "s3Uri must end with '/' when s3DataType is S3Prefix",
                (
                    build(**wrap(_s3("s3://models/a/", "S3Prefix"))),
                    build(**wrap(_s3("s3://models/a", "S3Object"))),
                ),
                (
                    Broken(
                        build(**wrap(_s3("s3://models/a", "S3Prefix"))),
                        f"{place}.{name}.s3Uri".replace("[]", "[0]"),
                        's3Uri: found "s3://models/a", allowed is a prefix that ends with "/"',
                    ),
                ),
            )


def _data_sources() -> list[tuple[str, Callable[[Manifest], Manifest]]]:
    return [
        ("modelDataSource.s3DataSource", lambda s3: {"modelDataSource": {"s3DataSource": s3}}),
        (
            "additionalModelDataSources[].s3DataSource",
            lambda s3: {"additionalModelDataSources": [{"channelName": "x", "s3DataSource": s3}]},
        ),
    ]


def _s3(uri: str, type: str) -> Manifest:
    return {"s3Uri": uri, "s3DataType": type, "compressionType": "None"}


def _named(*hostnames: str | None, **spec: Any) -> Manifest:
    return model(containers=[container(containerHostname=name) for name in hostnames], **spec)


def _environment(count: int, size: int) -> dict[str, str]:
    """`count` variables whose keys and values have `size` characters together."""
    return {f"K{index:03d}": "x" * (size // count - 4) for index in range(count)}


def _env(*names: str) -> Manifest:
    return {"env": [{"name": name, "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}} for name in names]}


def _model() -> Iterator[RuleCases]:
    direct, serial = {"mode": "Direct"}, {"mode": "Serial"}
    yield RuleCases(
        "Model",
        "spec",
        "exactly one of containers and primaryContainer",
        (model(), model(containers=[container()]), model(primaryContainer=container(), containers=[])),
        (
            Broken(
                model(primaryContainer=container(), containers=[container()]),
                "spec",
                "containers, primaryContainer: both are set, allowed is exactly one",
            ),
            Broken(model(containers=[]), "spec", "neither is set, exactly one is required"),
        ),
    )
    yield RuleCases(
        "Model",
        "spec",
        "inferenceExecutionConfig.mode Direct needs containers",
        (
            _named("a", "b", inferenceExecutionConfig=direct),
            _named(None, None, inferenceExecutionConfig=serial),
            model(inferenceExecutionConfig=serial),
        ),
        (
            Broken(
                _named(None, None, inferenceExecutionConfig=direct),
                "spec.inferenceExecutionConfig.mode",
                "Direct needs containers, each with a containerHostname",
            ),
            Broken(
                model(inferenceExecutionConfig=direct), "spec.inferenceExecutionConfig.mode", "Direct needs containers"
            ),
        ),
    )
    yield RuleCases(
        "Model",
        "spec",
        "containers: if one container has a containerHostname",
        (_named("a", "b"), _named(None, None)),
        (Broken(_named("a", None, None), "spec.containers", "found a containerHostname on 1 of 3 containers"),),
    )
    yield RuleCases(
        "Model",
        "spec",
        "containers: each containerHostname may stand only once",
        (_named("a", "b", "c"),),
        (Broken(_named("a", "b", "a"), "spec.containers", "each containerHostname may stand only once"),),
    )
    full = _environment(32, 32768)
    yield RuleCases(
        "Model",
        "spec",
        "environment of primaryContainer",
        (model(primaryContainer=container(environment=full)),),
        (
            Broken(
                model(primaryContainer=container(environment={**full, "Z": ""})),
                "spec",
                "environment of primaryContainer: found 32769 characters in keys and values, allowed are at most 32768",
            ),
        ),
    )
    half = _environment(32, 16384)
    yield RuleCases(
        "Model",
        "spec",
        "environment of containers",
        (model(containers=[container(environment=half), container(environment=half), container()]),),
        (
            Broken(
                model(containers=[container(environment=half), container(environment={**half, "Z": ""})]),
                "spec",
                "environment of containers: found 32769 characters",
            ),
        ),
    )
    yield RuleCases(
        "Model",
        "spec",
        "kubernetes.env: a variable stands also",
        (
            model(primaryContainer=container(environment={"A": "x"}), kubernetes=_env("B")),
            model(containers=[container(environment={"A": "x"}), container()], kubernetes=_env("B", "C")),
            model(kubernetes=_env("B")),
        ),
        (
            Broken(
                model(primaryContainer=container(environment={"A": "x"}), kubernetes=_env("B", "A")),
                "spec.kubernetes.env",
                "stands also in a container's environment",
            ),
            Broken(
                model(containers=[container(), container(environment={"A": "x"})], kubernetes=_env("A")),
                "spec.kubernetes.env",
                "stands also in a container's environment",
            ),
        ),
    )
    secret, config_map = {"secretKeyRef": {"name": "s", "key": "k"}}, {"configMapKeyRef": {"name": "c", "key": "k"}}
    yield RuleCases(
        "Model",
        "spec.kubernetes.env[].valueFrom",
        "exactly one of secretKeyRef and configMapKeyRef",
        tuple(model(kubernetes={"env": [{"name": "A", "valueFrom": source}]}) for source in (secret, config_map)),
        tuple(
            Broken(
                model(kubernetes={"env": [{"name": "A", "valueFrom": source}]}),
                "spec.kubernetes.env[0].valueFrom",
                f"found {count} of them, allowed is exactly one",
            )
            for source, count in (({}, 0), ({**secret, **config_map}, 2))
        ),
    )
    yield RuleCases(
        "Model",
        "spec.kubernetes.securityContext",
        "runAsUser, runAsGroup",
        tuple(
            model(kubernetes={"securityContext": context})
            for context in (
                {"runAsRoot": True, "fsGroup": 1},
                {"runAsRoot": False, "runAsUser": 1, "runAsGroup": 1},
                {"runAsUser": 1000},
            )
        ),
        tuple(
            Broken(
                model(kubernetes={"securityContext": {"runAsRoot": True, field: 1}}),
                "spec.kubernetes.securityContext",
                "set beside runAsRoot true",
            )
            for field in ("runAsUser", "runAsGroup")
        ),
    )
    yield RuleCases(
        "Model",
        "spec.kubernetes.sampleInvocation",
        "timeoutSeconds may not exceed periodSeconds",
        tuple(
            model(kubernetes={"sampleInvocation": {"body": "x", **sample}})
            for sample in ({"timeoutSeconds": 30, "periodSeconds": 30}, {"timeoutSeconds": 30}, {"periodSeconds": 1})
        ),
        (
            Broken(
                model(kubernetes={"sampleInvocation": {"body": "x", "timeoutSeconds": 31, "periodSeconds": 30}}),
                "spec.kubernetes.sampleInvocation.timeoutSeconds",
                "timeoutSeconds: found 31, allowed is at most periodSeconds, 30",
            ),
        ),
    )


def _variants() -> Iterator[RuleCases]:
    """Rules of one variant, as production and as shadow variant."""

    def production(each: Manifest) -> Manifest:
        return config(each, **({} if "modelName" in each else {"executionRoleArn": ROLE}))

    def shadow(each: Manifest) -> Manifest:
        return config(variant(), shadowProductionVariants=[{**each, "variantName": "shadow"}])

    places: list[tuple[str, Callable[[Manifest], Manifest]]] = [
        ("productionVariants", production),
        ("shadowProductionVariants", shadow),
    ]
    pools = [{"instanceType": "ml.g5.xlarge", "priority": 1}]
    scaling = {"status": "ENABLED"}
    for name, build in places:
        schema, place = f"spec.{name}[]", f"spec.{name}[0]"
        yield RuleCases(
            "EndpointConfig",
            schema,
            "exactly one of instanceType, instancePools and serverlessConfig",
            (build(variant()), build(variant(instanceType=None, instancePools=pools)), build(serverless())),
            (
                Broken(build(variant(instanceType=None)), place, "found 0 of them, allowed is exactly one"),
                Broken(build(variant(instancePools=pools)), place, "found 2 of them, allowed is exactly one"),
                Broken(
                    build({**serverless(), "instanceType": "ml.m5.large"}),
                    place,
                    "instanceType, instancePools, serverlessConfig: found 2 of them",
                ),
            ),
        )
        yield RuleCases(
            "EndpointConfig",
            schema,
            "initialInstanceCount is required",
            (build(variant()), build(serverless())),
            (Broken(build(variant(initialInstanceCount=None)), place, "initialInstanceCount is required"),),
        )
        yield RuleCases(
            "EndpointConfig",
            schema,
            "initialInstanceCount, managedInstanceScaling, acceleratorType: set beside serverlessConfig",
            (build(variant(managedInstanceScaling=scaling, acceleratorType="ml.eia2.large")), build(serverless())),
            tuple(
                Broken(build({**serverless(), field: value}), place, "set beside serverlessConfig")
                for field, value in (
                    ("initialInstanceCount", 1),
                    ("managedInstanceScaling", scaling),
                    ("acceleratorType", "ml.eia2.large"),
                )
            ),
        )
        named_pools = [{**pools[0], "modelNameOverride": "other"}]
        yield RuleCases(
            "EndpointConfig",
            schema,
            "instancePools: modelNameOverride is set without",
            (build(variant(instanceType=None, instancePools=named_pools)),),
            (
                Broken(
                    _with_role(build(variant(instanceType=None, instancePools=named_pools, modelName=None))),
                    f"{place}.instancePools",
                    "modelNameOverride is set without a modelName",
                ),
            ),
        )
        yield RuleCases(
            "EndpointConfig",
            f"{schema}.serverlessConfig",
            "memorySizeInMB is one of",
            tuple(build(serverless(memorySizeInMB=size)) for size in (1024, 2048, 3072, 4096, 5120, 6144)),
            (
                Broken(
                    build(serverless(memorySizeInMB=1536)),
                    f"{place}.serverlessConfig.memorySizeInMB",
                    "memorySizeInMB: found 1536, allowed are 1024, 2048",
                ),
            ),
        )
        yield RuleCases(
            "EndpointConfig",
            f"{schema}.serverlessConfig",
            "provisionedConcurrency may not exceed",
            (build(serverless(maxConcurrency=5, provisionedConcurrency=5)), build(serverless(maxConcurrency=5))),
            (
                Broken(
                    build(serverless(maxConcurrency=5, provisionedConcurrency=6)),
                    f"{place}.serverlessConfig.provisionedConcurrency",
                    "provisionedConcurrency: found 6, allowed is at most maxConcurrency, 5",
                ),
            ),
        )
        yield RuleCases(
            "EndpointConfig",
            f"{schema}.managedInstanceScaling",
            "minInstanceCount may not exceed",
            (build(variant(managedInstanceScaling={"minInstanceCount": 2, "maxInstanceCount": 2})),),
            (
                Broken(
                    build(variant(managedInstanceScaling={"minInstanceCount": 3, "maxInstanceCount": 2})),
                    f"{place}.managedInstanceScaling.minInstanceCount",
                    "minInstanceCount: found 3, allowed is at most maxInstanceCount, 2",
                ),
            ),
        )
        prefix = {"prefixLength": 4096, "concurrencyThreshold": 8}
        yield RuleCases(
            "EndpointConfig",
            f"{schema}.routingConfig",
            "prefixAwareRoutingConfig is required when routingStrategy is PREFIX_AWARE",
            (
                build(variant(routingConfig={"routingStrategy": "PREFIX_AWARE", "prefixAwareRoutingConfig": prefix})),
                *(
                    build(variant(routingConfig={"routingStrategy": strategy}))
                    for strategy in ("RANDOM", "LEAST_OUTSTANDING_REQUESTS", "KV_AWARE")
                ),
            ),
            (
                Broken(
                    build(variant(routingConfig={"routingStrategy": "PREFIX_AWARE"})),
                    f"{place}.routingConfig",
                    "prefixAwareRoutingConfig: is missing, required when routingStrategy is PREFIX_AWARE",
                ),
                Broken(
                    build(variant(routingConfig={"routingStrategy": "RANDOM", "prefixAwareRoutingConfig": prefix})),
                    f"{place}.routingConfig",
                    "prefixAwareRoutingConfig: is set, allowed only when routingStrategy is PREFIX_AWARE",
                ),
            ),
        )
        yield RuleCases(
            "EndpointConfig",
            f"{schema}.routingConfig",
            "prefixAwareRoutingConfig: prefixLength and concurrencyThreshold",
            (build(variant(routingConfig={"routingStrategy": "PREFIX_AWARE", "prefixAwareRoutingConfig": prefix})),),
            tuple(
                Broken(
                    build(
                        variant(
                            routingConfig={"routingStrategy": "PREFIX_AWARE", "prefixAwareRoutingConfig": {field: 1024}}
                        )
                    ),
                    f"{place}.routingConfig.prefixAwareRoutingConfig",
                    "prefixLength and concurrencyThreshold are required",
                )
                for field in ("prefixLength", "concurrencyThreshold")
            ),
        )


def _with_role(manifest: Manifest) -> Manifest:
    changed = deepcopy(manifest)
    changed["spec"]["executionRoleArn"] = ROLE
    return changed


def _config() -> Iterator[RuleCases]:
    one, two, shadow = variant(), variant(variantName="b"), variant(variantName="shadow")
    yield RuleCases(
        "EndpointConfig",
        "spec",
        "variantName must be unique among productionVariants and shadowProductionVariants",
        (
            config(one, shadowProductionVariants=[shadow]),
            config(one, shadowProductionVariants=[variant(variantName="A")]),
        ),
        (
            Broken(
                config(one, shadowProductionVariants=[one]),
                "spec.shadowProductionVariants",
                'found the variantName "a" also in productionVariants',
            ),
        ),
    )
    yield RuleCases(
        "EndpointConfig",
        "spec",
        "shadowProductionVariants needs exactly one",
        (config(one, shadowProductionVariants=[shadow]), config(one, two)),
        (
            Broken(
                config(one, two, shadowProductionVariants=[shadow]),
                "spec.shadowProductionVariants",
                "found 1 shadow and 2 production variants, allowed is one of each",
            ),
            Broken(
                config(one, shadowProductionVariants=[shadow, two]),
                "spec.shadowProductionVariants",
                "found 2 shadow and 1 production variants",
            ),
        ),
    )
    zero = variant(initialVariantWeight=0)
    yield RuleCases(
        "EndpointConfig",
        "spec",
        "initialVariantWeight: found 0 for every production variant",
        (
            config(zero, two),
            config(zero, variant(variantName="b", initialVariantWeight=0.001)),
            config(one, shadowProductionVariants=[{**shadow, "initialVariantWeight": 0}]),
        ),
        (
            Broken(config(zero), "spec.productionVariants", "found 0 for every production variant"),
            Broken(
                config(zero, variant(variantName="b", initialVariantWeight=0.0)),
                "spec.productionVariants",
                "found 0 for every production variant",
            ),
        ),
    )
    yield RuleCases(
        "EndpointConfig",
        "spec",
        "productionVariants: a serverless variant must be the only variant",
        (config(serverless()), config(one, two), config(one, shadowProductionVariants=[shadow])),
        (
            Broken(config(serverless(), two), "spec.productionVariants", "must be the only variant"),
            Broken(
                config(serverless(), shadowProductionVariants=[shadow]),
                "spec.productionVariants",
                "must be the only variant",
            ),
        ),
    )
    capture = {
        "initialSamplingPercentage": 1,
        "destinationS3Uri": "s3://capture/x",
        "captureOptions": [{"captureMode": "Input"}],
    }
    vpc = {"securityGroupIds": ["sg-1"], "subnets": ["subnet-1"]}
    yield RuleCases(
        "EndpointConfig",
        "spec",
        "dataCaptureConfig, vpcConfig, enableNetworkIsolation: set beside a serverless variant",
        (
            config(serverless(), enableNetworkIsolation=False),
            config(one, dataCaptureConfig=capture, vpcConfig=vpc, enableNetworkIsolation=True),
        ),
        tuple(
            Broken(config(serverless(), **{field: value}), "spec", "set beside a serverless variant")
            for field, value in (
                ("dataCaptureConfig", capture),
                ("vpcConfig", vpc),
                ("enableNetworkIsolation", True),
            )
        ),
    )
    cross = {"maxInvocationsPerSecondPerInstance": 1, "maxCrossRegionPercentPerEndpoint": 1}
    yield RuleCases(
        "EndpointConfig",
        "spec",
        "crossRegionTrafficConfig: is set beside",
        (config(one, crossRegionTrafficConfig=cross), config(one, asyncInferenceConfig={"outputConfig": {}})),
        (
            Broken(
                config(serverless(), crossRegionTrafficConfig=cross), "spec.crossRegionTrafficConfig", "is set beside"
            ),
            Broken(
                config(one, crossRegionTrafficConfig=cross, asyncInferenceConfig={"outputConfig": {}}),
                "spec.crossRegionTrafficConfig",
                "allowed only for real-time endpoints on instances",
            ),
        ),
    )
    nameless = variant(modelName=None)
    yield RuleCases(
        "EndpointConfig",
        "spec",
        "executionRoleArn is required when a variant has no modelName",
        (config(nameless, executionRoleArn=ROLE), config(one)),
        (Broken(config(nameless), "spec", "executionRoleArn is required"),),
    )


def _every_kind() -> Iterator[RuleCases]:
    builders: dict[str, Callable[..., Manifest]] = {"Model": model, "EndpointConfig": config, "Endpoint": endpoint}
    for kind, build in builders.items():
        yield RuleCases(
            kind,
            "",
            "metadata.name is also the name in SageMaker",
            (build(name="a" * 63), build(name="a-1")),
            (
                Broken(build(name="a" * 64), "<nil>", "with 64 characters, allowed are at most 63 characters"),
                Broken(build(name="churn.v2"), "<nil>", 'metadata.name: found "churn.v2"'),
            ),
        )
        yield RuleCases(
            kind,
            "spec.tags",
            "tag keys that begin with 'sluice.dev/' or 'aws:' are reserved",
            (build(tags=[{"key": "sluice.dev", "value": "x"}, {"key": "awsome", "value": ""}]), build(tags=[])),
            tuple(
                Broken(
                    build(tags=[{"key": "team", "value": "x"}, {"key": key, "value": "x"}]),
                    "spec.tags",
                    f'tags: found the reserved key "{key}"',
                )
                for key in (OWNER_TAG, "aws:cloudformation:stack", "AWS:x")
            ),
        )


def _sized(type: str, field: str, size: Manifest) -> Manifest:
    return endpoint(deploymentConfig=blue_green(type, **{field: size}))


def _endpoint_percents() -> Iterator[RuleCases]:
    routing = "spec.deploymentConfig.blueGreenUpdatePolicy.trafficRoutingConfiguration"
    policy = "spec.deploymentConfig.rollingUpdatePolicy"
    places: list[tuple[str, str, int, int, Callable[[Manifest], Manifest]]] = [
        (routing, "canarySize", 1, 50, lambda size: _sized("CANARY", "canarySize", size)),
        (routing, "linearStepSize", 10, 50, lambda size: _sized("LINEAR", "linearStepSize", size)),
        (policy, "maximumBatchSize", 5, 50, lambda size: endpoint(deploymentConfig=rolling(maximumBatchSize=size))),
        (
            policy,
            "rollbackMaximumBatchSize",
            1,
            100,
            lambda size: endpoint(deploymentConfig=rolling(rollbackMaximumBatchSize=size)),
        ),
    ]
    for where, field, lowest, highest, build in places:
        outside = [highest + 1] if lowest == 1 else [lowest - 1, highest + 1]
        yield RuleCases(
            "Endpoint",
            f"{where}.{field}",
            f"{field} of type CAPACITY_PERCENT is {lowest} to {highest}",
            (build(capacity_percent(lowest)), build(capacity_percent(highest)), build(instance_count(highest + 1))),
            tuple(
                Broken(
                    build(capacity_percent(value)),
                    f"{where}.{field}.value",
                    f"{field}.value: found {value}, allowed for type CAPACITY_PERCENT is {lowest} to {highest}",
                )
                for value in outside
            ),
        )


def _endpoint_policies() -> Iterator[RuleCases]:
    yield RuleCases(
        "Endpoint",
        "spec.deploymentConfig",
        "exactly one of blueGreenUpdatePolicy and rollingUpdatePolicy",
        (endpoint(deploymentConfig=blue_green()), endpoint(deploymentConfig=rolling()), endpoint()),
        (
            Broken(
                endpoint(deploymentConfig={**blue_green(), **rolling()}),
                "spec.deploymentConfig",
                "both are set, allowed is exactly one",
            ),
            Broken(
                endpoint(deploymentConfig={"autoRollbackConfiguration": {"alarms": [{"alarmName": "a"}]}}),
                "spec.deploymentConfig",
                "neither is set, exactly one is required",
            ),
        ),
    )
    routing = "spec.deploymentConfig.blueGreenUpdatePolicy.trafficRoutingConfiguration"
    canary, linear = {"canarySize": capacity_percent(10)}, {"linearStepSize": capacity_percent(10)}
    kept = tuple(
        endpoint(deploymentConfig=each)
        for each in (blue_green(), blue_green("CANARY", **canary), blue_green("LINEAR", **linear))
    )
    for field, type, wrong in (("canarySize", "CANARY", "LINEAR"), ("linearStepSize", "LINEAR", "CANARY")):
        own, other = (canary, linear) if type == "CANARY" else (linear, canary)
        yield RuleCases(
            "Endpoint",
            routing,
            f"{field} is required when type is {type}",
            kept,
            (
                Broken(
                    endpoint(deploymentConfig=blue_green(type)),
                    routing,
                    f"{field}: is missing, required when type is {type}",
                ),
                Broken(
                    endpoint(deploymentConfig=blue_green("ALL_AT_ONCE", **own)),
                    routing,
                    f"{field}: is set, allowed only when type is {type}",
                ),
                Broken(
                    endpoint(deploymentConfig=blue_green(wrong, **own, **other)),
                    routing,
                    f"{field}: is set, allowed only when type is {type}",
                ),
            ),
        )


def _endpoint_timeouts() -> Iterator[RuleCases]:
    def case(config: Manifest, timeout: int) -> Manifest:
        changed = deepcopy(config)
        (policy,) = changed.values()
        policy["maximumExecutionTimeoutInSeconds"] = timeout
        return endpoint(deploymentConfig=changed)

    # Each configuration with the sum of its waits: the least timeout that is refused is that sum.
    blue_greens = (
        (blue_green("ALL_AT_ONCE", 3600, terminationWaitInSeconds=700), 700),
        (blue_green("CANARY", 600, canarySize=capacity_percent(10), terminationWaitInSeconds=300), 900),
        (blue_green("CANARY", 900, canarySize=instance_count(1)), 900),
        (blue_green("LINEAR", 300, linearStepSize=capacity_percent(10), terminationWaitInSeconds=60), 2760),
        (blue_green("LINEAR", 300, linearStepSize=capacity_percent(33)), 900),
        (blue_green("LINEAR", 700, linearStepSize=instance_count(3), terminationWaitInSeconds=100), 800),
    )
    rollings = ((rolling(50, 400), 800), (rolling(33, 300), 1200), (rolling(5, 100), 2000))
    counted = (rolling(50, 700, maximumBatchSize=instance_count(1)), 700)
    for name, configs in (("blueGreenUpdatePolicy", blue_greens), ("rollingUpdatePolicy", (*rollings, counted))):
        place = f"spec.deploymentConfig.{name}"
        yield RuleCases(
            "Endpoint",
            place,
            "maximumExecutionTimeoutInSeconds must be greater than the sum of the waits",
            (
                *(case(config, waits + 1) for config, waits in configs),
                *(endpoint(deploymentConfig=config) for config, _ in configs),
            ),
            tuple(
                Broken(
                    case(config, waits),
                    f"{place}.maximumExecutionTimeoutInSeconds",
                    f"found {waits}, allowed is more than the sum of the waits, which is at least {waits}",
                )
                for config, waits in configs
            ),
        )


def _endpoint() -> Iterator[RuleCases]:
    region = {"region": "eu-west-1"}
    yield RuleCases(
        "Endpoint",
        "spec",
        "sagemaker: is set, allowed only when backend is SageMaker",
        (endpoint(sagemaker=region), endpoint(backend="Cluster")),
        (
            Broken(
                endpoint(backend="Cluster", sagemaker=region),
                "spec.sagemaker",
                "sagemaker: is set with backend Cluster, allowed only when backend is SageMaker",
            ),
        ),
    )
    yield RuleCases(
        "Endpoint",
        "spec",
        "sagemaker.region is immutable",
        (
            (endpoint(sagemaker=region), endpoint(sagemaker={**region, "assumeRoleArn": ROLE})),
            (endpoint(), endpoint(sagemaker={"assumeRoleArn": ROLE})),
        ),
        (
            Broken(
                endpoint(sagemaker={"region": "us-east-1"}),
                "spec.sagemaker.region",
                'found "us-east-1", allowed is "eu-west-1", because it is immutable',
                old=endpoint(sagemaker=region),
            ),
            Broken(
                endpoint(sagemaker={"assumeRoleArn": ROLE}),
                "spec.sagemaker.region",
                'found "", allowed is "eu-west-1"',
                old=endpoint(sagemaker=region),
            ),
            Broken(
                endpoint(), "spec.sagemaker.region", 'found "", allowed is "eu-west-1"', old=endpoint(sagemaker=region)
            ),
            Broken(
                endpoint(sagemaker=region), "spec.sagemaker.region", 'found "eu-west-1", allowed is ""', old=endpoint()
            ),
        ),
    )
    yield RuleCases(
        "Endpoint",
        "spec.backend",
        "backend is immutable",
        ((endpoint(), endpoint(endpointConfigName="next")),),
        (
            Broken(
                endpoint(backend="Cluster"),
                "spec.backend",
                'backend: found "Cluster", allowed is "SageMaker", because it is immutable',
                old=endpoint(),
            ),
        ),
    )
    yield RuleCases(
        "Endpoint",
        "",
        "spec.endpointName is immutable",
        (
            (endpoint(endpointName="Churn"), endpoint(endpointName="Churn", driftPolicy="Correct")),
            (endpoint(), endpoint(endpointName="churn")),
            (endpoint(endpointName="churn"), endpoint()),
        ),
        tuple(
            Broken(
                endpoint(endpointName=new),
                "spec.endpointName",
                f'spec.endpointName: found "{new or "churn"}", allowed is "{old or "churn"}", because it is immutable',
                old=endpoint(endpointName=old),
            )
            for old, new in (("Churn", "churn"), ("Churn", None), (None, "Churn"), ("a", "b"))
        ),
    )
    exclude = [{"variantPropertyType": "DesiredWeight"}]
    yield RuleCases(
        "Endpoint",
        "spec",
        "excludeRetainedVariantProperties: is set",
        (
            endpoint(retainAllVariantProperties=True, excludeRetainedVariantProperties=exclude),
            endpoint(excludeRetainedVariantProperties=[]),
        ),
        tuple(
            Broken(
                endpoint(retainAllVariantProperties=retain, excludeRetainedVariantProperties=exclude),
                "spec.excludeRetainedVariantProperties",
                "allowed only when retainAllVariantProperties is true",
            )
            for retain in (None, False)
        ),
    )


def _alarms() -> Iterator[RuleCases]:
    alert = {"prometheusAlert": {"alertName": "Burn"}}
    promql = {"promql": {"expression": "1", "comparison": "GreaterThanThreshold", "threshold": 1}}
    errors = {"traffic": {"metric": "Invocation5XXErrors", "threshold": 0.01}}

    def case(**alarm: Any) -> Manifest:
        return endpoint(backend="Cluster", kubernetes={"alarms": [{"name": "a", **alarm}]})

    def traffic(**fields: Any) -> Manifest:
        return case(traffic={"metric": "ModelLatency", "threshold": 1, **fields})

    place = "spec.kubernetes.alarms[0]"
    yield RuleCases(
        "Endpoint",
        "spec.kubernetes.alarms[]",
        "exactly one of prometheusAlert, promql and traffic",
        (case(**alert), case(**promql), case(**errors)),
        (
            Broken(case(), place, "prometheusAlert, promql, traffic: found 0 of them"),
            Broken(case(**alert, **errors), place, "found 2 of them"),
            Broken(case(**alert, **promql, **errors), place, "found 3 of them"),
        ),
    )
    yield RuleCases(
        "Endpoint",
        "spec.kubernetes.alarms[].traffic",
        "percentile is required when metric is ModelLatency",
        (traffic(percentile=99.9), case(**errors), traffic(metric="Invocation4XXErrors")),
        (
            Broken(traffic(), f"{place}.traffic", "percentile: is missing, required when metric is ModelLatency"),
            Broken(
                traffic(metric="Invocation4XXErrors", percentile=99),
                f"{place}.traffic",
                "percentile: is set, allowed only when metric is ModelLatency",
            ),
        ),
    )
    yield RuleCases(
        "Endpoint",
        "spec.kubernetes.alarms[].prometheusAlert.matchLabels",
        "matchLabels: names of labels",
        (case(prometheusAlert={"alertName": "Burn", "matchLabels": {"_team1": "x", "severity": ""}}),),
        tuple(
            Broken(
                case(prometheusAlert={"alertName": "Burn", "matchLabels": {label: "x"}}),
                f"{place}.prometheusAlert.matchLabels",
                "names of labels are letters",
            )
            for label in ("1a", "a-b", "")
        ),
    )


RULES: tuple[RuleCases, ...] = (
    *_every_kind(),
    *_containers(),
    *_model(),
    *_variants(),
    *_config(),
    *_endpoint(),
    *_endpoint_policies(),
    *_endpoint_percents(),
    *_endpoint_timeouts(),
    *_alarms(),
)
