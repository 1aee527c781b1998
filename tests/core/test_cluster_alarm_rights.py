"""Whose alarms may be read: what the policy refuses is not watched, and keeps a deployment from starting."""

import pytest
from tests.core.cluster_stage import AlarmNow
from tests.core.stage import EPOCH
from tests.core.watched import deployment, reach, watched

from sluice.core.cluster import rights
from sluice.core.cluster.rights import AlarmPlace
from sluice.core.observation import AlarmQuestion, AlarmSource, AlarmWatch
from sluice.core.permission import Policy, PolicyError, Rule

PLACE = AlarmPlace("eu-west-1", "111122223333")


def _watch(*asked: tuple[AlarmSource, str]) -> AlarmWatch:
    return AlarmWatch(tuple(AlarmQuestion(source, name) for source, name in asked), "team-a", "churn")


ALL = _watch(("CloudWatch", "errors"), ("PrometheusAlert", "alert"), ("PromQL", "share"), ("Traffic", "traffic"))


def _judged(policy: Policy, place: AlarmPlace = PLACE, watch: AlarmWatch = ALL) -> tuple[list[str], dict[str, str]]:
    found = rights.permitted(watch, policy, place, EPOCH)
    kept = [question.name for question in found.watch.alarms] if found.watch is not None else []
    return kept, {reading.name: reading.message or "" for reading in found.refused}


def test_a_rule_of_the_namespace_permits_all_that_it_does_not_narrow() -> None:
    assert _judged(Policy((Rule(namespaces=("team-*",)),))) == (["errors", "alert", "share", "traffic"], {})


def test_without_a_rule_only_the_own_routers_are_asked() -> None:
    kept, refused = _judged(Policy((Rule(namespaces=("team-b",)),)))
    assert kept == ["traffic"]
    assert set(refused) == {"errors", "alert", "share"}
    assert refused["share"] == (
        "kubernetes.alarms[].promql: no rule of the permission policy names namespace 'team-a'; an administrator can "
        "allow it in ConfigMap sluice-permissions"
    )


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (Rule(("*",), cloud_watch_alarms=("{namespace}-*",)), "found errors, allowed are ['team-a-*']"),
        (Rule(("*",), cloud_watch_alarms=()), "found errors, allowed are []"),
        (Rule(("*",), regions=("us-*",)), "region eu-west-1, allowed are ['us-*']"),
        (Rule(("*",), accounts=("999988887777",)), "account 111122223333, allowed are ['999988887777']"),
    ],
)
def test_an_alarm_of_cloudwatch_is_refused_by_name_region_and_account(rule: Rule, words: str) -> None:
    kept, refused = _judged(Policy((rule,)))
    assert kept == ["alert", "share", "traffic"]
    assert words in refused["errors"]
    assert refused["errors"].startswith("deploymentConfig.autoRollbackConfiguration.alarms[].alarmName: ")


def test_rights_of_two_rules_do_not_add_up() -> None:
    one, two = Rule(("*",), regions=("us-*",)), Rule(("*",), cloud_watch_alarms=("team-a-*",))
    kept, refused = _judged(Policy((one, two)))
    assert "errors" not in kept
    assert "region" in refused["errors"]
    assert "found errors" in refused["errors"]
    assert _judged(Policy((one, two, Rule(("team-a",), cloud_watch_alarms=("err*",)))))[1] == {}


def test_prometheus_is_asked_for_nobody_whose_rules_say_no() -> None:
    kept, refused = _judged(Policy((Rule(("*",), prometheus=False),)))
    assert kept == ["errors", "traffic"]
    assert set(refused) == {"alert", "share"}
    assert _judged(Policy((Rule(("*",), prometheus=False), Rule(("team-a",)))))[1] == {}


def test_who_may_read_nothing_has_no_watch() -> None:
    found = rights.permitted(_watch(("CloudWatch", "errors")), Policy(), PLACE, EPOCH)
    assert found.watch is None
    assert [(r.name, r.state, r.read_at) for r in found.refused] == [("errors", "Refused", EPOCH)]


def test_the_policys_words() -> None:
    raw = {"namespaces": ["*"], "cloudWatchAlarms": ["a-*"], "prometheus": False}
    [rule] = Policy.parse({"rules": [raw]}).rules
    assert (rule.cloud_watch_alarms, rule.prometheus) == (("a-*",), False)
    with pytest.raises(PolicyError, match="prometheus: found 'no', allowed are true and false"):
        Policy.parse({"rules": [{**raw, "prometheus": "no"}]})
    with pytest.raises(PolicyError, match="cloudWatchAlarms: found 'a', allowed is a list of strings"):
        Policy.parse({"rules": [{**raw, "cloudWatchAlarms": "a"}]})


def _refused() -> AlarmNow:
    [reading] = rights.permitted(_watch(("CloudWatch", "errors")), Policy(), PLACE, EPOCH).refused
    return AlarmNow(reading.state, reading.message or "")


def test_a_refused_alarm_keeps_the_deployment_from_starting() -> None:
    stage = watched()
    stage.alarms["errors"] = _refused()
    stage.image("new:1")
    stage.until("NotPermitted", type_="Stalled")
    assert stage.status.deployment is None
    assert stage.message("Stalled") == (
        "CloudWatch alarm errors is Refused (deploymentConfig.autoRollbackConfiguration.alarms[].alarmName: no rule of "
        "the permission policy names namespace 'team-a'; an administrator can allow it in ConfigMap "
        "sluice-permissions): have it allowed, or take it out; the deployment starts by itself then."
    )
    assert [(alarm.alarm_name, alarm.state) for alarm in stage.status.alarms] == [("errors", "Refused")]
    stage.alarms["errors"] = AlarmNow()
    reach(stage, "Provisioning")


def test_a_right_that_is_taken_away_holds_what_runs() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.alarms["errors"] = _refused()
    stage.run(120)
    assert (deployment(stage).stage, deployment(stage).step) == ("Baking", 1)
    assert stage.condition("Reconciling") == ("True", "AlarmsUnreadable")
    stage.alarms["errors"] = AlarmNow()
    stage.in_service()
