"""What of an Endpoint's fleets is told beside its status, whatever the pass decides: the variants as they are, and
conditions that never affect Ready."""

from sluice.api.reasons import ConditionType
from sluice.api.routes import MAX_EXCLUDED
from sluice.api.status import VariantSummary
from sluice.core import conditions, guardrails
from sluice.core.cluster import fleets, keeping, routers, sides, words
from sluice.core.endpoint.draft import Draft


def take_fleets(d: Draft) -> None:
    """The fleets of the revision in service, as DescribeEndpoint would show them, and what is not as it should be
    without being wrong: ImageDrift, SourceMoved, ZoneSpreadUnmet, TemplateOutdated."""
    serving = sides.serving(d)
    if serving is None:
        return
    before = {v.variant_name: v for v in d.status.production_variants}
    shown: list[VariantSummary] = []
    shadows: list[VariantSummary] = []
    for fleet in fleets.wanted(str(d.metadata["name"]), serving, sides.counts(d.status.production_variants)):
        name = str(fleet.variant["variantName"])
        here = keeping.seen(d).fleet(fleet.name)
        word = "Updating" if here is not None and here.ready < here.replicas else None
        weight = serving.weights.get(name)
        summary = fleets.summary(fleet, here, weight, before.get(name), word)
        running = d.status.deployment
        leaving = here.existing - here.replicas if here is not None else 0
        if running is not None and running.policy == guardrails.ROLLING and leaving > 0:
            going = words.going(leaving, running.stage_since)
            summary = summary.model_copy(update={"variant_status": (going,)})
        (shadows if fleet.shadow else shown).append(summary)
    d.set(production_variants=tuple(shown), shadow_production_variants=tuple(shadows)[:1])


def take_conditions(d: Draft) -> None:
    """Conditions that tell something and never affect Ready."""
    seen = keeping.seen(d)
    drifted = [fleet for fleet in seen.fleets if fleet.strangers]
    _tell(
        d,
        ConditionType.IMAGE_DRIFT,
        bool(drifted),
        "; ".join(
            f"fleet {fleet.name}: {len(fleet.strangers)} pods run another image or model data than its first ready "
            f"pod ({', '.join(fleet.strangers[:3])}); {_left_out(len(fleet.strangers))}"
            for fleet in drifted
        ),
    )
    moved = [(fleet, t) for fleet in seen.fleets for t in fleet.troubles if t.reason == "SourceMoved"]
    _tell(
        d,
        ConditionType.SOURCE_MOVED,
        bool(moved),
        "; ".join(
            f"fleet {fleet.name}: {trouble.pods} pods do not start: {trouble.message}" for fleet, trouble in moved
        ),
    )
    narrow = [f for f in seen.fleets if seen.zones > 1 and f.ready > 1 and f.zones == 1]
    _tell(
        d,
        ConditionType.ZONE_SPREAD_UNMET,
        bool(narrow),
        f"all pods of {', '.join(f.name for f in narrow)} run in one zone, the cluster has {seen.zones}",
    )
    stale = [f for f in seen.fleets if f.template and seen.templates.get(f.name, f.template) != f.template]
    _tell(
        d,
        ConditionType.TEMPLATE_OUTDATED,
        bool(stale),
        f"{', '.join(f.name for f in stale)}: would be made otherwise now (another operator version, or an edited "
        "instance type); what runs is left as it is until the next deployment (annotation sluice.dev/redeploy)",
    )
    failing = _failing_sample(d)
    _tell(d, ConditionType.SAMPLE_INVOCATION_FAILING, bool(failing), "; ".join(failing))


def _left_out(strangers: int) -> str:
    beyond = strangers - MAX_EXCLUDED
    if beyond <= 0:
        return "they get no requests"
    return f"{beyond} of them get requests, as a route leaves out at most {MAX_EXCLUDED} of a fleet"


def _failing_sample(d: Draft) -> list[str]:
    """Pods in service that the routers have taken out. While a count is being edited new pods come, whose first sample
    invocation is still under way: nothing is said of them."""
    serving, seen = sides.serving(d), keeping.seen(d)
    if serving is None or d.status.intent is not None:
        return []
    said = []
    for fleet in fleets.wanted(str(d.metadata["name"]), serving, {}):
        failing, pods = routers.failing_sample(seen, fleet.name) if fleet.sample else (0, 0)
        if not failing:
            continue
        # Envoy's panic threshold (router/clusters.py).
        stays = "they get no requests; at least half of the fleet stays in"
        if 2 * (pods - failing) < pods:
            stays = "as at least half of the fleet stays in, all of them get requests all the same"
        answer = routers.sample_answer(seen, fleet.name)
        said.append(
            f"variant {fleet.variant['variantName']}: {failing} of {pods} pods fail the sample invocation"
            f"{answer and f' ({answer})'}; {stays}"
        )
    return said


def _tell(d: Draft, type_: ConditionType, holds: bool, message: str) -> None:
    if not holds:
        d.set(conditions=conditions.drop_condition(d.status.conditions, type_))
        return
    generation = int(d.metadata.get("generation") or 0)
    d.set(
        conditions=conditions.set_condition(
            d.status.conditions, type_, "True", str(type_), message, generation=generation, now=d.now
        )
    )
