"""Rolling deployments where a batch goes before its successors come (kubernetes.replaceFirst), for pools without room.

Forward, in Provisioning: traffic moves off the instances that are to go, confirmed; they go; in their room the new ones
come. Back the same way round: traffic off a batch of new instances, they go, the old ones come, then traffic follows.
There are never more instances than there were, or than the new revision asks for; one batch less serves meanwhile."""

from collections.abc import Mapping
from dataclasses import dataclass

from sluice.api.reasons import Reason
from sluice.api.status import DeploymentStatus, PlanStep
from sluice.core.cluster import batches, fleets, instances, keeping
from sluice.core.cluster.routing import Side, percent_on
from sluice.core.endpoint.draft import Draft
from sluice.core.finding import Finding


def refused(counts: Mapping[str, int]) -> Finding | None:
    """Why a revision with these instances cannot be deployed so. One instance that goes before its successor comes is
    an outage, which nobody asks for by an instance count."""
    alone = sorted(name for name, count in counts.items() if count < 2)
    if not alone:
        return None
    return Finding(
        Reason.INVALID_DEPLOYMENT_CONFIG,
        f"found true with one instance of variant {', '.join(alone)}: it would go before its successor comes, and "
        "nothing would serve; allowed are two instances or more of each variant",
        "spec.kubernetes.replaceFirst",
    )


def forward(
    d: Draft, blue: Side, wanted: tuple[fleets.Wanted, ...], green: Side, deployment: DeploymentStatus, target: PlanStep
) -> tuple[tuple[fleets.Wanted, ...], float]:
    """In Provisioning: the new fleets as they may stand now, `wanted` once there is room for them, and the percent of
    the traffic that they get until the batch is there. They get no more before all that the last batch brought are
    there, and no old one goes then."""
    step, now = deployment.step or 0, deployment.traffic_percent or 0.0
    percent = batches.between(now, target.traffic_percent)
    left = batches.left(deployment, step + 1, instances.whole(deployment, new=False))
    if none_beyond(d, blue, left):
        return wanted, percent
    standing = fleets.wanted(_name(d), green, _new_at(instances.planned(deployment, new=True), now))
    return standing, now if instances.short(d, standing, 100.0) else percent


def old_at(deployment: DeploymentStatus, percent: float) -> dict[str, int]:
    """The old instances that have room beside the new ones for so much of the traffic."""
    whole, final = instances.whole(deployment, new=False), instances.planned(deployment, new=True)
    return batches.remaining(whole, percent / 100.0, _new_at(final, percent))


def brought(d: Draft, green: Side, deployment: DeploymentStatus, target: float) -> float:
    """The percent of the traffic that the new instances are for which a rollback towards `target` has left: it lets a
    batch of them go before traffic follows."""
    final = instances.planned(deployment, new=True)
    here = {
        str(fleet.variant["variantName"]): found.replicas
        for fleet in fleets.wanted(_name(d), green, {})
        if (found := keeping.seen(d).fleet(fleet.name)) is not None and not found.deleting
    }
    shares = (deployment.traffic_percent or 0.0, target)
    stand = (at for at in shares if all(here.get(name, 0) >= count for name, count in _new_at(final, at).items()))
    return next(stand, 0.0)


@dataclass(frozen=True, slots=True)
class Back:
    """What the next pass of a rollback does."""

    percent: float
    """Of the traffic, on the new fleets."""
    old: Mapping[str, int]
    """What the old fleets are scaled up to."""
    new: Mapping[str, int]
    """What the new fleets are scaled down to, once the routes are confirmed."""
    arrived: bool
    """With the routes confirmed, the batch is back."""
    room: Mapping[str, int] | None = None
    """How many old instances have room now."""


def back(
    d: Draft, blue: Side, green: Side | None, deployment: DeploymentStatus, now: float, target: float, *, dead: bool
) -> Back:
    """From `now` percent of the traffic to `target`. `dead`: the new fleets answer nothing any more."""
    planned, whole = instances.planned(deployment, new=False), instances.whole(deployment, new=False)
    final = instances.planned(deployment, new=True)
    needed = {at: batches.remaining(planned, at / 100.0, _new_at(final, at)) for at in (now, target)}
    wished = {at: old_at(deployment, at) for at in (now, target)}
    room = _room(d, blue, green, whole, final)
    if dead or now <= 0.0:
        there = _written(d, blue, needed[target])
        return Back(0.0, wished[target], dict.fromkeys(final, 0), there, room)
    goal, share = _new_at(final, target), batches.between(target, now)
    if green is None or none_beyond(d, green, goal, pods=False):
        there = _ready(d, blue, needed[target])
        return Back(target if there else share, wished[target], goal, there, room)
    if _ready(d, blue, needed[now]):
        return Back(share, wished[now], goal, False, room)
    # It turned back in the middle of a batch: first what the present share needs is there again.
    return Back(_even(d, blue, green, now, whole), wished[now], _new_at(final, now), False, room)


def _new_at(final: Mapping[str, int], percent: float) -> dict[str, int]:
    return batches.parts(final, percent / 100.0)


def _room(
    d: Draft, blue: Side, green: Side | None, whole: Mapping[str, int], final: Mapping[str, int]
) -> dict[str, int]:
    """How many old instances have room beside the new pods that exist, in any phase, and old ones that are stopping."""
    taken = _existing(d, green) if green is not None else {}
    stopping = {
        str(fleet.variant["variantName"]): max(0, here.existing - here.replicas)
        for fleet in fleets.wanted(_name(d), blue, {})
        if (here := keeping.seen(d).fleet(fleet.name)) is not None
    }
    return {
        name: max(0, max(count, final.get(name, 0)) - taken.get(name, 0) - stopping.get(name, 0))
        for name, count in whole.items()
    }


def _existing(d: Draft, side: Side) -> dict[str, int]:
    return {
        str(fleet.variant["variantName"]): max(here.existing, here.replicas)
        for fleet in fleets.wanted(_name(d), side, {})
        if (here := keeping.seen(d).fleet(fleet.name)) is not None and not fleet.shadow
    }


def none_beyond(d: Draft, side: Side, counts: Mapping[str, int], *, pods: bool = True) -> bool:
    """Whether no fleet has more instances than these; `pods`: counted by the pods that exist, stopping ones too."""
    if pods:
        return all(count <= counts.get(name, count) for name, count in _existing(d, side).items())
    return all(
        here.replicas <= counts.get(str(fleet.variant["variantName"]), here.replicas)
        for fleet in fleets.wanted(_name(d), side, {})
        if (here := keeping.seen(d).fleet(fleet.name)) is not None and not fleet.shadow
    )


def _ready(d: Draft, side: Side, counts: Mapping[str, int]) -> bool:
    wanted = fleets.wanted(_name(d), side, counts)
    return all(fleets.ready(keeping.seen(d), fleet, fleet.count) for fleet in wanted if not fleet.shadow)


def _written(d: Draft, side: Side, counts: Mapping[str, int]) -> bool:
    """Whether the old fleets are told to be of these sizes."""
    return all(
        (here := keeping.seen(d).fleet(fleet.name)) is not None and here.replicas >= fleet.count
        for fleet in fleets.wanted(_name(d), side, counts)
        if not fleet.shadow
    )


def _even(d: Draft, blue: Side, green: Side, percent: float, whole: Mapping[str, int]) -> float:
    """The percent of the traffic on the new fleets at which every instance has its even part, when the new ones have
    those for `percent` and the old ones are as few as they are. Never more than the routes give them now."""
    seen = keeping.seen(d)
    there = min(
        (
            100.0 * here.ready / max(1, whole[name])
            for fleet in fleets.wanted(_name(d), blue, {})
            if (name := str(fleet.variant["variantName"])) in whole
            and not fleet.shadow
            and (here := seen.fleet(fleet.name)) is not None
        ),
        default=0.0,
    )
    mine = frozenset(fleet.name for fleet in fleets.wanted(_name(d), green, {}))
    present = percent_on(seen.route.spec, mine) if seen.route is not None else percent
    return max(percent, min(present, round(100.0 * percent / (percent + there), 4)))


def _name(d: Draft) -> str:
    return str(d.metadata["name"])
