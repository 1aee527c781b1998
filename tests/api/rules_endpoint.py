"""Rules of an Endpoint, kept and broken."""

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from .manifests import (
    ROLE,
    Manifest,
    blue_green,
    capacity_percent,
    endpoint,
    instance_count,
    rolling,
)
from .rulecases import Broken, RuleCases


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


def endpoint_rules() -> Iterator[RuleCases]:
    """Every rule of an Endpoint."""
    yield from _endpoint()
    yield from _endpoint_policies()
    yield from _endpoint_percents()
    yield from _endpoint_timeouts()
    yield from _alarms()
