"""Deployments under constant load on the real cluster while something is broken: each policy, stage, trigger, outcome
and disturbance at least once (SLUICE_MATRIX=full, as `make soak` sets it: each with each).

Of every row: no request is lost (but what the bad model itself answered), the new revision never gets more than its
step's share, and after a rollback it gets nothing any more."""

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from tests.cluster import pods
from tests.cluster.chance import is_too_much
from tests.cluster.hosting import ROUTERS, UNSPEAKABLE, Hosting, Loads, container_status, parrot, server
from tests.operator.harness.kube import Object

from localcluster import Cluster

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

ENDPOINT = "matrix"
INSTANCES = 2
CALLERS = 6
"""Of a load."""
ENDS_SECONDS = 420.0
"""A router whose agent is frozen ends only when its grace period is over; a process that was killed several times is
started again after a pause that doubles."""
FROZEN_SECONDS = 60
"""How long the API server is away: longer than the Lease."""
MODEL_ERROR = "424"
"""What the router makes of a model's 5xx, as SageMaker does."""

Policy = Literal["ALL_AT_ONCE", "CANARY", "LINEAR", "ROLLING"]
Trigger = Literal["none", "alarm", "model data", "person", "revert"]
Stage = Literal["Provisioning", "Shifting", "Baking", "FinalBaking", "CleaningUp", "RollingBack"]
Disturbance = Literal["operator killed", "router deleted", "agent frozen", "API server frozen"]

POLICIES: tuple[Policy, ...] = ("ALL_AT_ONCE", "CANARY", "LINEAR", "ROLLING")
TRIGGERS: tuple[Trigger, ...] = ("none", "alarm", "model data", "person", "revert")
STAGES: tuple[Stage, ...] = ("Provisioning", "Shifting", "Baking", "FinalBaking", "CleaningUp", "RollingBack")
DISTURBANCES: tuple[Disturbance, ...] = ("operator killed", "router deleted", "agent frozen", "API server frozen")


@dataclass(frozen=True, slots=True)
class Row:
    """A deployment under a policy; the disturbance strikes when `stage` is seen."""

    policy: Policy
    trigger: Trigger
    stage: Stage
    disturbance: Disturbance

    @property
    def name(self) -> str:
        """For pytest."""
        return "-".join((self.policy, self.trigger, self.stage, self.disturbance)).replace(" ", "-").lower()

    def happens(self) -> bool:
        """Whether a deployment like this comes to this stage."""
        if self.stage == "Baking" and self.policy == "ALL_AT_ONCE":
            return False
        if self.stage == "RollingBack":
            return self.trigger != "none"
        if self.trigger == "none":
            return True
        return self.stage != "CleaningUp" and (self.trigger != "model data" or self.stage == "Provisioning")


PAIRS = (
    Row("ALL_AT_ONCE", "none", "FinalBaking", "operator killed"),
    Row("CANARY", "none", "Baking", "operator killed"),
    Row("LINEAR", "none", "Shifting", "agent frozen"),
    Row("ROLLING", "none", "CleaningUp", "router deleted"),
    Row("CANARY", "alarm", "RollingBack", "router deleted"),
    Row("ROLLING", "alarm", "RollingBack", "agent frozen"),
    Row("LINEAR", "person", "FinalBaking", "router deleted"),
    Row("CANARY", "model data", "Provisioning", "router deleted"),
    Row("ROLLING", "revert", "Baking", "operator killed"),
    Row("ALL_AT_ONCE", "alarm", "RollingBack", "operator killed"),
    Row("CANARY", "none", "Baking", "API server frozen"),
)
FULL = tuple(
    row for row in (Row(*one) for one in itertools.product(POLICIES, TRIGGERS, STAGES, DISTURBANCES)) if row.happens()
)
SOON_OVER: dict[Stage, tuple[Stage, ...]] = {"Shifting": ("Baking", "FinalBaking")}
"""What may be seen in place of a stage that may begin and end between two looks; what is broken then is broken in the
next such stage too."""
ROWS = FULL if os.environ.get("SLUICE_MATRIX") == "full" else PAIRS
_shipped = itertools.count(1)


def test_everything_occurs() -> None:
    """The rows that always run hold each policy, trigger, stage and disturbance, and none that cannot be."""
    for place, values in enumerate((POLICIES, TRIGGERS, STAGES, DISTURBANCES)):
        found = {(row.policy, row.trigger, row.stage, row.disturbance)[place] for row in PAIRS}
        assert found == set(values)
    assert all(row.happens() for row in PAIRS)


@pytest.fixture(scope="module", autouse=True)
def matrix(hosting: Hosting) -> Iterator[None]:
    """One variant with two instances in service, which every row deploys anew."""
    hosting.model(ENDPOINT, hosting.upload(f"{ENDPOINT}-0", parrot(f"{ENDPOINT}-0")))
    hosting.endpoint(ENDPOINT, VARIANTS)
    hosting.ready(ENDPOINT)
    yield
    hosting.delete(ENDPOINT)
    hosting.gone(ENDPOINT)


VARIANTS = [{"variantName": "main", "modelName": ENDPOINT, "initialInstanceCount": INSTANCES}]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_deployment(row: Row, hosting: Hosting, cluster: Cluster) -> None:
    before = hosting.status(ENDPOINT)
    old, new = _model_of(hosting), f"{ENDPOINT}-{next(_shipped)}"
    hosting.endpoint(ENDPOINT, VARIANTS, deploymentConfig=policy(row), kubernetes={"alarms": [ALARM]})
    hosting.ready(ENDPOINT)
    rolled_back = row.trigger != "none"
    try:
        heal: list[Callable[[], None]] = []
        with hosting.load(ENDPOINT) as loads:
            seen = Shares(hosting, loads, old, new)
            ship(hosting, new, row.trigger)
            if row.stage != "RollingBack":
                seen.until(lambda stage: stage in (row.stage, *SOON_OVER.get(row.stage, ())))
                heal.append(disturb(row.disturbance, hosting, cluster))
            if row.trigger in ("person", "revert"):
                seen.until(lambda stage: stage == row.stage or stage in ("Baking", "FinalBaking"))
                turn_back(row, hosting, old, before["revision"]["name"])
            if row.stage == "RollingBack":
                seen.until(lambda stage: stage in ("RollingBack", ""))
                heal.append(disturb(row.disturbance, hosting, cluster))
            ended = seen.until(lambda stage: stage == "")
            for mend in heal:
                mend()
            gone = new if rolled_back else old
            last = seen.answers(gone)
            loads.more(150)

        assert seen.answers(gone) == last, "the revision that went was asked again"
        assert set(loads.lost()) <= ({MODEL_ERROR} if row.trigger == "alarm" else set()), loads.samples()
        seen.judge()
        status = hosting.ready(ENDPOINT) if row.trigger in ("none", "revert") else ended
        assert status["endpointStatus"] == "InService"
        assert (status["revision"]["name"] == before["revision"]["name"]) == rolled_back
        outcome, cause = OUTCOMES[row.trigger]
        last_deployment = status["lastDeployment"]
        assert (last_deployment["outcome"], last_deployment.get("cause", "None")) == (outcome, cause)
    finally:
        put_back(hosting, old if rolled_back else new)


def test_a_batch_goes_before_its_successors_come(hosting: Hosting) -> None:
    """replaceFirst: at no time are there more pods than the pool holds, those on their way out included until their
    containers have ended, which gives their room back."""
    old, new, most = _model_of(hosting), f"{ENDPOINT}-{next(_shipped)}", 0

    def there() -> int:
        every = hosting.every_pod(f"sluice.dev/endpoint={ENDPOINT}")
        return sum(pod["status"]["phase"] not in ("Succeeded", "Failed") for pod in every)

    rolling = policy(Row("ROLLING", "none", "Baking", "router deleted"))
    hosting.endpoint(ENDPOINT, VARIANTS, deploymentConfig=rolling, kubernetes={"replaceFirst": True})
    hosting.ready(ENDPOINT)
    hosting.until(ENDPOINT, lambda: there() == INSTANCES or None)
    with hosting.load(ENDPOINT) as loads:
        ship(hosting, new, "none")

        def ended() -> Object | None:
            nonlocal most
            most = max(most, there())
            status = hosting.status(ENDPOINT)
            served = loads.answers().get(json.dumps({"predictions": [new]}), 0)
            return status if served and "deployment" not in status else None

        status = hosting.until(ENDPOINT, ended, ENDS_SECONDS)
        last = loads.answers()[json.dumps({"predictions": [old]})]
        loads.more(150)

    loads.assert_none_lost()
    assert loads.answers()[json.dumps({"predictions": [old]})] == last
    assert status["lastDeployment"]["outcome"] == "Succeeded"
    assert most == INSTANCES


OUTCOMES: dict[Trigger, tuple[str, str]] = {
    "none": ("Succeeded", "None"),
    "alarm": ("RolledBack", "Alarm"),
    "model data": ("RolledBack", "ModelData"),
    "person": ("RolledBack", "Person"),
    "revert": ("Superseded", "Person"),
}
ALARM: Object = {
    "name": "answers",
    "traffic": {"metric": "Invocation5XXErrors", "threshold": 0.5, "windowSeconds": 3, "minimumRequests": 3},
}


# What is deployed -----------------------------------------------------------------------------------------------


def policy(row: Row) -> dict[str, Any]:
    """Bakes are long enough to be disturbed, and longer where something is to turn the deployment back."""
    wait = 5 if row.trigger == "none" else 45
    half = {"type": "CAPACITY_PERCENT", "value": 50}
    if row.policy == "ROLLING":
        return {
            "rollingUpdatePolicy": {
                "maximumBatchSize": half,
                "waitIntervalInSeconds": wait,
                "rollbackMaximumBatchSize": half,
            }
        }
    size = {"CANARY": {"canarySize": half}, "LINEAR": {"linearStepSize": half}, "ALL_AT_ONCE": {}}[row.policy]
    early = row.trigger != "none" and row.stage == "FinalBaking"
    routing = {"type": row.policy, "waitIntervalInSeconds": 3 if early else wait, **size}
    return {"blueGreenUpdatePolicy": {"trafficRoutingConfiguration": routing, "terminationWaitInSeconds": wait}}


def ship(hosting: Hosting, name: str, trigger: Trigger) -> None:
    """A new model: bad where an alarm or its own data is to turn it back."""
    if trigger == "model data":
        hosting.model(ENDPOINT, hosting.upload(name, b"no archive"))
    else:
        hosting.model(ENDPOINT, hosting.upload(name, parrot(name, UNSPEAKABLE if trigger == "alarm" else "")))


def turn_back(row: Row, hosting: Hosting, old: str, revision: str) -> None:
    """A person wants the old one back, by a command or by the spec."""
    if row.trigger == "revert":
        put_back(hosting, old)
    else:
        run = hosting.stage.surroundings.run_kubectl
        run("annotate", "sep", ENDPOINT, "-n", hosting.namespace, "--overwrite", f"sluice.dev/rollback={revision}")


def put_back(hosting: Hosting, model: str) -> None:
    """The spec asks for this model, which serves; nothing is held any more."""
    hosting.model(ENDPOINT, f"s3://hosted/{model}/model.tar.gz")


def _model_of(hosting: Hosting) -> str:
    found = hosting.kube.get("Model", hosting.namespace, ENDPOINT)
    assert found is not None
    return str(found["spec"]["primaryContainer"]["modelDataUrl"]).split("/")[-2]


# What is broken -------------------------------------------------------------------------------------------------


def disturb(what: Disturbance, hosting: Hosting, cluster: Cluster) -> Callable[[], None]:
    """Break something; what is returned mends it, and waits until it is whole again."""
    if what == "operator killed":
        [operator] = pods.operator_pods(hosting.stage)
        hosting.sigkill(operator, server(operator))
        return lambda: hosting.restarted(operator, server(operator))
    old = hosting.pods(ROUTERS)[:1]
    if what == "router deleted":
        hosting.remove_pod(old[0])
        return lambda: _two_routers(hosting, old)
    if what == "agent frozen":
        # It confirms nothing any more, so it is evicted; kubelet finds its probes unanswered too.
        container = container_status(old[0], "agent")["containerID"].partition("://")[2]
        cluster.kill_container(container, "SIGSTOP")
        return lambda: _two_routers(hosting, [])
    cluster.signal_program("kube-apiserver", signal.SIGSTOP)
    try:
        began = time.monotonic()
        while time.monotonic() - began < FROZEN_SECONDS:
            time.sleep(1)  # the outage itself, not a wait for anything
    finally:
        cluster.signal_program("kube-apiserver", signal.SIGCONT)
    return lambda: _two_routers(hosting, [])


def _two_routers(hosting: Hosting, gone: list[Object]) -> None:
    hosting.replaced(lambda: hosting.pods(ROUTERS), gone, 2)


# What is counted ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Shares:
    """The answers between two looks at the Endpoint, and the most that the new revision may have had of them."""

    hosting: Hosting
    loads: Loads
    old: str
    new: str
    _looks: list[tuple[float, int, int]] = field(default_factory=list)
    """(most percent, answers of the new, of all), so far."""
    _stages: list[str] = field(default_factory=list)

    def until(self, wanted: Callable[[str], bool]) -> Object:
        """Look until a stage is seen ("" once the deployment has ended); its status."""

        def look() -> Object | None:
            counted = (self.answers(self.new), self.loads.total)
            status = self.hosting.status(ENDPOINT)
            deployment = status.get("deployment")
            self._looks.append((_most(deployment), *counted))
            stage = str((deployment or {}).get("stage", ""))
            if not self._stages or self._stages[-1] != stage:
                self._stages.append(stage)
            begun = any(self._stages)  # before it has begun, no deployment is not the end of one
            return status if wanted(stage) and begun else None

        return self.hosting.until(ENDPOINT, look, ENDS_SECONDS)

    def answers(self, name: str) -> int:
        """The answers that one model gave, those that it could not write down among them."""
        said = self.loads.answers().get(json.dumps({"predictions": [name]}), 0)
        return said + (self.loads.lost().get(MODEL_ERROR, 0) if name == self.new else 0)

    def judge(self) -> None:
        """What was answered between two looks obeyed the larger of the shares that were planned at both."""
        for before, after in itertools.pairwise(self._merged()):
            share = max(before[0], after[0]) / 100
            new, total = after[1] - before[1], after[2] - before[2]
            said = f"{new} of {total} where {share:.0%} were planned: {self._stages}"
            assert not is_too_much(new, total, share, under_way=CALLERS), said

    def _merged(self) -> list[tuple[float, int, int]]:
        """Looks, where of several with one share only the first and the last count."""
        found: list[tuple[float, int, int]] = []
        for _, group in itertools.groupby(self._looks, key=lambda look: look[0]):
            whole = list(group)
            found += [whole[0], whole[-1]] if len(whole) > 1 else whole
        return found


def _most(deployment: Object | None) -> float:
    """The most that the new revision may have by now, in percent: its step's, also while the routers move to it."""
    if deployment is None:
        return 100.0
    plan, step = deployment.get("plan") or (), deployment.get("step") or 0
    if deployment["stage"] == "CleaningUp":
        return 100.0
    return float(plan[step - 1]["trafficPercent"]) if step else 0.0
