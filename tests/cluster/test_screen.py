"""What the demo's screen says for a given Endpoint: nothing that the object does not say."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from demo import guarded_story
from demo.caller import Tally
from demo.cluster_story import NEW_WEIGHTS, read
from demo.example import read_example
from demo.install import operator_values, simulator_values
from demo.picture import Picture, picture
from demo.screen import Chapter, Show
from demo.watcher import Event

BAKE_UNTIL = datetime(2026, 11, 21, 13, 0, 9, tzinfo=UTC)


def endpoint(**status: Any) -> dict[str, Any]:
    """An Endpoint object in the middle of a canary, with changes to its status."""
    middle = {
        "observedGeneration": 3,
        "endpointStatus": "Updating",
        "revision": {"name": "churn-old"},
        "productionVariants": [
            {"variantName": "main", "deployedImages": [{"specifiedImage": "registry.example/team/churn:1"}]}
        ],
        "deployment": {
            "revision": "churn-new", "policy": "CANARY", "stage": "Baking", "stepText": "1/2", "trafficPercent": 25,
            "bakeUntil": "2026-11-21T13:00:09.000Z",
            "pendingVariants": [{"deployedImages": [{"specifiedImage": "registry.example/team/churn:2"}]}],
        },
        "alarms": [{"alarmName": "churn-5xx", "state": "OK"}],
        "conditions": [
            {"type": "Ready", "status": "False", "reason": "Deploying", "message": "under CANARY"},
            {"type": "Serving", "status": "True", "reason": "InService"},
        ],
    }  # fmt: skip
    return {
        "metadata": {"uid": "1", "generation": 3},
        "spec": {"endpointConfigName": "churn"},
        "status": {**middle, **status},
    }


def frame(seen: Picture, *events: Event, tally: Tally | None = None) -> str:
    """The screen for one picture, four seconds before the bake ends."""
    show = Show(
        title="a title",
        chapters=[Chapter("first", began=1.0, took=2.0), Chapter("second", began=3.0), Chapter("third")],
        look=lambda: seen,
        look_at_events=lambda: events,
        seconds_until=lambda moment: (moment - BAKE_UNTIL).total_seconds() + 4.0,
        tally=None if tally is None else lambda: tally,
    )
    return show.frame()


def test_a_canary_shows_both_revisions_their_traffic_and_the_end_of_the_bake() -> None:
    shown = frame(picture(endpoint()))

    for words in (
        "Updating", "Ready False", "Deploying", "churn-old   churn:1", "churn-new   churn:2", "CANARY 1/2",
        "old 75 %  new 25 %", "4 s left", "churn-5xx OK", "under CANARY", "✔ first", "▸ second", "· third",
    ):  # fmt: skip
        assert words in shown


def test_a_rollback_shows_why_it_stands_still() -> None:
    reason = "Revision churn-new is not in service: alarms are in ALARM: churn-5xx"
    shown = frame(
        picture(
            endpoint(
                endpointStatus="InService",
                deployment=None,
                lastDeployment={"outcome": "RolledBack", "cause": "Alarm"},
                conditions=[
                    {"type": "Ready", "status": "False", "reason": "RolledBack", "message": reason},
                    {"type": "Stalled", "status": "True", "reason": "RolledBack", "message": reason},
                ],
            )
        ),
        Event("RolledBack", reason, warning=True, time="2026-11-21T13:00:11Z"),
    )

    for words in ("Stalled", "the last one: RolledBack by Alarm", reason, "all on the serving revision", "13:00:11"):
        assert words in shown


@pytest.mark.parametrize("seen", [Picture(), picture(endpoint()), picture(endpoint(conditions=[]))])
def test_the_screen_keeps_its_size_whatever_it_shows(seen: Picture) -> None:
    long = replace(seen, ready=replace(seen.ready, message="a very long message " * 40))

    assert len(frame(seen).splitlines()) == len(frame(long).splitlines())
    assert max(map(len, frame(long).splitlines())) == max(map(len, frame(seen).splitlines()))


def test_ready_counts_only_for_the_spec_as_it_is_now() -> None:
    ready = [{"type": "Ready", "status": "True", "reason": "InService"}]

    assert picture(endpoint(conditions=ready)).is_ready
    assert not picture(endpoint(conditions=ready, observedGeneration=2)).is_ready


def test_the_quickstart_is_what_the_demo_tells_its_story_with() -> None:
    example = read_example()

    assert (example.endpoint, example.alarms) == ("churn", ("churn-5xx",))
    assert example.next_image("2") == example.image.removesuffix(":1") + ":2"


@pytest.mark.parametrize(
    ("reference", "repository", "tag", "digest"),
    [
        ("localhost/sluice-operator:1a2b", "localhost/sluice-operator", "1a2b", ""),
        ("host:5000/x/y:1", "host:5000/x/y", "1", ""),
        ("host:5000/x/y", "host:5000/x/y", "latest", ""),
        ("host/x@sha256:12", "host/x", "latest", "sha256:12"),
    ],
)
def test_images_reach_the_charts_in_their_parts(reference: str, repository: str, tag: str, digest: str) -> None:
    operator = operator_values(reference, reference)
    for image in (operator["image"], operator["router"]["image"], simulator_values(reference)["image"]):
        assert (image["repository"], image["tag"], image["digest"]) == (repository, tag, digest)


TWO = [
    {"variantName": "tree", "currentWeight": 2.0, "currentInstanceCount": 1},
    {"variantName": "logistic", "currentWeight": 1.0, "currentInstanceCount": 3},
]


def test_two_variants_show_their_weights_and_who_answered() -> None:
    tally = Tally({"tree": 2 / 3, "logistic": 1 / 3}, {"tree": 404, "logistic": 196}, failures=3)
    shown = frame(picture(endpoint(productionVariants=TWO)), tally=tally)

    for words in ("tree 2 on 1", "logistic 1 on 3", "tree 67.3%  logistic 32.7%", "of 600, 3 lost"):
        assert words in shown
    bar = next(line for line in shown.splitlines() if "of 600" in line)
    assert (bar.count("█"), bar.count("▒")) == (22, 10)


def test_weights_are_said_in_a_line_where_there_is_no_table() -> None:
    assert "| tree 2, logistic 1 |" in picture(endpoint(productionVariants=TWO)).words()


def test_the_screen_keeps_its_size_when_answers_come_in() -> None:
    seen = picture(endpoint(productionVariants=TWO))
    some = Tally({"tree": 0.5, "logistic": 0.5}, {"tree": 1})

    assert len(frame(seen, tally=Tally()).splitlines()) == len(frame(seen, tally=some).splitlines())


@pytest.mark.parametrize(
    ("answers", "wrong"),
    [
        ({"tree": 400, "logistic": 200}, False),
        ({"tree": 350, "logistic": 250}, False),  # 4.3 standard deviations: not one run in a million says otherwise
        ({"tree": 300, "logistic": 300}, True),
        ({"tree": 600}, True),
        ({"tree": 400, "logistic": 199, "stranger": 1}, True),
    ],
)
def test_a_split_is_wrong_only_when_it_cannot_be_chance(answers: dict[str, int], wrong: bool) -> None:
    assert bool(Tally({"tree": 2 / 3, "logistic": 1 / 3}, answers).wrong()) is wrong


def test_the_iris_example_is_what_the_second_half_is_told_with() -> None:
    iris = read()

    assert (iris.endpoint, iris.config, iris.variants) == ("iris", "iris", ("tree", "logistic"))
    assert iris.weights == {"tree": 2.0, "logistic": 1.0}
    assert NEW_WEIGHTS.keys() == iris.weights.keys()
    assert "localhost/sluice-example-mlflow:1" not in str(iris.with_image("host/mine:2"))


def test_the_guarded_example_is_what_the_third_part_is_told_with() -> None:
    flowers = read(guarded_story.MANIFEST)

    assert (flowers.endpoint, flowers.config, flowers.weights) == ("flowers", "flowers", {"main": 1.0})
    assert flowers.model_data == (f"s3://iris-models/{guarded_story.FIRST}/model.tar.gz",)
    [endpoint] = [one["spec"] for one in flowers.documents if one["kind"] == "Endpoint"]
    policy = endpoint["deploymentConfig"]["blueGreenUpdatePolicy"]["trafficRoutingConfiguration"]
    assert policy["canarySize"] == {"type": "CAPACITY_PERCENT", "value": guarded_story.CANARY_PERCENT}
    assert guarded_story.ALERT in {one["name"] for one in endpoint["kubernetes"]["alarms"] if "prometheusAlert" in one}
