"""Puts what the story needs into the cluster with helm: the simulated AWS, the kinds, the operator. Idempotent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from demo.aws import Alarms, Objects, SimulatedTime
from demo.forwarding import forwarded
from demo.surroundings import CHECKOUT, Surroundings
from sagemaker_simulator.testing import Control

OPERATOR_NAMESPACE = "sluice-system"
AWS_NAMESPACE = "simulated-aws"
SIMULATOR = "sagemaker-simulator"
MOTO = "sagemaker-simulator-moto"
REGION = "eu-west-1"
ACCESS_KEY = "sluice-demo"
PROMETHEUS_NAMESPACE = "monitoring"
PROMETHEUS_URL = f"http://prometheus.{PROMETHEUS_NAMESPACE}.svc:9090"
SPEED = 30
READY_SECONDS = 180

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class SimulatedAws:
    """What stands in for AWS, reachable from here."""

    simulator: Control
    alarms: Alarms
    time: SimulatedTime
    objects: Objects


def install(surroundings: Surroundings, tell: Tell) -> None:
    """Install or upgrade everything and wait until it is ready. Raises DemoError."""
    tell("helm: simulated SageMaker, CloudWatch and STS")
    _helm(surroundings, SIMULATOR, AWS_NAMESPACE, simulator_values(surroundings.simulator_image))
    tell("helm: the three kinds")
    _helm(surroundings, "sluice-crds", OPERATOR_NAMESPACE, {})
    tell("helm: the operator")
    _credentials(surroundings)
    upgrade_operator(surroundings)


def upgrade_operator(surroundings: Surroundings, changed: Mapping[str, Any] | None = None) -> None:
    """Install or upgrade the operator with the demo's values and wait until its pod is ready. Raises DemoError."""
    values = operator_values(surroundings.operator_image, surroundings.router_image)
    _helm(surroundings, "sluice", OPERATOR_NAMESPACE, values | dict(changed or {}))


def simulator_values(image: str) -> dict[str, Any]:
    """Values of charts/sagemaker-simulator: minutes, as in the real service, on a clock `SPEED` times as fast."""
    return {
        "image": _image(image),
        "simulator": {
            "speed": SPEED,
            "settings": {"create_seconds": 120, "provision_seconds": 90, "flip_seconds": 20, "cleanup_seconds": 50},
        },
    }


def operator_values(image: str, router_image: str) -> dict[str, Any]:
    """Values of charts/sluice: the stand-ins' addresses, and looks often enough for a clock that runs faster."""
    addresses = {
        service: f"http://{name}.{AWS_NAMESPACE}.svc:{port}"
        for service, name, port in (
            ("sagemaker", SIMULATOR, 8080),
            ("applicationAutoscaling", SIMULATOR, 8080),
            ("sts", SIMULATOR, 8080),
            ("cloudwatch", MOTO, 5000),
        )
    }
    return {
        "image": _image(image),
        "router": {
            "image": {name: part for name, part in _image(router_image).items() if name != "pullPolicy"},
            # The node is small, and a router that is rolled needs room for one more.
            "resources": {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}},
            # A namespace that is deleted waits for half of its pods' longest grace period.
            "streamDrainSeconds": 60,
        },
        # A pod is counted with the larger request of its loader and its containers.
        "clusterBackend": {
            "loaderResources": {"requests": {"cpu": "20m", "memory": "128Mi"}, "limits": {"memory": "1Gi"}}
        },
        "aws": {"region": REGION, "credentials": {"existingSecret": "aws-credentials"}, "endpointUrls": addresses},
        "alarms": {"prometheus": {"url": PROMETHEUS_URL}},
        "settings": {
            "settleSeconds": 2,
            "sagemakerMovingSeconds": 0.5,
            "sagemakerSweepSeconds": 5,
            "cloudwatchSeconds": 1,
        },
    }


@contextmanager
def simulated_aws(surroundings: Surroundings) -> Iterator[SimulatedAws]:
    """Ways to the simulator and to moto's server, as long as the block lasts. Raises DemoError."""
    with (
        forwarded(surroundings, AWS_NAMESPACE, f"svc/{SIMULATOR}", 8080) as simulator_url,
        forwarded(surroundings, AWS_NAMESPACE, f"svc/{MOTO}", 5000) as moto_url,
    ):
        control = Control(simulator_url)
        yield SimulatedAws(control, Alarms(moto_url, REGION), SimulatedTime(control), Objects(moto_url, REGION))


def _helm(surroundings: Surroundings, chart: str, namespace: str, values: Mapping[str, Any]) -> None:
    """`helm upgrade --install`; values go in as JSON, so that nothing is parsed twice."""
    _recover(surroundings, chart, namespace)
    settings = [word for name, value in values.items() for word in ("--set-json", f"{name}={json.dumps(value)}")]
    surroundings.run_helm(
        "upgrade", "--install", chart, str(CHECKOUT / "charts" / chart), "--namespace", namespace, "--create-namespace",
        "--wait", "--timeout", f"{READY_SECONDS}s", *settings, seconds=READY_SECONDS + 30,
    )  # fmt: skip


def _recover(surroundings: Surroundings, release: str, namespace: str) -> None:
    """A run that was cut off leaves its release pending, and helm refuses to go on until that is undone."""
    listed = json.loads(
        surroundings.run_helm("list", "--namespace", namespace, "--filter", f"^{release}$", "--pending", "-o", "json")
    )
    for one in listed:
        if one["status"] == "pending-install":
            surroundings.run_helm("uninstall", release, "--namespace", namespace, "--wait")
        else:
            surroundings.run_helm("rollback", release, "--namespace", namespace, "--wait")


def _credentials(surroundings: Surroundings) -> None:
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "aws-credentials", "namespace": OPERATOR_NAMESPACE},
        "stringData": {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": "simulated"},
    }
    surroundings.run_kubectl("apply", "-f", "-", stdin=json.dumps(secret))


def _image(reference: str) -> dict[str, str]:
    """An image reference as the charts take it. Local images are there already, a user's own may be pulled."""
    name, _, digest = reference.partition("@")
    head, _, tail = name.rpartition("/")
    base, _, tag = tail.partition(":")
    repository = f"{head}/{base}" if head else base
    return {
        "registry": "",
        "repository": repository,
        "tag": tag or "latest",
        "digest": digest,
        "pullPolicy": "IfNotPresent",
    }
