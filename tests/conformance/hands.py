"""Hands whose pods run the image that the fleet's template names, and crash where it is the unhealthy one."""

import hashlib
import itertools

from tests.cluster_backend.hands import Hands
from tests.cluster_backend.objects import make_ready, pod_manifest, replica_set_of, set_status

from sluice.core.cluster.names import LABEL_FLEET
from sluice.kube.client import KubeClient
from sluice.ports.kube import Object

_names = itertools.count(1)


class ConformanceHands(Hands):
    """See the module."""

    def __init__(self, kube: KubeClient, namespace: str, unhealthy: str) -> None:
        super().__init__(kube, namespace)
        self._unhealthy = unhealthy
        self.starting_nothing: set[str] = set()
        """The Endpoints whose pods crash from now on, whatever they run, but those that are there."""

    async def _pod(self, deployment: Object) -> None:
        template = deployment["spec"]["template"]
        name = f"{deployment['metadata']['name'][:50]}-c{next(_names)}"
        labels = template["metadata"]["labels"]
        owner = await replica_set_of(self._kube, self._namespace, deployment["metadata"]["name"], labels)
        image = template["spec"]["containers"][0]["image"]
        pod = pod_manifest(name, self._namespace, labels, owner)
        pod["spec"]["containers"][0]["image"] = image
        made = await self._kube.create("Pod", self._namespace, pod)
        container = {
            "name": "model",
            "image": image,
            "imageID": f"{image.rpartition(':')[0]}@sha256:{hashlib.sha256(image.encode()).hexdigest()}",
        }
        if image == self._unhealthy or labels[LABEL_FLEET].startswith(tuple(self.starting_nothing)):
            ended = {"exitCode": 1, "reason": "Error", "startedAt": _BEGAN, "finishedAt": _ENDED}
            crashed = {
                "ready": False,
                "started": False,
                "restartCount": 6,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": {"terminated": ended},
            }
            conditions = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}]
            status = {"phase": "Running", "conditions": conditions, "containerStatuses": [{**container, **crashed}]}
            await set_status(self._kube, made, status)
            return
        running = {"ready": True, "started": True, "restartCount": 0, "state": {"running": {"startedAt": _BEGAN}}}
        await make_ready(self._kube, made, containerStatuses=[{**container, **running}])


_BEGAN, _ENDED = "2026-01-01T00:00:30Z", "2026-01-01T00:00:40Z"
