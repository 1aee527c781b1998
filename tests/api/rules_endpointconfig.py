"""Rules of an EndpointConfig, kept and broken."""

from collections.abc import Callable, Iterator
from copy import deepcopy

from .manifests import (
    ROLE,
    Manifest,
    config,
    serverless,
    variant,
)
from .rulecases import Broken, RuleCases


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


def endpointconfig_rules() -> Iterator[RuleCases]:
    """Every rule of an EndpointConfig."""
    yield from _variants()
    yield from _config()
