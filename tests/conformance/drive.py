"""Takes one scenario through one backend: declares it, does what somebody does in it, and says what was seen."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from tests.conformance.recorder import Recorder
from tests.conformance.scenario import EDITED, Backend, Event, Scenario, Seen
from tests.operator.harness.kube import Kube, Object
from tests.operator.harness.manifests import Manifest, config, manifest, variant

SECONDS = 400.0
"""How long a scenario may take, at most."""


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
    overtake: Callable[[str], None] = lambda _name: None
    """The Endpoint's name -> the deadline of its deployment is reached, where that is not to be waited for."""
    start_nothing: Callable[[str], None] = lambda _name: None
    """The Endpoint's name -> no instance of it starts any more, and a way back that waits for one is given up."""
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


def name_of(scenario: Scenario, site: Site) -> str:
    """Of the Endpoint and all that belongs to it."""
    return f"{site.prefix}{scenario.name}" if site.prefix else f"{scenario.name}-{site.backend.lower()}"


class _Run:
    def __init__(self, scenario: Scenario, site: Site) -> None:
        self._scenario = scenario
        self._site = site
        self._name = name_of(scenario, site)
        self._alarm = f"{site.prefix or site.namespace}-{self._name}"
        self._over = time.monotonic() + site.patience
        # What is declared now.
        self._model_name = self._name
        self._sizes: dict[str, tuple[int, float]] = {name: (count, 1.0) for name, count in scenario.counts.items()}
        self._declared: dict[tuple[str, str], Manifest] = {}
        self._served = ""
        """The revision that served before the change."""

    def run(self) -> Seen:
        scenario, site = self._scenario, self._site
        self._declare(site.images.old)
        first = self._until(lambda seen: _is(seen[-1], "True", "InService"), "the first revision in service")
        self._served = first[-1]["status"]["revision"]["name"]
        if scenario.alarm in ("quiet", "firing"):
            site.make_alarm(self._alarm, "OK" if scenario.alarm == "quiet" else "ALARM")
        since = last = site.recorder.mark(self._name) - 1
        site.prepare(scenario, self._name)
        self._change(site.images.unhealthy if scenario.unhealthy else site.images.new)
        for event in scenario.events:
            self._until(lambda seen, at=event.at: at in _moments(seen), event.at, last)  # type: ignore[misc]
            last = site.recorder.mark(self._name) - 1
            self._do(event)
        wanted = scenario.wanted(site.backend)
        seen = self._until(
            lambda seen: (
                self._seen(seen).end == wanted.end
                and len(self._seen(seen).outcomes) == len(wanted.outcomes)
                and (not wanted.outcomes or seen[-1]["status"].get("deployment") is None)
                and self._seen(seen).sizes == wanted.sizes
                and self._serves(seen[-1]["status"]) != ""
            ),
            f"the end: {wanted.end} after {len(wanted.outcomes)} deployments with {wanted.sizes}",
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
            case "config":
                self._model_name = f"{self._name}-2"
                self._sizes = dict(self._scenario.becomes)
                self._apply(self._endpoint(deploying=True), self._model(image), self._config())
            case "weights":
                self._edit(weight=EDITED)
            case "counts":
                self._edit(more=1)

    def _edit(self, *, weight: float | None = None, more: int = 0) -> None:
        """Of the variant a."""
        count, before = self._sizes["a"]
        self._sizes["a"] = (count + more, before if weight is None else weight)
        self._apply(self._config())

    def _model(self, image: str) -> Manifest:
        container = {"image": image, **self._site.model}
        spec = {"primaryContainer": container, "executionRoleArn": self._site.role}
        return manifest("Model", self._model_name, spec)

    def _config(self) -> Manifest:
        variants = [
            variant(name, model=self._model_name, count=count, weight=weight, instanceType=self._site.instance_type)
            for name, (count, weight) in self._sizes.items()
        ]
        return config(*variants, name=self._name)

    def _endpoint(self, *, deploying: bool = False) -> Manifest:
        spec: Manifest = {"backend": self._site.backend, "endpointConfigName": self._name}
        if deploying:
            spec.update(self._scenario.options)
        policy = self._scenario.policy
        if policy is not None and deploying:
            spec["deploymentConfig"] = _waits(policy, self._site.waits)
            if self._scenario.alarm != "none":
                watched = {"alarms": [{"alarmName": self._alarm}]}
                spec["deploymentConfig"] = {**spec["deploymentConfig"], "autoRollbackConfiguration": watched}
        return manifest("Endpoint", self._name, spec)

    def _do(self, event: Event) -> None:
        match event.do:
            case "alarm":
                self._site.set_alarm(self._alarm, "ALARM")
            case "alarm is quiet":
                self._site.set_alarm(self._alarm, "OK")
            case "third revision":
                self._apply(self._model(self._site.images.third))
            case "third revision by the policy retained":
                silent = self._endpoint()
                silent["spec"]["retainDeploymentConfig"] = True
                self._apply(silent, self._model(self._site.images.third))
            case "revert":
                self._apply(self._model(self._site.images.old))
            case "weights":
                self._edit(weight=EDITED)
                self._until(lambda seen: _sizes(seen[-1])["a"][1] == EDITED, "the weight in force")
            case "counts":
                self._edit(more=1)
                count = self._sizes["a"][0]
                self._until(lambda seen: _sizes(seen[-1])["a"][0] == count, "the count in force")
            case "same again":
                self._apply(*self._declared.values())
            case "pause":
                self._annotate("pause", "true")
                self._until(lambda seen: _commands(seen[-1]) != "", "an answer to pause")
            case "resume":
                self._annotate("pause", None)
            case "promote":
                deployment = self._now()["deployment"]
                self._annotate("promote", f"{deployment['revision']}/{deployment['step']}")
            case "retry":
                self._annotate("retry", "once")
            case "rollback":
                self._annotate("rollback", self._served)
            case "deadline":
                self._site.overtake(self._name)
            case "nothing starts":
                self._site.start_nothing(self._name)

    def _now(self) -> Object:
        status: Object = self._site.recorder.seen(self._name)[-1]["status"]
        return status

    def _apply(self, *objects: Manifest) -> None:
        for item in objects:
            self._declared[item["kind"], item["metadata"]["name"]] = item
            self._site.kube.apply(item, self._site.namespace)

    def _annotate(self, command: str, value: str | None) -> None:
        patch = {"metadata": {"annotations": {f"sluice.dev/{command}": value}}}
        self._site.kube.patch("Endpoint", self._site.namespace, self._name, patch)

    # What is seen -----------------------------------------------------------------------------------------------

    def _until(self, look: Callable[[list[Object]], bool], what: str, since: int = 0) -> list[Object]:
        return self._site.recorder.until(
            self._name, lambda seen: bool(seen) and look(seen), what, self._over - time.monotonic(), since
        )

    def _seen(self, seen: list[Object]) -> Seen:
        last = seen[-1]["status"]
        return Seen(
            stages=tuple(_stages(seen)),
            outcomes=tuple(_outcomes(seen)),
            serves=self._serves(last),
            end=f"{last.get('endpointStatus')} {_reason(seen[-1])}",
            words=tuple(_once(str((one.get("status") or {}).get("endpointStatus")) for one in seen)),
            acknowledged=_commands(seen[-1]),
            sizes=_sizes(seen[-1]),
        )

    def _serves(self, status: Object) -> str:
        images = {
            image["specifiedImage"]
            for one in status.get("productionVariants") or ()
            for image in one.get("deployedImages") or ()
        }
        return ", ".join(sorted(self._site.images.name(image) for image in images))


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


def _outcomes(seen: list[Object]) -> list[str]:
    """Of the deployments that ended since the first of these, in order."""
    before, after = ((one.get("status") or {}).get("history") or () for one in (seen[0], seen[-1]))
    return [f"{one['outcome']} {one.get('cause') or 'None'}" for one in reversed(after[: len(after) - len(before)])]


def _moments(seen: list[Object]) -> tuple[str, ...]:
    """What an event may wait for."""
    return (*_stages(seen), *_outcomes(seen), _reason(seen[-1]))


def _sizes(one: Object) -> dict[str, Any]:
    """Of each variant what is in force: instances and weight."""
    return {
        variant["variantName"]: (variant.get("currentInstanceCount"), variant.get("currentWeight"))
        for variant in one["status"].get("productionVariants") or ()
    }


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
