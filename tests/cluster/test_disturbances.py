"""What may happen to an operator's pod must not happen to an endpoint: killed in the middle, replaced by an upgrade."""

import time

import pytest
from tests.cluster import pods

from demo import install, steps
from demo.install import ACCESS_KEY, OPERATOR_NAMESPACE
from demo.steps import Stage

pytestmark = pytest.mark.cluster

READS = ("Describe", "List", "Get")
SECONDS = 180


def writes(stage: Stage) -> dict[str, int]:
    """How often the operator has called each mutating operation of SageMaker."""
    counts = stage.aws.simulator.counts(ACCESS_KEY)
    return {name: count for name, count in counts.items() if not name.startswith((*READS, "AssumeRole"))}


def looks(stage: Stage) -> int:
    """How often the operator has listed endpoints."""
    return stage.aws.simulator.counts(ACCESS_KEY).get("ListEndpoints", 0)


def test_killed_in_the_middle_of_a_canary_the_next_pod_finishes_it(stage: Stage) -> None:
    before, written = stage.watcher.now, writes(stage)
    image = stage.example.next_image("killed")
    steps.ship(stage, image)
    [pod] = pods.names(stage)

    stage.surroundings.run_kubectl("-n", OPERATOR_NAMESPACE, "delete", "pod", pod, "--grace-period=0", "--force")
    steps.arrive(stage, image, before.revision)

    assert pod not in pods.names(stage)
    now = writes(stage)
    assert now["UpdateEndpoint"] - written["UpdateEndpoint"] == 1
    assert now.get("CreateEndpoint") == written.get("CreateEndpoint")


def test_an_upgrade_of_the_operator_does_not_disturb_an_endpoint(stage: Stage) -> None:
    stage.watcher.until("it is ready", lambda seen: seen.is_ready, seconds=SECONDS)
    mark, before, written = stage.watcher.mark(), stage.watcher.now, writes(stage)
    old = pods.names(stage)

    install.upgrade_operator(stage.surroundings, {"podAnnotations": {"upgraded-at": str(time.time())}})
    seen = looks(stage)
    deadline = time.monotonic() + SECONDS
    while looks(stage) < seen + 2:
        assert time.monotonic() < deadline, "the new operator lists no endpoints"
        time.sleep(0.2)

    assert not set(old) & set(pods.names(stage))
    assert writes(stage) == written
    assert stage.watcher.now.revision == before.revision
    assert all(one.is_ready for one in stage.watcher.since(mark))
