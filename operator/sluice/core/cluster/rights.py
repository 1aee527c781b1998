"""Which alarms an Endpoint in the cluster may have read: the administrator's policy, asked before they are.

CloudWatch is read with the operator's own identity, and Prometheus by the operator for everybody; what the routers of
the Endpoint's own namespace count is its own."""

from dataclasses import dataclass, replace
from datetime import datetime

from sluice.core.finding import Finding
from sluice.core.observation import AlarmQuestion, AlarmReading, AlarmWatch
from sluice.core.permission import Policy

REFUSED = "Refused"
"""The state of an alarm that is not read because the policy does not let its namespace."""

UNREADABLE = "Unreadable"

_FIELDS = {
    "CloudWatch": "deploymentConfig.autoRollbackConfiguration.alarms[].alarmName",
    "PrometheusAlert": "kubernetes.alarms[].prometheusAlert",
    "PromQL": "kubernetes.alarms[].promql",
}


@dataclass(frozen=True, slots=True)
class AlarmPlace:
    """Where the operator reads CloudWatch alarms; None: it does not know."""

    region: str | None = None
    account_id: str | None = None
    problem: str = ""
    """Why the account is not known."""


@dataclass(frozen=True, slots=True)
class Permitted:
    """A watch as it may be."""

    watch: AlarmWatch | None
    """What may be read; None: nothing."""
    refused: tuple[AlarmReading, ...] = ()
    """What may not, each with the reason."""
    needs_account: bool = False
    """Something is left out until it is known in which account it would be read. Why it is not, is among `refused`."""


def permitted(watch: AlarmWatch | None, policy: Policy, place: AlarmPlace, now: datetime) -> Permitted:
    """Judge each alarm of a watch."""
    if watch is None:
        return Permitted(None)
    kept: list[AlarmQuestion] = []
    refused: list[AlarmReading] = []
    needs_account = False
    for question in watch.alarms:
        finding = _judge(question, watch.namespace, policy, place)
        if finding is not None:
            refused.append(AlarmReading(question.name, REFUSED, now, finding.text()[:512], question.source))
        elif _waits_for_account(question, watch.namespace, policy, place):
            needs_account = True
            if place.problem:
                text = f"the policy asks for the account, and it is not known: {place.problem}"
                refused.append(AlarmReading(question.name, UNREADABLE, now, text[:512], question.source))
        else:
            kept.append(question)
    allowed = watch if len(kept) == len(watch.alarms) else replace(watch, alarms=tuple(kept)) if kept else None
    return Permitted(allowed, tuple(refused), needs_account)


def _judge(question: AlarmQuestion, namespace: str, policy: Policy, place: AlarmPlace) -> Finding | None:
    match question.source:
        case "Traffic":
            return None
        case "CloudWatch":
            finding = policy.judge_cloud_watch_alarm(
                namespace, question.name, region=place.region, account_id=place.account_id
            )
        case _:
            finding = policy.judge_prometheus(namespace)
    return None if finding is None else replace(finding, field=_FIELDS[question.source])


def _waits_for_account(question: AlarmQuestion, namespace: str, policy: Policy, place: AlarmPlace) -> bool:
    unknown = question.source == "CloudWatch" and place.account_id is None
    return unknown and policy.asks_for_account(namespace)
