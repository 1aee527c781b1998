"""Each transition of a deployment in the cluster, as a golden file tells it."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
import yaml

from sluice.api.reasons import Cause

from .cluster_invariants import FAILED, FOLLOWS
from .golden_transitions import HERE, STORIES, tell

ENDED, NEXT = "no deployment", "another deployment"
"""What comes after the end of one; the next begins in the same pass where it is the way back to what still stands."""
ENDS = {("RollingBack", ENDED), (FAILED, ENDED), ("CleaningUp", ENDED), ("CleaningUp", NEXT)}


@pytest.mark.parametrize("name", STORIES)
def test_the_story_is_the_golden_one(name: str) -> None:
    assert tell(name) == (HERE / f"{name}.yaml").read_text()


def test_every_golden_file_is_a_story() -> None:
    assert {path.stem for path in HERE.glob("*.yaml")} == set(STORIES)


def test_every_transition_is_told() -> None:
    allowed = {(before, after) for before, afters in FOLLOWS.items() for after in afters}
    told = {pair for name in STORIES for pair in _transitions(_passes(name))}
    assert told == allowed | ENDS


def test_every_policy_and_every_cause_is_told() -> None:
    running = [told["deployment"] for name in STORIES for told in _passes(name) if "deployment" in told]
    assert {told["policy"] for told in running} == {"ALL_AT_ONCE", "CANARY", "LINEAR", "ROLLING"}
    causes = {told["cause"] for told in running if "cause" in told}
    assert causes == set(Cause) - {Cause.NONE, Cause.SILENT, Cause.UNKNOWN}, "SageMaker's may be silent or unknown"


def _passes(name: str) -> list[dict[str, Any]]:
    """Those of a story that changed the stage, the step or the reason."""
    documents = yaml.safe_load_all((HERE / f"{name}.yaml").read_text())
    return [document for document in documents if "endpointStatus" in document]


def _transitions(passes: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
    """What a deployment was at, and what it, or the Endpoint, was at then."""
    for before, after in pairwise(passes):
        if "deployment" not in before:
            continue
        same = "deployment" in after and after["deployment"]["revision"] == before["deployment"]["revision"]
        follows = _at(after) if same else NEXT if "deployment" in after else ENDED
        if follows != _at(before):
            yield _at(before), follows


def _at(told: dict[str, Any]) -> str:
    return FAILED if told["endpointStatus"] == FAILED else str(told["deployment"]["stage"])
