"""Wrong manifests in numbers, each with what must be said about it: made from a seed, so every run tries the same.

`refused` breaks one place of a valid manifest against the CRD's own schema; the API server must name that place.
`accepted` are manifests that one object alone cannot show to be wrong; the operator must name the field and a reason.
What is right there is computed here anew from SageMaker's documented limits, not asked of the operator's code.
"""

import math
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tests.operator.harness.manifests import Manifest, config, endpoint, manifest, model, variant

Path = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Refused:
    """A manifest that the API server must refuse, with the cause's field and reason."""

    what: str
    manifest: Manifest
    field: str
    reason: str


def refused(bases: list[Manifest], schemas: dict[str, Manifest], number: int, seed: int) -> list[Refused]:
    """So many mutations, spread over kinds of mutation first and places second."""
    dice = Random(seed)  # noqa: S311 - reproducible, not secret
    by_what: dict[str, list[Refused]] = {}
    for base in bases:
        for found in _walk(base, base["spec"], schemas[base["kind"]]["properties"]["spec"], ("spec",)):
            by_what.setdefault(found.what, []).append(found)
    piles = [by_what[what] for what in sorted(by_what)]
    for pile in piles:
        dice.shuffle(pile)
    chosen: list[Refused] = []
    while len(chosen) < number:
        assert any(piles), f"the examples and schemas give {len(chosen)} mutations only"
        chosen += [pile.pop() for pile in piles if pile]
    return chosen[:number]


def _walk(base: Manifest, value: Any, schema: Manifest, path: Path) -> Iterator[Refused]:
    yield from _broken(base, value, schema, path)
    if isinstance(value, dict):
        for name in schema.get("required", ()):
            if name in value:
                yield Refused("required", _without(base, (*path, name)), _text((*path, name)), "FieldValueRequired")
        for name, item in value.items():
            inner = schema.get("properties", {}).get(name) or schema.get("additionalProperties")
            if isinstance(inner, dict) and "type" in inner:
                yield from _walk(base, item, inner, (*path, name))
    if isinstance(value, list) and value:
        yield from _walk(base, value[0], schema["items"], (*path, 0))


def _broken(base: Manifest, value: Any, schema: Manifest, path: Path) -> Iterator[Refused]:
    def broken(what: str, wrong: Any, reason: str) -> Refused:
        return Refused(what, _with(base, path, wrong), _text(path), reason)

    if schema.get("type") in _OTHER_TYPE:
        yield broken("type", _OTHER_TYPE[schema["type"]], "FieldValueTypeInvalid")
    if "enum" in schema:
        wrong = 7 if schema["type"] == "integer" else "NoSuchWord"
        yield broken("enum", wrong, "FieldValueNotSupported")
    elif isinstance(value, str):
        if "pattern" in schema and schema["pattern"] not in _ANYTHING:
            yield broken("pattern", "\t\n", "FieldValueInvalid")
        if "maxLength" in schema:
            yield broken("length", "x" * (schema["maxLength"] + 1), "FieldValueTooLong")
    if isinstance(value, int | float) and not isinstance(value, bool) and "enum" not in schema:
        if "maximum" in schema:
            yield broken("maximum", int(schema["maximum"]) + 1, "FieldValueInvalid")
        if "minimum" in schema:
            yield broken("minimum", int(schema["minimum"]) - 1, "FieldValueInvalid")
    if isinstance(value, list) and schema.get("minItems"):
        yield broken("no items", [], "FieldValueInvalid")


_ANYTHING = (r"^[\S\s]*$", r"^[\s\S]+$")
"""Patterns of SageMaker's that no text breaks."""
_OTHER_TYPE: Manifest = {
    "object": "text", "array": "text", "string": 5, "integer": "five", "number": "five", "boolean": "yes",
}  # fmt: skip


def _at(root: Manifest, path: Path) -> Any:
    found: Any = root
    for step in path:
        found = found[step]
    return found


def _with(base: Manifest, path: Path, value: Any) -> Manifest:
    made = deepcopy(base)
    _at(made, path[:-1])[path[-1]] = value
    return made


def _without(base: Manifest, path: Path) -> Manifest:
    made = deepcopy(base)
    del _at(made, path[:-1])[path[-1]]
    return made


def _text(path: Path) -> str:
    """As the API server writes it: spec.a[0].b."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else str(step)
    return text


# What passes admission -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Accepted:
    """Manifests that pass admission, and the condition that an Endpoint must get."""

    what: str
    endpoint: str
    manifests: tuple[Manifest, ...]
    reason: str
    message: str
    """What Stalled's message must begin with: field path, what was found."""
    ignored: tuple[str, ...] = field(default=())
    """Paths that condition FieldsIgnored must name; the Endpoint is Ready."""


Maker = Callable[[Random, str], Accepted]
FORBIDDEN_ROLE = "arn:aws:iam::999999999999:role/forbidden"
POLICY: Manifest = {
    "rules": [
        {
            "namespaces": ["*"],
            "regions": ["us-east-1"],
            "executionRoles": ["arn:aws:iam::111122223333:role/*"],
            "endpointNamePrefixes": ["bad-", "good-", "Bad-"],
        }
    ]
}
"""What the administrator permits while these are tried."""
_GUARDRAIL = "spec.deploymentConfig"
_ROUTING = f"{_GUARDRAIL}.blueGreenUpdatePolicy.trafficRoutingConfiguration"


def accepted(number: int, seed: int) -> list[Accepted]:
    """So many, all kinds in turn; every endpoint has a name, a config and a model of its own."""
    dice = Random(seed)  # noqa: S311 - reproducible, not secret
    return [_MAKERS[i % len(_MAKERS)](dice, f"bad-{i}") for i in range(number)]


def _three(name: str, *variants: Manifest, deployment: Manifest | None = None, **spec: Any) -> tuple[Manifest, ...]:
    shown = variants or (variant(model=name),)
    return (
        model(name=name),
        config(*shown, name=name),
        endpoint(deployment, name=name, endpointConfigName=name, **spec),
    )


def _blue_green(routing: Manifest, **fields: Any) -> Manifest:
    return {"blueGreenUpdatePolicy": {"trafficRoutingConfiguration": {"waitIntervalInSeconds": 0, **routing}, **fields}}


def _size(
    dice: Random, name: str, what: str, path: str, low: int, high: int, policy: Callable[[Manifest], Manifest]
) -> Accepted:
    """An INSTANCE_COUNT outside of low to high percent of a random count."""
    count = dice.randint(2, 60)
    least, most = max(1, math.ceil(count * low / 100)), count * high // 100
    wrong = dice.choice([value for value in range(1, count + 1) if not least <= value <= most])
    size = {"type": "INSTANCE_COUNT", "value": wrong}
    manifests = _three(name, variant(model=name, count=count), deployment=policy(size))
    message = f"{path}: found {wrong} instances for variant a of {count}; allowed is"
    return Accepted(what, name, manifests, "InvalidDeploymentConfig", message)


def _canary(dice: Random, name: str) -> Accepted:
    return _size(
        dice, name, "canary", f"{_ROUTING}.canarySize.value", 0, 50,
        lambda size: _blue_green({"type": "CANARY", "canarySize": size}),
    )  # fmt: skip


def _linear(dice: Random, name: str) -> Accepted:
    return _size(
        dice, name, "linear", f"{_ROUTING}.linearStepSize.value", 10, 50,
        lambda size: _blue_green({"type": "LINEAR", "linearStepSize": size}),
    )  # fmt: skip


def _rolling(dice: Random, name: str) -> Accepted:
    return _size(
        dice, name, "rolling", f"{_GUARDRAIL}.rollingUpdatePolicy.maximumBatchSize.value", 5, 50,
        lambda size: {"rollingUpdatePolicy": {"maximumBatchSize": size, "waitIntervalInSeconds": 0}},
    )  # fmt: skip


def _waits_of_steps(dice: Random, name: str) -> Accepted:
    """A linear deployment in steps of instances whose bakes alone outlast the timeout."""
    count = dice.randint(20, 40)
    step = math.ceil(count / 10)
    bakes = math.ceil(count / step) - 1
    wait, final = dice.randint(600, 1200), dice.randint(0, 300)
    longest = bakes * wait + final
    timeout = dice.randint(max(600, wait + final + 1), longest)
    deployment = _blue_green(
        {
            "type": "LINEAR",
            "linearStepSize": {"type": "INSTANCE_COUNT", "value": step},
            "waitIntervalInSeconds": wait,
        },
        terminationWaitInSeconds=final,
        maximumExecutionTimeoutInSeconds=timeout,
    )
    message = (
        f"{_GUARDRAIL}.blueGreenUpdatePolicy.maximumExecutionTimeoutInSeconds: found {timeout} s, but the waits alone "
        f"take {longest} s"
    )
    manifests = _three(name, variant(model=name, count=count), deployment=deployment)
    return Accepted("waits", name, manifests, "InvalidDeploymentConfig", message)


def _waits_of_batches(dice: Random, name: str) -> Accepted:
    """The same for batches: every batch bakes."""
    count = dice.randint(20, 40)
    batch = math.ceil(count / 20)
    wait = dice.randint(300, 600)
    longest = math.ceil(count / batch) * wait
    timeout = dice.randint(max(600, wait + 1), min(longest, 28800))
    deployment = {
        "rollingUpdatePolicy": {
            "maximumBatchSize": {"type": "INSTANCE_COUNT", "value": batch},
            "waitIntervalInSeconds": wait,
            "maximumExecutionTimeoutInSeconds": timeout,
        }
    }
    message = (
        f"{_GUARDRAIL}.rollingUpdatePolicy.maximumExecutionTimeoutInSeconds: found {timeout} s, but the waits alone "
        f"take {longest} s"
    )
    manifests = _three(name, variant(model=name, count=count), deployment=deployment)
    return Accepted("waits of batches", name, manifests, "InvalidDeploymentConfig", message)


def _no_config(dice: Random, name: str) -> Accepted:
    absent = f"absent-{dice.randint(0, 999)}"
    manifests = (endpoint(name=name, endpointConfigName=absent),)
    return Accepted(
        "no config", name, manifests, "MissingReference", f"spec.endpointConfigName: found no EndpointConfig {absent}"
    )


def _no_model(dice: Random, name: str) -> Accepted:
    absent = f"absent-{dice.randint(0, 999)}"
    manifests = _three(name, variant("a", model=name), variant("b", model=absent))
    message = f"EndpointConfig/{name} productionVariants[].modelName: found no Model {absent}"
    return Accepted("no model", name, manifests, "MissingReference", message)


def _cluster(dice: Random, name: str) -> Accepted:
    manifests = _three(name, backend="Cluster")
    return Accepted("cluster", name, manifests, "BackendNotAvailable", "Start: spec.backend: found Cluster")


def _region(dice: Random, name: str) -> Accepted:
    region = dice.choice(["eu-west-1", "ap-south-1", "us-west-2"])
    manifests = _three(name, sagemaker={"region": region})
    return Accepted("region", name, manifests, "NotPermitted", f"region {region} is not among ['us-east-1']")


def _assumed_role(dice: Random, name: str) -> Accepted:
    manifests = _three(name, sagemaker={"assumeRoleArn": FORBIDDEN_ROLE})
    message = f"spec.sagemaker.assumeRoleArn {FORBIDDEN_ROLE} is not among []"
    return Accepted("assumed role", name, manifests, "NotPermitted", message)


def _execution_role(dice: Random, name: str) -> Accepted:
    first, *others = _three(name)
    first["spec"]["executionRoleArn"] = FORBIDDEN_ROLE
    message = f"executionRoleArn {FORBIDDEN_ROLE} is not among ['arn:aws:iam::111122223333:role/*']"
    return Accepted("execution role", name, (first, *others), "NotPermitted", message)


def _prefix(dice: Random, name: str) -> Accepted:
    shown = f"Elsewhere-{dice.randint(0, 999)}"
    manifests = _three(name, endpointName=shown)
    return Accepted("prefix", name, manifests, "NotPermitted", f"endpoint name {shown} starts with none of")


def _adoption(dice: Random, name: str) -> Accepted:
    *others, last = _three(name)
    last["metadata"]["annotations"] = {"sluice.dev/adopt": "true"}
    message = "adoption (annotation sluice.dev/adopt) is not allowed"
    return Accepted("adoption", name, (*others, last), "NotPermitted", message)


def _pin(dice: Random, name: str) -> Accepted:
    wrong = dice.choice(["yes", "{}", '{"region": 1', "[]"])
    *others, last = _three(name)
    last["metadata"]["annotations"] = {"sluice.dev/external": wrong}
    message = f"metadata.annotations[sluice.dev/external]: found {wrong!r}, allowed is"
    return Accepted("pin", name, (*others, last), "PlacementChanged", message)


def _ignored(dice: Random, name: str) -> Accepted:
    account = f"account-{dice.randint(0, 999)}"
    first = manifest(
        "Model",
        name,
        {
            "primaryContainer": {"image": "registry.example/churn:1"},
            "kubernetes": {"serviceAccountName": account},
        },
    )
    others = _three(name)[1:]
    path = f"Model/{name}.spec.kubernetes"
    return Accepted("ignored", name, (first, *others), "", "", ignored=(path,))


_MAKERS: tuple[Maker, ...] = (
    _canary, _linear, _rolling, _waits_of_steps, _waits_of_batches, _no_config, _no_model, _cluster, _region,
    _assumed_role, _execution_role, _prefix, _adoption, _pin, _ignored,
)  # fmt: skip
