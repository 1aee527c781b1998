"""Routes and weights as values: exact totals, shares of variants and revisions, shadows, names, schema versions."""

import math
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.core.cluster_stage import ClusterStage, Router, blue_green

from sluice.api.routes import SCHEMA_VERSION, WEIGHT_TOTAL, RouterReportSpec
from sluice.core.cluster import fleets, routers
from sluice.core.cluster.names import MAX_LABEL, fleet_name, record_name
from sluice.core.cluster.observation import ClusterObservation, RouterSeen
from sluice.core.cluster.routing import Limits, Side, Split, compile_route
from sluice.core.cluster.weights import shares


@given(st.lists(st.floats(0, 1e6, allow_nan=False), min_size=1, max_size=20))
def test_shares_are_exact_and_close(weights: list[float]) -> None:
    made = shares(weights)
    if not any(weights):
        assert set(made) == {0}
        return
    assert sum(made) == WEIGHT_TOTAL
    whole = sum(map(Fraction, weights))
    for weight, share in zip(weights, made, strict=True):
        assert (share == 0) == (weight == 0), "zero gets nothing, everything else at least one"
        exact = Fraction(weight) / whole * WEIGHT_TOTAL
        assert abs(share - exact) <= len(weights) + 1


def test_two_thirds_and_one_third() -> None:
    assert shares([2, 1]) == (666667, 333333)
    assert shares([1, 1, 1]) == (333334, 333333, 333333)
    assert shares([0, 0.1, 0.3]) == (0, 250000, 750000)


def _config(**shadow: object) -> dict[str, object]:
    made = {"productionVariants": [
        {"variantName": "a", "modelName": "m", "initialInstanceCount": 1},
        {"variantName": "b", "modelName": "m", "initialInstanceCount": 1, "routingConfig":
            {"routingStrategy": "RANDOM"}},
    ]}  # fmt: skip
    if shadow:
        made["productionVariants"] = made["productionVariants"][:1]
        made["shadowProductionVariants"] = [{"variantName": "s", "modelName": "m", **shadow}]
    return made  # type: ignore[return-value]


def _side(fleet_hash: str, config: dict[str, object], weights: dict[str, float], **model: object) -> Side:
    return Side(
        f"churn-{fleet_hash}-c", fleet_hash, config, {"m": {"primaryContainer": {"image": "i"}, **model}}, weights
    )


def test_two_revisions_share_by_percent_and_each_by_its_weights() -> None:
    old, new = _side("h1", _config(), {"a": 3, "b": 1}), _side("h2", _config(), {"a": 1, "b": 1})
    spec = compile_route("churn", "Churn", Split(old, new, 25.0), Limits(), None)
    assert [f.weight for f in spec.fleets] == [562500, 187500, 125000, 125000]
    assert [f.target_weight for f in spec.fleets] == [750000, 750000, 250000, 250000], "by variant, for TargetVariant"
    assert [f.balancing for f in spec.fleets] == ["LEAST_REQUEST", "RANDOM"] * 2
    assert spec.endpoint_name == "Churn"


def test_a_variant_of_weight_zero_stays_reachable_by_name() -> None:
    spec = compile_route("churn", "churn", Split(_side("h", _config(), {"a": 1, "b": 0})), Limits(), None)
    assert [(f.weight, f.target_weight) for f in spec.fleets] == [(1_000_000, 1_000_000), (0, 1_000_000)]


def test_require_ready_marks_what_rises_and_is_no_difference_by_itself() -> None:
    side = _side("h", _config(), {"a": 1, "b": 1})
    first = compile_route("churn", "churn", Split(side), Limits(), None)
    assert all(f.require_ready for f in first.fleets)
    assert compile_route("churn", "churn", Split(side), Limits(), first) is first
    moved = compile_route("churn", "churn", Split(_side("h", _config(), {"a": 1, "b": 3})), Limits(), first)
    assert [f.require_ready for f in moved.fleets] == [False, True]


def test_a_shadow_is_mirrored_by_its_share_and_gets_no_weight() -> None:
    config = _config(initialVariantWeight=0.5)
    spec = compile_route("churn", "churn", Split(_side("h", config, {"a": 2})), Limits(), None)
    assert len(spec.fleets) == 1
    [shadow] = spec.shadows
    assert (shadow.fleet.variant_name, shadow.fleet.weight, shadow.sampling) == ("s", 0, 250_000)


def test_direct_containers_have_ports_of_their_own_and_the_sample_is_sent() -> None:
    model = {
        "containers": [{"containerHostname": "x"}, {"containerHostname": "y"}],
        "inferenceExecutionConfig": {"mode": "Direct"},
        "kubernetes": {"sampleInvocation": {"body": "{}", "periodSeconds": 30}},
    }
    spec = compile_route("churn", "churn", Split(_side("h", _config(), {"a": 1, "b": 1}, **model)), Limits(), None)
    assert [(c.hostname, c.port) for c in spec.fleets[0].containers] == [("x", 8080), ("y", 8081)]
    assert spec.fleets[0].sample is not None
    assert (spec.fleets[0].sample.content_type, spec.fleets[0].sample.period_seconds) == ("application/json", 30)


def test_limits_come_from_the_endpoint() -> None:
    spec = {"kubernetes": {"invocationTimeoutSeconds": 5, "maxPayloadBytes": 10}}
    assert Limits().of(spec) == Limits(5, 10)
    assert Limits().of({}) == Limits(60, 6291456)
    ours = Limits(timeout_seconds=7, max_payload_bytes=8)
    assert (ours.of({}), ours.of(spec)) == (ours, Limits(5, 10)), "the installation's, and the Endpoint's own"


def test_what_the_installation_says_is_in_the_routes() -> None:
    stage = ClusterStage()
    stage.settings = replace(stage.settings, limits=Limits(timeout_seconds=120, max_payload_bytes=1 << 20))
    stage.in_service()
    assert stage.cluster.route is not None
    assert (stage.cluster.route.spec.timeout_seconds, stage.cluster.route.spec.max_payload_bytes) == (120, 1 << 20)


@given(st.from_regex(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", fullmatch=True),
       st.from_regex(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,20}", fullmatch=True))  # fmt: skip
def test_names_fit_and_tell_variants_apart(endpoint: str, variant: str) -> None:
    name = fleet_name(endpoint, variant, "v1:abc")
    assert len(name) <= MAX_LABEL
    assert name[0].isalpha()
    assert name == name.lower()
    assert not name.endswith("-")
    assert len(record_name(name)) <= 253
    if variant.swapcase() != variant:
        assert fleet_name(endpoint, variant.swapcase(), "v1:abc") != name


def test_routes_are_written_in_the_lowest_shape_that_live_routers_understand() -> None:
    def seen(*versions: int, terminating: bool = False) -> ClusterObservation:
        reports = [RouterReportSpec(pod_uid=str(v), schema_version=v) for v in versions]
        made = tuple(RouterSeen(r.pod_uid, r.pod_uid, True, terminating, report=r) for r in reports)
        return ClusterObservation(routers=made)

    assert routers.schema_version(seen(), newest=3) == 3
    assert routers.schema_version(seen(2, 3), newest=3) == 2
    assert routers.schema_version(seen(4, 5), newest=3) == 3
    assert routers.schema_version(seen(2, terminating=True), newest=3) == 3
    assert routers.schema_version(seen(1)) == SCHEMA_VERSION


def test_images_that_move_are_named() -> None:
    def of(*images: str) -> tuple[str, ...]:
        return fleets.moving_images({str(i): {"primaryContainer": {"image": image}} for i, image in enumerate(images)})

    assert of("a:latest", "r.example:5000/b", "c:1", "d@sha256:0", "r.example:5000/e:2", "f:latest@sha256:0") == (
        "a:latest",
        "r.example:5000/b",
    )


def test_a_moving_image_is_warned_of_once() -> None:
    stage = ClusterStage(deploymentConfig=blue_green(final=0))
    warned = []
    stage.image("repo/churn:latest")
    for _ in range(40):
        decision = stage.step()
        warned += [note for note in decision.events if note.reason == "MovingImageTag"]
    assert len(warned) == 1


@pytest.mark.parametrize("mute", [False, True], ids=["late", "mute"])
@pytest.mark.parametrize(
    ("peers", "stopping", "goes"), [(0, 0, False), (1, 0, True), (1, 1, False), (2, 1, True), (2, 2, False)]
)
def test_a_router_is_evicted_while_more_have_confirmed_than_go_without_it(
    peers: int, stopping: int, goes: bool, mute: bool
) -> None:
    """Two that are frozen do not cost the time to stop twice where another has come for the first; where none has, the
    first is given its time."""
    stage = ClusterStage()
    stage.in_service()
    now = stage.now + timedelta(seconds=60)
    applied = stage.cluster.routers[0].applied
    frozen = Router("frozen", "frozen", stage.now, frozen=True, readiness_since=stage.now)
    if mute:  # it had confirmed and froze then
        frozen.applied, frozen.busy = applied, frozenset({"the-fleet-that-went"})
    stage.cluster.routers = [
        frozen,
        *(Router(f"peer-{n}", f"peer-{n}", stage.now, applied=applied) for n in range(peers)),
        *(Router(f"stops-{n}", f"stops-{n}", stage.now, terminating=True, frozen=True) for n in range(stopping)),
    ]
    found = routers.to_evict(stage.observe(), now, since=stage.now, rolling_back=False, longest_seconds=480)
    assert (found.pod if found is not None else None) == ("frozen" if goes else None)


def test_a_stopping_router_that_only_waits_for_its_streams_keeps_no_other_from_being_evicted() -> None:
    stage = ClusterStage()
    stage.in_service()
    late = Router("late", "late", stage.now, frozen=True)
    stage.cluster.routers.append(late)
    stage.cluster.routers.append(replace(stage.cluster.routers[0], pod="stopping", uid="stopping", terminating=True))
    stage.image("good:2")
    seen = stage.observe()
    evicted = routers.to_evict(
        seen, stage.now.replace(year=2027), since=stage.now, rolling_back=False, longest_seconds=60
    )
    assert evicted is not None
    assert evicted.pod == "late"
    alone = replace(seen, routers=tuple(r for r in seen.routers if r.pod in {"late", "stopping"}))
    assert (
        routers.to_evict(alone, stage.now.replace(year=2027), since=stage.now, rolling_back=False, longest_seconds=60)
        is None
    ), "a router that stops is nobody to serve instead"


@pytest.mark.parametrize(("unready_for", "goes"), [(None, False), (14.0, False), (15.0, True)])
def test_a_router_that_answers_no_probe_is_not_waited_for_because_it_once_said_that_requests_run(
    unready_for: float | None, goes: bool
) -> None:
    """Its agent froze after it had confirmed: its report says for ever what ran then."""
    stage = ClusterStage()
    stage.in_service()
    frozen, peer = stage.cluster.routers
    frozen.busy = frozenset({"the-fleet-that-went"})
    frozen.frozen = unready_for is not None
    now = stage.now + timedelta(seconds=20)
    frozen.readiness_since = now - timedelta(seconds=unready_for) if unready_for is not None else stage.now

    def evicted(seen: ClusterObservation) -> RouterSeen | None:
        return routers.to_evict(seen, now, since=stage.now, rolling_back=True, longest_seconds=480)

    found = evicted(stage.observe())
    assert (found is not None and found.pod == frozen.pod) == goes
    assert found is None or goes
    peer.ready = False
    assert evicted(stage.observe()) is None, "never the last one that callers reach"


def test_shares_of_many_small_weights_are_finite() -> None:
    assert sum(shares([1e-300, *[1.0] * 30])) == WEIGHT_TOTAL
    assert math.isclose(sum(shares([1e-9, 1e9])), WEIGHT_TOTAL)


def test_a_router_that_starts_is_given_time_for_it() -> None:
    stage = ClusterStage()
    stage.in_service()
    route = stage.cluster.route
    assert route is not None
    starting = RouterSeen("starting", "s", ready=False, terminating=False, since=stage.now, report=None)
    seen = replace(stage.observe(), routers=(*stage.observe().routers, starting))

    def evicted(seconds: float) -> RouterSeen | None:
        now = stage.now + timedelta(seconds=seconds)
        return routers.to_evict(seen, now, since=stage.now, rolling_back=True, longest_seconds=60)

    assert evicted(100) is None
    assert evicted(121) is starting
