"""Rules of a Model, kept and broken."""

from collections.abc import Callable, Iterator
from typing import Any

from .manifests import (
    ROLE,
    Manifest,
    container,
    model,
)
from .rulecases import Broken, RuleCases


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
    assume = {"modelDataAccess": {"assumeExecutionRole": True}}
    yield RuleCases(
        "Model",
        "spec",
        "kubernetes.modelDataAccess.assumeExecutionRole: is true",
        (
            model(kubernetes=assume, executionRoleArn=ROLE),
            model(kubernetes={"modelDataAccess": {"assumeExecutionRole": False}}),
            model(kubernetes={"modelDataAccess": {}}),
        ),
        (
            Broken(
                model(kubernetes=assume),
                "spec.kubernetes.modelDataAccess.assumeExecutionRole",
                "allowed only with an executionRoleArn",
            ),
        ),
    )
    secret_name = {"credentialsSecretName": "bucket"}
    yield RuleCases(
        "Model",
        "spec.kubernetes.modelDataAccess",
        "at most one of credentialsSecretName and assumeExecutionRole",
        (model(kubernetes={"modelDataAccess": secret_name}), model(kubernetes=assume, executionRoleArn=ROLE)),
        (
            Broken(
                model(
                    kubernetes={"modelDataAccess": {**secret_name, "assumeExecutionRole": True}}, executionRoleArn=ROLE
                ),
                "spec.kubernetes.modelDataAccess",
                "at most one of credentialsSecretName and assumeExecutionRole",
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


def model_rules() -> Iterator[RuleCases]:
    """Every rule of a Model."""
    yield from _containers()
    yield from _model()
