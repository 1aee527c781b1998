"""Takes one scenario through one backend: declares it, does what somebody does in it, and says what was seen."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from tests.conformance.recorder import Recorder
from tests.conformance.table import Backend, Event, Scenario, Seen
from tests.operator.harness.kube import Kube, Object
from tests.operator.harness.manifests import Manifest, config, manifest, variant

SECONDS = 400.0
"""How long anything is waited for, at most."""


@dataclass(frozen=True, slots=True)
class Images:
    """What the Models run, by the names of the table."""

    old: str
    new: str
    third: str
    unhealthy: str

    def name(self, image: str) -> str:
        """The table's name of an image."""
        names = {self.old: "old", self.new: "new", self.third: "third", self.unhealthy: "unhealthy"}
        return names.get(image, image)


@dataclass(frozen=True, slots=True)
class Site:
    """Where a scenario happens, and what it is made of there."""

    backend: Backend
    kube: Kube
    namespace: str
    recorder: Recorder
    images: Images
    make_alarm: Callable[[str, str], None]
    """(name, state) -> a CloudWatch alarm in that state."""
    set_alarm: Callable[[str, str], None]
    prepare: Callable[[Scenario, str], None] = lambda _scenario, _name: None
    """Called before the change with the Endpoint's name: makes the new fleet unhealthy, where images do not."""
    instance_type: str = "ml.m5.large"
    role: str = "arn:aws:iam::111122223333:role/churn"
    model: Manifest = field(default_factory=dict)
    """What else every Model needs here."""
    prefix: str = ""
    """What the names of everything begin with."""
    waits: int = 1
    """Factor on every wait of the table."""
    patience: float = SECONDS


def run(scenario: Scenario, site: Site) -> Seen:
    """The whole scenario. Raises AssertionError with what was seen where something does not come."""
    return _Run(scenario, site).run()


class _Run:
    def __init__(self, scenario: Scenario, site: Site) -> None:
        self._scenario = scenario
        self._site = site
        self._name = f"{site.prefix}{scenario.name}" if site.prefix else f"{scenario.name}-{site.backend.lower()}"
        self._alarm = f"{site.prefix or site.namespace}-{self._name}"

    def run(self) -> Seen:
        scenario, site = self._scenario, self._site
        self._declare(site.images.old)
        first = self._until(lambda seen: _is(seen[-1], "True", "InService"), "the first revision in service")
        served = first[-1]["status"]["revision"]["name"]
        if scenario.alarm in ("quiet", "firing"):
            site.make_alarm(self._alarm, "OK" if scenario.alarm == "quiet" else "ALARM")
        since = site.recorder.mark(self._name) - 1
        site.prepare(scenario, self._name)
        self._change(site.images.unhealthy if scenario.unhealthy else site.images.new)
        for event in scenario.events:
            self._until(lambda seen, at=event.at: at in (*_stages(seen), _reason(seen[-1])), event.at, since)  # type: ignore[misc]
            self._do(event, served)
        wanted = scenario.differs.get(site.backend, scenario.seen)
        seen = self._until(
            lambda seen: (
                self._seen(seen).end == wanted.end
                and len(self._seen(seen).outcomes) == len(wanted.outcomes)
                and (not wanted.outcomes or seen[-1]["status"].get("deployment") is None)
                and self._followed(seen[-1])
            ),
            f"the end: {wanted.end} after {len(wanted.outcomes)} deployments",
            since,
        )
        return self._seen(seen)

    # What is declared -------------------------------------------------------------------------------------------

    def _declare(self, image: str) -> None:
        self._apply(self._model(image), self._config(), self._endpoint())

    def _change(self, image: str) -> None:
        match self._scenario.change:
            case "image":
                self._apply(self._endpoint(deploying=True), self._model(image))
            case "weights":
                self._apply(self._config(weight=3))
            case "counts":
                self._apply(self._config(more=1))

    def _model(self, image: str) -> Manifest:
        container = {"image": image, **self._site.model}
        return manifest("Model", self._name, {"primaryContainer": container, "executionRoleArn": self._site.role})

    def _config(self, weight: float = 1, more: int = 0) -> Manifest:
        variants = [
            variant(
                name,
                model=self._name,
                count=count + (more if name == "a" else 0),
                weight=weight if name == "a" else 1,
                instanceType=self._site.instance_type,
            )
            for name, count in self._scenario.counts.items()
        ]
        return config(*variants, name=self._name)

    def _endpoint(self, *, deploying: bool = False) -> Manifest:
        spec: Manifest = {"backend": self._site.backend, "endpointConfigName": self._name}
        policy = self._scenario.policy
        if policy is not None and deploying:
            spec["deploymentConfig"] = _waits(policy, self._site.waits)
            if self._scenario.alarm != "none":
                watched = {"alarms": [{"alarmName": self._alarm}]}
                spec["deploymentConfig"] = {**spec["deploymentConfig"], "autoRollbackConfiguration": watched}
        return manifest("Endpoint", self._name, spec)

    def _do(self, event: Event, served: str) -> None:
        match event.do:
            case "alarm":
                self._site.set_alarm(self._alarm, "ALARM")
            case "alarm is quiet":
                self._site.set_alarm(self._alarm, "OK")
            case "third revision":
                self._apply(self._model(self._site.images.third))
            case "revert":
                self._apply(self._model(self._site.images.old))
            case "pause":
                self._annotate("pause", "true")
                self._until(lambda seen: _commands(seen[-1]) != "", "an answer to pause")
                self._annotate("pause", None)
            case "rollback":
                self._annotate("rollback", served)

    def _apply(self, *objects: Manifest) -> None:
        for item in objects:
            self._site.kube.apply(item, self._site.namespace)

    def _annotate(self, command: str, value: str | None) -> None:
        patch = {"metadata": {"annotations": {f"sluice.dev/{command}": value}}}
        self._site.kube.patch("Endpoint", self._site.namespace, self._name, patch)

    # What is seen -----------------------------------------------------------------------------------------------

    def _until(self, look: Callable[[list[Object]], bool], what: str, since: int = 0) -> list[Object]:
        return self._site.recorder.until(
            self._name, lambda seen: bool(seen) and look(seen), what, self._site.patience, since
        )

    def _seen(self, seen: list[Object]) -> Seen:
        last = seen[-1]["status"]
        before = (seen[0].get("status") or {}).get("history") or ()
        history = (last.get("history") or ())[: len(last.get("history") or ()) - len(before)]
        return Seen(
            stages=tuple(_stages(seen)),
            outcomes=tuple(f"{one['outcome']} {one.get('cause') or 'None'}" for one in reversed(history)),
            serves=self._serves(last),
            end=f"{last.get('endpointStatus')} {_reason(seen[-1])}",
            words=tuple(_once(str((one.get("status") or {}).get("endpointStatus")) for one in seen)),
            acknowledged=_commands(seen[-1]),
        )

    def _serves(self, status: Object) -> str:
        images = {
            image["specifiedImage"]
            for one in status.get("productionVariants") or ()
            for image in one.get("deployedImages") or ()
        }
        return ", ".join(sorted(self._site.images.name(image) for image in images))

    def _followed(self, seen: Object) -> bool:
        """Weights and counts that were changed are in force."""
        variants = seen["status"].get("productionVariants") or ()
        a: Object = next((one for one in variants if one["variantName"] == "a"), {})
        if self._scenario.change == "weights":
            return bool(a.get("currentWeight") == 3)
        if self._scenario.change == "counts":
            return bool(a.get("currentInstanceCount") == self._scenario.counts["a"] + 1)
        return all(one.get("deployedImages") for one in variants)


def _waits(policy: Manifest, factor: int) -> Manifest:
    waits = {"waitIntervalInSeconds", "terminationWaitInSeconds"}
    return {
        key: _waits(value, factor) if isinstance(value, dict) else value * factor if key in waits else value
        for key, value in policy.items()
    }


def _stages(seen: list[Object]) -> list[str]:
    """The stages of deployments, without repetitions; bakes with their share."""
    found: list[str] = []
    for one in seen:
        deployment = (one.get("status") or {}).get("deployment")
        if deployment is None:
            continue
        stage = str(deployment["stage"])
        if stage in ("Baking", "FinalBaking"):
            stage += f" {round(deployment.get('trafficPercent') or 0, 1):g}%"
        found.append(stage)
    return _once(found)


def _once(items: Iterable[str]) -> list[str]:
    found: list[str] = []
    for item in items:
        if not found or found[-1] != item:
            found.append(item)
    return found


def _conditions(one: Object) -> dict[str, Object]:
    generation = one["metadata"]["generation"]
    conditions = (one.get("status") or {}).get("conditions") or ()
    return {c["type"]: c for c in conditions if c.get("observedGeneration") == generation}


def _is(one: Object, status: str, reason: str) -> bool:
    ready = _conditions(one).get("Ready") or {}
    return (ready.get("status"), ready.get("reason")) == (status, reason)


def _reason(one: Object) -> str:
    """Why it is not Ready: the condition's own reason, of Stalled or Reconciling where Ready has none of its own."""
    found = _conditions(one)
    for type_ in ("Stalled", "Reconciling"):
        if (found.get(type_) or {}).get("status") == "True":
            return str(found[type_]["reason"])
    return str((found.get("Ready") or {}).get("reason", ""))


def _commands(one: Object) -> str:
    acks = (one.get("status") or {}).get("commands") or ()
    return ", ".join(f"{ack['command']} {ack['result']}" for ack in acks if ack["result"] != "Queued")
