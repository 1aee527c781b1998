"""The rendered charts against a real API server: every object is accepted, the pods pass Pod Security `restricted`, and
RBAC gives the operator what it needs and, above all, nothing else."""

import json
import re
import subprocess
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.chart import helm

from localcluster.controlplane import ControlPlane
from sluice.controller.lease import LEASE_NAME
from sluice.controller.policy import CONFIG_MAP
from sluice.core.cluster.names import ROUTER

pytestmark = pytest.mark.apiserver

OPERATOR = f"system:serviceaccount:{helm.NAMESPACE}:sluice"
FOREIGN = {"monitoring.coreos.com/v1"}
"""API groups of the Prometheus operator, which this API server does not have."""


def _kubectl(control_plane: ControlPlane, *arguments: str, objects: list[helm.Object] | None = None) -> str:
    argv: list[str | Path] = [control_plane.kubectl, "--kubeconfig", control_plane.kubeconfig, *arguments]
    given = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}) if objects is not None else None
    done = subprocess.run(argv, input=given, capture_output=True, text=True, check=False, timeout=240)  # noqa: S603  our own kubectl
    assert done.returncode == 0, done.stderr
    return done.stdout


def _namespace(name: str) -> helm.Object:
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


@pytest.fixture(scope="module")
def server(control_plane: ControlPlane) -> Iterator[ControlPlane]:
    """The control plane with the namespaces that the cases install into, under Pod Security `restricted`."""
    namespaces = [_namespace(name) for name in (helm.NAMESPACE, "team-a", "team-b", "team-c")]
    _kubectl(control_plane, "apply", "--filename=-", objects=namespaces)
    yield control_plane
    _kubectl(control_plane, "delete", "--filename=-", "--ignore-not-found", "--wait=false", objects=namespaces)


def _rendered(name: str) -> list[helm.Object]:
    chart, release, _ = helm.GOLDEN[name]
    return [item for item in helm.objects(chart, release, helm.case(name)) if item["apiVersion"] not in FOREIGN]


@pytest.mark.parametrize("name", helm.GOLDEN)
def test_the_api_server_accepts_every_object(server: ControlPlane, name: str) -> None:
    objects = _rendered(name)
    _kubectl(server, "apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-", objects=objects)
    pods = [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": item["metadata"]["name"], "namespace": helm.NAMESPACE},
            "spec": {**item["spec"]["template"]["spec"], "priorityClassName": ""},
        }
        for item in objects
        if item["kind"] == "Deployment"
    ]
    assert pods
    _kubectl(server, "create", "--dry-run=server", "--filename=-", objects=pods)


# Rights: (allowed?, verb, group, resource, namespace, name). A slash in the resource is a subresource.
Right = tuple[bool, str, str, str, str, str]

SLUICE = "sluice.dev"
KINDS = ("models", "endpointconfigs", "endpoints")

ROUTERS_OWN = (("", "serviceaccounts"), ("rbac.authorization.k8s.io", "rolebindings"))
"""Kinds of which the operator may touch the router's alone."""

IN_WATCHED: list[tuple[bool, str, str, str, str]] = [
    *((True, verb, SLUICE, kind, "") for kind in KINDS for verb in ("get", "list", "watch")),
    *((True, "update", SLUICE, f"{kind}/status", "") for kind in KINDS),
    (True, "patch", SLUICE, "endpoints", ""),
    *(
        (True, verb, "apps", "controllerrevisions", "")
        for verb in ("get", "list", "watch", "create", "patch", "delete")
    ),
    (True, "create", "events.k8s.io", "events", ""),
    # Backend Cluster.
    *(
        (True, verb, SLUICE, "endpointroutes", "")
        for verb in ("get", "list", "watch", "create", "update", "patch", "delete")
    ),
    *((True, verb, SLUICE, "routerreports", "") for verb in ("list", "watch")),
    *((False, verb, SLUICE, "routerreports", "") for verb in ("create", "update", "patch", "delete")),
    *((True, verb, "apps", "deployments", "") for verb in ("get", "list", "watch", "create", "delete")),
    (True, "patch", "apps", "deployments/scale", ""),
    (False, "update", "apps", "deployments", "churn-a-0123456789"),
    (False, "patch", "apps", "deployments", "churn-a-0123456789"),
    (False, "patch", "apps", "deployments", ROUTER),
    (True, "update", "apps", "deployments", ROUTER),
    (True, "list", "apps", "replicasets", ""),
    *(
        (True, verb, group, kind, "")
        for group, kind in (
            ("", "services"),
            ("policy", "poddisruptionbudgets"),
            ("networking.k8s.io", "networkpolicies"),
        )
        for verb in ("get", "list", "create", "delete")
    ),
    *((True, verb, "", "configmaps", "") for verb in ("list", "create", "delete")),
    *((True, verb, "", "pods", "") for verb in ("list", "watch")),
    (True, "create", "", "pods/eviction", ""),
    *((True, "create", group, kind, "") for group, kind in ROUTERS_OWN),
    *((True, verb, group, kind, ROUTER) for group, kind in ROUTERS_OWN for verb in ("get", "delete")),
    (True, "bind", "rbac.authorization.k8s.io", "clusterroles", "sluice-system-sluice-router"),
    # The users' objects are the users': no creation, no deletion, no spec of a declaration.
    *((False, verb, SLUICE, kind, "") for kind in KINDS for verb in ("create", "update", "delete", "deletecollection")),
    (False, "patch", SLUICE, "models", ""),
    (False, "patch", SLUICE, "endpointconfigs", ""),
    *((False, "patch", SLUICE, f"{kind}/status", "") for kind in KINDS),
    (False, "update", "apps", "controllerrevisions", ""),
    (False, "deletecollection", "apps", "controllerrevisions", ""),
    (False, "create", "", "events", ""),
    (False, "get", "", "events", ""),
    (False, "delete", "events.k8s.io", "events", ""),
]
"""In a namespace whose objects the operator handles."""

NOWHERE: list[tuple[bool, str, str, str, str]] = [
    *((False, verb, "", "secrets", "") for verb in ("get", "list", "watch", "create", "patch", "delete")),
    *((False, verb, "", "pods", "") for verb in ("get", "create", "update", "patch", "delete")),
    (False, "get", "", "pods/log", ""),
    (False, "create", "", "pods/exec", ""),
    (False, "create", "", "serviceaccounts/token", ""),
    (False, "get", "", "configmaps", "another"),
    (False, "update", "", "configmaps", CONFIG_MAP),
    (False, "patch", "apps", "statefulsets", ""),
    *((False, verb, group, kind, "another") for group, kind in ROUTERS_OWN for verb in ("get", "update", "delete")),
    *((False, "bind", "rbac.authorization.k8s.io", "clusterroles", role) for role in ("cluster-admin", "edit")),
    (False, "create", "rbac.authorization.k8s.io", "roles", ""),
    (False, "escalate", "rbac.authorization.k8s.io", "roles", ""),
    (False, "impersonate", "", "users", ""),
    (False, "get", "", "endpoints", ""),  # the core kind of the same plural
]
"""In every namespace, its own too."""

IN_ITS_OWN: list[tuple[bool, str, str, str, str]] = [
    (True, "create", "coordination.k8s.io", "leases", ""),
    (True, "get", "coordination.k8s.io", "leases", LEASE_NAME),
    (True, "update", "coordination.k8s.io", "leases", LEASE_NAME),
    (False, "update", "coordination.k8s.io", "leases", "another"),
    (False, "delete", "coordination.k8s.io", "leases", LEASE_NAME),
    (True, "get", "", "configmaps", CONFIG_MAP),
    (True, "get", "", "configmaps", "sluice-instance-types"),
]

NOT_ELSEWHERE: list[tuple[bool, str, str, str, str]] = [
    (False, "create", "coordination.k8s.io", "leases", ""),
    (False, "get", "coordination.k8s.io", "leases", LEASE_NAME),
    (False, "get", "", "configmaps", CONFIG_MAP),
]


def _matrix(*, everywhere: bool) -> list[Right]:
    rights = [(*right[:4], helm.NAMESPACE, right[4]) for right in (*NOWHERE, *IN_ITS_OWN)]
    for namespace in ("team-a", "team-b"):
        rights += [(*right[:4], namespace, right[4]) for right in (*IN_WATCHED, *NOWHERE, *NOT_ELSEWHERE)]
    unwatched = IN_WATCHED if everywhere else [(False, *right[1:]) for right in IN_WATCHED]
    rights += [(*right[:4], "team-c", right[4]) for right in (*unwatched, *NOWHERE, *NOT_ELSEWHERE)]
    rights += [
        # Cluster-wide lists and watches, as kopf and the cache ask for them without a namespace.
        *((everywhere, verb, SLUICE, kind, "", "") for kind in KINDS for verb in ("list", "watch")),
        (everywhere, "list", "apps", "controllerrevisions", "", ""),
        (everywhere, "get", "", "namespaces", "", "kube-system"),
        # As the API server asks: a namespace is itself in the namespace of its name.
        *((everywhere or name != "team-c", "get", "", "namespaces", name, name) for name in ("team-a", "team-c")),
        (False, "list", "", "namespaces", "", ""),
        (False, "get", "", "nodes", "", ""),
        (everywhere, "list", "", "nodes", "", ""),
        *((everywhere, "list", group, kind, "", "") for group, kind in (("apps", "deployments"), ("", "pods"))),
        (False, "list", "", "secrets", "", ""),
        (False, "create", "apiextensions.k8s.io", "customresourcedefinitions", "", ""),
        (False, "create", "rbac.authorization.k8s.io", "clusterrolebindings", "", ""),
    ]
    return rights


def _review(right: Right, user: str, groups: list[str]) -> helm.Object:
    _, verb, group, resource, namespace, name = right
    resource, _, subresource = resource.partition("/")
    attributes = {
        "verb": verb, "group": group, "resource": resource, "subresource": subresource,
        "namespace": namespace, "name": name,
    }  # fmt: skip
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": user, "groups": groups, "resourceAttributes": {k: v for k, v in attributes.items() if v}},
    }


def _ask(server: ControlPlane, rights: list[Right], user: str, groups: list[str]) -> list[Right]:
    """The rights as the API server judges them."""
    reviews = [_review(right, user, groups) for right in rights]
    text = _kubectl(server, "create", "--output=json", "--filename=-", objects=reviews)
    decoder, position = json.JSONDecoder(), 0
    answers: list[helm.Object] = []
    while position < len(text.rstrip()):
        answer, position = decoder.raw_decode(text, position)
        position += len(text[position:]) - len(text[position:].lstrip())
        answers += answer["items"] if answer["kind"] == "List" else [answer]
    assert len(answers) == len(rights)
    return [(bool(answer["status"].get("allowed")), *right[1:]) for answer, right in zip(answers, rights, strict=True)]


@pytest.mark.parametrize("name", ["default", "namespaced"])
def test_the_operators_rights(server: ControlPlane, name: str) -> None:
    rbac = [item for item in _rendered(name) if item["apiVersion"].startswith("rbac.")]
    _kubectl(server, "apply", "--filename=-", objects=rbac)
    try:
        rights = _matrix(everywhere=name == "default")
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{helm.NAMESPACE}", "system:authenticated"]
        wrong = [
            right for right, asked in zip(_ask(server, rights, OPERATOR, groups), rights, strict=True) if right != asked
        ]
        assert wrong == [], "each is (what the API server says, verb, group, resource, namespace, name)"
    finally:
        _kubectl(server, "delete", "--filename=-", "--ignore-not-found", objects=rbac)


def _bind(role: str, user: str) -> list[helm.Object]:
    binding: dict[str, Any] = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": user, "namespace": "team-a"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }
    return [binding]


def test_the_users_rights(server: ControlPlane) -> None:
    roles = [item for item in _rendered("default") if item["metadata"]["name"] in {"sluice-view", "sluice-edit"}]
    bindings = [*_bind("sluice-view", "viewer"), *_bind("sluice-edit", "editor")]
    _kubectl(server, "apply", "--filename=-", objects=[*roles, *bindings])
    viewer: list[Right] = [
        *((True, verb, SLUICE, kind, "team-a", "") for kind in KINDS for verb in ("get", "list", "watch")),
        *((False, verb, SLUICE, kind, "team-a", "") for kind in KINDS for verb in ("create", "patch", "delete")),
        (False, "get", SLUICE, "endpoints", "team-b", ""),
    ]
    editor: list[Right] = [
        *(
            (True, verb, SLUICE, kind, "team-a", "")
            for kind in KINDS
            for verb in ("create", "update", "patch", "delete")
        ),
        *((False, verb, SLUICE, f"{kind}/status", "team-a", "") for kind in KINDS for verb in ("update", "patch")),
        (False, "patch", SLUICE, "endpoints", "team-b", ""),
        (False, "create", "apps", "controllerrevisions", "team-a", ""),
    ]
    try:
        assert _ask(server, viewer, "viewer", ["system:authenticated"]) == viewer
        assert _ask(server, editor, "editor", ["system:authenticated"]) == editor
    finally:
        _kubectl(server, "delete", "--filename=-", "--ignore-not-found", objects=[*roles, *bindings])


def test_user_roles_join_view_edit_and_admin() -> None:
    for role, joins in (("sluice-view", ("view", "edit", "admin")), ("sluice-edit", ("edit", "admin"))):
        labels = helm.only(_rendered("default"), "ClusterRole", role)["metadata"]["labels"]
        found = {key.removeprefix("rbac.authorization.k8s.io/aggregate-to-") for key in labels if "aggregate-to" in key}
        assert found == set(joins)


ROOT = helm.CHARTS.parent
DOCUMENTS = sorted(
    path
    for path in (ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("docs/howto/*.md"))
    if "apiVersion: sluice.dev/" in path.read_text()
)


@pytest.fixture(scope="module")
def kinds(server: ControlPlane) -> ControlPlane:
    """The server with the three kinds, from the chart that ships them."""
    crds = helm.objects("sluice-crds", "sluice-crds")
    _kubectl(server, "apply", "--server-side", "--force-conflicts", "--filename=-", objects=crds)
    _kubectl(
        server, "wait", "--for=condition=Established", "--timeout=180s",
        *(f"crd/{item['metadata']['name']}" for item in crds),
    )  # fmt: skip
    return server


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_api_server_accepts_what_the_documents_show(kinds: ControlPlane, path: Path) -> None:
    blocks = re.findall(r"^( *)```yaml\n(.*?)^ *```", path.read_text(), re.MULTILINE | re.DOTALL)
    manifests = [
        {**item, "metadata": {"namespace": "team-a", **item["metadata"]}}
        for indent, block in blocks
        for item in yaml.safe_load_all(textwrap.dedent(indent + block.removeprefix(indent)))
        if isinstance(item, dict) and str(item.get("apiVersion")).startswith("sluice.dev/")
    ]
    assert manifests
    _kubectl(
        kinds, "apply", "--server-side", "--dry-run=server", "--validate=strict", "--filename=-", objects=manifests
    )
