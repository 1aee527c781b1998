"""The stage of a crash scenario of the Cluster backend: a namespace of the real API server, the operator behind a
proxy, and hands that do what controllers, kubelet and the routers' agents do, for all stages at once.

Calls are named by the stage of the Endpoint that the operator last wrote, so that a kind of call is another point in
each stage. The proxy also judges every write of routes: weight never rises for a fleet that has no ready pod."""

from __future__ import annotations

import asyncio
import json
import re
import threading
import time
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.cluster_backend.hands import Hands
from tests.controller.clock import SteppedClock
from tests.operator.harness.kube import Object
from tests.operator.harness.manifests import NAME
from tests.operator.harness.proxy import Call, Proxies, kubernetes_call
from tests.operator.harness.world import Surroundings, World

from sluice.cluster.orphans import GRACE_SECONDS, OrphanSweep
from sluice.core.cluster.names import LABEL_FLEET, LABEL_ROUTER, ROUTER
from sluice.kube.client import KubeClient
from sluice.kube.configuration import load_configuration

SECONDS = 180.0
"""Bounds what never comes; nothing that comes depends on it."""
EVERY_SECONDS = 0.25
QUIET_SECONDS = 4.0
"""Longer than the operator waits between two looks, and than a busy machine keeps it waiting."""
CRASHING = "registry.example/churn:crashing"
MADE = (
    "Deployment", "ReplicaSet", "Pod", "Service", "PodDisruptionBudget", "NetworkPolicy", "ConfigMap",
    "EndpointRoute", "RouterReport", "RoleBinding", "ServiceAccount", "Endpoint", "EndpointConfig", "Model",
    "ControllerRevision",
)  # fmt: skip
BESIDE = ("Service", "PodDisruptionBudget", "NetworkPolicy", "ConfigMap")
"""What stands beside a fleet's Deployment."""
_ANY_TIME = ("events", "models", "endpointconfigs")
"""Written beside the Endpoint's passes: in which of its stages is chance."""


class Crowd:
    """The hands of all stages, on a thread of their own, and a client for what is done in the test's own process."""

    def __init__(self, surroundings: Surroundings) -> None:
        self._kubeconfig = surroundings.kubeconfig
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="hands", daemon=True)
        self._thread.start()
        self.kube, self.hands = self.do(self._begin())

    async def _begin(self) -> tuple[KubeClient, Hands]:
        kube = KubeClient(await load_configuration({"KUBECONFIG": str(self._kubeconfig)}), identity="hands")
        hands = Hands(kube, None)
        hands.crashing_images.add(CRASHING)
        hands.work()
        return kube, hands

    def do(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Run it on the hands' thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(300)

    def close(self) -> None:
        """Rest; a failure of the hands is the test's."""
        self.do(self.hands.rest())
        self.do(self.kube.close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)


class Stage(World):
    """One scenario's world in the cluster."""

    def __init__(self, surroundings: Surroundings, directory: Path, crowd: Crowd) -> None:
        super().__init__(surroundings, directory, patience=SECONDS)
        self._crowd = crowd
        self.wrongs: list[str] = []
        """Routes that were written to fleets without a ready pod."""
        self._stage = "nothing"
        self._rising: dict[str, int] = {}
        self.proxies = Proxies(
            self.kube, self.simulator.url, surroundings.cloudwatch_url, directory, kubernetes=self._name
        ).start()
        self.operator = self.installation(
            kubeconfig=self.proxies.kubeconfig,
            cloudwatch_url=self.proxies.cloudwatch,
            environment={"SLUICE_SWEEP_SECONDS": "3600", "SLUICE_CLOUDWATCH_SECONDS": "2"},
        )
        crowd.hands.namespaces.add(self.namespace)

    def close(self) -> None:
        """Kill the operator and take everything away: the hands of the next stages look at what stands."""
        super().close()
        self.proxies.stop()
        self._crowd.hands.namespaces.discard(self.namespace)
        self._crowd.do(_empty(self._crowd.kube, self.namespace))

    # Waiting ----------------------------------------------------------------------------------------------------

    def quiet(self) -> None:
        """Until the operator has made no call for a while: it is at rest, or away."""
        before: list[tuple[float, int]] = []

        def rests() -> bool:
            number = self.proxies.passed
            if not before or before[-1][1] != number:
                before.append((time.monotonic(), number))
            return time.monotonic() - before[-1][0] > QUIET_SECONDS

        self.wait(rests, "a quiet operator", every=EVERY_SECONDS)

    def settled(self, *outcomes: str, ready: str = "True InService", stalled: bool = False) -> None:
        """Until the Endpoint and the books say so."""

        def said() -> bool:
            status = self.status()
            found = {c["type"]: f"{c['status']} {c['reason']}" for c in status.get("conditions") or ()}
            current = status.get("observedGeneration") == self.endpoint()["metadata"]["generation"]
            return current and found.get("Ready") == ready and status.get("deployment") is None

        self.wait(said, f"Ready is {ready}", every=EVERY_SECONDS)
        self.wait(
            lambda: [r["metadata"]["annotations"].get("sluice.dev/outcome") for r in self.revisions()] == [*outcomes],
            f"outcomes {outcomes}",
            every=EVERY_SECONDS,
        )

    def route(self) -> dict[str, int]:
        """Variant -> weight, of the fleets that the Endpoint's routes name."""
        found = self.kube.get("EndpointRoute", self.namespace, NAME) or {}
        return {fleet["variantName"]: fleet["weight"] for fleet in (found.get("spec") or {}).get("fleets") or ()}

    def deployment_stage(self) -> str:
        """The stage of the running deployment; empty: none runs."""
        return str((self.status().get("deployment") or {}).get("stage") or "")

    def replicas(self) -> list[int]:
        """What the Deployments ask for."""
        return [item["spec"]["replicas"] for item in self.kube.list("Deployment", self.namespace)]

    def leftovers(self, kinds: tuple[str, ...] = BESIDE) -> list[str]:
        """What stands beside no fleet any more: the orphan sweep's, some minutes later."""
        fleets = {item["metadata"]["name"] for item in self.kube.list("Deployment", self.namespace)}
        return [
            f"{kind} {item['metadata']['name']}"
            for kind in kinds
            for item in self.kube.list(kind, self.namespace)
            if (item["metadata"].get("labels") or {}).get(LABEL_FLEET, ROUTER) not in {*fleets, ROUTER}
        ]

    def sweep(self) -> None:
        """The sweep for orphans, ten minutes later: the pods of fleets that went are gone."""
        self.wait(lambda: not self.leftovers(("Pod",)), "pods to end", every=EVERY_SECONDS)
        there = {item["metadata"]["name"] for item in self.kube.list("Endpoint", self.namespace)}
        self._crowd.do(_sweep(self._crowd.kube, self.namespace, there))

    # The proxy's eyes -------------------------------------------------------------------------------------------

    def _name(self, method: str, raw_path: str, headers: Any, body: bytes) -> Call:
        call = kubernetes_call(method, raw_path, headers, body)
        if call.by_the_clock:
            return call
        stage, words = self._stage, call.key.removeprefix("kubernetes ")
        written = words.split()[1].partition("/")[0]
        if method != "GET" and written in _ANY_TIME:
            return Call(f"beside: {words}", call.repeats)
        path = raw_path.partition("?")[0]
        if method in ("PUT", "POST") and "/endpointroutes" in path:
            self._judge(method, json.loads(body))
        if method == "PUT" and path.endswith(f"/endpoints/{NAME}/status"):
            self._stage = _stage_of(json.loads(body).get("status") or {})
            words = f"{' '.join(words.split()[:2])} -> {self._stage}"
        if method == "GET" and f"labelSelector={LABEL_ROUTER}" in unquote(raw_path):
            words += " of the router"
        words = re.sub(r"configmaps/\S+", "configmaps/record", words)
        return Call(f"{stage}: {words}", call.repeats)

    def _judge(self, method: str, route: Object) -> None:
        """Weight that rises, rises for fleets with a ready pod. The first routes come before the first pods."""
        weights = {fleet["name"]: int(fleet["weight"]) for fleet in route["spec"].get("fleets") or ()}
        before, self._rising = self._rising, weights
        if method == "POST" or not before:
            return
        for fleet, weight in weights.items():
            if weight <= before.get(fleet, 0):
                continue
            pods = self.kube.list("Pod", self.namespace, labelSelector=f"sluice.dev/fleet={fleet}")
            if not any(_is_ready(pod) for pod in pods):
                self.wrongs.append(f"{self._stage}: weight {weight} for {fleet}, which has no ready pod")


def _is_ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def _stage_of(status: Object) -> str:
    deployment, intent = status.get("deployment") or {}, status.get("intent") or {}
    words = [status.get("endpointStatus") or "new", intent.get("operation")]
    if deployment:
        words += [deployment.get("policy"), deployment.get("stage"), deployment.get("stepText")]
    return " ".join(str(word) for word in words if word)


async def _sweep(kube: KubeClient, namespace: str, endpoints: set[str]) -> None:
    clock = SteppedClock()
    sweep = OrphanSweep(
        kube,
        clock,
        installation_id="test",
        namespaces=(namespace,),
        exists=lambda _namespace, name: name in endpoints,
        neighbours=lambda _namespace, name: len(endpoints - {name}),
        held=lambda: True,
    )
    for _ in range(2):
        await sweep.once()
        await clock.step(GRACE_SECONDS + 1)


async def _empty(kube: KubeClient, namespace: str) -> None:
    for kind in MADE:
        async for item in kube.list(kind, namespace):
            metadata = item["metadata"]
            if metadata.get("finalizers"):
                await kube.patch_metadata(kind, namespace, metadata["name"], resource_version=None, finalizers=[])
            await kube.delete(kind, namespace, metadata["name"])
