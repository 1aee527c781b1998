"""SageMaker's words for what a deployment does, with counts and seconds."""

from tests.core.cluster_stage import blue_green, rolling
from tests.core.watched import deployment, reach, served, watched


def test_variant_statuses_are_sagemakers_sentences() -> None:
    stage = watched(blue_green("CANARY", wait=60, final=30))
    stage.image("new:1")
    told: list[tuple[str, str]] = []
    for _ in range(300):
        stage.step()
        if stage.status.deployment is None and told:
            break
        for variant in stage.status.deployment.pending_variants if stage.status.deployment else ():
            for status in variant.variant_status:
                one = (status.status, status.status_message or "")
                if one not in told:
                    told.append(one)
    assert told == [
        ("Creating", "Launching 4 instance(s)."),
        ("ActivatingTraffic", "Activating traffic on canary capacity of 1 instance(s)."),
        (
            "Baking",
            "Baking for 60 seconds (WaitIntervalInSeconds) with traffic enabled on canary capacity of 1 instance(s).",
        ),
        ("ActivatingTraffic", "Activating traffic on full capacity of 4 instance(s)."),
        (
            "Baking",
            "Baking for 30 seconds (TerminationWaitInSeconds) with traffic enabled on full capacity of 4 instance(s).",
        ),
    ]


def test_batches_are_told_by_what_each_adds() -> None:
    stage = served(rolling(50, wait=30))
    stage.image("new:1")
    told = []
    for stage_name, step in (("Baking", 1), ("FinalBaking", 2)):
        reach(stage, stage_name, step)
        [variant] = deployment(stage).pending_variants
        told.append((variant.current_instance_count, variant.variant_status[0].status_message))
    sentence = "Baking for 30 seconds (WaitIntervalInSeconds) with traffic enabled on batch capacity of 2 instance(s)."
    assert told == [(2, sentence), (4, sentence)]


def test_what_goes_back_is_told_as_deleting() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Baking", 1)
    stage.alarms["errors"].state = "ALARM"
    stage.step()
    [variant] = deployment(stage).pending_variants
    assert [(s.status, s.status_message) for s in variant.variant_status] == [
        ("Deleting", "Terminating 4 instance(s).")
    ]


def test_the_message_of_a_bake_says_until_when() -> None:
    stage = served(blue_green("LINEAR", wait=60, final=30, value=50))
    stage.image("new:1")
    reach(stage, "Baking", 1)
    until = deployment(stage).bake_until
    assert deployment(stage).message == (
        "Baking for 60 seconds (WaitIntervalInSeconds) with traffic enabled on linear step capacity of 2 instance(s), "
        f"until {until:%H:%M:%S} UTC"
    )
    message = deployment(stage).message
    stage.run(20)
    assert deployment(stage).message == message, "the status is not written every second"


def test_a_pause_that_outlasts_the_bake_tells_of_no_bake_that_is_left() -> None:
    stage = served(blue_green("CANARY", wait=0, final=0))
    stage.image("new:1")
    reach(stage, "Shifting", 1)
    stage.annotate(pause="true")
    reach(stage, "Baking", 1)
    stage.run(2)
    assert stage.condition("Reconciling") == ("True", "Paused")
    assert "paused since" in deployment(stage).message
    assert "of the bake left" not in deployment(stage).message


def test_instances_that_are_all_there_are_still_told_as_launched() -> None:
    stage = watched()
    stage.image("new:1")
    reach(stage, "Provisioning")
    stage.alarms["errors"].state = "ALARM"  # the first traffic waits
    stage.run(20)
    [variant] = deployment(stage).pending_variants
    assert (variant.current_instance_count, variant.variant_status[0].status_message) == (
        4,
        "Launching 4 instance(s).",
    )
