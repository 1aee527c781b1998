"""Turns SageMaker's answers into Sluice's frozen values, and only that."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast, get_args

from sluice.api.status import DeployedImage, EndpointStatusWord, VariantStatus, VariantSummary
from sluice.core.observation import Described, Listed, PendingDeployment
from sluice.core.requests import model_members

ENDPOINT_STATUSES: Final = frozenset(get_args(EndpointStatusWord))

# What names or dates an EndpointConfig or Model, and what the service adds: not its content.
_NOT_CONTENT: Final = frozenset(
    {
        "EndpointConfigName",
        "EndpointConfigArn",
        "ModelName",
        "ModelArn",
        "CreationTime",
        "DeploymentRecommendation",
        "ResponseMetadata",
    }
)


def milliseconds(value: datetime) -> datetime:
    """UTC, cut to milliseconds: how statuses keep times, so that what is compared was cut alike."""
    value = value.astimezone(UTC)
    return value.replace(microsecond=value.microsecond // 1000 * 1000)


def listed(item: Mapping[str, Any]) -> Listed:
    """An EndpointSummary of ListEndpoints."""
    return Listed(
        name=str(item["EndpointName"]),
        status=cast("EndpointStatusWord", item["EndpointStatus"]),
        last_modified=milliseconds(item["LastModifiedTime"]),
    )


def described(answer: Mapping[str, Any]) -> Described:
    """DescribeEndpoint's answer. The caller has checked that EndpointStatus is a word Sluice knows."""
    pending = answer.get("PendingDeploymentSummary")
    return Described(
        name=str(answer["EndpointName"]),
        arn=str(answer["EndpointArn"]),
        status=cast("EndpointStatusWord", answer["EndpointStatus"]),
        endpoint_config_name=answer.get("EndpointConfigName"),
        failure_reason=answer.get("FailureReason") or None,
        creation=milliseconds(answer["CreationTime"]),
        last_modified=milliseconds(answer["LastModifiedTime"]),
        variants=variants(answer.get("ProductionVariants"))[:10],
        shadow_variants=variants(answer.get("ShadowProductionVariants"))[:1],
        pending=None if pending is None else _pending(pending),
    )


def variants(items: Iterable[Mapping[str, Any]] | None) -> tuple[VariantSummary, ...]:
    """ProductionVariantSummary or PendingProductionVariantSummary items."""
    return tuple(_variant(item) for item in items or ())


def content(answer: Mapping[str, Any]) -> dict[str, Any]:
    """DescribeEndpointConfig's or DescribeModel's members without names, ARNs and times."""
    return {key: value for key, value in answer.items() if key not in _NOT_CONTENT}


def model_names(endpoint_config: Mapping[str, Any]) -> tuple[str, ...]:
    """The models that an EndpointConfig's variants and their instance pools name, each once, in order."""
    groups = (endpoint_config.get("ProductionVariants"), endpoint_config.get("ShadowProductionVariants"))
    variants = (variant for group in groups for variant in group or ())
    return tuple(dict.fromkeys(holder[member] for variant in variants for holder, member in model_members(variant)))


def _pending(summary: Mapping[str, Any]) -> PendingDeployment:
    start = summary.get("StartTime")
    return PendingDeployment(
        endpoint_config_name=str(summary["EndpointConfigName"]),
        start_time=None if start is None else milliseconds(start),
        variants=(
            *variants(summary.get("ProductionVariants"))[:10],
            *variants(summary.get("ShadowProductionVariants"))[:1],
        ),
    )


def _variant(item: Mapping[str, Any]) -> VariantSummary:
    return VariantSummary(
        variant_name=str(item["VariantName"]),
        current_weight=item.get("CurrentWeight"),
        desired_weight=item.get("DesiredWeight"),
        current_instance_count=item.get("CurrentInstanceCount"),
        desired_instance_count=item.get("DesiredInstanceCount"),
        instance_type=item.get("InstanceType"),
        deployed_images=tuple(_image(image) for image in item.get("DeployedImages") or ())[:15],
        variant_status=tuple(_variant_status(entry) for entry in item.get("VariantStatus") or ())[:5],
    )


def _image(image: Mapping[str, Any]) -> DeployedImage:
    return DeployedImage(
        specified_image=image.get("SpecifiedImage"),
        resolved_image=image.get("ResolvedImage"),
        resolution_time=image.get("ResolutionTime"),
    )


def _variant_status(entry: Mapping[str, Any]) -> VariantStatus:
    message = entry.get("StatusMessage")
    return VariantStatus(
        status=str(entry["Status"]),
        status_message=None if message is None else str(message)[:1024],
        start_time=entry.get("StartTime"),
    )
