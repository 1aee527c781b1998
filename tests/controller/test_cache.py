"""The cache wakes exactly those that a change concerns, and never goes back in time."""

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.controller.objects import endpoint, endpoint_config, model, revision

from sluice.controller.cache import Cache, Source
from sluice.core.identity import Key, Place
from sluice.ports.kube import Object

ENDPOINT = Key("Endpoint", "team", "churn")
CONFIG = Key("EndpointConfig", "team", "config")
MODEL = Key("Model", "team", "model")


def edited(item: Object, version: int, **metadata: Any) -> Object:
    copy = deepcopy(item)
    copy["metadata"] |= {"resourceVersion": str(version), **metadata}
    return copy


@pytest.fixture
def cache() -> Cache:
    """One Endpoint with its EndpointConfig and Model, at resourceVersion 10."""
    cache = Cache()
    for item in (model(version=10), endpoint_config(version=10), endpoint(version=10)):
        cache.apply(item, Source.LIST)
    return cache


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 2, 0), (2, 0, 1)])
def test_in_any_order_the_last_arrival_wakes_the_endpoint(order: tuple[int, ...]) -> None:
    cache = Cache()
    items = [model(version=1), endpoint_config(version=2), endpoint(version=3)]
    woken = [cache.apply(items[n], Source.WATCH) for n in order]
    assert ENDPOINT in woken[-1]
    assert {MODEL, CONFIG, ENDPOINT} <= frozenset().union(*woken)
    assert [user["metadata"]["name"] for user in cache.users("Model", "team", "model")] == ["churn"]
    assert [user["metadata"]["name"] for user in cache.users("EndpointConfig", "team", "config")] == ["churn"]


def test_a_models_new_generation_wakes_it_and_the_endpoints_behind_its_configs(cache: Cache) -> None:
    changed = edited(model(), 11, generation=2)
    assert cache.apply(changed, Source.WATCH) == {MODEL, ENDPOINT}


def test_a_config_that_names_another_model_wakes_both_models(cache: Cache) -> None:
    cache.apply(model("other", version=11), Source.WATCH)
    changed = endpoint_config(models=("other",), version=12, generation=2)
    assert cache.apply(changed, Source.WATCH) == {CONFIG, ENDPOINT, MODEL, Key("Model", "team", "other")}
    assert cache.users("Model", "team", "model") == ()


def test_foreign_annotations_wake_nobody_ours_do(cache: Cache) -> None:
    argo = edited(endpoint(), 11, annotations={"argocd.argoproj.io/tracking-id": "x"})
    assert cache.apply(argo, Source.WATCH) == frozenset()
    command = edited(endpoint(), 12, annotations={"sluice.dev/retry": "1"})
    assert cache.apply(command, Source.WATCH) == {ENDPOINT}
    assert cache.apply(edited(command, 13, deletionTimestamp="now", finalizers=["x"]), Source.WATCH) >= {ENDPOINT}


def test_own_status_writes_wake_the_declarations_but_not_the_endpoint(cache: Cache) -> None:
    ready = {"type": "Ready", "status": "True", "reason": "InService", "message": "", "observedGeneration": 1}
    status = {"endpointStatus": "InService", "conditions": [{**ready, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}
    written = edited(endpoint(status=status), 11)
    cache.writing(ENDPOINT, status)
    assert cache.apply(written, Source.WATCH) == {CONFIG, MODEL}, "the echo came before the answer"
    assert cache.apply(written, Source.OWN) == frozenset()
    cache.written(ENDPOINT)
    assert cache.status(ENDPOINT).endpoint_status == "InService"


def test_declarations_are_woken_only_by_what_their_status_tells(cache: Cache) -> None:
    """Whether the Endpoint is Ready, for which generation, and resolved from what; not each word of its way there."""
    waits = {"type": "Ready", "status": "False", "reason": "Creating", "message": "1 of 2 pods"}
    first = {"endpointStatus": "Creating", "observedGeneration": 1, "conditions": [waits]}
    assert cache.apply(edited(endpoint(status=first), 11), Source.OWN) == {CONFIG, MODEL}
    second = {**first, "conditions": [{**waits, "message": "2 of 2 pods"}], "address": "http://x"}
    assert cache.apply(edited(endpoint(status=second), 12), Source.OWN) == frozenset()
    resolved = {**second, "observedReferences": [{"kind": "Model", "name": "model", "uid": "u", "generation": 2}]}
    assert cache.apply(edited(endpoint(status=resolved), 13), Source.OWN) == {CONFIG, MODEL}


def test_an_edited_config_is_no_news_to_the_models_that_it_names_as_before(cache: Cache) -> None:
    changed = endpoint_config(version=12, generation=2)
    changed["spec"]["productionVariants"][0]["initialVariantWeight"] = 2
    assert cache.apply(changed, Source.WATCH) == {CONFIG, ENDPOINT}


def test_a_status_that_somebody_else_changed_wakes_the_endpoint(cache: Cache) -> None:
    assert cache.apply(edited(endpoint(status={"endpointStatus": "Failed"}), 11), Source.WATCH) >= {ENDPOINT}


def test_an_older_state_never_overwrites_a_newer_one(cache: Cache) -> None:
    own = edited(endpoint(status={"endpointStatus": "Creating"}), 20)
    cache.apply(own, Source.OWN)
    for late in (edited(endpoint(), 15), edited(endpoint(), 20)):
        assert cache.apply(late, Source.WATCH) == frozenset()
    assert cache.status(ENDPOINT).endpoint_status == "Creating"


def test_a_recreated_object_is_another_one_and_the_old_ones_end_does_not_remove_it(cache: Cache) -> None:
    again = endpoint(uid="second", version=30)
    assert ENDPOINT in cache.apply(again, Source.WATCH)
    cache.remove(edited(endpoint(), 25), Source.WATCH)
    found = cache.get("Endpoint", "team", "churn")
    assert found is not None
    assert found["metadata"]["uid"] == "second"


def test_what_is_deleted_stays_deleted_when_an_older_read_comes_late(cache: Cache) -> None:
    assert cache.remove(edited(model(), 40), Source.WATCH) == {ENDPOINT}
    assert cache.apply(edited(model(), 39), Source.LIST) == frozenset()
    assert cache.get("Model", "team", "model") is None
    assert cache.apply(edited(model(), 41, uid="new"), Source.WATCH) == {MODEL, ENDPOINT}


@pytest.mark.parametrize("answered", [10, 50])
def test_taking_the_last_finalizer_off_a_deleted_object_removes_it(cache: Cache, answered: int) -> None:
    """The API server answers with the resourceVersion of the state before (10): there is no later one."""
    gone = edited(endpoint(), answered, deletionTimestamp="now", finalizers=[])
    assert cache.apply(gone, Source.OWN) == {CONFIG, MODEL}
    assert cache.apply(edited(endpoint(), 51, deletionTimestamp="now", finalizers=[]), Source.WATCH) == frozenset()
    assert cache.get("Endpoint", "team", "churn") is None
    assert cache.users("EndpointConfig", "team", "config") == ()


def test_claims_are_found_without_regard_to_case_and_freed_with_a_wake_up() -> None:
    cache = Cache()
    first = endpoint("first", pin="Churn", version=1)
    second = endpoint("second", pin="churn", namespace="other", version=2)
    cache.apply(first, Source.WATCH)
    woken = cache.apply(second, Source.WATCH)
    assert Key("Endpoint", "team", "first") in woken
    place = Place("1", "eu-west-1", "CHURN")
    assert cache.claimants(place, Key("Endpoint", "team", "first")) == (cache.get("Endpoint", "other", "second"),)
    assert cache.remove(edited(first, 9), Source.WATCH) == {Key("Endpoint", "other", "second")}
    assert cache.claimants(place, Key("Endpoint", "other", "second")) == ()


@pytest.mark.parametrize("pin", ["{", "[]", 100_000 * "["])
def test_a_broken_pin_claims_nothing(pin: str) -> None:
    """One that Python's parser does not come back from would end the first listing of each new process."""
    cache = Cache()
    cache.apply(endpoint(annotations={"sluice.dev/external": pin}, version=1), Source.WATCH)
    assert cache.get("Endpoint", "team", "churn") is not None


def test_stored_revisions_are_kept_by_endpoint_in_order(cache: Cache) -> None:
    assert cache.apply(revision("r2", "churn", 2, version=60), Source.WATCH) == {ENDPOINT}
    assert cache.apply(revision("r1", "churn", 1, version=61), Source.OWN) == frozenset()
    assert [stored.name for stored in cache.stored("team", "churn")] == ["r1", "r2"]
    assert cache.remove(edited(revision("r2", "churn", 2), 62), Source.WATCH) == {ENDPOINT}
    assert [stored.name for stored in cache.stored("team", "churn")] == ["r1"]


def test_a_status_is_parsed_once_per_state(cache: Cache) -> None:
    assert cache.status(ENDPOINT) is cache.status(ENDPOINT)


def test_what_is_never_read_is_not_kept(cache: Cache) -> None:
    heavy = edited(
        endpoint(),
        11,
        managedFields=[{"manager": "kubectl"}],
        annotations={"kubectl.kubernetes.io/last-applied-configuration": "{}", "a": "b"},
    )
    cache.apply(heavy, Source.WATCH)
    kept = cache.get("Endpoint", "team", "churn")
    assert kept is not None
    assert "managedFields" not in kept["metadata"]
    assert kept["metadata"]["annotations"] == {"a": "b"}
    assert "managedFields" in heavy["metadata"], "the caller's object is left alone"


def test_a_listing_shows_what_was_missed(cache: Cache) -> None:
    mark = cache.mark()
    cache.apply(endpoint("born-meanwhile", version=99), Source.WATCH)
    listed = {("team", "churn"): edited(endpoint(), 70), ("team", "new"): edited(endpoint("new"), 71)}
    found = cache.compare("Endpoint", listed, mark)
    assert found.newer == {ENDPOINT: 70, Key("Endpoint", "team", "new"): 71}
    assert (found.absent, found.behind) == ((), ())
    assert cache.compare("Model", {}, cache.mark()).absent == (cache.get("Model", "team", "model"),)
    assert cache.compare("Model", {("team", "model"): edited(model(), 3)}, cache.mark()).behind == (MODEL,)
    assert not cache.watch_saw(ENDPOINT, 70)
    cache.apply(edited(endpoint(), 70), Source.WATCH)
    assert cache.watch_saw(ENDPOINT, 70)


@given(st.permutations([*range(1, 9)]), st.integers(1, 9))
def test_whatever_the_order_of_arrival_the_newest_state_stands(order: list[int], deleted_at: int) -> None:
    """Eight states of one object and, in between somewhere, its deletion at `deleted_at`; then the same name anew."""
    cache = Cache()
    for version in order:
        uid = "first" if version <= deleted_at else "second"
        if version == deleted_at:
            cache.remove(endpoint(uid=uid, version=version), Source.WATCH)
        else:
            cache.apply(endpoint(uid=uid, version=version, generation=version), Source.WATCH)
    kept = cache.get("Endpoint", "team", "churn")
    if deleted_at >= 8:
        assert kept is None or (deleted_at == 9 and kept["metadata"]["generation"] == 8)
    else:
        assert kept is not None
        assert kept["metadata"]["generation"] == 8
        assert cache.users("EndpointConfig", "team", "config") == (kept,)


def test_a_foreign_controller_revision_under_our_label_is_passed_over(cache: Cache) -> None:
    foreign = revision("sts", "churn", 1, version=60)
    foreign["data"] = {"spec": {"template": {}}}
    cache.apply(foreign, Source.WATCH)
    cache.apply(revision("r1", "churn", 2, version=61), Source.WATCH)
    assert [stored.name for stored in cache.stored("team", "churn")] == ["r1"]
