"""What the cluster tests call chance: exact where it can be counted by hand, and rarely wrong either way."""

from math import comb, isclose

import pytest
from tests.cluster.chance import at_least, is_too_little, is_too_much


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("total", [1, 7, 40])
def test_probabilities_are_those_of_every_way_to_draw(total: int, share: float) -> None:
    for count in range(total + 2):
        exactly = sum(comb(total, n) * share**n * (1 - share) ** (total - n) for n in range(count, total + 1))
        assert isclose(at_least(count, total, share), exactly, rel_tol=1e-9, abs_tol=1e-12)


def test_a_share_of_nothing_or_of_all_leaves_nothing_to_chance() -> None:
    assert is_too_much(1, 1000, 0.0, under_way=6)
    assert not is_too_much(0, 1000, 0.0, under_way=6)
    assert not is_too_much(1000, 1000, 1.0, under_way=0)
    assert at_least(0, 0, 0.5) == 1.0


@pytest.mark.parametrize(
    ("count", "too_little", "too_much"),
    [(60, False, False), (90, False, False), (110, False, True), (35, False, False), (15, True, False)],
)
def test_a_tenth_of_600_is_about_60(count: int, too_little: bool, too_much: bool) -> None:
    assert is_too_little(count, 600, 0.1, under_way=6) == too_little
    assert is_too_much(count, 600, 0.1, under_way=6) == too_much


def test_many_answers_are_no_matter() -> None:
    assert isclose(at_least(50_000, 100_000, 0.5), 0.5, abs_tol=0.002)
    assert is_too_much(51_000, 100_000, 0.5, under_way=6)
    assert is_too_little(49_000, 100_000, 0.5, under_way=6)
