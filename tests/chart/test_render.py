"""The rendered charts: golden files, the closed schema, and what the operator itself reads from them."""

import dataclasses
import json
import re
from typing import Any

import pytest
import yaml
from tests.chart import helm

from sluice.controller.policy import CONFIG_MAP, FIELD, parse
from sluice.core import instance_types
from sluice.core.cluster.names import ROUTER_HEALTH_PORT
from sluice.core.permission import Ask, Policy
from sluice.main.settings import Settings, SettingsError, variable_name

METRICS = "docs/reference/metrics.md"
TROUBLESHOOTING = "docs/troubleshooting.md"


@pytest.mark.parametrize("name", helm.GOLDEN)
def test_renders_as_the_golden_file(name: str) -> None:
    """After a wanted change: run tests/chart/helm.py (see there) and read the difference."""
    assert helm.golden(name) == (helm.HERE / "golden" / f"{name}.yaml").read_text()


@pytest.mark.parametrize("chart", ["sluice", "sluice-crds", "sagemaker-simulator"])
def test_helm_finds_nothing_to_mend(chart: str) -> None:
    helm.lint(chart)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown value": ({"replicas": 2}, "replicas"),
    "unknown nested value": ({"aws": {"regoin": "eu-west-1"}}, "regoin"),
    "unknown setting": ({"settings": {"settle": 5}}, "settle"),
    "setting out of bounds": ({"settings": {"settleSeconds": 31}}, "settleSeconds"),
    "less than no limit": ({"settings": {"maxConcurrentDeployments": -1}}, "maxConcurrentDeployments"),
    "setting of another type": ({"settings": {"workers": "many"}}, "workers"),
    "boolean as text": ({"readOnly": "yes"}, "readOnly"),
    "namespace that is none": ({"watchNamespaces": ["Team_A"]}, "watchNamespaces"),
    "the same namespace twice": ({"watchNamespaces": ["a", "a"]}, "watchNamespaces"),
    "installation id with a slash": ({"installationId": "prod/1"}, "installationId"),
    "digest that is none": ({"image": {"digest": "latest"}}, "digest"),
    "address without a scheme": ({"aws": {"endpointUrls": {"sagemaker": "simulator:8080"}}}, "sagemaker"),
    "rule without namespaces": ({"permissions": {"rules": [{"accounts": ["*"]}]}}, "namespaces"),
    "rule with an unknown attribute": ({"permissions": {"rules": [{"namespaces": ["*"], "roles": []}]}}, "roles"),
    "account as a number": (
        {"permissions": {"rules": [{"namespaces": ["*"], "accounts": [111122223333]}]}},
        "accounts",
    ),
    "unknown placeholder": (
        {"permissions": {"rules": [{"namespaces": ["*"], "endpointNamePrefixes": ["{team}-"]}]}},
        "endpointNamePrefixes",
    ),
    "privileged port": ({"healthPort": 80}, "healthPort"),
    "instance type that is none": ({"instanceTypes": {"m5.large": {"cpu": 1}}}, "m5.large"),
    "instance type with an unknown field": ({"instanceTypes": {"ml.m5.large": {"gpus": 1}}}, "gpus"),
    "cache that is no path": ({"clusterBackend": {"modelCacheDirectories": ["models"]}}, "modelCacheDirectories"),
    "network that is none": ({"clusterBackend": {"isolatedEgressNetworks": ["anywhere"]}}, "isolatedEgressNetworks"),
    "network of 33 bits": (
        {"clusterBackend": {"isolatedEgressNetworks": ["10.0.0.0/33"]}},
        "isolatedEgressNetworks",
    ),
    "network of five": ({"clusterBackend": {"isolatedEgressNetworks": ["10.0.0.0.0/8"]}}, "isolatedEgressNetworks"),
    "network of 300": ({"clusterBackend": {"isolatedEgressNetworks": ["300.0.0.0/8"]}}, "isolatedEgressNetworks"),
    "network beyond IPv6": ({"clusterBackend": {"isolatedEgressNetworks": ["fd00::/129"]}}, "isolatedEgressNetworks"),
    "no router": ({"router": {"replicas": 0}}, "replicas"),
    "invocations without a time": ({"clusterBackend": {"invocationTimeoutSeconds": 0}}, "invocationTimeoutSeconds"),
    "streams that drain for hours": ({"router": {"streamDrainSeconds": 3601}}, "streamDrainSeconds"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_the_schema_refuses(name: str) -> None:
    values, field = REFUSED[name]
    with pytest.raises(helm.RefusedError, match=field):
        helm.template("sluice", "sluice", values)


def _objects_of(schema: dict[str, Any], path: str = "$") -> list[tuple[str, dict[str, Any]]]:
    found = [(path, schema)] if "properties" in schema else []
    for name, child in schema.get("properties", {}).items():
        found += _objects_of(child, f"{path}.{name}")
    if isinstance(schema.get("items"), dict):
        found += _objects_of(schema["items"], f"{path}[]")
    return found


@pytest.mark.parametrize("chart", ["sluice", "sagemaker-simulator"])
def test_the_schema_is_closed_and_knows_every_value(chart: str) -> None:
    schema = json.loads((helm.CHARTS / chart / "values.schema.json").read_text())
    assert [path for path, part in _objects_of(schema) if part.get("additionalProperties") is not False] == []
    known = {path for path, _ in _paths(schema)}
    values = yaml.safe_load((helm.CHARTS / chart / "values.yaml").read_text())
    assert [path for path in _value_paths(values) if path not in known] == []


def _paths(schema: dict[str, Any], path: str = "$") -> list[tuple[str, dict[str, Any]]]:
    found = []
    for name, child in schema.get("properties", {}).items():
        found += [(f"{path}.{name}", child), *_paths(child, f"{path}.{name}")]
    return found


def _value_paths(values: Any, path: str = "$") -> list[str]:
    free = ("$.resources.requests", "$.resources.limits")
    if not isinstance(values, dict) or path in free:
        return []
    return [
        found for key, value in values.items() for found in (f"{path}.{key}", *_value_paths(value, f"{path}.{key}"))
    ]


# Settings -------------------------------------------------------------------------------------------------------

_ELSEWHERE = {
    "installation_id", "operator_namespace", "watch_namespaces", "identity", "read_only", "health_port",
    "cluster_backend", "image", "router_image", "router_cluster_role", "router_replicas", "router_threads",
    "router_access_log", "router_stream_drain_seconds", "invocation_timeout_seconds", "max_payload_bytes",
}  # fmt: skip
"""Settings that are no member of `settings` in values.yaml: they have a value or a pod field of their own."""
_ELSEWHERE_IF_SET = {
    "image_pull_policy", "image_pull_secrets", "isolated_egress_networks", "model_cache_directories",
    "router_resources", "router_agent_resources", "router_relay_resources", "loader_resources",
    "router_priority_class", "prometheus_url", "prometheus_token_file", "prometheus_ca_file",
}  # fmt: skip


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


def _setting_schemas() -> dict[str, dict[str, Any]]:
    schema = json.loads((helm.CHARTS / "sluice" / "values.schema.json").read_text())
    return dict(schema["properties"]["settings"]["properties"])


def test_every_setting_of_the_operator_has_a_value() -> None:
    fields = {item.name for item in dataclasses.fields(Settings)}
    assert set(_setting_schemas()) == {_camel(name) for name in fields - _ELSEWHERE - _ELSEWHERE_IF_SET}
    container = helm.only(helm.objects(values=helm.case("namespaced")), "Deployment")["spec"]["template"]["spec"][
        "containers"
    ][0]
    given = {item["name"] for item in container["env"]}
    assert {variable_name(name) for name in _ELSEWHERE} <= given


def test_the_operator_takes_what_the_chart_gives() -> None:
    settings = Settings.from_environment(helm.environment(helm.objects(values=helm.case("all-on"))))
    assert settings.read_only
    assert settings.health_port == 9090
    assert settings.sagemaker_moving_seconds == 2.5
    assert settings.aws_calls_per_second == 0.5
    assert settings.sagemaker_full_list_seconds == 86400
    assert settings.log_level == "DEBUG"
    assert settings.router_image == f"registry.example.com/platform/sluice/router@sha256:{'b' * 64}"
    assert settings.image == f"registry.example.com/platform/sluice/operator@sha256:{'0123456789abcdef' * 4}"
    assert (settings.router_replicas, settings.router_threads, settings.pod_pre_stop_seconds) == (3, 4, 20)
    assert settings.router_access_log
    assert settings.router_resources == {"requests": {"cpu": "1"}, "limits": {"memory": "2Gi"}}
    assert settings.router_agent_resources == {"requests": {"memory": "256Mi"}}
    assert settings.router_relay_resources == {"limits": {"memory": "3Gi"}}
    assert settings.loader_resources == {"requests": {"cpu": "1"}, "limits": {"memory": "4Gi"}}
    assert (settings.router_stream_drain_seconds, settings.invocation_timeout_seconds) == (120, 120)
    assert settings.max_payload_bytes == 26214400
    assert (settings.router_priority_class, settings.image_pull_policy) == ("routers", "Always")
    assert settings.image_pull_secrets == ("registry", "mirror")
    assert settings.isolated_egress_networks == ("10.0.0.0/8", "fd00::/8")
    assert settings.model_cache_directories == ("/var/cache/models",)
    assert settings.prometheus_url == "https://prometheus.monitoring.svc:9091/prometheus"
    assert settings.prometheus_token_file == "/etc/sluice/prometheus-token/bearer"
    assert settings.prometheus_ca_file == "/etc/sluice/prometheus-ca/root.pem"
    namespaced = Settings.from_environment(helm.environment(helm.objects(values=helm.case("namespaced"))))
    assert namespaced.watch_namespaces == ("team-a", "team-b")
    assert namespaced.installation_id == "prod-1"


def test_a_network_by_one_of_its_addresses_is_that_network() -> None:
    """As Kubernetes takes it. An operator that refuses what the schema lets through does not start, and helm has said
    nothing."""
    networks = ["10.0.0.1/8", "192.168.255.255/32", "0.0.0.0/0", "::/0", "fd00::1/8", "2001:DB8::/128"]
    values = {"clusterBackend": {"isolatedEgressNetworks": networks}}
    given = helm.environment(helm.objects(values=values)) | {variable_name("identity"): "pod"}
    settings = Settings.from_environment(given)
    assert settings.isolated_egress_networks == (
        "10.0.0.0/8", "192.168.255.255/32", "0.0.0.0/0", "::/0", "fd00::/8", "2001:db8::/128",
    )  # fmt: skip


def test_a_plain_install_runs_with_the_operators_defaults() -> None:
    plain = Settings.from_environment({variable_name("identity"): "pod"})
    given = Settings.from_environment(helm.environment(helm.objects()) | {variable_name("identity"): "pod"})
    role = helm.only(helm.objects(), "ClusterRole", "sluice-system-sluice-router")["metadata"]["name"]
    assert given == dataclasses.replace(plain, router_cluster_role=role), "a name of its own for each release"


@pytest.mark.parametrize(
    ("url", "port"),
    [("http://p", 80), ("https://p/x", 443), ("http://p.monitoring.svc:9090", 9090), ("http://[::1]:9", 9)],
)
def test_the_operators_own_network_policy_lets_it_read_alarms(url: str, port: int) -> None:
    values = {"networkPolicy": {"create": True}, "alarms": {"prometheus": {"url": url}}}
    policy = helm.only(helm.objects(values=values), "NetworkPolicy")
    ports = [item["port"] for item in policy["spec"]["egress"][0]["ports"]]
    assert ports == [53, 53, 443, 6443, ROUTER_HEALTH_PORT, port]


def test_a_chart_without_the_cluster_backend_grants_nothing_for_it() -> None:
    found = helm.objects(values={"clusterBackend": {"enabled": False}})
    assert not Settings.from_environment(helm.environment(found)).cluster_backend
    rules = [
        rule
        for item in found
        if item["kind"] in {"Role", "ClusterRole"} and item["metadata"]["name"] not in {"sluice-view", "sluice-edit"}
        for rule in item["rules"]
    ]
    granted = {resource for rule in rules for resource in rule["resources"]}
    assert granted & {"deployments", "pods", "services", "rolebindings", "endpointroutes", "nodes"} == set()


def test_the_operator_understands_the_instance_types_of_the_chart() -> None:
    values = helm.case("all-on")
    text = helm.only(helm.objects(values=values), "ConfigMap", instance_types.CONFIG_MAP)["data"]
    types = instance_types.parse(yaml.safe_load(text[instance_types.DATA_KEY]))
    own, changed = types.find("ml.own.large"), types.find("ml.g5.xlarge")
    assert own is not None
    assert (own.cpu, own.memory, own.gpu) == ("6", "24Gi", 1)
    assert changed is not None
    assert changed.node_selector == {"pool": "gpu"}
    assert changed.cpu, "the built-in resources stay"
    assert [item for item in helm.objects() if item["metadata"]["name"] == instance_types.CONFIG_MAP] == []


@pytest.mark.parametrize("name", [n for n, s in _setting_schemas().items() if "minimum" in s])
def test_the_schemas_bounds_are_within_the_operators(name: str) -> None:
    schema = _setting_schemas()[name]
    variable = variable_name(re.sub("([A-Z])", r"_\1", name).lower())
    Settings.from_environment({variable: f"{schema['minimum']:g}"})
    Settings.from_environment({variable: f"{schema['maximum']:g}"})
    step = 1 if schema["type"] == "integer" else schema["minimum"] / 2
    with pytest.raises(SettingsError, match=variable):
        Settings.from_environment({variable: f"{schema['minimum'] - step:g}"})


# Permissions ----------------------------------------------------------------------------------------------------


def _policy(values: dict[str, Any]) -> Policy:
    return parse(helm.only(helm.objects(values=values), "ConfigMap", CONFIG_MAP)["data"][FIELD])


def _ask(**changes: Any) -> Ask:
    plain = Ask(namespace="team-a", region="eu-west-1", endpoint_name="team-a-churn", account_id="111122223333")
    return dataclasses.replace(plain, **changes)


def test_the_default_rule_allows_the_operators_own_identity_and_nothing_more() -> None:
    policy = _policy({})
    assert policy.judge(_ask(execution_roles=("arn:aws:iam::1:role/any",))) is None
    assert policy.judge(_ask(adopt=True)) is not None
    assert policy.judge(_ask(assume_role="arn:aws:iam::1:role/any")) is not None


def test_no_rule_permits_nothing() -> None:
    assert _policy({"permissions": {"rules": []}}).judge(_ask()) is not None


def test_rules_narrow_by_each_attribute() -> None:
    policy = _policy(helm.case("all-on"))
    assert policy.judge(_ask()) is None
    refused = {
        "namespace": "team-c",
        "region": "us-east-1",
        "endpoint_name": "team-b-churn",
        "account_id": "999999999999",
        "execution_roles": ("arn:aws:iam::111122223333:role/admin",),
        "assume_role": "arn:aws:iam::444455556666:role/sluice/team-b",
    }
    for attribute, value in refused.items():
        assert policy.judge(_ask(**{attribute: value})) is not None, attribute
    team_b = _ask(namespace="team-b", assume_role="arn:aws:iam::444455556666:role/sluice/team-b", adopt=True)
    assert policy.judge(team_b) is None


# What must never slip in ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in helm.GOLDEN if name != "simulator"])
def test_no_rule_is_wider_than_its_list(name: str) -> None:
    rules = [
        rule
        for item in helm.objects(values=helm.case(name))
        if item["kind"] in {"Role", "ClusterRole"} and not item["metadata"]["name"].startswith("sluice-view")
        for rule in item["rules"]
    ]
    for rule in rules:
        assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"], rule
        assert not {"secrets", "pods/log", "pods/exec"} & set(rule["resources"]), rule
        assert not {"impersonate", "escalate"} & set(rule["verbs"]), rule
        if "pods" in rule["resources"]:
            assert set(rule["verbs"]) == {"list", "watch"}, rule
        if "bind" in rule["verbs"]:
            assert rule["resources"] == ["clusterroles"], rule
            assert len(rule["resourceNames"]) == 1, rule
            assert rule["resourceNames"][0].endswith("-router"), rule
        if {"serviceaccounts", "rolebindings"} & set(rule["resources"]) and rule["verbs"] != ["create"]:
            assert rule["resourceNames"] == ["sluice-router"], rule
        if "deployments" in rule["resources"] and {"update", "patch"} & set(rule["verbs"]):
            assert rule["resourceNames"] == ["sluice-router"], rule


def test_watched_namespaces_leave_nothing_cluster_wide() -> None:
    found = helm.objects(values=helm.case("namespaced"))
    cluster_wide = [(item["kind"], item["metadata"]["name"]) for item in found if item["kind"].startswith("Cluster")]
    assert cluster_wide == [("ClusterRole", "sluice-system-sluice-router")], "bound by nothing of this release"
    places = {item["metadata"]["namespace"] for item in found if item["kind"] == "Role"}
    assert places == {helm.NAMESPACE, "team-a", "team-b"}


@pytest.mark.parametrize("seconds", [1, 20, 600])
def test_the_pod_has_time_to_stop(seconds: int) -> None:
    values = {"settings": {"stopSeconds": seconds}}
    pod = helm.only(helm.objects(values=values), "Deployment")["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == seconds + 20


def test_alerts_name_metrics_that_exist() -> None:
    """docs/reference/metrics.md is held to the code by a test of its own."""
    known = set(re.findall(r"^\| `(sluice_\w+)` \|", (helm.CHARTS.parent / METRICS).read_text(), re.MULTILINE))
    rule = helm.only(helm.objects(values=helm.case("all-on")), "PrometheusRule")
    alerts = [alert for group in rule["spec"]["groups"] for alert in group["rules"]]
    used = {name for alert in alerts for name in re.findall(r"sluice_[a-z_]+", alert["expr"])}
    assert used
    assert used - known == set()


def alert(name: str) -> dict[str, Any]:
    rule = helm.only(helm.objects(values=helm.case("all-on")), "PrometheusRule")
    [found] = [one for group in rule["spec"]["groups"] for one in group["rules"] if one["alert"] == name]
    return found


def test_a_router_that_holds_all_others_up_is_alerted_by_its_namespace() -> None:
    found = alert("SluiceRoutersHeld")
    assert found["expr"] == "max by (by) (sluice_routers_held) > 0", "not reset by another pod of the operator"
    assert found["for"] == "30m"
    assert "namespace {{ $labels.by }}" in found["annotations"]["summary"]


def test_a_router_that_endpoints_hold_is_alerted_whichever_they_are() -> None:
    """Nobody looks at the metric by chance, and a rollback that failed holds its router for months."""
    found = alert("SluiceRouterHeldByEndpoint")
    assert found["expr"] == "max by (namespace) (sluice_routers_held_by_endpoint) > 0", "not reset by the next Endpoint"
    assert found["for"] == "1d"
    assert "namespace {{ $labels.namespace }}" in found["annotations"]["summary"]


def test_alerts_are_explained() -> None:
    told = set(re.findall(r"`(Sluice\w+)`", (helm.CHARTS.parent / TROUBLESHOOTING).read_text()))
    rule = helm.only(helm.objects(values=helm.case("all-on")), "PrometheusRule")
    names = {alert["alert"] for group in rule["spec"]["groups"] for alert in group["rules"]}
    assert names - told == set()


def test_alerts_tell_labels_that_they_have() -> None:
    """Those that an expression groups by, else its metric's."""
    reference = (helm.CHARTS.parent / METRICS).read_text()
    rows = re.findall(r"^\| `(sluice_\w+)` \| \w+ \| (.*?) \|", reference, re.MULTILINE)
    metrics = {name: set(re.findall(r"`(\w+)`", cell)) for name, cell in rows}
    rule = helm.only(helm.objects(values=helm.case("all-on")), "PrometheusRule")
    told = 0
    for alert in (alert for group in rule["spec"]["groups"] for alert in group["rules"]):
        grouped = re.search(r"\bby \((.*?)\)", alert["expr"])
        used = re.findall(r"sluice_[a-z_]+", alert["expr"])
        has = set(re.split(r", *", grouped[1])) if grouped else set.intersection(*(metrics[name] for name in used))
        named = set(re.findall(r"\$labels\.(\w+)", alert["annotations"]["summary"]))
        assert named <= has, alert["alert"]
        told += len(named)
    assert told > 5
