"""What one watch says after a break waits for the other."""

from sluice.router.together import PATIENCE_SECONDS, Together


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def made() -> tuple[Together, list[str], Clock]:
    clock = Clock()
    return Together(("routes", "slices"), clock), [], clock


def test_nothing_is_in_force_before_all_was_read_however_long_that_takes() -> None:
    together, done, clock = made()
    together.found("routes", lambda: done.append("routes"))
    clock.now += 10 * PATIENCE_SECONDS
    together.go_on()
    assert (done, together.complete) == ([], False)
    together.lost("routes")
    together.found("slices", lambda: done.append("slices"))
    assert (done, together.complete) == ([], False), "what is known of routes may be old by now"
    together.found("routes", lambda: done.append("routes again"))
    assert (done, together.complete) == (["routes", "slices", "routes again"], True)


def test_without_a_break_each_change_is_in_force_at_once() -> None:
    together, done, _ = made()
    together.found("routes", lambda: done.append("routes"))
    together.found("slices", lambda: done.append("slices"))
    together.take(lambda: done.append("a slice"))
    assert done == ["routes", "slices", "a slice"]


def test_the_first_that_is_back_waits_for_the_other() -> None:
    together, done, clock = made()
    together.found("routes", lambda: None)
    together.found("slices", lambda: None)
    for kind in ("routes", "slices"):
        together.lost(kind)
    clock.now += 60
    together.found("routes", lambda: done.append("routes"))
    together.take(lambda: done.append("a route"))
    clock.now += PATIENCE_SECONDS - 1
    together.go_on()
    assert done == []
    together.found("slices", lambda: done.append("slices"))
    assert done == ["routes", "a route", "slices"]


def test_its_patience_ends() -> None:
    together, done, clock = made()
    together.found("routes", lambda: None)
    together.found("slices", lambda: None)
    together.lost("routes")
    together.take(lambda: done.append("a slice"))
    assert done == []
    clock.now += PATIENCE_SECONDS
    together.go_on()
    assert done == ["a slice"]
    together.lost("routes")
    together.take(lambda: done.append("another"))
    assert done == ["a slice", "another"], "in vain once is in vain"
    together.found("routes", lambda: done.append("routes"))
    together.lost("slices")
    together.take(lambda: done.append("a route"))
    assert done == ["a slice", "another", "routes"], "the next break is another matter"
