"""Whether a namespace may do what its Endpoint asks of AWS: an administrator's policy, asked before any AWS call.

An Endpoint is permitted if one rule of the policy allows all of it. No policy permits nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from sluice.api.reasons import Reason
from sluice.core.finding import Finding

_LISTS = ("namespaces", "accounts", "regions", "assumeRoles", "executionRoles", "endpointNamePrefixes")


class PolicyError(ValueError):
    """The policy cannot be read; the message names rule and field."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. All patterns are shell globs; `endpoint_name_prefixes` are plain and may hold {namespace}."""

    namespaces: tuple[str, ...]
    accounts: tuple[str, ...] = ("*",)
    regions: tuple[str, ...] = ("*",)
    assume_roles: tuple[str, ...] = ()
    execution_roles: tuple[str, ...] = ()
    endpoint_name_prefixes: tuple[str, ...] = ("",)
    adopt: bool = False


@dataclass(frozen=True, slots=True)
class Ask:
    """What an Endpoint wants to do. account_id None: not known yet, judged again when it is."""

    namespace: str
    region: str
    endpoint_name: str
    account_id: str | None = None
    assume_role: str | None = None
    execution_roles: tuple[str, ...] = ()
    adopt: bool = False


@dataclass(frozen=True, slots=True)
class Policy:
    """The administrator's rules."""

    rules: tuple[Rule, ...] = ()

    @classmethod
    def parse(cls, document: Any) -> "Policy":
        """From the ConfigMap's YAML, decoded. Raises PolicyError."""
        if not isinstance(document, Mapping) or not isinstance(document.get("rules"), list):
            raise PolicyError("policy.yaml: found no list `rules`; write `rules: [{namespaces: [...], ...}]`")
        return cls(tuple(_rule(index, raw) for index, raw in enumerate(document["rules"])))

    def judge(self, ask: Ask) -> Finding | None:
        """None if permitted; else what the nearest rule does not allow."""
        mine = [rule for rule in self.rules if _any(rule.namespaces, ask.namespace)]
        if not mine:
            return _refused(f"no rule of the permission policy names namespace {ask.namespace!r}")
        refusals = [_refusal(rule, ask) for rule in mine]
        if None in refusals:
            return None
        return _refused("; ".join(dict.fromkeys(refusal for refusal in refusals if refusal)))

    def judge_execution_roles(self, namespace: str, roles: tuple[str, ...]) -> Finding | None:
        """None if pods of the namespace may assume these roles. The operator calls nothing in AWS for them, so no
        account, region or name is asked about; without roles nothing is."""
        if not roles:
            return None
        mine = [rule for rule in self.rules if _any(rule.namespaces, namespace)]
        if not mine:
            return _refused(f"no rule of the permission policy names namespace {namespace!r}")
        if any(all(_any(rule.execution_roles, role) for role in roles) for rule in mine):
            return None
        allowed = sorted({pattern for rule in mine for pattern in rule.execution_roles})
        return _refused(f"executionRoleArn {', '.join(roles)} is not among {allowed}")


def _rule(index: int, raw: Any) -> Rule:
    if not isinstance(raw, Mapping):
        raise PolicyError(f"policy.yaml: rules[{index}]: found {type(raw).__name__}, allowed is a map")
    unknown = sorted(set(raw) - {*_LISTS, "adopt"})
    if unknown:
        raise PolicyError(
            f"policy.yaml: rules[{index}]: found unknown {unknown}, allowed are {sorted({*_LISTS, 'adopt'})}"
        )
    for name in _LISTS:
        value = raw.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise PolicyError(f"policy.yaml: rules[{index}].{name}: found {value!r}, allowed is a list of strings")
    if not isinstance(raw.get("adopt", False), bool):
        raise PolicyError(f"policy.yaml: rules[{index}].adopt: found {raw['adopt']!r}, allowed are true and false")
    if not raw.get("namespaces"):
        raise PolicyError(f"policy.yaml: rules[{index}].namespaces: missing; name at least one namespace or '*'")
    return Rule(
        namespaces=tuple(raw["namespaces"]),
        accounts=tuple(raw.get("accounts", ["*"])),
        regions=tuple(raw.get("regions", ["*"])),
        assume_roles=tuple(raw.get("assumeRoles", [])),
        execution_roles=tuple(raw.get("executionRoles", [])),
        endpoint_name_prefixes=tuple(raw.get("endpointNamePrefixes", [""])),
        adopt=raw.get("adopt", False),
    )


def _refusal(rule: Rule, ask: Ask) -> str | None:
    if ask.account_id is not None and not _any(rule.accounts, ask.account_id):
        return f"account {ask.account_id} is not among {list(rule.accounts)}"
    if not _any(rule.regions, ask.region):
        return f"region {ask.region} is not among {list(rule.regions)}"
    if ask.assume_role is not None and not _any(rule.assume_roles, ask.assume_role):
        return f"spec.sagemaker.assumeRoleArn {ask.assume_role} is not among {list(rule.assume_roles)}"
    for role in ask.execution_roles:
        if not _any(rule.execution_roles, role):
            return f"executionRoleArn {role} is not among {list(rule.execution_roles)}"
    prefixes = [prefix.replace("{namespace}", ask.namespace) for prefix in rule.endpoint_name_prefixes]
    if not any(ask.endpoint_name.startswith(prefix) for prefix in prefixes):
        return f"endpoint name {ask.endpoint_name} starts with none of {prefixes}"
    if ask.adopt and not rule.adopt:
        return "adoption (annotation sluice.dev/adopt) is not allowed"
    return None


def _refused(why: str) -> Finding:
    return Finding(Reason.NOT_PERMITTED, f"{why}; an administrator can allow it in ConfigMap sluice-permissions")


def _any(patterns: tuple[str, ...], value: str) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)
