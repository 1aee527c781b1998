"""The pydantic models read what the API server stores and write it back unchanged."""

from typing import Any

import pytest
from pydantic import ValidationError

from sluice.api.crds import kind
from sluice.api.endpointconfig import EndpointConfigSpec, ProductionVariant
from sluice.api.model import ModelSpec
from sluice.api.reasons import Cause, CommandResult, Outcome
from sluice.api.status import EndpointStatus

from .manifests import FULL, Manifest, config, model

MANIFESTS = [
    pytest.param(name, manifest["spec"], id=f"{name}-{n}")
    for name, all in FULL.items()
    for n, manifest in enumerate(all)
]


@pytest.mark.parametrize(("name", "spec"), MANIFESTS)
def test_a_spec_survives_reading_and_writing(name: str, spec: Manifest) -> None:
    model_class = kind(name).spec
    assert model_class.from_manifest(spec).to_manifest() == spec


def test_fields_are_read_by_sagemakers_names_and_used_by_pythons() -> None:
    spec = EndpointConfigSpec.from_manifest(config()["spec"])
    (variant,) = spec.production_variants
    assert (variant.variant_name, variant.initial_instance_count) == ("a", 1)
    assert ProductionVariant(variant_name="a", volume_size_in_gb=2, enable_ssm_access=True).to_manifest() == {
        "variantName": "a",
        "volumeSizeInGB": 2,
        "enableSSMAccess": True,
    }


def test_values_are_frozen_and_unknown_fields_are_refused() -> None:
    spec = ModelSpec.from_manifest(model()["spec"])
    with pytest.raises(ValidationError, match="frozen"):
        spec.execution_role_arn = "other"
    with pytest.raises(ValidationError, match="unheardOf"):
        ModelSpec.from_manifest({**model()["spec"], "unheardOf": 1})


def test_limits_hold_in_python_too() -> None:
    with pytest.raises(ValidationError, match="initialInstanceCount"):
        EndpointConfigSpec.from_manifest(
            {"productionVariants": [{"variantName": "a", "initialInstanceCount": 0}]},
        )


@pytest.mark.parametrize(
    ("where", "read"),
    [
        (("deployment", "cause"), Cause.UNKNOWN),
        (("history", 0, "cause"), Cause.UNKNOWN),
        (("history", 0, "outcome"), Outcome.FAILED),
        (("lastDeployment", "outcome"), Outcome.FAILED),
        (("commands", 0, "result"), CommandResult.REFUSED),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_a_word_of_a_newer_operator_does_not_void_the_whole_status(where: tuple[str | int, ...], read: str) -> None:
    """The operator was rolled back: a status that cannot be read counts as lost."""
    time = "2026-01-01T00:00:00.000Z"
    last = {"revision": "churn-2", "fleetHash": "b", "outcome": "RolledBack", "cause": "Alarm", "endTime": time}
    status = {
        "revision": {"name": "churn-1", "number": 1, "fleetHash": "a", "contentHash": "a"},
        "deployment": {"stage": "RollingBack", "revision": "churn-2", "fleetHash": "b", "policy": "CANARY"},
        "lastDeployment": last,
        "history": [dict(last)],
        "commands": [{"command": "rollback", "value": "churn-1", "result": "Done", "time": time}],
        "latch": {"fleetHash": "b", "reason": "RolledBack", "time": time},
    }
    whole = EndpointStatus.from_manifest(status)
    place: Any = status
    for step in where[:-1]:
        place = place[step]
    place[where[-1]] = "Sunspots"
    found = EndpointStatus.from_manifest(status)
    assert (found.revision, found.latch) == (whole.revision, whole.latch)
    value: Any = found.to_manifest()
    for step in where:
        value = value[step]
    assert value == read
