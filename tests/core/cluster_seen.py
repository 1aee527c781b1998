"""What a pass sees of a stage's cluster: the counts and troubles of its fleets, and what its routers report."""

from datetime import datetime

from tests.core.cluster_state import Cluster, Fleet, Router

from sluice.api.routes import FleetReport, RejectedRoute, RouteReport, RouterReportSpec
from sluice.core.cluster.observation import FleetRecord, FleetSeen, ImageSeen, PodTrouble, RouterSeen
from sluice.core.cluster.routing import fleets_of


def fleet_seen(cluster: Cluster, fleet: Fleet, at: datetime) -> FleetSeen:
    """A fleet as its Deployment and its pods tell of it."""
    ran = FleetRecord((ImageSeen(fleet.image, f"{fleet.image}@sha256:1"),), {}, at)
    return FleetSeen(
        name=fleet.name,
        variant=fleet.variant,
        fleet_hash=fleet.fleet_hash,
        uid=fleet.uid,
        replicas=fleet.replicas,
        ready=fleet.ready,
        existing=fleet.replicas + fleet.stopping,
        terminating=fleet.stopping,
        deleting=fleet.gone_at is not None,
        created=fleet.born,
        record=fleet.record,
        candidate=ran if fleet.ready else None,
        strangers=fleet.strangers,
        troubles=_troubles(cluster, fleet),
        reachable=fleet.reachable,
    )


def _troubles(cluster: Cluster, fleet: Fleet) -> tuple[PodTrouble, ...]:
    """What keeps pods from being ready, the worst first."""
    if fleet.image in cluster.troubles:
        return (cluster.troubles[fleet.image],)
    found: list[PodTrouble] = []
    crashing = fleet.replicas - fleet.sound
    if crashing:
        text = "container model was killed 3 times for want of memory (OOMKilled)"
        found.append(PodTrouble("CrashLoop", text, crashing, final=True))
    if fleet.ready < fleet.sound:
        found.append(PodTrouble("Starting", "starting", fleet.sound - fleet.ready))
    return tuple(found)


def router_seen(router: Router, report: RouterReportSpec | None) -> RouterSeen:
    """A router's pod."""
    return RouterSeen(
        router.pod,
        router.uid,
        router.ready and not router.frozen and not router.starts,
        router.terminating,
        router.born,
        router.stops_by,
        report,
        router.readiness_since,
        router.never_ran,
    )


def report_of(cluster: Cluster, router: Router) -> RouterReportSpec | None:
    """What a router says of the routes that it has in force."""
    if router.starts:
        return None
    if router.applied is None:
        return RouterReportSpec(pod_uid=router.uid)
    uid, generation, spec = router.applied
    ready = {name: 0 if fleet.unseen else fleet.ready for name, fleet in cluster.fleets.items()}
    failing = {name: fleet.failing for name, fleet in cluster.fleets.items()}
    known = fleets_of(spec)
    return RouterReportSpec(
        pod_uid=router.uid,
        routes=(
            RouteReport(
                name="churn",
                uid=uid,
                generation=generation,
                fleets=tuple(
                    FleetReport(
                        name=n,
                        hosts=ready.get(n, 0),
                        healthy=max(0, ready.get(n, 0) - failing.get(n, 0)),
                        sample_answer=cluster.sample_answer if failing.get(n) else None,
                    )
                    for n in known
                ),
                draining=tuple(sorted(router.busy - known)),
            ),
        ),
        rejected=_rejected(cluster),
    )


def _rejected(cluster: Cluster) -> tuple[RejectedRoute, ...]:
    route, said = cluster.route, cluster.rejected
    if route is None or not said:
        return ()
    return (RejectedRoute(name="churn", uid=route.uid, generation=route.generation, message=said),)
