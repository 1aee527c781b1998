"""The fleets of a revision: which there must be, whether they are ready, and what blocks them in a person's words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sluice.api.reasons import Cause, Reason
from sluice.api.status import DeployedImage, VariantStatus, VariantSummary
from sluice.core.cluster import routers
from sluice.core.cluster.actions import EnsureFleet
from sluice.core.cluster.names import fleet_name
from sluice.core.cluster.observation import ClusterObservation, FleetSeen, PodTrouble
from sluice.core.cluster.routing import Side, production_variants, shadow_variants

STARTUP_SECONDS = 480
"""containerStartupHealthCheckTimeoutInSeconds where the variant says nothing."""
DOWNLOAD_SECONDS = 3600
"""modelDataDownloadTimeoutInSeconds where the variant says nothing."""
PLACE_SECONDS = 900
"""What scheduling, a node's start and the image's pull may take beside download and start-up."""

_REASONS: Mapping[str, tuple[Reason, Cause]] = {
    "Unschedulable": (Reason.UNSCHEDULABLE, Cause.CAPACITY),
    "Quota": (Reason.QUOTA_EXCEEDED, Cause.CAPACITY),
    "ImagePull": (Reason.IMAGE_PULL_FAILED, Cause.HEALTH),
    "CrashLoop": (Reason.CRASH_LOOPING, Cause.HEALTH),
    "ModelDataFailed": (Reason.MODEL_DATA_FAILED, Cause.MODEL_DATA),
    "SourceMoved": (Reason.MODEL_DATA_FAILED, Cause.MODEL_DATA),
    "PingFailing": (Reason.PING_FAILING, Cause.HEALTH),
    "Refused": (Reason.POD_REFUSED, Cause.CAPACITY),
    "ContainerConfig": (Reason.CONTAINER_CONFIG_INVALID, Cause.HEALTH),
    "ImageDrift": (Reason.IMAGE_DRIFT, Cause.HEALTH),
    "SampleInvocationFailed": (Reason.SAMPLE_INVOCATION_FAILED, Cause.HEALTH),
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """One fleet that there must be."""

    name: str
    variant: Mapping[str, Any]
    count: int
    """Replicas, if it has to be made."""
    sample: str
    """How its pods must answer the sample invocation, in words; empty: there is none."""
    budget_seconds: int
    """Until it has to be ready."""
    shadow: bool = False


def wanted(endpoint: str, side: Side, counts: Mapping[str, int]) -> tuple[Wanted, ...]:
    """The fleets of a revision. `counts`: live instance counts by variant; absent: the spec's."""
    found = [(variant, False) for variant in production_variants(side.endpoint_config)]
    found += [(variant, True) for variant in shadow_variants(side.endpoint_config)]
    return tuple(
        Wanted(
            name=fleet_name(endpoint, str(variant["variantName"]), side.fleet_hash),
            variant=variant,
            count=counts.get(str(variant["variantName"]), int(variant.get("initialInstanceCount") or 1)),
            sample=_sample_answer(side.models[variant["modelName"]]),
            budget_seconds=_budget_seconds(variant, side.models[variant["modelName"]]),
            shadow=shadow,
        )
        for variant, shadow in found
    )


def ensure(fleet: Wanted, side: Side) -> EnsureFleet:
    """The action that makes it."""
    return EnsureFleet(
        name=fleet.name,
        variant=str(fleet.variant["variantName"]),
        revision=side.revision,
        fleet_hash=side.fleet_hash,
        endpoint_config=side.endpoint_config,
        models=side.models,
        replicas=fleet.count,
        shadow=fleet.shadow,
    )


def ready(seen: ClusterObservation, fleet: Wanted, least: int | None = None) -> bool:
    """Whether so many pods (all that it is scaled to) are ready and, where it has one, have answered the sample
    invocation."""
    found = seen.fleet(fleet.name)
    if found is None or found.deleting:
        return False
    count = found.replicas if least is None else least
    if found.ready < count:
        return False
    return not fleet.sample or routers.sees_healthy(seen, fleet.name, count)


def silent(seen: ClusterObservation, fleets: Iterable[Wanted]) -> tuple[Wanted, ...]:
    """The fleets of production variants without a ready pod."""
    found = ((fleet, seen.fleet(fleet.name)) for fleet in fleets if not fleet.shadow)
    return tuple(fleet for fleet, here in found if here is None or here.ready == 0)


def trouble(seen: ClusterObservation, fleets: Iterable[Wanted]) -> tuple[Wanted, PodTrouble] | None:
    """The worst thing that blocks one of the fleets; pods that merely start are no trouble."""
    found = []
    for fleet in fleets:
        here = seen.fleet(fleet.name)
        for item in here.troubles if here is not None else ():
            if item.reason != "Starting":
                found.append((fleet, item))
        if here is not None and fleet.sample and here.ready and not routers.sees_healthy(seen, fleet.name, here.ready):
            said = routers.sample_answer(seen, fleet.name)
            text = f"ready pods do not answer the sample invocation {fleet.sample}{said and f': {said}'}"
            found.append((fleet, PodTrouble("SampleInvocationFailed", text, here.ready)))
    return min(found, key=lambda pair: (not pair[1].final, pair[1].reason == "SampleInvocationFailed"), default=None)


def meaning(item: PodTrouble) -> tuple[Reason, Cause]:
    """The condition's reason and the deployment's cause behind a trouble."""
    return _REASONS.get(item.reason, (Reason.PENDING, Cause.HEALTH))


def words(fleet: Wanted, item: PodTrouble) -> str:
    """`variant a: 2 pods: ...`."""
    pods = f"{item.pods} pod" + ("" if item.pods == 1 else "s")
    return f"variant {fleet.variant['variantName']}: {pods}: {item.message}"


def starting(seen: ClusterObservation, fleets: Iterable[Wanted]) -> str:
    """How far the fleets are: `a 1/3, b 2/2 instances ready`."""
    parts = []
    for fleet in fleets:
        here = seen.fleet(fleet.name)
        total = here.replicas if here is not None else fleet.count
        parts.append(f"{fleet.variant['variantName']} {min(here.ready, total) if here is not None else 0}/{total}")
    return f"{', '.join(parts)} instances ready"


def moving_images(models: Mapping[str, Mapping[str, Any]]) -> tuple[str, ...]:
    """Images that name no digest and the tag `latest`, or no tag: what they stand for moves under the fleet."""
    found = set()
    for model in models.values():
        for container in (*(model.get("containers") or ()), *filter(None, [model.get("primaryContainer")])):
            image = str(container.get("image") or "")
            name, _, tag = image.rpartition("/")[2].partition(":")
            if image and "@" not in image and (not tag or tag == "latest") and name:
                found.add(image)
    return tuple(sorted(found))


def strangers(seen: ClusterObservation) -> dict[str, tuple[str, ...]]:
    """Pods that run something else than their fleet's record says: they get no requests."""
    return {fleet.name: fleet.strangers for fleet in seen.fleets if fleet.strangers}


def budget(fleets: Iterable[Wanted]) -> timedelta:
    """Until all of them have to be ready."""
    return timedelta(seconds=max((fleet.budget_seconds for fleet in fleets), default=0))


def summary(
    fleet: Wanted, here: FleetSeen | None, weight: float | None, before: VariantSummary | None, status: str | None
) -> VariantSummary:
    """A variant as DescribeEndpoint shows it. `weight`: the weight that is to be in force."""
    images = here.record.images if here is not None and here.record is not None else ()
    words = (VariantStatus(status=status, start_time=here.created if here is not None else None),) if status else ()
    return VariantSummary(
        variant_name=str(fleet.variant["variantName"]),
        current_weight=before.current_weight if before is not None else None,
        desired_weight=weight,
        current_instance_count=here.ready if here is not None else 0,
        desired_instance_count=here.replicas if here is not None else fleet.count,
        instance_type=fleet.variant.get("instanceType"),
        deployed_images=tuple(
            DeployedImage(
                specified_image=image.specified[:512],
                resolved_image=image.resolved[:512],
                resolution_time=here.record.at if here is not None and here.record is not None else None,
            )
            for image in images[:15]
        ),
        variant_status=words,
        last_applied_count=before.last_applied_count if before is not None else None,
        last_applied_weight=before.last_applied_weight if before is not None else None,
        retained_weight=before.retained_weight if before is not None else None,
    )


def _sample_answer(model: Mapping[str, Any]) -> str:
    sample = (model.get("kubernetes") or {}).get("sampleInvocation")
    if not sample:
        return ""
    return f"with status {sample.get('expectedStatus') or 200} within {sample.get('timeoutSeconds') or 5} s"


def _budget_seconds(variant: Mapping[str, Any], model: Mapping[str, Any]) -> int:
    start = int(variant.get("containerStartupHealthCheckTimeoutInSeconds") or STARTUP_SECONDS)
    containers = [*(model.get("containers") or ()), *filter(None, [model.get("primaryContainer")])]
    loads = any(
        c.get("modelDataUrl") or c.get("modelDataSource") or c.get("additionalModelDataSources") for c in containers
    )
    download = int(variant.get("modelDataDownloadTimeoutInSeconds") or DOWNLOAD_SECONDS) if loads else 0
    return PLACE_SECONDS + download + start
