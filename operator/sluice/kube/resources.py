"""Where each kind lives in the API: the only place that knows plurals and API versions."""

from dataclasses import dataclass

from sluice.api import names


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind's place."""

    api_version: str
    kind: str
    plural: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """The URL path of a collection, an object or a subresource."""
        root = "/api/" if "/" not in self.api_version else "/apis/"
        parts = [root + self.api_version]
        if namespace and self.namespaced:
            parts += ["namespaces", namespace]
        parts.append(self.plural)
        parts += [part for part in (name, subresource) if part]
        return "/".join(parts)


RESOURCES = {
    resource.kind: resource
    for resource in (
        Resource(names.API_VERSION, names.MODEL, names.MODELS),
        Resource(names.API_VERSION, names.ENDPOINT_CONFIG, names.ENDPOINT_CONFIGS),
        Resource(names.API_VERSION, names.ENDPOINT, names.ENDPOINTS),
        Resource(names.API_VERSION, names.ENDPOINT_ROUTE, names.ENDPOINT_ROUTES),
        Resource(names.API_VERSION, names.ROUTER_REPORT, names.ROUTER_REPORTS),
        Resource("apps/v1", "ControllerRevision", "controllerrevisions"),
        Resource("apps/v1", "Deployment", "deployments"),
        Resource("apps/v1", "ReplicaSet", "replicasets"),
        Resource("v1", "Pod", "pods"),
        Resource("v1", "Service", "services"),
        Resource("v1", "ServiceAccount", "serviceaccounts"),
        Resource("v1", "Node", "nodes", namespaced=False),
        Resource("discovery.k8s.io/v1", "EndpointSlice", "endpointslices"),
        Resource("policy/v1", "PodDisruptionBudget", "poddisruptionbudgets"),
        Resource("networking.k8s.io/v1", "NetworkPolicy", "networkpolicies"),
        Resource("rbac.authorization.k8s.io/v1", "RoleBinding", "rolebindings"),
        Resource("v1", "ConfigMap", "configmaps"),
        Resource("coordination.k8s.io/v1", "Lease", "leases"),
        Resource("v1", "Namespace", "namespaces", namespaced=False),
        Resource("events.k8s.io/v1", "Event", "events"),
    )
}
