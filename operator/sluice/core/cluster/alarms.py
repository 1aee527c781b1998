"""The alarms of deployments in the cluster: which are read when, and what their readings mean. Pure.

before the start     firing: the start waits; missing, unfit or not permitted: refused; unreadable: the start waits
before first traffic  firing, or not readable: the first traffic waits
under traffic        ALARM, once, rolls back; what cannot be read, or has lost its data, holds bakes until the deadline
rolling back         nothing is read: all traffic goes back whatever alarms say

A bake ends only with a reading of every alarm that was taken after its end."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sluice.api.reasons import Cause, Reason
from sluice.api.status import DeploymentStatus, EndpointStatus, VariantSummary, WatchedAlarm
from sluice.core import guardrails
from sluice.core.cluster import plans, rights
from sluice.core.cluster.names import fleet_name
from sluice.core.endpoint import latches
from sluice.core.endpoint.draft import Draft, deletion_asked
from sluice.core.observation import AlarmQuestion, AlarmReading, AlarmSource, AlarmWatch, WatchedFleet
from sluice.core.resolve import Resolution

READABLE = frozenset({"OK", "ALARM", "INSUFFICIENT_DATA"})
HEEDED_IN = frozenset({"Provisioning", "Shifting", "Baking", "FinalBaking"})
"""Stages in which alarms are read; in the others the deployment's way is settled."""

EXPECTED_SECONDS = 5
"""At each bake's end a reading is waited for; only one that does not come for so long is told as trouble."""

_SOURCES: tuple[tuple[str, AlarmSource], ...] = (
    ("prometheusAlert", "PrometheusAlert"),
    ("promql", "PromQL"),
    ("traffic", "Traffic"),
)
_WORDS: Mapping[str, str] = {
    "CloudWatch": "CloudWatch alarm",
    "PrometheusAlert": "Prometheus alert",
    "PromQL": "PromQL alarm",
    "Traffic": "traffic alarm",
}


# What is read ---------------------------------------------------------------------------------------------------


def asked(endpoint_spec: Mapping[str, Any], config: Mapping[str, Any] | None) -> tuple[AlarmQuestion, ...]:
    """The alarms of an Endpoint's DeploymentConfig and of its kubernetes.alarms."""
    found = [AlarmQuestion("CloudWatch", name) for name in guardrails.alarm_names(config)]
    for alarm in (endpoint_spec.get("kubernetes") or {}).get("alarms") or ():
        source = next((source for key, source in _SOURCES if alarm.get(key) is not None), None)
        if source is not None:
            found.append(AlarmQuestion(source, str(alarm["name"]), alarm))
    return tuple(found)


def watch(endpoint: Mapping[str, Any], status: EndpointStatus, resolution: Resolution) -> AlarmWatch | None:
    """What is to be read now: while a deployment's alarms can still change its way, and while one is about to start."""
    deployment, spec = status.deployment, endpoint["spec"]
    if deletion_asked(endpoint) or status.revision is None:
        return None
    if deployment is not None:
        questions = _heeded(spec, status, deployment) if deployment.stage in HEEDED_IN else ()
    else:
        questions = asked(spec, plans.config_of(spec, status)) if _about_to_deploy(spec, status, resolution) else ()
    if not questions:
        return None
    name = str(endpoint["metadata"]["name"])
    serving = status.revision
    return AlarmWatch(
        alarms=questions,
        namespace=str(endpoint["metadata"]["namespace"]),
        endpoint=name,
        new=_fleets(name, deployment.revision, deployment.fleet_hash, deployment.pending_variants)
        if deployment is not None
        else (),
        serving=_fleets(name, serving.name, serving.fleet_hash, status.production_variants),
        endpoint_name=str(spec.get("endpointName") or name),
        read_after=deployment.bake_until if deployment is not None and deployment.paused_since is None else None,
        traffic_since=deployment.traffic_since if deployment is not None else None,
    )


def _about_to_deploy(spec: Mapping[str, Any], status: EndpointStatus, resolution: Resolution) -> bool:
    desired, serving = resolution.revision, status.revision
    if desired is None or serving is None or resolution.finding is not None:
        return False
    return desired.fleet_hash != serving.fleet_hash and not latches.holds(status.latch, spec, desired)


def _fleets(
    endpoint: str, revision: str, fleet_hash: str, variants: Iterable[VariantSummary]
) -> tuple[WatchedFleet, ...]:
    return tuple(
        WatchedFleet(fleet_name(endpoint, v.variant_name, fleet_hash), v.variant_name, revision) for v in variants
    )


def _heeded(spec: Mapping[str, Any], status: EndpointStatus, deployment: DeploymentStatus) -> tuple[AlarmQuestion, ...]:
    """The alarms that a deployment started with and that the spec still has, as it has them now: taking one out is the
    way on from one that nobody can read any more; one that is added counts from the next deployment on."""
    started = {(alarm.source, alarm.alarm_name) for alarm in deployment.alarms}
    questions = asked(spec, plans.config_of(spec, status))
    return tuple(question for question in questions if (question.source, question.name) in started)


# What a deployment remembers ------------------------------------------------------------------------------------


def at_start(d: Draft) -> tuple[WatchedAlarm, ...]:
    """The alarms that a deployment starts with. Those that fire were ignored by a person, or it would not start."""
    found = []
    for question in asked(d.spec, plans.config_of(d.spec, d.status)):
        reading = _reading(d, question)
        state = reading.state if reading is not None else ""
        found.append(
            WatchedAlarm(
                source=question.source,
                alarm_name=question.name[:255],
                had_data=state in {"OK", "ALARM"},
                ignored=True if state == "ALARM" else None,
            )
        )
    return tuple(found)


def remember(d: Draft) -> None:
    """An ignored alarm that was read as OK counts from then on. Where none is heeded, none is read, and none shown."""
    deployment = d.status.deployment
    if deployment is None:
        return
    if deployment.stage in HEEDED_IN and not _heeded(d.spec, d.status, deployment):
        d.set(alarms=())
    alarms = tuple(_remembered(d, alarm) for alarm in deployment.alarms)
    if alarms != deployment.alarms:
        d.set_deployment(alarms=alarms)


def _remembered(d: Draft, alarm: WatchedAlarm) -> WatchedAlarm:
    reading = _reading(d, alarm)
    if not alarm.ignored or reading is None or reading.state != "OK":
        return alarm
    return alarm.model_copy(update={"ignored": None, "counts_from": _milliseconds(reading.read_at)})


def ignore_firing(d: Draft) -> tuple[str, ...]:
    """A person lets the deployment go on although alarms fire before its first traffic. Returns their names."""
    deployment = d.status.deployment
    if deployment is None or deployment.traffic_since is not None:
        return ()
    firing = [alarm for alarm, reading in _now(d, deployment) if reading is not None and reading.state == "ALARM"]
    d.set_deployment(
        alarms=tuple(
            alarm.model_copy(update={"ignored": True, "counts_from": None}) if alarm in firing else alarm
            for alarm in deployment.alarms
        )
    )
    return tuple(alarm.alarm_name for alarm in firing)


# What readings mean ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hold:
    """Why a deployment does not go on to its next step yet."""

    reason: Reason
    text: str
    again_at: datetime | None = None
    """When the next reading is to be expected, if it is only one that is waited for."""
    any_moment: bool = False
    """That reading is not late: the poller takes one as soon as it is asked for."""


def trigger(d: Draft, deployment: DeploymentStatus, *, bake_over: bool) -> tuple[Cause, str] | None:
    """An alarm that rolls the deployment back: one reading in ALARM since the first traffic; or, where the alarm says
    so (onInsufficientData RollBack), none with data when a bake is over."""
    since = deployment.traffic_since
    if since is None:
        return None
    for alarm, reading in _now(d, deployment):
        if reading is None or alarm.ignored:
            continue
        counts_from = max(since, alarm.counts_from or since)
        fired = reading.read_at if reading.state == "ALARM" else reading.alarmed_at
        if fired is not None and fired >= counts_from:
            return Cause.ALARM, f"{_told(reading)} fired" + _more(reading if reading.state == "ALARM" else None)
        if bake_over and _policy(d, alarm) == "RollBack" and _is_dataless(reading, deployment.bake_until):
            return Cause.ALARM, f"{_told(reading)} has no data at the end of the bake (onInsufficientData RollBack)"
    return None


def hold(d: Draft, deployment: DeploymentStatus, *, not_before: datetime) -> Hold | None:
    """What of the alarms keeps the next step back: a firing one before the first traffic; one that cannot be read; one
    that has no data any more; one that was not read since `not_before`."""
    read = tuple(_now(d, deployment))
    if deployment.traffic_since is None:
        firing = [r for alarm, r in read if r is not None and r.state == "ALARM" and not alarm.ignored]
        if firing:
            return Hold(
                Reason.ALARM_FIRING,
                f"{_list(firing)} in ALARM before the first traffic; it moves by itself when OK, or now with "
                f"annotation sluice.dev/ignore-firing: {deployment.revision}",
            )
    unreadable = [reading for _, reading in read if reading is not None and reading.state not in READABLE]
    if unreadable:
        why = "; ".join(f"{_told(r)} is {r.state}{_more(r)}" for r in unreadable)
        return Hold(Reason.ALARMS_UNREADABLE, f"{why}. Nothing goes on until it can be read, or the deadline passes")
    late = [(alarm, reading) for alarm, reading in read if reading is None or reading.read_at < not_before]
    if late:
        words = ", ".join(_words(alarm) for alarm, _ in late)
        text = f"waiting for a reading of {words} taken after {not_before:%H:%M:%S}"
        if d.now < not_before + timedelta(seconds=EXPECTED_SECONDS):
            return Hold(Reason.DEPLOYING, text, d.now + timedelta(seconds=1), any_moment=True)
        last = min((reading.read_at for _, reading in late if reading is not None), default=d.now)
        return Hold(Reason.ALARMS_UNREADABLE, text, last)
    dataless = [
        r for alarm, r in read if r is not None and _is_dataless(r, not_before) and _holds(d, deployment, alarm)
    ]
    if dataless:
        return Hold(Reason.ALARMS_UNREADABLE, f"{_list(dataless)} has no data any more")
    return None


def without_data(d: Draft, deployment: DeploymentStatus) -> str:
    """Alarms without data that do not hold the step which is about to be taken; empty: none."""
    if deployment.traffic_since is None:
        return ""
    found = [r for alarm, r in _now(d, deployment) if r is not None and r.state == "INSUFFICIENT_DATA"]
    return f"{_list(found)} in INSUFFICIENT_DATA: it tells nothing of revision {deployment.revision}" if found else ""


def unknown_variant(questions: tuple[AlarmQuestion, ...], variants: Iterable[str]) -> Hold | None:
    """An alarm on a variant that the new revision does not have: it would tell nothing."""
    known = sorted(variants)
    for question in questions:
        wanted = (question.condition.get("traffic") or {}).get("variantName")
        if wanted and wanted not in known:
            text = f"kubernetes.alarms[{question.name}].traffic.variantName: found {wanted}, allowed are "
            text += f"{', '.join(known)}; name a production variant of the new revision, or none for each of them"
            return Hold(Reason.ALARM_UNFIT, text)
    return None


def judge_start(d: Draft, questions: tuple[AlarmQuestion, ...]) -> tuple[Hold | None, tuple[str, ...]]:
    """What keeps a deployment from starting: the alarms that are not permitted, missing, unfit or not readable; and the
    names of those that fire."""
    read = [(question, _reading(d, question)) for question in questions]
    for state, reason, advice in (
        (rights.REFUSED, Reason.NOT_PERMITTED, "have it allowed, or take it out; the deployment starts by itself then"),
        ("Unfit", Reason.ALARM_UNFIT, "change it, or take it out"),
        ("Missing", Reason.ALARM_MISSING, "create it, or take it out; the deployment starts by itself then"),
    ):
        found = [reading for _, reading in read if reading is not None and reading.state == state]
        if found:
            return Hold(reason, "; ".join(f"{_told(r)} is {state}{_more(r)}" for r in found) + f": {advice}"), ()
    unread = [(question, r) for question, r in read if r is None or r.state not in READABLE]
    if unread:
        why = "; ".join(
            f"{_words(question)}: {reading.message or reading.state}"
            if reading
            else f"{_words(question)}: not read yet"
            for question, reading in unread
        )
        return Hold(Reason.ALARMS_UNREADABLE, f"Alarms cannot be read, the deployment waits ({why})"), ()
    return None, tuple(_told(r) + _more(r) for _, r in read if r is not None and r.state == "ALARM")


def _now(d: Draft, deployment: DeploymentStatus) -> Iterator[tuple[WatchedAlarm, AlarmReading | None]]:
    """The alarms that count, each with its newest reading."""
    heeded = {(question.source, question.name) for question in _heeded(d.spec, d.status, deployment)}
    for alarm in deployment.alarms:
        if (alarm.source, alarm.alarm_name) in heeded:
            yield alarm, _reading(d, alarm)


def _reading(d: Draft, alarm: AlarmQuestion | WatchedAlarm) -> AlarmReading | None:
    name = alarm.name if isinstance(alarm, AlarmQuestion) else alarm.alarm_name
    return next((r for r in d.observation.alarms if (r.source, r.name) == (alarm.source, name)), None)


def _policy(d: Draft, alarm: WatchedAlarm) -> str | None:
    if alarm.source == "CloudWatch":
        return None
    own = (d.spec.get("kubernetes") or {}).get("alarms") or ()
    return next((one.get("onInsufficientData") for one in own if one["name"] == alarm.alarm_name), None)


def _holds(d: Draft, deployment: DeploymentStatus, alarm: WatchedAlarm) -> bool:
    """Whether the alarm's having no data holds: as it says itself, else if it had some when the deployment started."""
    if deployment.traffic_since is None or alarm.ignored:
        return False
    policy = _policy(d, alarm)
    return alarm.had_data if policy is None else policy == "Hold"


def _is_dataless(reading: AlarmReading, not_before: datetime | None) -> bool:
    return reading.state == "INSUFFICIENT_DATA" and (not_before is None or reading.read_at >= not_before)


def _milliseconds(moment: datetime) -> datetime:
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _words(alarm: AlarmQuestion | WatchedAlarm) -> str:
    name = alarm.name if isinstance(alarm, AlarmQuestion) else alarm.alarm_name
    return f"{_WORDS[alarm.source]} {name}"


def _told(reading: AlarmReading) -> str:
    return f"{_WORDS[reading.source]} {reading.name}"


def _more(reading: AlarmReading | None) -> str:
    return f" ({reading.message})" if reading is not None and reading.message else ""


def _list(readings: list[AlarmReading]) -> str:
    return ", ".join(_told(reading) for reading in readings)
