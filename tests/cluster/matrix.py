"""Deployments side by side that one disturbance strikes, each in the stage that it is to be struck in, and what every
one of them must hold: no request lost, no share exceeded, nothing to a revision that went."""

import itertools
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

from tests.cluster import pods
from tests.cluster.chance import is_too_much
from tests.cluster.hosting import BODY, ROUTERS, Hosting, Loads, ask, asked, container_status, is_ready, named, server
from tests.operator.harness.kube import Object

from localcluster import Cluster

ENDPOINT = "matrix"
IS_FULL = os.environ.get("SLUICE_MATRIX") == "full"
"""Each with each."""
INSTANCES = 2
ENDS_SECONDS = 420.0
"""A router whose agent is frozen ends only when its grace period is over; a process that was killed several times is
started again after a pause that doubles."""
FROZEN_SECONDS = 30 if IS_FULL else 60
"""How long the API server is away: longer than the Lease."""
GATHER_SECONDS = 30
"""How long those that have come to their stage wait there for the others: less than their bake."""
RESTARTS = 2
"""After more, kubelet lets a killed container wait for minutes."""
PASSING_SECONDS = 1.0
"""The same in a stage that ends by itself."""
MODEL_ERROR = "424"
"""What the router makes of a model's 5xx, as SageMaker does."""

Policy = Literal["ALL_AT_ONCE", "CANARY", "LINEAR", "ROLLING"]
Trigger = Literal["none", "alarm", "model data", "person", "revert", "third revision"]
Stage = Literal["Provisioning", "Shifting", "Baking", "FinalBaking", "CleaningUp", "RollingBack"]
Disturbance = Literal["operator killed", "router deleted", "agent frozen", "API server frozen"]

POLICIES: tuple[Policy, ...] = ("ALL_AT_ONCE", "CANARY", "LINEAR", "ROLLING")
TRIGGERS: tuple[Trigger, ...] = ("none", "alarm", "model data", "person", "revert", "third revision")
STAGES: tuple[Stage, ...] = ("Provisioning", "Shifting", "Baking", "FinalBaking", "CleaningUp", "RollingBack")
DISTURBANCES: tuple[Disturbance, ...] = ("operator killed", "router deleted", "API server frozen", "agent frozen")

SOON_OVER: dict[Stage, tuple[str, ...]] = {"Shifting": ("Baking", "FinalBaking")}
"""What may be seen in place of a stage that may begin and end between two looks; what is broken then is broken in the
next such stage too."""
OUTCOMES: dict[Trigger, tuple[str, str]] = {
    "none": ("Succeeded", "None"),
    "alarm": ("RolledBack", "Alarm"),
    "model data": ("RolledBack", "ModelData"),
    "person": ("RolledBack", "Person"),
    "revert": ("Superseded", "Person"),
    "third revision": ("Superseded", "Person"),
}
ALARM: Object = {
    "name": "answers",
    "traffic": {"metric": "Invocation5XXErrors", "threshold": 0.5, "windowSeconds": 3, "minimumRequests": 3},
}
_shipped = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Row:
    """A deployment under a policy; the disturbance strikes when `stage` is seen."""

    policy: Policy
    trigger: Trigger
    stage: Stage
    disturbance: Disturbance

    def happens(self) -> bool:
        """Whether a deployment like this comes to this stage. Until it turns back, it is nothing to a deployment
        whether a third revision or the old one is asked for."""
        if self.stage == "Baking" and self.policy == "ALL_AT_ONCE":
            return False
        if self.stage == "RollingBack":
            return self.trigger != "none"
        if self.trigger == "third revision":
            return False
        if self.trigger == "none":
            return True
        return self.stage != "CleaningUp" and (self.trigger != "model data" or self.stage == "Provisioning")

    def is_there(self, stage: str) -> bool:
        """Whether this is where it is to be struck."""
        return stage in (self.stage, *SOON_OVER.get(self.stage, ()))

    @property
    def is_turned(self) -> bool:
        """Whether something is to happen to it while it bakes."""
        return self.trigger in ("alarm", "person", "revert", "third revision")

    @property
    def serves(self) -> bool:
        """Whether it ends with the spec's revision in service."""
        return self.trigger in ("none", "revert", "third revision")


def endpoint_of(row: Row) -> str:
    """The Endpoint that a row deploys."""
    return f"{ENDPOINT}-{row.policy.replace('_', '-').lower()}"


class Gate:
    """Rows that wait for each other: when all have come, or the first has waited so long, something is done once."""

    def __init__(self, rows: Sequence[Row], seconds: float, do: Callable[[], None]) -> None:
        self.is_open = False
        self._rows, self._seconds, self._do = set(rows), seconds, do
        self._here: set[Row] = set()
        self._opens = 0.0

    def passes(self, row: Row, *, here: bool, ended: bool) -> bool:
        """Whether a row, which is there now or has ended before, need not wait any more."""
        if self.is_open or ended:
            self._rows.discard(row)
        elif here:
            self._opens = self._opens or time.monotonic() + self._seconds
            self._here.add(row)
        if self._here and not self.is_open and (self._rows <= self._here or time.monotonic() >= self._opens):
            self._do()
            self.is_open = True
        return self.is_open or ended


class Round:
    """Some rows with the same stage and disturbance, at the same time."""

    def __init__(self, rows: Sequence[Row], hosting: Hosting, cluster: Cluster) -> None:
        self.hosting, self.cluster, self.rows = hosting, cluster, rows
        self.struck: set[Row] = set()
        self.looks = threading.Lock()
        """Nobody looks while something is broken: what happens then is between two looks."""
        passing = rows[0].stage in ("Shifting", "CleaningUp", "RollingBack")
        self.strike = Gate(rows, PASSING_SECONDS if passing else GATHER_SECONDS, self._strike)
        self.turn = Gate([row for row in rows if row.is_turned], GATHER_SECONDS, lambda: None)
        """Those that are to be struck in their rollback begin it together."""
        self.alone = len(rows) == 1
        self.callers, self.pause = (6, 0.0) if self.alone else (2, 0.15)
        self._deployed = [Deployed(row, self) for row in rows]
        self._mending = threading.Lock()
        self._heal: Callable[[], None] = lambda: None

    def run(self) -> list[Row]:
        """Deploy; those that nothing struck where it should have. Raises what went wrong in any of them."""
        with ExitStack() as put_back, ThreadPoolExecutor(len(self.rows)) as threads:
            for one in self._deployed:
                put_back.callback(one.put_back)
                one.prepare()
            done = [threads.submit(one.run) for one in self._deployed]
            wrong = [error for one in done if isinstance(error := one.exception(), Exception)]
            if wrong:
                raise ExceptionGroup("; ".join(str(error).partition("\n")[0] for error in wrong), wrong)
        return [row for row in self.rows if row not in self.struck]

    def mend(self) -> None:
        """What was broken is whole again."""
        with self._mending:
            self._heal()
            self._heal = lambda: None

    def _strike(self) -> None:
        self.struck = {one.row for one in self._deployed if self.alone or one.row.is_there(stage_of(one.status()))}
        self._heal = disturb(self.rows[0].disturbance, self.hosting, self.cluster)


class Deployed:
    """One row's deployment, and what of it is counted."""

    def __init__(self, row: Row, of: Round) -> None:
        self.row, self.endpoint, self._round, self._hosting = row, endpoint_of(row), of, of.hosting
        self._old = model_of(of.hosting, self.endpoint)
        self._new = f"{ENDPOINT}-{next(_shipped)}"
        self._third = new_model(of.hosting) if row.trigger == "third revision" else ""
        self._revision = self._before = ""

    def status(self) -> Object:
        """The Endpoint's."""
        return self._hosting.status(self.endpoint)

    def prepare(self) -> None:
        """The Endpoint as the row needs it, and the new model's data where it will be asked for."""
        deployment = policy(self.row, side_by_side=not self._round.alone)
        self._hosting.endpoint(
            self.endpoint, variants(self.endpoint), deploymentConfig=deployment, kubernetes={"alarms": [ALARM]}
        )
        status = self._hosting.ready(self.endpoint)
        self._revision = str(status["revision"]["name"])
        self._before = max((str(one["endTime"]) for one in status.get("history", ())), default="")
        self._hosting.upload(self._new, b"no archive" if self.row.trigger == "model data" else named(self._new))

    def run(self) -> None:
        """Deploy it under load, until it has ended, and judge."""
        row, hosting = self.row, self._hosting
        with hosting.load(self.endpoint, self._round.callers, self._round.pause) as loads:
            seen = Shares(self, self._round, loads, self._new)
            put(hosting, self.endpoint, self._new)
            if row.stage != "RollingBack":
                seen.until(lambda stage, ended: self._round.strike.passes(row, here=row.is_there(stage), ended=ended))
            if row.is_turned:
                seen.until(self._may_be_turned)
                self._turn_back()
            if row.stage == "RollingBack":
                seen.until(self._is_struck_in_its_rollback)
            ended = seen.until(lambda _, ended: ended and len(self._ends(self.status())) > bool(self._third))
            self._round.mend()
            gone = self._old if row.trigger == "none" else self._new
            last = seen.answers(gone)
            loads.more(25 * self._round.callers)

        assert seen.answers(gone) == last, f"{self.endpoint}: the revision that went was asked again"
        assert set(loads.lost()) <= ({MODEL_ERROR} if row.trigger == "alarm" else set()), (
            f"{self.endpoint}: lost {loads.lost()} of {loads.total}: {loads.samples()}"
        )
        seen.judge()
        status = hosting.ready(self.endpoint) if row.serves else ended
        said = f"{self.endpoint}: {json.dumps(status, indent=1)}"
        assert status["endpointStatus"] == "InService", said
        assert (status["revision"]["name"] == self._revision) == (row.trigger not in ("none", "third revision")), said
        assert self._ends(status) == [OUTCOMES[row.trigger], *([OUTCOMES["none"]] if self._third else [])], said

    def put_back(self) -> None:
        """The spec asks for the model that serves; nothing is held any more."""
        served = {"none": self._new, "third revision": self._third}
        put(self._hosting, self.endpoint, served.get(self.row.trigger, self._old))

    def _ends(self, status: Object) -> list[tuple[str, str]]:
        """Outcome and cause of the deployments that have ended meanwhile, in their order."""
        ended = [one for one in status.get("history", ()) if str(one["endTime"]) > self._before]
        return [(one["outcome"], one.get("cause", "None")) for one in reversed(ended)]

    def _may_be_turned(self, stage: str, ended: bool) -> bool:
        """Pods go bad only where there are some that are asked."""
        here = stage in ("Baking", "FinalBaking") or (stage == self.row.stage and self.row.trigger != "alarm")
        return self._round.turn.passes(self.row, here=here, ended=ended) if self.row.stage == "RollingBack" else here

    def _is_struck_in_its_rollback(self, stage: str, ended: bool) -> bool:
        """One that is alone may be over before anybody has looked: what comes then is broken just after it."""
        here, alone = stage == "RollingBack", self._round.alone
        return self._round.strike.passes(self.row, here=here or (alone and ended), ended=ended and not alone)

    def _turn_back(self) -> None:
        """A person wants the old one back, by a command or by the spec; or the new pods go bad."""
        if self._third:  # under short bakes, which count from its deployment on
            short = policy(Row(self.row.policy, "none", "Provisioning", self.row.disturbance))
            self._hosting.endpoint(self.endpoint, variants(self.endpoint), deploymentConfig=short)
        if self.row.trigger in ("revert", "third revision"):
            put(self._hosting, self.endpoint, self._third or self._old)
        elif self.row.trigger == "alarm":
            for pod in filter(is_ready, self._hosting.fleet(self.endpoint, "main")):
                if ask(pod, BODY)["predictions"] == [self._new]:
                    ask(pod, asked("spoil"))
        else:
            # Said once more of the same revision it is another value, or it is taken for what was done already.
            rollback = f"sluice.dev/rollback={self._revision}/{self._new.rpartition('-')[2]}"
            run = self._hosting.stage.surroundings.run_kubectl
            run("annotate", "sep", self.endpoint, "-n", self._hosting.namespace, "--overwrite", rollback)


# What is deployed -----------------------------------------------------------------------------------------------


def variants(endpoint: str) -> list[Object]:
    """One, with two instances."""
    return [{"variantName": "main", "modelName": endpoint, "initialInstanceCount": INSTANCES}]


def policy(row: Row, *, side_by_side: bool = False) -> dict[str, Any]:
    """Bakes are long enough to be disturbed: longer where something is to turn the deployment back, or where others are
    waited for."""
    bake = final = 5 if row.trigger == "none" else 45
    if side_by_side and row.stage == "Baking":
        bake = max(bake, GATHER_SECONDS + 5)
    if row.stage == "FinalBaking" and (side_by_side or row.trigger != "none"):
        bake, final = 3, 45
    # While the API server is away nobody can turn anything back.
    outage = FROZEN_SECONDS if row.disturbance == "API server frozen" and row.is_turned else 0
    if row.stage == "FinalBaking":
        final += outage
    else:
        bake += outage
    half = {"type": "CAPACITY_PERCENT", "value": 50}
    if row.policy == "ROLLING":  # its final bake is as long as the others
        short = GATHER_SECONDS - 10 + outage
        wait = short if side_by_side and row.stage == "FinalBaking" else max(bake, final)
        return {
            "rollingUpdatePolicy": {
                "maximumBatchSize": half,
                "waitIntervalInSeconds": wait,
                "rollbackMaximumBatchSize": half,
            }
        }
    size = {"CANARY": {"canarySize": half}, "LINEAR": {"linearStepSize": half}, "ALL_AT_ONCE": {}}[row.policy]
    routing = {"type": row.policy, "waitIntervalInSeconds": bake, **size}
    return {"blueGreenUpdatePolicy": {"trafficRoutingConfiguration": routing, "terminationWaitInSeconds": final}}


def put(hosting: Hosting, endpoint: str, model: str) -> None:
    """The spec asks for this model."""
    hosting.model(endpoint, f"s3://hosted/{model}/model.tar.gz")


def new_model(hosting: Hosting) -> str:
    """A good one, uploaded."""
    name = f"{ENDPOINT}-{next(_shipped)}"
    hosting.upload(name, named(name))
    return name


def model_of(hosting: Hosting, endpoint: str) -> str:
    found = hosting.kube.get("Model", hosting.namespace, endpoint)
    assert found is not None
    return str(found["spec"]["primaryContainer"]["modelDataUrl"]).split("/")[-2]


# What is broken -------------------------------------------------------------------------------------------------


def disturb(what: Disturbance, hosting: Hosting, cluster: Cluster) -> Callable[[], None]:
    """Break something; what is returned mends it, and waits until it is whole again."""
    if what == "operator killed":
        [operator] = pods.operator_pods(hosting.stage)
        hosting.sigkill(operator, server(operator))
        return lambda: _operator_is_back(hosting, operator)
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


def _operator_is_back(hosting: Hosting, operator: Object) -> None:
    """It runs again; one that was killed more often makes room for a fresh pod."""
    hosting.restarted(operator, server(operator))
    if container_status(operator, server(operator))["restartCount"] >= RESTARTS:
        hosting.remove_pod(operator)
        hosting.replaced(lambda: pods.operator_pods(hosting.stage), [operator], 1)


def _two_routers(hosting: Hosting, gone: list[Object]) -> None:
    hosting.replaced(lambda: hosting.pods(ROUTERS), gone, 2)


# What is counted ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Shares:
    """The answers between two looks at the Endpoint, and the most that the new revision may have had of them."""

    deployed: Deployed
    round: Round
    loads: Loads
    new: str
    _looks: list[tuple[float, int, int]] = field(default_factory=list)
    """(most percent, answers of the new, of all), so far."""
    _revision: str = ""
    """The new model's, once it is known."""
    _stages: list[str] = field(default_factory=list)

    def until(self, wanted: Callable[[str, bool], bool]) -> Object:
        """Look until what is seen is wanted: the stage, and whether the deployment has ended; the status then."""

        def look() -> Object | None:
            with self.round.looks:
                counted = (self.answers(self.new), self.loads.total)
                status = self.deployed.status()
                self._looks.append((self._most(status.get("deployment")), *counted))
                stage = stage_of(status)
                if not self._stages or self._stages[-1] != stage:
                    self._stages.append(stage)
                begun = any(self._stages)  # before it has begun, no deployment is not the end of one
                return status if wanted(stage, begun and not stage) else None

        return self.round.hosting.until(self.deployed.endpoint, look, ENDS_SECONDS)

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
            assert not is_too_much(new, total, share, under_way=self.round.callers), said

    def _most(self, deployment: Object | None) -> float:
        """The most that the new revision may have by now, in percent: its step's, also while the routers move to it;
        nothing any more while a third one is deployed."""
        if deployment is None:
            return 100.0
        self._revision = self._revision or str(deployment["revision"])
        if deployment["revision"] != self._revision:
            return 0.0
        plan, step = deployment.get("plan") or (), deployment.get("step") or 0
        if deployment["stage"] == "CleaningUp":
            return 100.0
        return float(plan[step - 1]["trafficPercent"]) if step else 0.0

    def _merged(self) -> list[tuple[float, int, int]]:
        """Looks, where of several with one share only the first and the last count."""
        found: list[tuple[float, int, int]] = []
        for _, group in itertools.groupby(self._looks, key=lambda look: look[0]):
            whole = list(group)
            found += [whole[0], whole[-1]] if len(whole) > 1 else whole
        return found


def stage_of(status: Object) -> str:
    """The deployment's; "" without one."""
    return str((status.get("deployment") or {}).get("stage", ""))
