"""Models of the tests' own on the real cluster: applied, waited for, called at the router Service's address.

The calls go to ClusterIPs and pod addresses, so kube-proxy has its part in them: the tests run in its network."""

import gzip
import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import urllib3
from tests.operator.harness.kube import Kube, Object, T, until
from tests.router.harness.caller import Load, client

from demo.install import ACCESS_KEY, MOTO, REGION
from demo.steps import Stage
from localcluster import Cluster

SECRET = "model-data"
BUCKET = "hosted"
BODY = b'{"inputs": [["word"]]}'
JSON = "application/json"
ROUTERS = "sluice.dev/router=sluice-router"
START_SECONDS = 360.0
"""Pods start, one after the other, on two busy cores."""
GONE_SECONDS = 300.0
CALL_SECONDS = 60.0

_MLMODEL = "flavors:\n  python_function:\n    code: code\n    loader_module: parrot\n"
_PARROT = '''
import time

class Parrot:
    """Answers its name; asked to `sleep`, after so many seconds; asked for its `sleepers`, how many wait for that;
    asked to `spoil`, from then on nothing that the server can write down."""

    sleepers = 0
    spoilt = False

    def predict(self, model_input):
        word, *rest = model_input[0]
        if word == "sleepers":
            return [self.sleepers]
        if word == "sleep":
            self.sleepers += 1
            time.sleep(float(rest[0]))
            self.sleepers -= 1
        if word == "spoil":
            self.spoilt = True
            return [word]
        return {unspeakable} if self.spoilt else {answer}

def _load_pyfunc(path):
    return Parrot()
'''
_HTTP = urllib3.PoolManager(retries=False, timeout=CALL_SECONDS)


UNSPEAKABLE = "[object()]"
"""An answer that the server cannot write down: each is a 500."""


def parrot(name: str, answer: str = "") -> bytes:
    """A model archive for MLflow's server: answers its name, and sleeps when it is told to. `answer` is a Python
    expression that it answers instead."""
    code = _PARROT.replace("{answer}", answer or repr([name])).replace("{unspeakable}", UNSPEAKABLE) + f"# {name}\n"
    return archive({"MLmodel": _MLMODEL, "code/parrot.py": code})


def named(name: str) -> bytes:
    """A model archive for the contrary server, which answers like the parrot and starts at once."""
    return archive({"name": name})


def asked(*words: str) -> bytes:
    """The body that says this to a model."""
    return json.dumps({"inputs": [words]}).encode()


class Hosting:
    """One namespace with Cluster Endpoints, and eyes and hands in it."""

    def __init__(self, stage: Stage, cluster: Cluster, kube: Kube, image: str, namespace: str) -> None:
        self.stage, self.kube, self.image, self.namespace = stage, kube, image, namespace
        self._cluster = cluster
        self._reached: set[str] = set()

    def open(self) -> None:
        """The namespace, and who may read the models' data. One that an earlier run left on its way out goes first."""

        def is_free() -> bool | None:
            found = self.kube.get("Namespace", "", self.namespace)
            return found is None or "deletionTimestamp" not in found["metadata"] or None

        until(is_free, seconds=GONE_SECONDS, what=lambda: f"namespace {self.namespace} still goes")
        self.kube.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.namespace}})
        secret = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": SECRET, "namespace": self.namespace},
            "stringData": {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": "simulated"},
        }
        self.stage.surroundings.run_kubectl("apply", "-f", "-", stdin=json.dumps(secret))

    def close(self) -> None:
        """The namespace goes, with whatever is left in it."""
        self.kube.delete("Namespace", "", self.namespace)

    def upload(self, name: str, archive: bytes) -> str:
        """Put model data into the simulated S3; its address."""
        uri = f"s3://{BUCKET}/{name}/model.tar.gz"
        self.stage.aws.objects.put(uri, archive)
        return uri

    def locked(self, bucket: str, name: str, content: bytes) -> str:
        """Put model data where nobody may read it; its address."""
        uri = f"s3://{bucket}/{name}/model.tar.gz"
        self.stage.aws.objects.put(uri, content)
        self.stage.aws.objects.deny(bucket)
        return uri

    def model(
        self,
        name: str,
        data: str = "",
        *,
        image: str = "",
        environment: Mapping[str, str] | None = None,
        **kubernetes: Any,
    ) -> None:
        """A Model of MLflow's server with data at an address; small, because the node is."""
        container = {"image": image or self.image, "modelDataUrl": data, "environment": environment}
        self.model_of(
            name, {"primaryContainer": {key: value for key, value in container.items() if value}}, **kubernetes
        )

    def model_of(self, name: str, spec: Mapping[str, Any], **kubernetes: Any) -> None:
        """A Model with any containers."""
        small = {"requests": {"cpu": "20m", "memory": "128Mi"}, "limits": {"memory": "768Mi"}}
        access = {
            "credentialsSecretName": SECRET,
            "s3EndpointUrl": f"http://{MOTO}.simulated-aws.svc:5000",
            "region": REGION,
        }
        whole = {"resources": small, "modelDataAccess": access} | kubernetes
        said = {key: value for key, value in whole.items() if value is not None}
        self._apply("Model", name, {**spec, "kubernetes": said})

    def endpoint(self, name: str, variants: Sequence[Mapping[str, Any]], **spec: Any) -> None:
        """An Endpoint and an EndpointConfig of that name; variants without a modelName take their own name's Model."""
        whole = [
            {"modelName": one["variantName"], "instanceType": "ml.m5.large", "initialInstanceCount": 1} | dict(one)
            for one in variants
        ]
        self._apply("EndpointConfig", name, {"productionVariants": whole})
        self._apply("Endpoint", name, {"backend": "Cluster", "endpointConfigName": name, **spec})

    def status(self, name: str) -> Object:
        """An Endpoint's status."""
        found = self.kube.get("Endpoint", self.namespace, name) or {}
        return dict(found.get("status") or {})

    def condition(self, name: str, type_: str) -> Object:
        """One of its conditions; empty if there is none."""
        found = [one for one in self.status(name).get("conditions", ()) if one["type"] == type_]
        return dict(found[0]) if found else {}

    def ready(self, name: str, also: Callable[[Object], bool] = lambda _: True) -> Object:
        """Its status once the Endpoint is Ready for its spec of now, and shows something more besides."""

        def look() -> Object | None:
            found = self.kube.get("Endpoint", self.namespace, name) or {"metadata": {}}
            status = dict(found.get("status") or {})
            current = status.get("observedGeneration") == found["metadata"].get("generation")
            ready = {"type": "Ready", "status": "True"}.items()
            is_ready = any(ready <= one.items() for one in status.get("conditions", ()))
            return status if current and is_ready and also(status) else None

        return self.until(name, look)

    def until(self, name: str, look: Callable[[], T | None], seconds: float = START_SECONDS) -> T:
        """Wait for something about an Endpoint; whoever waits in vain is told its status and the namespace's pods."""
        return until(look, seconds=seconds, what=lambda: self._explain(name), every=0.2)

    def weighed(self, name: str, weights: Mapping[str, float]) -> None:
        """Wait until these weights are in force."""
        self.ready(
            name,
            lambda status: (
                {one["variantName"]: one["currentWeight"] for one in status["productionVariants"]} == weights
            ),
        )

    def edit_variant(self, config: str, place: int, **changed: Any) -> None:
        """kubectl patch of one variant of an EndpointConfig."""
        patch = [
            {"op": "replace", "path": f"/spec/productionVariants/{place}/{field}", "value": value}
            for field, value in changed.items()
        ]
        self.stage.surroundings.run_kubectl(
            "patch", "sepc", config, "-n", self.namespace, "--type=json", "-p", json.dumps(patch)
        )

    @property
    def url(self) -> str:
        """The router Service at its ClusterIP, which leads somewhere: on a slow node kube-proxy may write its rules
        later than the operator gives it time for. A Service that was reached once is not waited for again."""
        service = self.kube.request("GET", f"/api/v1/namespaces/{self.namespace}/services/sluice-router")
        url = f"http://{service['spec']['clusterIP']}:{service['spec']['ports'][0]['port']}"
        if service["metadata"]["uid"] not in self._reached:
            until(lambda: self._is_reached(url), seconds=START_SECONDS, what=lambda: f"{url} is refused", every=0.2)
            self._reached.add(service["metadata"]["uid"])
        return url

    def runtime(self) -> Any:
        """An unmodified boto3 at that address."""
        return client(self.url)

    @contextmanager
    def load(self, endpoint: str, callers: int = 6, pause: float = 0.0) -> Iterator["Loads"]:
        """Constant load, half of it on connections that are kept and half on new ones, as long as the block lasts."""
        url, half = self.url, callers // 2
        with (
            Load(url, endpoint, concurrency=half, body=BODY, content_type=JSON, pause=pause) as kept,
            Load(url, endpoint, concurrency=half, body=BODY, content_type=JSON, pause=pause, keep_alive=False) as fresh,
        ):
            loads = Loads(kept, fresh)
            loads.more(50)
            yield loads

    def _is_reached(self, url: str) -> bool | None:
        """Whether a router answers at the Service's address."""
        try:
            return _HTTP.request("GET", f"{url}/ping").status == 200 or None
        except urllib3.exceptions.HTTPError:
            return None

    def every_pod(self, selector: str) -> list[Object]:
        """The namespace's pods, those on their way out included."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        return list(self.kube.request("GET", path, labelSelector=selector)["items"])

    def pods(self, selector: str) -> list[Object]:
        """The namespace's pods that are not on their way out."""
        return [pod for pod in self.every_pod(selector) if "deletionTimestamp" not in pod["metadata"]]

    def fleet(self, endpoint: str, variant: str) -> list[Object]:
        """The pods of a variant."""
        return [
            pod
            for pod in self.pods(f"sluice.dev/endpoint={endpoint}")
            if pod["metadata"]["labels"]["sluice.dev/fleet"].startswith(f"{endpoint}-{variant}-")
        ]

    def remove_pod(self, pod: Object, *, evict: bool = False) -> None:
        """Delete or evict it."""
        name = pod["metadata"]["name"]
        where = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{name}"
        if evict:
            eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
            self.kube.request("POST", f"{where}/eviction", eviction)
        else:
            self.kube.request("DELETE", where)

    def sigkill(self, pod: Object, container: str) -> None:
        """SIGKILL a container's first process, from outside."""
        self.signal(pod, container, "SIGKILL")

    def signal(self, pod: Object, container: str, name: str) -> None:
        """Send a signal to a container's first process, from outside."""
        self._cluster.kill_container(container_status(pod, container)["containerID"].partition("://")[2], name)

    def restarted(self, pod: Object, container: str) -> None:
        """Wait until a container of a pod runs and is ready once more than it did."""
        where = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
        before = container_status(pod, container)["restartCount"]

        def look() -> bool | None:
            now = container_status(self.kube.request("GET", where), container)
            return (now["restartCount"] > before and now["ready"]) or None

        self.until("", look)

    def roll_routers(self) -> None:
        """kubectl rollout restart of the router Deployment."""
        self.stage.surroundings.run_kubectl("rollout", "restart", "-n", self.namespace, "deployment/sluice-router")

    def shrunk(self, endpoint: str, variant: str, count: int) -> list[Object] | None:
        """A variant's pods once there are no more than so many, those on their way out included."""
        every, fleet = self.every_pod(f"sluice.dev/endpoint={endpoint}"), f"{endpoint}-{variant}-"
        mine = [one for one in every if one["metadata"]["labels"]["sluice.dev/fleet"].startswith(fleet)]
        return mine if len(mine) == count else None

    def replaced(self, pods: Callable[[], list[Object]], old: Sequence[Object], count: int) -> list[Object]:
        """The pods once there are so many Ready ones, and none of the old ones any more, on its way out neither."""
        gone = {one["metadata"]["uid"] for one in old}

        def look() -> list[Object] | None:
            now = pods()
            left = gone & {one["metadata"]["uid"] for one in self.every_pod("")}
            return now if not left and len(now) == count and all(map(is_ready, now)) else None

        return until(look, seconds=START_SECONDS, what=lambda: self._explain(""), every=0.2)

    def delete(self, *endpoints: str) -> None:
        """kubectl delete, without waiting."""
        for name in endpoints:
            self.kube.delete("Endpoint", self.namespace, name)

    def gone(self, *endpoints: str) -> None:
        """Wait until Endpoints are gone with all their pods; with the last, the routers'."""
        selector = f"sluice.dev/endpoint in ({','.join(endpoints)})"

        def look() -> bool | None:
            if any(self.kube.get("Endpoint", self.namespace, name) for name in endpoints):
                return None
            return not self.every_pod(selector) or None

        self.until(endpoints[0], look, GONE_SECONDS)

    @contextmanager
    def slow_call(self, endpoint: str, pod: Object, seconds: float) -> Iterator[Future[Object]]:
        """A call that keeps the Endpoint's only pod busy for so long; the block begins once the model has it, and ends
        with its answer."""
        runtime = self.runtime()
        with ThreadPoolExecutor(1) as caller:
            call = caller.submit(
                runtime.invoke_endpoint, EndpointName=endpoint, Body=asked("sleep", str(seconds)), ContentType=JSON
            )

            def has_it() -> bool | None:
                return ask(pod, asked("sleepers"))["predictions"] == [1] or None

            self.until(endpoint, has_it)
            yield call

    def told(self, endpoint: str, *patterns: str) -> None:
        """Wait until the Endpoint's conditions say all of this."""
        self.until(endpoint, lambda: all(re.search(one, self.says(endpoint)) for one in patterns) or None)

    def says(self, name: str) -> str:
        """All that an Endpoint's conditions say."""
        return "\n".join(
            f"{one['type']}={one['status']} {one['reason']}: {one['message']}"
            for one in self.status(name).get("conditions", ())
        )

    def _apply(self, kind: str, name: str, spec: Mapping[str, Any]) -> None:
        made = {"apiVersion": "sluice.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": dict(spec)}
        self.kube.apply(made, self.namespace)

    def _explain(self, name: str) -> str:
        pods = self.stage.surroundings.run_kubectl("get", "pods", "-n", self.namespace, "-o", "wide")
        return f"{name} {json.dumps(self.status(name), indent=1) if name else ''}\n{pods}"


class Loads:
    """Callers that keep their connection and callers that do not."""

    def __init__(self, *loads: Load) -> None:
        self._loads = loads

    @property
    def total(self) -> int:
        """Answers of any kind so far."""
        return sum(one.total for one in self._loads)

    def more(self, answers: int) -> None:
        """Wait for so many more."""
        goal = self.total + answers
        until(
            lambda: self.total >= goal or None,
            seconds=CALL_SECONDS,
            what=lambda: f"{self.total} of {goal} answers; lost: {self.lost()}",
        )

    def lost(self) -> dict[str, int]:
        """What was not answered with 200, by kind."""
        found: dict[str, int] = {}
        for load in self._loads:
            for kind, count in load.lost().items():
                found[kind] = found.get(kind, 0) + count
        return found

    def variants(self) -> dict[str, int]:
        """The answers by InvokedProductionVariant."""
        found: dict[str, int] = {}
        for load in self._loads:
            for name, count in load.variants.items():
                found[name] = found.get(name, 0) + count
        return found

    def answers(self) -> dict[str, int]:
        """The answers by what the model said."""
        found: dict[str, int] = {}
        for load in self._loads:
            for text, count in load.answers.items():
                found[text] = found.get(text, 0) + count
        return found

    def samples(self) -> list[str]:
        """Some of what was lost, in its own words."""
        return [text for load in self._loads for text in load.samples]

    def assert_none_lost(self) -> None:
        """Every call was answered."""
        assert not self.lost(), f"lost {self.lost()} of {self.total}: {self.samples()}"


def ask(pod: Object, body: bytes) -> Object:
    """What a pod itself answers to an invocation."""
    answer = _HTTP.request(
        "POST", f"http://{pod['status']['podIP']}:8080/invocations", body=body, headers={"Content-Type": JSON}
    )
    assert answer.status == 200, answer.data
    return dict(json.loads(answer.data))


def archive(files: Mapping[str, str]) -> bytes:
    """A model.tar.gz; whatever is in it may be executed."""
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", fileobj=packed, mtime=0) as zipped, tarfile.open(fileobj=zipped, mode="w") as tar:
        for path, text in files.items():
            entry = tarfile.TarInfo(path)
            entry.size, entry.mode = len(text.encode()), 0o755
            tar.addfile(entry, io.BytesIO(text.encode()))
    return packed.getvalue()


def is_ready(pod: Object) -> bool:
    """Whether a pod's condition Ready is True."""
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", ()))


def container_status(pod: Object, name: str) -> Object:
    """The status of one of a pod's containers."""
    [found] = [one for one in pod["status"]["containerStatuses"] if one["name"] == name]
    return dict(found)


def server(pod: Object) -> str:
    """The name of a pod's only container."""
    [found] = pod["spec"]["containers"]
    return str(found["name"])
