"""Bad input: what is wrong is named exactly, and nobody else waits for it.

Three hundred mutated manifests go through a real API server; those that pass admission reach the operator."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from tests.api.manifests import FULL_CONFIGS, FULL_ENDPOINTS, FULL_MODELS
from tests.operator.harness.kube import ApiError
from tests.operator.harness.manifests import canary, config, endpoint, model, variant
from tests.operator.harness.mutations import POLICY, Accepted, Refused, accepted, refused
from tests.operator.harness.world import SPEED, MakeWorld, World

CRDS = Path(__file__).parents[2] / "crds"
SEED = 20_261_121
REFUSED, ACCEPTED = 210, 120
SLACK_SECONDS = 30.0
"""What a busy machine may take for the bad ones, which come in at the same time."""


def schemas() -> dict[str, dict[str, object]]:
    """The CRDs' schemas by kind."""
    found = {}
    for file in CRDS.glob("*.yaml"):
        crd = yaml.safe_load(file.read_text())
        found[crd["spec"]["names"]["kind"]] = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return found


def refuse(world: World, number: int, case: Refused) -> str | None:
    """What the API server got wrong about this case, if anything."""
    case.manifest["metadata"]["name"] = f"refused-{number}"
    try:
        world.kube.create(case.manifest, world.namespace)
    except ApiError as error:
        causes = [(c.get("field"), c.get("reason")) for c in (error.body.get("details") or {}).get("causes") or ()]
        if error.status == 422 and (case.field, case.reason) in causes:
            return None
        return f"{case.what} of {case.field}: wanted {case.reason}, got {error.status} {causes}"
    return f"{case.what} of {case.field}: was accepted"


def judge(world: World, case: Accepted) -> str | None:
    """What the operator got wrong about this case so far, if anything."""
    status = world.status(case.endpoint)
    shown = {c["type"]: c for c in status.get("conditions") or ()}
    if case.ignored:
        said = shown.get("FieldsIgnored", {}).get("message", "")
        ready = shown.get("Ready", {}).get("status") == "True"
        fits = ready and all(path in said for path in case.ignored)
    else:
        stalled, ready_ = shown.get("Stalled", {}), shown.get("Ready", {})
        fits = (
            (stalled.get("status"), stalled.get("reason")) == ("True", case.reason)
            and stalled["message"].startswith(case.message)
            and (ready_.get("status"), ready_.get("reason")) == ("False", case.reason)
        )
    if fits:
        return None
    return f"{case.what} {case.endpoint}: wanted {case.reason} {case.message!r}{case.ignored}, got {shown}"


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_bad_manifests_are_named_and_hold_nobody_up(make_world: MakeWorld) -> None:
    world = make_world(policy=POLICY, environment={"SLUICE_CLUSTER_BACKEND": "false"})
    world.operator.start()
    world.apply(
        model(name="good-one"),
        config(variant(model="good-one", count=4), name="good-one"),
        endpoint(canary(wait=100, final_wait=40), name="good-one", endpointConfigName="good-one"),
    )
    world.ready("good-one")
    wrong = accepted(ACCEPTED, SEED)

    world.apply(model("registry.example/churn:2", name="good-one"))
    began = datetime.now(UTC)
    for case in wrong:
        world.apply(*case.manifests)
    mutations = refused([*FULL_MODELS, *FULL_CONFIGS, *FULL_ENDPOINTS], schemas(), REFUSED, SEED)
    problems = [problem for number, mutation in enumerate(mutations) if (problem := refuse(world, number, mutation))]
    world.deployed("registry.example/churn:2", "good-one", seconds=200)
    last = world.status("good-one")["lastDeployment"]
    start, end = (datetime.fromisoformat(last[moment]) for moment in ("startTime", "endTime"))

    assert not problems, "\n".join(problems)
    open_cases = list(wrong)

    def all_named() -> bool:
        open_cases[:] = [case for case in open_cases if judge(world, case)]
        return not open_cases

    try:
        world.wait(all_named, "every bad manifest is named", seconds=200)
    except AssertionError:
        pytest.fail("\n".join(str(judge(world, case)) for case in open_cases))
    assert (start - began).total_seconds() < SLACK_SECONDS, "the bystander's deployment started late"
    deployment_seconds = (10 + 2 + 100 + 2 + 40 + 5) / SPEED
    assert (end - start).total_seconds() < deployment_seconds + SLACK_SECONDS, "the bystander's deployment ended late"
    created = {r["target"] for r in world.simulator.requests("CreateEndpoint")}
    assert created == {"good-one", *(case.endpoint for case in wrong if case.ignored)}
    assert len({case.what for case in wrong}) == 15
