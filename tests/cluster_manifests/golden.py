"""The fleets and routers of the golden files.

`PYTHONPATH=operator:. python -m tests.cluster_manifests.golden` writes the files anew; look at the difference before
you commit it: fleets that stand keep the pods that they were made with, whatever the operator renders now."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from sluice.cluster import fleet, router
from sluice.cluster.router import RouterSettings
from sluice.cluster.template import Fleet, FleetDefaults
from sluice.core.cluster.names import fleet_name
from sluice.core.identity import Owner
from sluice.core.instance_types import InstanceType, parse

Object = dict[str, Any]

HERE = Path(__file__).parent / "golden"
OWNER = Owner("prod-1", "team-a", "churn")
HASH = "v1:" + "0" * 64
TYPES = parse({"ml.g5.12xlarge": {"nodeSelector": {"pool": "a10"}}, "ml.tiny.one": {"cpu": "200m", "memory": "256Mi"}})
DEFAULTS = FleetDefaults(image="registry.example/sluice@sha256:1", image_pull_policy="IfNotPresent")
ROLE = "arn:aws:iam::111122223333:role/churn"

S3_PREFIX = {"s3Uri": "s3://models/churn/", "s3DataType": "S3Prefix", "compressionType": "None"}
S3_OBJECT = {"s3Uri": "s3://models/tokens.json", "s3DataType": "S3Object", "compressionType": "None", "eTag": "abc"}


def a_fleet(model: Mapping[str, Any], variant: Mapping[str, Any] | None = None, **config: Any) -> Fleet:
    """A fleet of this Model; `variant` changes a small variant, `config` goes beside it."""
    made = {"variantName": "a", "modelName": "churn", "instanceType": "ml.m5.large", "initialInstanceCount": 2}
    made |= variant or {}
    name = fleet_name(OWNER.name, str(made["variantName"]), HASH)
    return Fleet(OWNER, name, HASH, made, {"productionVariants": [made], **config}, model)


def type_of(item: Fleet) -> InstanceType:
    """The fleet's instance type."""
    found = TYPES.find(str(item.variant["instanceType"]))
    assert found is not None
    return found


FLEETS: dict[str, tuple[Fleet, FleetDefaults]] = {
    # The manifest that most people write.
    "archive": (
        a_fleet(
            {
                "primaryContainer": {
                    "image": "registry.example/churn:1",
                    "modelDataUrl": "s3://models/churn/model.tar.gz",
                    "environment": {"GREETING": "こんにちは, $(HOME) costs $5 and $$", "EMPTY": ""},
                },
                "executionRoleArn": ROLE,
                "kubernetes": {
                    "imagePullSecrets": [{"name": "registry"}],
                    "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "churn", "key": "token"}}}],
                },
            }
        ),
        DEFAULTS,
    ),
    # Nothing to download, and a small pod.
    "bare": (
        a_fleet(
            {
                "primaryContainer": {
                    "image": "registry.example/churn:1",
                    "environment": {"SAGEMAKER_MODEL_SERVER_WORKERS": "7"},
                },
                "kubernetes": {
                    "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": 1}},
                    "securityContext": {"runAsUser": 1000, "runAsGroup": 1000, "fsGroup": 2000},
                },
                "enableNetworkIsolation": True,
            },
            {"variantName": "A", "instanceType": "ml.tiny.one"},
        ),
        DEFAULTS,
    ),
    # A large model on GPUs, in AWS' own image, with everything that a variant can say.
    "gpu": (
        a_fleet(
            {
                "primaryContainer": {
                    "image": "registry.example/djl-inference:0.30",
                    "modelDataSource": {"s3DataSource": S3_PREFIX},
                    "additionalModelDataSources": [{"channelName": "tokens", "s3DataSource": S3_OBJECT}],
                },
                "executionRoleArn": ROLE,
                "kubernetes": {
                    "serviceAccountName": "churn",
                    "securityContext": {"runAsRoot": True},
                    "modelDataAccess": {"assumeExecutionRole": True, "region": "eu-west-1"},
                    "priorityClassName": "serving",
                    "preStopSeconds": 600,
                },
            },
            {
                "instanceType": "ml.g5.12xlarge",
                "volumeSizeInGB": 64,
                "modelDataDownloadTimeoutInSeconds": 1200,
                "containerStartupHealthCheckTimeoutInSeconds": 901,
                "kubernetes": {"zoneSpread": "Required"},
            },
            enableNetworkIsolation=True,
        ),
        DEFAULTS,
    ),
    # Containers that are called one after another, each with its own data.
    "serial": (
        a_fleet(
            {
                "containers": [
                    {
                        "image": "registry.example/prepare:1",
                        "containerHostname": "Prepare",
                        "modelDataUrl": "s3://models/p.tar.gz",
                    },
                    {"image": "registry.example/churn:1", "containerHostname": "Model"},
                    {
                        "image": "registry.example/finish:1",
                        "containerHostname": "finish",
                        "modelDataUrl": "https://models.example:8443/f.tar.gz",
                    },
                ],
            },
            {"instanceType": "ml.g5.12xlarge"},
            enableNetworkIsolation=True,
        ),
        FleetDefaults(
            image="registry.example/sluice@sha256:1",
            region="eu-west-1",
            image_pull_secrets=("mirror",),
            isolated_egress_cidrs=("10.0.0.0/8",),
        ),
    ),
    # Containers that a request names, and model data from a claim and from another S3.
    "direct": (
        a_fleet(
            {
                "containers": [
                    {
                        "image": "registry.example/one:1",
                        "containerHostname": "one",
                        "modelDataUrl": "pvc://models/churn/one.tar.gz",
                    },
                    {
                        "image": "registry.example/two:1",
                        "containerHostname": "two",
                        "modelDataUrl": "pvc://models/churn/two/",
                        "additionalModelDataSources": [{"channelName": "tokens", "s3DataSource": S3_OBJECT}],
                    },
                ],
                "inferenceExecutionConfig": {"mode": "Direct"},
                "kubernetes": {
                    "modelDataAccess": {
                        "credentialsSecretName": "bucket",
                        "s3EndpointUrl": "http://minio.storage:9000",
                        "cacheHostPath": "/var/cache/sluice",
                    }
                },
            },
            {"instanceType": "ml.c7g.xlarge"},
        ),
        DEFAULTS,
    ),
}

ROUTERS: dict[str, RouterSettings] = {
    "router": RouterSettings(image="registry.example/sluice-router@sha256:2"),
    "router-all": RouterSettings(
        image="registry.example/sluice-router@sha256:2",
        operator_namespace="sluice-system",
        cluster_role="prod-sluice-router",
        replicas=3,
        image_pull_policy="Always",
        image_pull_secrets=("mirror",),
        priority_class_name="system-cluster-critical",
        longest_invocation_seconds=900,
        envoy_threads=4,
        environment={"SLUICE_ROUTER_ACCESS_LOG": "true"},
        scrape_from_anywhere=False,
    ),
}


def rendered(name: str) -> tuple[Object, ...]:
    """The objects of a golden case."""
    if name in ROUTERS:
        return router.objects(OWNER.installation_id, OWNER.namespace, ROUTERS[name])
    item, defaults = FLEETS[name]
    return fleet.objects(item, type_of(item), defaults, replicas=2)


def text(name: str) -> str:
    """A golden file as it would be written now."""
    return yaml.safe_dump_all(rendered(name), sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    HERE.mkdir(exist_ok=True)
    for case in (*FLEETS, *ROUTERS):
        (HERE / f"{case}.yaml").write_text(text(case), encoding="utf-8")
