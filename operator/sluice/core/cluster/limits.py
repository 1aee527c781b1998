"""How many deployments run at once, who is next, and the brake: an image that was rolled back in several places starts
nowhere else by itself. Pure; everything is read from statuses, so neither place nor brake is lost with a process.

A place is given to those who wait longest. Who waits for room in a full namespace holds nobody else up. Creations are
no deployments: nothing that serves is at risk. What a person brings back passes no gate, and takes a place all the
same."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sluice.api import names
from sluice.api.reasons import Cause, CommandResult, Reason
from sluice.api.status import DeploymentStatus
from sluice.core import capabilities
from sluice.core.cluster import sides
from sluice.core.cluster.peers import Bounds, ImageRollback, Peer, image_key, rollbacks_in
from sluice.core.endpoint.draft import Draft
from sluice.core.revision import Revision

LOOK_SECONDS = 60.0
"""Between two looks at one's place in the queue, so that status is not far from true; whose turn it is, is woken."""
NAMED = 3
"""How many other Endpoints a message names."""
MAX_IMAGES = 30


# The queue ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Turn:
    """Where an Endpoint stands in the queue."""

    now: bool
    """It may start."""
    place: int = 0
    """From 1."""
    waiting: int = 0
    """How many wait, itself among them."""
    running: tuple[Peer, ...] = ()
    """Who deploys, where it waits for that."""
    limit: int = 0
    namespace_only: bool = False
    """It waits for its namespace's limit."""


def admitted(peers: Iterable[Peer], bounds: Bounds) -> tuple[Peer, ...]:
    """Who of those that wait may start now, in their order."""
    everyone = tuple(peers)
    taken = Counter(peer.namespace for peer in everyone if peer.deploying)
    found = []
    for peer in sorted((peer for peer in everyone if peer.waiting_since is not None), key=lambda peer: peer.order):
        full = bounds.deployments and taken.total() >= bounds.deployments
        if full:
            break
        if bounds.deployments_per_namespace and taken[peer.namespace] >= bounds.deployments_per_namespace:
            continue
        taken[peer.namespace] += 1
        found.append(peer)
    return tuple(found)


def turn(me: Peer, others: Iterable[Peer], bounds: Bounds) -> Turn:
    """Whether it is this Endpoint's turn among the others. `me` waits."""
    everyone = (*others, me)
    started = admitted(everyone, bounds)
    if me in started:
        return Turn(now=True)
    taken = sum(peer.deploying for peer in everyone) + len(started)
    narrow = not bounds.deployments or taken < bounds.deployments
    mine = tuple(peer for peer in everyone if peer.namespace == me.namespace)
    among, limit = (mine, bounds.deployments_per_namespace) if narrow else (everyone, bounds.deployments)
    queue = sorted((peer for peer in among if peer.waiting_since is not None), key=lambda peer: peer.order)
    running = tuple(sorted((peer for peer in among if peer.deploying), key=lambda peer: (peer.namespace, peer.name)))
    return Turn(False, queue.index(me) + 1, len(queue), running, limit, narrow)


def queued(d: Draft, desired: Revision) -> bool:
    """Gate: whether the deployment waits for its turn; says for whom and in which place."""
    bounds = d.given.settings.bounds
    if not bounds.deployments and not bounds.deployments_per_namespace:
        return False
    since = d.status.settle.since if d.status.settle is not None else d.now
    me = Peer(str(d.metadata["namespace"]), str(d.metadata["name"]), waiting_since=since)
    found = turn(me, d.given.peers, bounds)
    if found.now:
        return False
    where = "in this namespace" if found.namespace_only else "of this operator"
    d.again(LOOK_SECONDS)
    d.reconciling(
        Reason.DEPLOYMENT_QUEUED,
        f"Revision {desired.name} waits for its turn, place {found.place} of {found.waiting}: "
        f"{len(found.running)} deployments {where} run, at most {found.limit} may ({_named(found.running)}).",
    )
    return True


# The brake ------------------------------------------------------------------------------------------------------


def braked(d: Draft, desired: Revision) -> bool:
    """Gate: whether an image that the deployment brings was rolled back too often of late; says where, and what to do.
    `sluice.dev/retry` lets this Endpoint pass: what was rolled back before it counts no more here."""
    bounds = d.given.settings.bounds
    if not bounds.rollbacks_of_one_image:
        return False
    window = timedelta(seconds=bounds.rollback_window_seconds)
    since = max(d.now - window, _retried(d) or d.now - window)
    own = rollbacks_in(item.to_manifest() for item in d.status.history)
    me = Peer(str(d.metadata["namespace"]), str(d.metadata["name"]), rollbacks=own)
    for image in brought(d, desired):
        against = [
            (rollback, peer)
            for peer in (*d.given.peers, me)
            for rollback in peer.rollbacks
            if rollback.at > since and image_key(image) in rollback.images
        ]
        if len(against) < bounds.rollbacks_of_one_image:
            continue
        against.sort(key=lambda pair: pair[0].at, reverse=True)
        last: ImageRollback = against[bounds.rollbacks_of_one_image - 1][0]
        d.again_at(last.at + window)
        places = {peer.label: peer for _, peer in against}
        d.stalled(
            Reason.IMAGE_BRAKED,
            f"Revision {desired.name} brings image {image[:512]}, whose deployment was rolled back {len(against)} "
            f"times ({_named(tuple(places.values()))}); it is not deployed here before "
            f"{last.at + window:%Y-%m-%d %H:%M:%S} UTC. Name another image, or annotate {names.RETRY} to deploy it "
            "here all the same.",
        )
        return True
    return False


def brought(d: Draft, desired: Revision) -> tuple[str, ...]:
    """The images that a deployment brings: those that the revision in service does not run. An image that serves
    already, with other model data or another environment, is not what a rollback tells against."""
    serving = sides.serving_revision(d)
    had = {image_key(image) for image in images_of(serving.models)} if serving is not None else set()
    return tuple(image for image in images_of(desired.models) if image_key(image) not in had)


def images_of(models: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """The images of a revision's containers, as specified."""
    containers = (
        container
        for model in models.values()
        for container in (*(model.get("containers") or ()), *filter(None, [model.get("primaryContainer")]))
    )
    return tuple(sorted({str(container["image"]) for container in containers if container.get("image")}))


def rolled_back_images(d: Draft, deployment: DeploymentStatus) -> tuple[str, ...]:
    """What a deployment that is rolled back brought: as specified, and as its pods resolved it, so that neither another
    tag nor another repository hides it. An alarm that fired before its first traffic until the deadline tells nothing
    of it."""
    revision = d.subject(deployment.revision)
    if revision is None or (deployment.cause is Cause.ALARM and deployment.traffic_since is None):
        return ()
    images = brought(d, revision)
    resolved = {
        str(image.resolved_image)
        for variant in deployment.pending_variants
        for image in variant.deployed_images
        if image.specified_image in images and image.resolved_image
    }
    return tuple(image[:512] for image in (*images, *sorted(resolved - set(images)))[:MAX_IMAGES])


def _retried(d: Draft) -> Any:
    """When a person last said retry."""
    said = (
        ack.time for ack in d.status.commands if (ack.command, ack.result) == (capabilities.RETRY, CommandResult.DONE)
    )
    return next(said, None)


def _named(peers: tuple[Peer, ...]) -> str:
    named = ", ".join(peer.label for peer in peers[:NAMED])
    return f"{named} and {len(peers) - NAMED} more" if len(peers) > NAMED else named or "none"
