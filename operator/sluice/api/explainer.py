"""ExplainerConfig: explanations of predictions by SageMaker Clarify. Only SageMaker has it."""

from typing import Annotated, Literal

from pydantic import Field

from sluice.api.base import ApiModel, ListAtomic
from sluice.api.types import MAX_INT32, Int32, Url

ClarifyText = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^.*$")]
ClarifyLanguage = Literal[
    "af", "sq", "ar", "hy", "eu", "bn", "bg", "ca", "zh", "hr", "cs", "da", "nl", "en", "et", "fi", "fr", "de", "el",
    "gu", "he", "hi", "hu", "is", "id", "ga", "it", "kn", "ky", "lv", "lt", "lb", "mk", "ml", "mr", "ne", "nb", "fa",
    "pl", "pt", "ro", "ru", "sa", "sr", "tn", "si", "sk", "sl", "es", "sv", "tl", "ta", "tt", "te", "tr", "uk", "ur",
    "yo", "lij", "xx",
]  # fmt: skip


class ClarifyInferenceConfig(ApiModel):
    """How SageMaker Clarify calls the model."""

    features_attribute: ClarifyText | None = None
    """JMESPath of the features in a JSON Lines request."""
    content_template: ClarifyText | None = None
    """The template of a JSON Lines request."""
    max_record_count: Annotated[int | None, Field(ge=1, le=MAX_INT32), Int32] = None
    """Records in one request."""
    max_payload_in_mb: Annotated[int | None, Field(alias="maxPayloadInMB", ge=1, le=25), Int32] = None
    """Size of one request."""
    probability_index: Annotated[int | None, Field(ge=0, le=MAX_INT32), Int32] = None
    """Where the probabilities stand in a CSV response."""
    label_index: Annotated[int | None, Field(ge=0, le=MAX_INT32), Int32] = None
    """Where the labels stand in a CSV response."""
    probability_attribute: ClarifyText | None = None
    """JMESPath of the probabilities."""
    label_attribute: ClarifyText | None = None
    """JMESPath of the labels."""
    label_headers: Annotated[tuple[ClarifyText, ...] | None, ListAtomic(), Field(min_length=1, max_length=16)] = None
    """Names of the labels."""
    feature_headers: Annotated[tuple[ClarifyText, ...] | None, ListAtomic(), Field(min_length=1, max_length=256)] = None
    """Names of the features."""
    feature_types: Annotated[
        tuple[Literal["numerical", "categorical", "text"], ...] | None,
        ListAtomic(),
        Field(min_length=1, max_length=256),
    ] = None
    """Types of the features."""


class ClarifyShapBaselineConfig(ApiModel):
    """The baseline that explanations compare with."""

    mime_type: (
        Annotated[str, Field(max_length=255, pattern=r"^[a-zA-Z0-9](-*[a-zA-Z0-9])*\/[a-zA-Z0-9](-*[a-zA-Z0-9+.])*$")]
        | None
    ) = None
    """Type of the baseline."""
    shap_baseline: Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[\s\S]+$")] | None = None
    """The baseline itself."""
    shap_baseline_uri: Url | None = None
    """The baseline in S3, if it is larger."""


class ClarifyTextConfig(ApiModel):
    """How text features are explained."""

    language: ClarifyLanguage
    """Language of the text."""
    granularity: Literal["token", "sentence", "paragraph"]
    """The unit that is explained."""


class ClarifyShapConfig(ApiModel):
    """Settings of Kernel SHAP."""

    shap_baseline_config: ClarifyShapBaselineConfig
    """The baseline."""
    number_of_samples: Annotated[int | None, Field(ge=1, le=MAX_INT32), Int32] = None
    """Samples for Kernel SHAP."""
    use_logit: bool | None = None
    """Explains logits instead of probabilities."""
    seed: Annotated[int | None, Field(ge=-MAX_INT32 - 1, le=MAX_INT32), Int32] = None
    """Seed of the sampling."""
    text_config: ClarifyTextConfig | None = None
    """For text features."""


class ClarifyExplainerConfig(ApiModel):
    """Explanations by SageMaker Clarify."""

    enable_explanations: ClarifyText | None = None
    """JMESPath that says which records are explained."""
    inference_config: ClarifyInferenceConfig | None = None
    """How the model is called."""
    shap_config: ClarifyShapConfig
    """Settings of Kernel SHAP."""


class ExplainerConfig(ApiModel):
    """Explanations with each inference."""

    clarify_explainer_config: ClarifyExplainerConfig | None = None
    """Explanations by SageMaker Clarify."""
