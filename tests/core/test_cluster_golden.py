"""Each transition of a deployment in the cluster, as a golden file tells it."""

import pytest

from .golden_transitions import HERE, STORIES, tell


@pytest.mark.parametrize("name", STORIES)
def test_the_story_is_the_golden_one(name: str) -> None:
    assert tell(name) == (HERE / f"{name}.yaml").read_text()


def test_every_golden_file_is_a_story() -> None:
    assert {path.stem for path in HERE.glob("*.yaml")} == set(STORIES)
