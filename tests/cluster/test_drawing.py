"""The pictures of deployments: what was recorded is what is drawn."""

import xml.etree.ElementTree as ET
from itertools import pairwise

from demo.drawing import Sample, draw, shares, stages
from demo.timelines import RUNS

SVG = "{http://www.w3.org/2000/svg}"


def sample(seconds: float, stage: str = "", percent: float = 0, new: int = 0, errors: int = 0) -> Sample:
    """20 answers, so many of them from the new revision."""
    return Sample(seconds, stage, percent, 4, 4 if stage else 0, 20 - new - errors, new, errors)


CANARY = (
    sample(0.1),
    sample(1.1, "Provisioning"),
    sample(2.1, "Baking", 25, new=5),
    sample(3.1, "Baking", 25, new=5),
    sample(4.1, "FinalBaking", 100, new=20),
    sample(5.1, "", 100, new=20),
)


def test_stages_follow_each_other_without_a_gap() -> None:
    found = list(stages(CANARY, 6.0))
    assert [stage for stage, _, _ in found] == ["", "Provisioning", "Baking", "FinalBaking", ""]
    assert all(first[2] == second[1] for first, second in pairwise(found))
    assert (found[2][1], found[2][2], found[-1][2]) == (2.1, 4.1, 6.0)


def test_shares_are_of_the_answers_around_each_moment() -> None:
    points = list(shares((*CANARY, sample(5.2, "", 100, errors=20))))
    assert [point.new for point in points] == [0, 0, 0.25, 0.25, 1, 0.5]
    assert [point.errors for point in points] == [0, 0, 0, 0, 0, 0.5]
    assert all(point.old + point.new + point.errors == 1 for point in points)


def test_a_picture_is_an_svg_that_names_its_stages_and_marks_errors_only_where_there_are_some() -> None:
    well, badly = draw("CANARY <25 %>", CANARY), draw("bad", (*CANARY, sample(5.2, "", 100, errors=1)))
    words = [text.text for text in ET.fromstring(well).iter(f"{SVG}text")]  # noqa: S314  our own
    assert {"CANARY <25 %>", "Provisioning", "Baking", "FinalBaking", "in service", "4", "4 s"} <= set(words)
    assert "errors of the new one" not in well
    assert "errors of the new one" in badly


def test_every_policy_is_drawn_with_short_waits_of_its_example() -> None:
    assert {run.example for run in RUNS} == {"all-at-once", "canary", "linear", "rolling"}
    for run in RUNS:
        text = str(run.policy)
        assert all(f"'{name}': {seconds}" in text for name, seconds in run.waits.items()), run.name
