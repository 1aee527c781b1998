"""The Lua that Argo CD runs, run: every case of argocd_cases.yaml, and what each command does to an object."""

from typing import Any

import lupa.lua51 as lua
import pytest
import yaml
from tests.chart import argocd_cm, helm

from sluice.core.endpoint import commands

CASES: list[dict[str, Any]] = yaml.safe_load((helm.HERE / "argocd_cases.yaml").read_text())


def _run(script: str, item: dict[str, Any]) -> Any:
    """Run a script with `obj` set, and nothing of Lua's standard library but what Argo CD's sandbox has too."""
    runtime = lua.LuaRuntime(unpack_returned_tuples=True)
    for library in ("os", "io", "string", "table", "math", "debug", "package", "require"):
        runtime.globals()[library] = None
    runtime.globals().obj = _table(runtime, item)
    return runtime.execute(script)


def _table(runtime: Any, value: Any) -> Any:
    if isinstance(value, dict):
        return runtime.table_from({key: _table(runtime, item) for key, item in value.items()})
    if isinstance(value, list):
        return runtime.table_from([_table(runtime, item) for item in value])
    return value


@pytest.mark.parametrize("case", CASES, ids=lambda case: str(case["name"]))
def test_health(case: dict[str, Any]) -> None:
    assert dict(_run(argocd_cm.health_scripts()[case["kind"]], case["object"])) == case["health"]


@pytest.mark.parametrize("case", [c for c in CASES if "actions" in c], ids=lambda case: str(case["name"]))
def test_offered_commands(case: dict[str, Any]) -> None:
    script = (argocd_cm.ARGOCD / "Endpoint" / "actions" / "discovery.lua").read_text()
    offered = {name for name, action in _run(script, case["object"]).items() if not action["disabled"]}
    assert offered == set(case["actions"])


def test_every_offered_command_exists() -> None:
    script = (argocd_cm.ARGOCD / "Endpoint" / "actions" / "discovery.lua").read_text()
    assert set(_run(script, {"metadata": {}}).keys()) == set(argocd_cm.action_scripts())


ANNOTATED = {
    "retry": ("sluice.dev/retry", "argocd-7"),
    "redeploy": ("sluice.dev/redeploy", "argocd-7"),
    "rollback": ("sluice.dev/rollback", "churn-2/argocd-7"),
    "ignore-firing": ("sluice.dev/ignore-firing", "churn-3"),
    "pause": ("sluice.dev/pause", "churn-3"),
    "resume": ("sluice.dev/pause", None),
    "promote": ("sluice.dev/promote", "churn-3/2/argocd-7"),
    "promote-full": ("sluice.dev/promote", "churn-3//argocd-7"),
    "disable-reconcile": ("sluice.dev/reconcile", "disabled"),
    "enable-reconcile": ("sluice.dev/reconcile", None),
}


@pytest.mark.parametrize("name", ANNOTATED)
@pytest.mark.parametrize(
    "annotations", [None, {"kept": "yes", "sluice.dev/reconcile": "disabled"}], ids=["bare", "annotated"]
)
def test_a_command_sets_its_annotation_and_nothing_else(name: str, annotations: dict[str, str] | None) -> None:
    status = {
        "revision": {"name": "churn-2"},
        "previousRevision": {"name": "churn-1"},
        "desiredRevision": {"name": "churn-3"},
        "deployment": {"revision": "churn-3", "step": 2},
    }
    metadata = {"resourceVersion": "7"} | ({"annotations": annotations} if annotations else {})
    changed = _run(argocd_cm.action_scripts()[name], {"metadata": metadata, "status": status})
    annotation, value = ANNOTATED[name]
    expected = {**(annotations or {}), annotation: value}
    left = changed.metadata.annotations
    assert ({} if left is None else dict(left)) == {key: text for key, text in expected.items() if text is not None}


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        ({}, "churn-1"),
        ({"deployment": {"revision": "churn-3", "stage": "Baking"}}, "churn-2"),
        ({"deployment": {"revision": "churn-2", "stage": "CleaningUp"}}, "churn-1"),
        ({"endpointStatus": "UpdateRollbackFailed"}, "churn-2"),
    ],
    ids=["at rest", "while it is deployed", "while the old fleet goes", "where a mix serves"],
)
def test_a_rollback_goes_to_what_served_before_and_is_new_with_every_click(status: dict[str, Any], wanted: str) -> None:
    status = {"revision": {"name": "churn-2"}, "previousRevision": {"name": "churn-1"}, **status}
    values = []
    for version in ("7", "8"):
        metadata = {"resourceVersion": version, "annotations": {"sluice.dev/rollback": wanted}}
        changed = _run(argocd_cm.action_scripts()["rollback"], {"metadata": metadata, "status": status})
        values.append(changed.metadata.annotations["sluice.dev/rollback"])
    assert [commands.named(value) for value in values] == [wanted, wanted]
    assert len({wanted, *values}) == 3


@pytest.mark.parametrize("name", ["resume", "enable-reconcile"])
def test_an_annotation_that_is_the_only_one_is_taken_away_as_well(name: str) -> None:
    """Argo CD makes an empty list of an empty table, and takes the map as it was for an empty list (cleanReturnedObj in
    its util/lua): a script that only empties the map changes nothing."""
    annotation, _ = ANNOTATED[name]
    changed = _run(argocd_cm.action_scripts()[name], {"metadata": {"annotations": {annotation: "churn-3"}}})
    assert changed.metadata.annotations is None
