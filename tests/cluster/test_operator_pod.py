"""The operator as the chart runs it: restricted, on a read-only file system, with rights that are enough, visible."""

import urllib.request

import pytest
from tests.cluster.pods import operator_pods

from demo.forwarding import forwarded
from demo.install import OPERATOR_NAMESPACE
from demo.steps import NAMESPACE, Stage

pytestmark = pytest.mark.cluster

OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def in_pod(stage: Stage, program: str) -> str:
    """What a Python program prints in the operator's container."""
    return stage.surroundings.run_kubectl(
        "-n", OPERATOR_NAMESPACE, "exec", "deploy/sluice", "--", "python", "-c", program, seconds=180
    )


def test_it_is_not_root_and_writes_nowhere_but_tmp(stage: Stage) -> None:
    program = """
import os
print(os.getuid())
for place in ("/x", "/app/x", os.path.join(os.path.dirname(os.__file__), "x"), "/tmp/x"):
    try:
        open(place, "w").close()
        print(place, "written")
    except OSError as error:
        print(place, error.strerror)
"""
    said = in_pod(stage, program).splitlines()

    assert said[0] == "65532"
    written = [line for line in said[1:] if line.endswith("written")]
    assert written == ["/tmp/x written"]  # noqa: S108 - the volume the chart mounts there


def test_the_namespace_may_enforce_the_restricted_standard(stage: Stage) -> None:
    said = stage.surroundings.run_kubectl(
        "label", "namespace", OPERATOR_NAMESPACE, "pod-security.kubernetes.io/enforce=restricted", "--overwrite",
        "--dry-run=server",
    )  # fmt: skip

    assert "labeled" in said or "not labeled" in said
    assert "violat" not in said


def test_it_never_restarted(stage: Stage) -> None:
    [pod] = operator_pods(stage)

    assert [one["restartCount"] for one in pod["status"]["containerStatuses"]] == [0]


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_answer(stage: Stage, path: str) -> None:
    with (
        forwarded(stage.surroundings, OPERATOR_NAMESPACE, "deploy/sluice", 8080) as url,
        OPENER.open(url + path, timeout=60) as answer,
    ):
        assert answer.status == 200


def test_metrics_tell_of_the_endpoint_and_of_aws_calls(stage: Stage) -> None:
    with (
        forwarded(stage.surroundings, OPERATOR_NAMESPACE, "svc/sluice-metrics", 8080) as url,
        OPENER.open(f"{url}/metrics", timeout=60) as answer,
    ):
        text = answer.read().decode()

    assert 'operation="ListEndpoints"' in text
    assert f'namespace="{NAMESPACE}"' in text
    assert f'name="{stage.example.endpoint}"' in text


def test_its_rights_are_enough(stage: Stage) -> None:
    log = stage.surroundings.run_kubectl("-n", OPERATOR_NAMESPACE, "logs", "deploy/sluice", "--tail=-1")

    assert log
    assert not [line for line in log.splitlines() if "forbidden" in line.lower() or "Traceback" in line]


def test_columns_of_get_sep(stage: Stage) -> None:
    head, row = stage.surroundings.run_kubectl("get", "sep", "-n", NAMESPACE, stage.example.endpoint).splitlines()

    assert head.split() == ["NAME", "STATUS", "READY", "CONFIG", "STAGE", "STEP", "TRAFFIC", "ALARMS", "AGE"]
    assert row.split()[:4] == [stage.example.endpoint, "InService", "True", stage.example.config]


def test_the_category_lists_all_three_kinds(stage: Stage) -> None:
    said = stage.surroundings.run_kubectl("get", "sluice", "-n", NAMESPACE, "-o", "name").splitlines()

    assert {
        f"endpoint.sluice.dev/{stage.example.endpoint}",
        f"endpointconfig.sluice.dev/{stage.example.config}",
        f"model.sluice.dev/{stage.example.model}",
    } <= set(said)
    kinds = {line.partition("/")[0] for line in said}
    assert kinds == {"endpoint.sluice.dev", "endpointconfig.sluice.dev", "model.sluice.dev"}, "routes are nobody's"


def test_a_person_can_wait_for_it(stage: Stage) -> None:
    said = stage.surroundings.run_kubectl(
        "wait",
        f"endpoints.sluice.dev/{stage.example.endpoint}",
        "-n",
        NAMESPACE,
        "--for=condition=Ready",
        "--timeout=120s",
    )

    assert "condition met" in said
