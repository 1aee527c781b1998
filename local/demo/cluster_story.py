"""The second half: the same kinds with `backend: Cluster`, on this cluster's own nodes, asked by an unmodified boto3.

Each step does one thing a person would do and waits for what must then be seen, as in steps.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

import localcluster
from demo.caller import Answer, Callers, Tally
from demo.forwarding import forwarded
from demo.install import ACCESS_KEY, OPERATOR_NAMESPACE, REGION, SimulatedAws
from demo.picture import Picture
from demo.steps import NAMESPACE
from demo.surroundings import CHECKOUT, DemoError, Surroundings
from demo.watcher import NotHappenedError, Watcher
from localcluster import prometheus
from localcluster.errors import LocalClusterError
from localcluster.images import examples

MANIFEST = CHECKOUT / "examples" / "cluster" / "iris.yaml"
ROUTER = "sluice-router"
BODY = json.dumps({"inputs": [[5.1, 3.5, 1.4, 0.2]]})
SPECIES = "setosa"
NEW_WEIGHTS = {"tree": 1.0, "logistic": 5.0}
ANSWERS = 600
SAID_EVERY = 200
ANSWERS_SECONDS = 240
CREATION_SECONDS = 480
"""A router and two model servers start, on two cores, one after the other."""
WEIGHTS_SECONDS = 120
DELETION_SECONDS = 240


@dataclass(frozen=True, slots=True)
class Declared:
    """What a manifest with one Endpoint declares."""

    manifest: Path

    documents: tuple[dict[str, Any], ...]

    @property
    def endpoint(self) -> str:
        """metadata.name of its Endpoint, and the name in calls."""
        return str(self._one("Endpoint")["metadata"]["name"])

    @property
    def config(self) -> str:
        """metadata.name of its EndpointConfig."""
        return str(self._one("EndpointConfig")["metadata"]["name"])

    @property
    def variants(self) -> tuple[str, ...]:
        """The production variants' names in their order."""
        return tuple(one["variantName"] for one in self._one("EndpointConfig")["spec"]["productionVariants"])

    @property
    def weights(self) -> dict[str, float]:
        """The weights that it gives them."""
        variants = self._one("EndpointConfig")["spec"]["productionVariants"]
        return {one["variantName"]: float(one.get("initialVariantWeight", 1)) for one in variants}

    @property
    def model_data(self) -> tuple[str, ...]:
        """The models' data, as s3:// addresses."""
        return tuple(
            one["spec"]["primaryContainer"]["modelDataUrl"] for one in self.documents if one["kind"] == "Model"
        )

    @property
    def secret(self) -> str:
        """The Secret with which the models' data is downloaded."""
        return str(self._one("Model")["spec"]["kubernetes"]["modelDataAccess"]["credentialsSecretName"])

    @property
    def shown(self) -> str:
        """The manifest's path, as a person in the checkout writes it."""
        return str(self.manifest.relative_to(CHECKOUT))

    def with_image(self, image: str) -> Declared:
        """The same with another image."""
        edited = json.loads(json.dumps(self.documents))
        for document in edited:
            if document["kind"] == "Model":
                document["spec"]["primaryContainer"]["image"] = image
        return replace(self, documents=tuple(edited))

    def _one(self, kind: str) -> dict[str, Any]:
        return next(one for one in self.documents if one["kind"] == kind)


def read(manifest: Path = MANIFEST) -> Declared:
    """Read a manifest."""
    return Declared(manifest, tuple(yaml.safe_load_all(manifest.read_text())))


@dataclass(frozen=True, slots=True)
class Models:
    """The model server's image, on the nodes, and the models' archives by their names; and Prometheus' image."""

    image: str
    archives: Mapping[str, Path]
    prometheus: str


def bring_models() -> Models:
    """Make images and models where they are missing; progress is printed. Raises DemoError."""
    try:
        cluster = localcluster.up()
        archives = examples.archives(examples.MLFLOW)
        return Models(examples.image(cluster, examples.MLFLOW), archives, prometheus.image(cluster))
    except LocalClusterError as error:
        raise DemoError(str(error)) from error


@dataclass(slots=True)
class ClusterStage:
    """What the steps work with: the cluster, the stand-in for AWS, the models, eyes on the Endpoint, and callers."""

    surroundings: Surroundings
    aws: SimulatedAws
    declared: Declared
    models: Models
    watcher: Watcher
    until_the_end: ExitStack
    """Closed when the stage is."""
    tell: Callable[[str], None] = print
    """Called with each command that is about to be run."""
    say: Callable[[str], None] = print
    """Called with what came of it."""
    callers: Callers | None = None

    @property
    def tally(self) -> Tally:
        """Who answered so far."""
        return self.callers.tally if self.callers else Tally()

    def told_by(self, tell: Callable[[str], None], say: Callable[[str], None]) -> ClusterStage:
        """The same stage, with others who tell and say."""
        self.tell, self.say = tell, say
        return self


@contextmanager
def open_stage(
    surroundings: Surroundings, aws: SimulatedAws, models: Models, declared: Declared
) -> Iterator[ClusterStage]:
    """The stage as long as the block lasts; the callers' calls end with it."""
    with (
        Watcher(surroundings, NAMESPACE, declared.endpoint, operator_namespace=OPERATOR_NAMESPACE) as watcher,
        ExitStack() as until_the_end,
    ):
        yield ClusterStage(surroundings, aws, declared, models, watcher, until_the_end)


def clear(stage: ClusterStage) -> None:
    """Nothing of an earlier run is left."""
    if stage.surroundings.api().get(f"/api/v1/namespaces/{NAMESPACE}") is None:
        kubectl(stage, "create", "namespace", NAMESPACE)
        return
    kubectl(stage, "delete", "-n", NAMESPACE, "-f", stage.declared.shown, "--ignore-not-found", "--wait=false")
    stage.watcher.until("it is gone", lambda seen: not seen.exists, seconds=DELETION_SECONDS)


def upload(stage: ClusterStage) -> None:
    """Put the models' data where the manifest says, and the credentials that may read it into a Secret."""
    for uri in stage.declared.model_data:
        put(stage, uri)
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": stage.declared.secret, "namespace": NAMESPACE},
        "stringData": {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": "simulated"},
    }
    stage.tell(f"kubectl apply -n {NAMESPACE} -f - (Secret {stage.declared.secret}: who may read the models' data)")
    stage.surroundings.run_kubectl("apply", "-f", "-", stdin=json.dumps(secret))


def put(stage: ClusterStage, uri: str) -> None:
    """Put a model where an s3:// address says, in a folder of its name."""
    archive = stage.models.archives[urlsplit(uri).path.split("/")[1]]
    stage.tell(f"aws s3 cp {archive.name} {uri}")
    stage.aws.objects.put(uri, archive.read_bytes())


def create(stage: ClusterStage) -> Picture:
    """Apply the manifest: Creating, then InService and Ready with all variants at the weights it declares."""
    edited = stage.declared.with_image(stage.models.image)
    if edited == stage.declared:
        kubectl(stage, "apply", "-n", NAMESPACE, "-f", stage.declared.shown)
    else:  # a cluster that pulls the image from a registry of its own
        stage.tell(f"kubectl apply -n {NAMESPACE} -f {stage.declared.shown} (with the image {stage.models.image})")
        stage.surroundings.run_kubectl("apply", "-n", NAMESPACE, "-f", "-", stdin=yaml.safe_dump_all(edited.documents))
    stage.watcher.until(
        "endpointStatus is Creating", lambda seen: seen.endpoint_status == "Creating", seconds=CREATION_SECONDS
    )
    return stage.watcher.until(
        f"its variants are in service with the weights {stage.declared.weights}",
        lambda seen: serves(seen, stage.declared.weights),
        seconds=CREATION_SECONDS,
    )


def predict(stage: ClusterStage) -> Tally:
    """Ask for real predictions, and go on asking: each variant answers its share, and each with its own model."""
    callers = call(stage)
    answer = callers.ask()
    # The models were trained to name themselves: what the header says must be what answered.
    if answer.prediction != f"{SPECIES} by {answer.variant}":
        raise NotHappenedError(
            f"variant {answer.variant} answered {answer.prediction!r}, expected is '{SPECIES} by {answer.variant}'"
        )
    stage.say(f"    the first answer, from variant {answer.variant}: {answer.prediction}")
    callers.restart(stage.declared.weights)
    stage.callers = stage.until_the_end.enter_context(callers)
    return split(stage)


def call(stage: ClusterStage, teller: Callable[[Answer], str] | None = None) -> Callers:
    """Callers of the Endpoint, at the address that it shows; they call once their block is entered."""
    target = urlsplit(stage.watcher.now.address)
    name = stage.declared.endpoint
    stage.tell(f"boto3: sagemaker-runtime at {target.scheme}://{target.netloc}: InvokeEndpoint {name}")
    url = stage.until_the_end.enter_context(
        forwarded(stage.surroundings, NAMESPACE, f"svc/{ROUTER}", target.port or 80)
    )
    return Callers(url, REGION, name, BODY, teller) if teller else Callers(url, REGION, name, BODY)


def reweigh(stage: ClusterStage) -> Tally:
    """Change the weights under load: the routers take them, no call is lost, and the answers follow."""
    patch = [
        {"op": "replace", "path": f"/spec/productionVariants/{place}/initialVariantWeight", "value": NEW_WEIGHTS[name]}
        for place, name in enumerate(stage.declared.variants)
    ]
    before = stage.watcher.now
    words = json.dumps(patch, separators=(",", ":"))
    kubectl(stage, "patch", "sepc", stage.declared.config, "-n", NAMESPACE, "--type=json", "-p", words)
    seen = stage.watcher.until(
        f"the weights {NEW_WEIGHTS} are in force", lambda seen: serves(seen, NEW_WEIGHTS), seconds=WEIGHTS_SECONDS
    )
    if seen.revision != before.revision:
        raise NotHappenedError(f"new weights made a new revision, {seen.revision}; expected is {before.revision}")
    calling(stage).restart(NEW_WEIGHTS)
    return split(stage)


def split(stage: ClusterStage, most: int = ANSWERS) -> Tally:
    """So many answers, and none too many from anybody. Raises NotHappenedError, and DemoError where a call is lost."""
    callers = calling(stage)
    for answers in range(SAID_EVERY, most + 1, SAID_EVERY):
        tally = callers.until(answers, seconds=ANSWERS_SECONDS)
        stage.say(f"    {tally.words()}")
    if wrong := tally.wrong():
        raise NotHappenedError(f"the split is not what the weights say: {'; '.join(wrong)}")
    return tally


def calling(stage: ClusterStage) -> Callers:
    """Those who call."""
    if stage.callers is None:
        raise DemoError("nobody calls yet")
    return stage.callers


def serves(seen: Picture, weights: Mapping[str, float]) -> bool:
    """Whether it is in service with exactly these variants and weights, and nothing is under way."""
    return (
        seen.is_ready
        and seen.endpoint_status == "InService"
        and {one.name: one.weight for one in seen.variants} == weights
    )


def kubectl(stage: ClusterStage, *arguments: str) -> None:
    """Run kubectl, and say so."""
    stage.tell("kubectl " + " ".join(arguments))
    stage.surroundings.run_kubectl(*arguments)
