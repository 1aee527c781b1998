"""Whether a namespace may do what its Endpoint asks of AWS: an administrator's policy, asked before any AWS call.

An Endpoint is permitted if one rule of the policy allows all of it. No policy permits nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from sluice.api.reasons import Reason
from sluice.core.finding import Finding

_LISTS = (
    "namespaces",
    "accounts",
    "regions",
    "assumeRoles",
    "executionRoles",
    "endpointNamePrefixes",
    "cloudWatchAlarms",
)
_SWITCHES = ("adopt", "prometheus")


class PolicyError(ValueError):
    """The policy cannot be read; the message names rule and field."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. All patterns are shell globs; `endpoint_name_prefixes` are plain and may hold {namespace}, and so may
    `cloud_watch_alarms`."""

    namespaces: tuple[str, ...]
    accounts: tuple[str, ...] = ("*",)
    regions: tuple[str, ...] = ("*",)
    assume_roles: tuple[str, ...] = ()
    execution_roles: tuple[str, ...] = ()
    endpoint_name_prefixes: tuple[str, ...] = ("",)
    adopt: bool = False
    cloud_watch_alarms: tuple[str, ...] = ("*",)
    prometheus: bool = True


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
        mine = self._of(ask.namespace)
        if not mine:
            return _unnamed(ask.namespace)
        refusals = [_refusal(rule, ask) for rule in mine]
        if None in refusals:
            return None
        return _refused("; ".join(dict.fromkeys(refusal for refusal in refusals if refusal)))

    def judge_execution_roles(self, namespace: str, roles: tuple[str, ...]) -> Finding | None:
        """None if pods of the namespace may assume these roles. The operator calls nothing in AWS for them, so no
        account, region or name is asked about; without roles nothing is."""
        if not roles:
            return None
        mine = self._of(namespace)
        if not mine:
            return _unnamed(namespace)
        if any(all(_any(rule.execution_roles, role) for role in roles) for rule in mine):
            return None
        allowed = sorted({pattern for rule in mine for pattern in rule.execution_roles})
        return _refused(f"executionRoleArn {', '.join(roles)} is not among {allowed}")

    def judge_cloud_watch_alarm(
        self, namespace: str, alarm: str, *, region: str | None, account_id: str | None
    ) -> Finding | None:
        """None if the operator may read this CloudWatch alarm with its own identity for an Endpoint in the cluster.
        What is None is not known yet, and not asked about."""
        mine = self._of(namespace)
        if not mine:
            return _unnamed(namespace)
        refusals = [_refusal_of_alarm(rule, namespace, alarm, region, account_id) for rule in mine]
        if None in refusals:
            return None
        return _refused("; ".join(dict.fromkeys(refusal for refusal in refusals if refusal)))

    def judge_prometheus(self, namespace: str) -> Finding | None:
        """None if the operator may ask its Prometheus for an Endpoint of this namespace."""
        mine = self._of(namespace)
        if not mine:
            return _unnamed(namespace)
        if any(rule.prometheus for rule in mine):
            return None
        return _refused("found an alarm that asks the operator's Prometheus, allowed is none (prometheus: false)")

    def asks_for_account(self, namespace: str) -> bool:
        """Whether it matters to an alarm of the namespace in which account it is."""
        mine = self._of(namespace)
        return bool(mine) and not any("*" in rule.accounts for rule in mine)

    def _of(self, namespace: str) -> list[Rule]:
        return [rule for rule in self.rules if _any(rule.namespaces, namespace)]


def _rule(index: int, raw: Any) -> Rule:
    if not isinstance(raw, Mapping):
        raise PolicyError(f"policy.yaml: rules[{index}]: found {type(raw).__name__}, allowed is a map")
    unknown = sorted(set(raw) - {*_LISTS, *_SWITCHES})
    if unknown:
        raise PolicyError(
            f"policy.yaml: rules[{index}]: found unknown {unknown}, allowed are {sorted({*_LISTS, *_SWITCHES})}"
        )
    for name in _LISTS:
        value = raw.get(name, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise PolicyError(f"policy.yaml: rules[{index}].{name}: found {value!r}, allowed is a list of strings")
    for name in _SWITCHES:
        if not isinstance(raw.get(name, False), bool):
            raise PolicyError(f"policy.yaml: rules[{index}].{name}: found {raw[name]!r}, allowed are true and false")
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
        cloud_watch_alarms=tuple(raw.get("cloudWatchAlarms", ["*"])),
        prometheus=raw.get("prometheus", True),
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


def _refusal_of_alarm(rule: Rule, namespace: str, alarm: str, region: str | None, account_id: str | None) -> str | None:
    allowed = [pattern.replace("{namespace}", namespace) for pattern in rule.cloud_watch_alarms]
    if not any(fnmatchcase(alarm, pattern) for pattern in allowed):
        return f"found {alarm}, allowed are {allowed}"
    if region is not None and not _any(rule.regions, region):
        return f"found an alarm in the operator's region {region}, allowed are {list(rule.regions)}"
    if account_id is not None and not _any(rule.accounts, account_id):
        return f"found an alarm in the operator's account {account_id}, allowed are {list(rule.accounts)}"
    return None


def _unnamed(namespace: str) -> Finding:
    return _refused(f"no rule of the permission policy names namespace {namespace!r}")


def _refused(why: str) -> Finding:
    return Finding(Reason.NOT_PERMITTED, f"{why}; an administrator can allow it in ConfigMap sluice-permissions")


def _any(patterns: tuple[str, ...], value: str) -> bool:
    return any(fnmatchcase(value, pattern) for pattern in patterns)
