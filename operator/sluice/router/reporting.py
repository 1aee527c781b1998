"""Writes this router's RouterReport: when something changed, and not more often than a few times a second."""

import logging
from typing import Final

from sluice.api.names import API_VERSION, ROUTER_REPORT
from sluice.api.routes import RouterReportSpec
from sluice.core.cluster.names import LABEL_ROUTER, ROUTER
from sluice.core.revision import LABEL_MANAGED_BY, MANAGED_BY
from sluice.ports.kube import Conflict, Forbidden, Gone, Kube, KubeUnavailable, Object, Rejected

logger = logging.getLogger(__name__)

INTERVAL_SECONDS: Final = 0.25
RETRY_SECONDS: Final = 1.0


class Reporter:
    """One pod's report. `write` is called with what is to be told; equal reports are written once."""

    def __init__(self, kube: Kube, namespace: str, pod_name: str, pod_uid: str) -> None:
        self._kube, self._namespace, self._name, self._uid = kube, namespace, pod_name, pod_uid
        self._written: RouterReportSpec | None = None
        self._object: Object | None = None

    async def write(self, spec: RouterReportSpec) -> bool:
        """False: it could not be written now; try again."""
        if spec == self._written:
            return True
        body = self._body(spec)
        try:
            if self._object is None:
                self._object = await self._kube.get(ROUTER_REPORT, self._namespace, self._name)
            if self._object is None:
                self._object = await self._kube.create(ROUTER_REPORT, self._namespace, body)
            else:
                body["metadata"]["resourceVersion"] = self._object["metadata"]["resourceVersion"]
                self._object = await self._kube.replace(ROUTER_REPORT, self._namespace, body)
        except (Conflict, Gone, KubeUnavailable, Forbidden, Rejected) as error:
            logger.warning("the report was not written: %s", error)
            self._object = None
            return False
        self._written = spec
        return True

    def _body(self, spec: RouterReportSpec) -> Object:
        return {
            "apiVersion": API_VERSION,
            "kind": ROUTER_REPORT,
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                "labels": {LABEL_MANAGED_BY: MANAGED_BY, LABEL_ROUTER: ROUTER},
                # The report goes with its pod.
                "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": self._name, "uid": self._uid}],
            },
            "spec": spec.model_dump(mode="json", by_alias=True, exclude_none=True),
        }
