"""The administrator's policy: what one rule must allow altogether, and what a broken policy says."""

from dataclasses import replace
from typing import Any

import pytest

from sluice.core.permission import Ask, Policy, PolicyError

ASK = Ask(
    namespace="team-a",
    region="eu-west-1",
    endpoint_name="team-a-churn",
    account_id="111122223333",
    assume_role="arn:aws:iam::111122223333:role/hosting",
    execution_roles=("arn:aws:iam::111122223333:role/exec",),
)
RULE = {
    "namespaces": ["team-*"],
    "accounts": ["111122223333"],
    "regions": ["eu-*"],
    "assumeRoles": ["arn:aws:iam::111122223333:role/hosting"],
    "executionRoles": ["arn:aws:iam::*:role/exec"],
    "endpointNamePrefixes": ["{namespace}-"],
}


def test_one_rule_allows_it_all() -> None:
    assert Policy.parse({"rules": [RULE]}).judge(ASK) is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"namespace": "other"}, "no rule of the permission policy names namespace 'other'"),
        ({"region": "us-east-1"}, "region us-east-1"),
        ({"account_id": "999988887777"}, "account 999988887777"),
        ({"assume_role": "arn:aws:iam::111122223333:role/admin"}, "assumeRoleArn"),
        ({"execution_roles": ("arn:aws:iam::111122223333:role/admin",)}, "executionRoleArn"),
        ({"endpoint_name": "churn"}, "endpoint name churn"),
        ({"adopt": True}, "adoption"),
    ],
)
def test_each_attribute_is_judged(change: dict[str, Any], words: str) -> None:
    finding = Policy.parse({"rules": [RULE]}).judge(replace(ASK, **change))
    assert finding is not None
    assert words in finding.message


def test_rights_of_two_rules_do_not_add_up() -> None:
    one = {**RULE, "regions": ["us-*"]}
    two = {**RULE, "accounts": ["999988887777"]}
    assert Policy.parse({"rules": [one, two]}).judge(ASK) is not None


def test_no_policy_permits_nothing() -> None:
    assert Policy().judge(ASK) is not None


@pytest.mark.parametrize(
    ("document", "words"),
    [
        (None, "no list `rules`"),
        ({"rules": {}}, "no list `rules`"),
        ({"rules": ["x"]}, "rules[0]: found str"),
        ({"rules": [{"namespaces": ["*"], "region": ["x"]}]}, "found unknown ['region']"),
        ({"rules": [{"namespaces": "*"}]}, "rules[0].namespaces: found '*'"),
        ({"rules": [{"namespaces": ["*"], "adopt": "yes"}]}, "rules[0].adopt: found 'yes'"),
        ({"rules": [{}]}, "rules[0].namespaces: missing"),
    ],
)
def test_a_broken_policy_says_where(document: Any, words: str) -> None:
    with pytest.raises(PolicyError, match=r"policy\.yaml") as error:
        Policy.parse(document)
    assert words in str(error.value)


ROLE = "arn:aws:iam::111122223333:role/churn"


@pytest.mark.parametrize(
    ("rules", "roles", "words"),
    [
        ([], (), None),
        ([], (ROLE,), "no rule of the permission policy names namespace 'team'"),
        ([{"namespaces": ["team"], "regions": ["none"], "accounts": ["1"], "executionRoles": ["*"]}], (ROLE,), None),
        ([{"namespaces": ["team"], "executionRoles": ["arn:aws:iam::*:role/other"]}], (ROLE,), ROLE),
        ([{"namespaces": ["other"], "executionRoles": ["*"]}], (ROLE,), "names namespace 'team'"),
        (
            [
                {"namespaces": ["team"], "executionRoles": [ROLE]},
                {"namespaces": ["team"], "executionRoles": ["arn:aws:iam::*:role/other"]},
            ],
            (ROLE, "arn:aws:iam::1:role/other"),
            "is not among",
        ),
    ],
)
def test_roles_that_pods_assume_are_judged_alone(rules: list[Any], roles: tuple[str, ...], words: str | None) -> None:
    finding = Policy.parse({"rules": rules}).judge_execution_roles("team", roles)
    assert (finding is None) == (words is None)
    assert words is None or (finding is not None and words in finding.message)
