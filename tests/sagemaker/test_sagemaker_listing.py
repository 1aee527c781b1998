"""How looks and listings that cross are put together, and what this process remembers of its own writes."""

from datetime import UTC, datetime, timedelta

from tests.sagemaker.world import SteppedClock

from sluice.api.status import EndpointStatusWord
from sluice.core.observation import Listed
from sluice.sagemaker.listing import Listing
from sluice.sagemaker.recent import RecentWrites

START = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = ("111122223333", "eu-west-1", "model", "churn-1a2b")


def item(name: str, status: EndpointStatusWord, modified: float) -> Listed:
    return Listed(name, status, START + timedelta(seconds=modified))


def test_the_newer_change_wins_whatever_comes_last() -> None:
    listing = Listing()
    listing.seen(item("a", "InService", 20), asked=5)
    listing.seen(item("a", "Creating", 10), asked=6)
    assert listing.get("a") == item("a", "InService", 20)


def test_of_the_same_change_the_later_call_wins() -> None:
    listing = Listing()
    listing.seen(item("a", "Updating", 20), asked=5)
    listing.seen(item("a", "InService", 20), asked=4)
    assert listing.get("a") == item("a", "Updating", 20)


def test_a_whole_listing_drops_what_it_does_not_show() -> None:
    listing = Listing()
    listing.replace([item("a", "InService", 1), item("b", "InService", 1)], asked=1)
    listing.replace([item("b", "InService", 1)], asked=2)
    assert (listing.get("a"), len(listing)) == (None, 1)


def test_a_whole_listing_keeps_what_a_later_call_showed_and_what_was_just_created() -> None:
    listing = Listing()
    listing.seen(item("looked", "Creating", 1), asked=3)
    listing.seen(item("created", "Creating", 1), asked=1)
    listing.replace([], asked=2, keep=frozenset({"created"}))
    assert listing.get("looked") is not None
    assert listing.get("created") is not None


def test_an_old_call_that_found_nothing_does_not_undo_a_newer_one() -> None:
    listing = Listing()
    listing.seen(item("a", "Creating", 1), asked=5)
    listing.gone("a", asked=4)
    assert listing.get("a") is not None
    listing.gone("a", asked=6)
    assert listing.get("a") is None


def test_names_that_differ_in_case_only() -> None:
    listing = Listing()
    listing.seen(item("Churn", "InService", 1), asked=1)
    assert listing.other_case("churn") == "Churn"
    assert listing.other_case("Churn") is None
    assert listing.get("churn") is None
    listing.gone("Churn", asked=2)
    assert listing.other_case("churn") is None


def test_what_we_wrote_may_be_invisible_for_a_minute() -> None:
    clock = SteppedClock()
    recent = RecentWrites(clock.monotonic)
    recent.created(MODEL)
    assert [recent.retry_after(MODEL) for _ in range(7)] == [1, 2, 4, 8, 15, 30, 30]
    clock.step(60)
    assert MODEL in recent
    clock.step(1)
    assert MODEL not in recent
    assert recent.retry_after(MODEL) is None


def test_what_was_deleted_is_missing_at_once() -> None:
    recent = RecentWrites(SteppedClock().monotonic)
    recent.created(MODEL)
    recent.forget(MODEL)
    assert recent.retry_after(MODEL) is None


def test_the_missing_object_is_found_in_the_message_by_its_whole_name() -> None:
    recent = RecentWrites(SteppedClock().monotonic)
    recent.created(("1", "eu-west-1", "model", "Churn"))
    text = 'Could not find model "arn:aws:sagemaker:eu-west-1:1:model/{}".'
    assert recent.named_in("1", "eu-west-1", "model", text.format("churn")) is not None
    assert recent.named_in("1", "eu-west-1", "model", text.format("churn-2")) is None
    assert recent.named_in("1", "eu-west-1", "endpoint-config", text.format("churn")) is None
