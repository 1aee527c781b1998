"""An adopted endpoint stays one: when its status is lost, when the annotation is gone, after many deployments."""

from typing import Any

import pytest
from tests.core.stage import Stage, canary, config

from sluice.api import names
from sluice.api.reasons import Reason
from sluice.api.status import EndpointStatus
from sluice.core.actions import SyncTags
from sluice.core.endpoint.questions import questions
from sluice.core.observation import Described, HostingContent, Listed, Presence

OURS = {names.OWNER_TAG: "test/team-a/churn"}
NEVER = {"UpdateEndpoint", "DeleteEndpoint", "UpdateWeightsAndCapacities", "DeleteEndpointConfig", "DeleteModel"}


def theirs(image: str = "repo/churn:1", count: int = 4, weight: float = 1.0) -> HostingContent:
    """What the adopted endpoint's EndpointConfig and Model are described as."""
    variant = {
        "VariantName": "a", "ModelName": "theirs", "InstanceType": "ml.m5.large", "InitialInstanceCount": count,
        "InitialVariantWeight": weight,
    }  # fmt: skip
    return HostingContent(
        {"ProductionVariants": [variant]}, {"theirs": {"PrimaryContainer": {"Image": image, "Mode": "SingleModel"}}}
    )


def look(stage: Stage, seen: Described, content: HostingContent, tags: dict[str, str], seconds: float = 5.0) -> None:
    """One pass that is answered what it asks for, and no more."""
    listed = Listed(seen.name, seen.status, seen.last_modified)
    asked = questions(stage.endpoint, stage.status, stage.resolution(), listed, None, stage.now)
    answers: dict[str, Any] = {"content": content if asked.content else None, "tags_read": asked.owner}
    stage.step(seen if asked.describe else Presence.UNCHANGED, seconds=seconds, tags=tags, **answers)


def looks(stage: Stage, seen: Described, content: HostingContent, tags: dict[str, str], passes: int = 6) -> list[str]:
    """What so many passes called."""
    called = []
    for _ in range(passes):
        look(stage, seen, content, tags)
        called += stage.called()
    return called


def adopted(**spec: Any) -> Stage:
    """An endpoint that others made, adopted; then the annotation is gone."""
    stage = Stage(**spec)
    stage.annotate(adopt="true")
    seen = stage.described("InService", "their-config")
    stage.step(seen, tags={}, content=theirs())
    stage.step(seen, tags={}, content=theirs())
    assert stage.called() == ["SyncTags"]
    stage.settle_down(seen)
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)
    stage.endpoint["metadata"]["annotations"].pop(names.ADOPT)
    return stage


def lost(stage: Stage) -> None:
    """The status is gone, and the ControllerRevisions: the cluster was rebuilt from Git, or Retain let go."""
    stage.status = EndpointStatus()
    stage.revisions.clear()


def deployed(stage: Stage, image: str, moved: float) -> None:
    """Another image, deployed."""
    serving = stage.described(moved=moved - 1)
    stage.edit("Model", primaryContainer={"image": image})
    stage.step(serving, seconds=60)
    stage.step(serving, seconds=6)
    assert stage.status.intent is not None
    stage.settle_down(stage.described("InService", stage.status.intent.endpoint_config_name, moved=moved))


@pytest.mark.parametrize("tagged", [True, False], ids=["tagged", "adopted by an earlier release"])
def test_an_equal_adopted_endpoint_is_recovered_without_a_deployment(tagged: bool) -> None:
    stage = adopted(deploymentConfig=canary())
    lost(stage)
    tags = OURS | ({names.ADOPTED_TAG: "true"} if tagged else {})
    seen = stage.described("InService", "their-config")
    called = looks(stage, seen, theirs(), tags)
    assert not NEVER & set(called)
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)
    assert stage.status.revision is not None
    assert stage.status.revision.adopted
    stage.delete()
    assert not NEVER & set(looks(stage, seen, theirs(), tags))
    assert stage.endpoint["metadata"]["finalizers"] == []


def test_counts_and_weights_that_were_edited_since_the_adoption_are_no_difference() -> None:
    stage = adopted()
    lost(stage)
    stage.objects["EndpointConfig", "churn"] = config(count=6, weight=2.0)
    called = looks(stage, stage.described("InService", "their-config"), theirs(count=4), OURS)
    assert not NEVER & set(called)
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)


@pytest.mark.parametrize("said_before", [True, False])
def test_an_adopted_endpoint_that_is_different_by_then_waits_for_a_person(said_before: bool) -> None:
    stage = adopted()
    lost(stage)
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    if said_before:
        stage.annotate(retry="long ago")
    seen = stage.described("InService", "their-config")
    assert not NEVER & set(looks(stage, seen, theirs(), OURS))
    assert stage.condition("Stalled") == ("True", Reason.ADOPTION_DIFFERS)
    stage.annotate(retry="now")
    assert "UpdateEndpoint" in looks(stage, seen, theirs(), OURS)


def test_an_update_of_ours_that_runs_on_an_adopted_endpoint_is_taken_up() -> None:
    stage = adopted()
    stage.edit("Model", primaryContainer={"image": "repo/churn:2"})
    revision = stage.resolution().revision
    assert revision is not None
    lost(stage)
    pending = stage.pending(revision.requests.endpoint_config_name)
    seen = stage.described("Updating", "their-config", moved=7, pending=pending)
    assert not NEVER & set(looks(stage, seen, theirs(), OURS))
    assert stage.condition("Reconciling") == ("True", Reason.DEPLOYING)
    done = stage.described("InService", revision.requests.endpoint_config_name, moved=50)
    stage.settle_down(done)
    assert stage.condition("Ready") == ("True", Reason.IN_SERVICE)
    stage.delete()
    assert not NEVER & set(looks(stage, done, theirs(), OURS))


def test_after_two_deployments_and_without_the_annotation_it_stays_when_the_object_goes() -> None:
    stage = adopted()
    deployed(stage, "repo/churn:2", 9)
    deployed(stage, "repo/churn:3", 19)
    stage.delete()
    assert "DeleteEndpoint" not in looks(stage, stage.described(moved=19), theirs(), OURS)
    assert stage.endpoint["metadata"]["finalizers"] == []


def test_what_an_earlier_release_adopted_is_remembered_by_its_next_deployment() -> None:
    stage = adopted()
    stage.status = stage.status.model_copy(update={"adopted": None})
    deployed(stage, "repo/churn:2", 9)
    deployed(stage, "repo/churn:3", 19)
    assert stage.status.adopted


def test_a_lost_status_and_a_deployed_revision_the_tag_tells() -> None:
    stage = adopted()
    deployed(stage, "repo/churn:2", 9)
    seen = stage.described(moved=9)
    tags = {**OURS, names.ADOPTED_TAG: "true"}
    lost(stage)
    stage.delete()
    assert not NEVER & set(looks(stage, seen, theirs(), tags))
    assert stage.endpoint["metadata"]["finalizers"] == []


def test_one_that_sluice_made_anew_is_its_own() -> None:
    stage = adopted(driftPolicy="Correct")
    stage.step(Presence.MISSING, seconds=60)
    assert stage.called()[-1] == "CreateEndpoint"
    assert stage.status.intent is not None
    made = stage.status.intent.endpoint_config_name
    stage.step(stage.described("Creating", made, moved=70), seconds=1)
    seen = stage.described("InService", made, moved=80)
    stage.settle_down(seen)
    stage.delete()
    assert "DeleteEndpoint" in looks(stage, seen, theirs(), OURS, passes=2)


@pytest.mark.parametrize(("tags", "told"), [(1, True), (49, False)])
def test_the_tag_is_left_out_where_sagemaker_takes_no_more(tags: int, told: bool) -> None:
    stage = Stage(tags=[{"key": f"k{i}", "value": "v"} for i in range(tags)])
    stage.annotate(adopt="true")
    seen = stage.described("InService", "their-config")
    stage.step(seen, tags={}, content=theirs())
    stage.step(seen, tags={}, content=theirs())
    [sync] = [action for action in stage.actions if isinstance(action, SyncTags)]
    assert (names.ADOPTED_TAG in sync.wanted) is told
    assert len(sync.wanted) <= 50
