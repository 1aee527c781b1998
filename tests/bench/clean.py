"""False rollbacks, where a reading could bring one about: deployments of good revisions under load and under alarms
that read what the routers count, while routers restart and pods come and go. Then a bad revision for each Endpoint
under one of the same alarms, which must be turned back: else the alarms would not have been read before either."""

from __future__ import annotations

import itertools
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.bench.figures import Figure
from tests.bench.lost import replace_router, upper_bound
from tests.bench.policies import policies
from tests.bench.reactions import PROMQL
from tests.bench.rollouts import Rollouts, scraped
from tests.bench.routing import NAMESPACE, Called, Calls, Routing
from tests.bench.turning import FIRST_BAD
from tests.conformance.recorder import Recorder
from tests.operator.harness.kube import Object

from sluice.core.cluster.names import LABEL_FLEET

PERCENT, WAIT_SECONDS = 40, 3
"""Of three instances one is a canary or a batch."""
ADDRESSES = 120
RESTART_SECONDS, CHURN_SECONDS = 20.0, 3.0
"""From one restart of a router to the next, and from one pod that goes to the next."""
CONTROL_WAIT_SECONDS = 60
LOOK_SECONDS = 0.2
ALARMS = (FIRST_BAD, PROMQL)
"""Any bad answer within 5 s, as the routers count; a share of more than 2 %, as Prometheus has it."""


@dataclass(frozen=True, slots=True)
class Clean:
    """Who deploys how often under which load."""

    deployments: int
    longest_seconds: float
    """No deployment begins after so long: on a busy machine there are fewer."""
    copies: int
    """Endpoints of each policy."""
    instances: int
    per_second: int
    """Requests of each Endpoint."""
    kept: int
    """Connections of each Endpoint that are kept alive; one more is for one request each."""
    must_be_all: bool = False
    """Fewer deployments are a failure."""

    def policies(self, wait_seconds: int = WAIT_SECONDS) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
        """Of each Endpoint: the name, the DeploymentConfig, the Endpoint's `kubernetes`. Not a policy whose only
        instance would go before its successor comes: that loses requests by design."""
        found = policies(wait_seconds, PERCENT).items()
        kept = [(name, *both) for name, both in found if self.instances > 1 or not both[1].get("replaceFirst")]
        return kept * self.copies


DISTURBED = Clean(deployments=100, longest_seconds=300, copies=1, instances=3, per_second=40, kept=3)
THOUSAND = Clean(deployments=1000, longest_seconds=2400, copies=5, instances=1, per_second=10, kept=1, must_be_all=True)


def disturbed(directory: Path, *, quick: bool) -> list[Figure]:
    """One Endpoint for each policy, side by side, under load, while pods come and go."""
    return clean(directory, replace(DISTURBED, deployments=10) if quick else DISTURBED)


def thousand(directory: Path, *, quick: bool) -> list[Figure]:
    """Many Endpoints of one instance each, whose pods live as long as they are wanted."""
    return clean(directory, replace(THOUSAND, deployments=40) if quick else THOUSAND)


def clean(directory: Path, shape: Clean) -> list[Figure]:
    """Endpoints deploy side by side, until there were so many deployments of all of them."""
    configs = shape.policies()
    settings = {"SLUICE_MAX_CONCURRENT_DEPLOYMENTS_PER_NAMESPACE": "0"}
    with scraped(directory, shape.instances, addresses=ADDRESSES, **settings) as (first, _):
        stages = [first, *(first.beside(f"e{number}") for number in range(1, len(configs)))]
        for stage, (_, config, kubernetes) in zip(stages, configs, strict=True):
            stage.guard(config, {**kubernetes, "alarms": list(ALARMS)})
        recorder, load, disturbed = Recorder(first.world.kube, NAMESPACE), _Load(stages, shape), _Disturbed(shape)
        began, tickets = time.monotonic(), iter(range(shape.deployments))
        latest = began + shape.longest_seconds
        every = LOOK_SECONDS * shape.copies
        ended = _side_by_side(
            stages, lambda stage: _deployed(stage, tickets, latest, every), lambda: disturbed.once(first.world, load)
        )
        seconds, called = time.monotonic() - began, load.finish()
        read = _read([one for stage in stages for one in recorder.seen(stage.endpoint)])
        recorder.close()
        turned_back = _control(stages, shape)
    lasts = [last for one in ended for last in one]
    wrong = [last for last in lasts if last["outcome"] != "Succeeded"]
    lost, total = sum(one.lost_count for one in called), sum(one.total for one in called)
    return [
        Figure(
            f"false rollbacks in {len(lasts)} deployments of good revisions: {len(stages)} Endpoints of "
            f"{shape.instances} instances, {shape.copies} for each policy, under {shape.per_second} requests/s each, "
            "alarms by traffic (any 5xx) and PromQL (2 %), with "
            f"{disturbed.routers} restarts of routers and {disturbed.pods} pods replaced",
            f"{len(wrong)}; {lost} requests lost of {total:,} (95 %: < {1e6 * upper_bound(lost) / total:.0f} per "
            f"million); read with data in {read['traffic']} (traffic) and {read['promql']} (PromQL) of them; then "
            f"{sum(turned_back.values())} of {len(stages)} bad revisions, one for each Endpoint, turned back by its "
            "one alarm",
            "0; 0 lost",
            {
                "seconds": round(seconds),
                "outcomes": dict(Counter(last["outcome"] for last in lasts)),
                "byPolicy": dict(
                    sum((Counter({config[0]: len(one)}) for config, one in zip(configs, ended, strict=True)), Counter())
                ),
                "wrong": [{key: last.get(key) for key in ("outcome", "cause", "message")} for last in wrong],
                "requests": total,
                "lost": lost,
                "statuses": dict(sum((Counter(one.statuses) for one in called), Counter())),
                "samples": [sample for one in called for sample in one.lost][:20],
                "readWithData": read,
                "turnedBack": turned_back,
            },
            {
                "false rollbacks": len(wrong),
                "lost": lost,
                "bad revisions that were not turned back": len(stages) - sum(turned_back.values()),
                "deployments too few": shape.deployments - len(lasts) if shape.must_be_all else 0,
            },
        )
    ]


def _side_by_side(
    stages: Sequence[Rollouts], work: Callable[[Rollouts], Any], meanwhile: Callable[[], None]
) -> list[Any]:
    """`work` for each stage at once, and `meanwhile` again and again until all have ended."""
    with ThreadPoolExecutor(len(stages)) as pool:
        running: list[Future[Any]] = [pool.submit(work, stage) for stage in stages]
        while not all(one.done() for one in running):
            meanwhile()
        return [one.result() for one in running]


def _deployed(stage: Rollouts, tickets: Iterator[int], latest: float, every: float) -> list[dict[str, Any]]:
    """One deployment after the other, as long as there are tickets and it is not too late: how each ended."""
    ended = []
    while time.monotonic() < latest and next(tickets, None) is not None:
        ended.append(stage.try_out(every=every)["lastDeployment"])
    return ended


class _Load:
    """A caller for each Endpoint, through both routers."""

    def __init__(self, stages: Sequence[Rollouts], shape: Clean) -> None:
        world, rate = stages[0].world, shape.per_second
        self._calls: list[Calls] = [
            world.call(stage.endpoint, *world.routers, concurrency=shape.kept, singles=1, per_second=rate)
            for stage in stages
        ]
        for calls in self._calls:
            calls.until_total(rate, 60)

    def use(self, *routers: Any) -> None:
        """New connections go to these alone."""
        for calls in self._calls:
            calls.use(*routers)

    def finish(self) -> list[Called]:
        """What came of it."""
        return [calls.finish() for calls in self._calls]


@dataclass(slots=True)
class _Disturbed:
    """What has happened beside the deployments."""

    shape: Clean
    routers: int = 0
    pods: int = 0
    _restart_at: float = field(default_factory=lambda: time.monotonic() + RESTART_SECONDS / 2)

    def once(self, world: Routing, load: _Load) -> None:
        """A pod goes, or a router restarts where it is time; then some rest."""
        if time.monotonic() >= self._restart_at:
            leaving, staying = (world.routers[(self.routers + number) % 2] for number in (0, 1))
            load.use(staying)
            replace_router(leaving)
            load.use(*world.routers)
            self.routers += 1
            self._restart_at = time.monotonic() + RESTART_SECONDS
        elif self.shape.instances > 1 and (pods := _whole_fleets(world, self.shape.instances)):
            world.kube.delete("Pod", NAMESPACE, random.choice(pods))  # noqa: S311 - any of them
            self.pods += 1
        time.sleep(CHURN_SECONDS)


def _whole_fleets(world: Routing, instances: int) -> list[str]:
    """Pods of fleets that have all their instances, ready: so that others are left, as a disruption budget sees to it,
    also where the operator takes the next one of a rolling deployment away at the same moment."""
    whole = {
        deployment["metadata"]["name"]
        for deployment in world.kube.list("Deployment", NAMESPACE)
        if deployment["spec"]["replicas"] == instances
    }
    ready: dict[str, list[str]] = {}
    for pod in world.kube.list("Pod", NAMESPACE, labelSelector=LABEL_FLEET):
        if any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions") or ()):
            ready.setdefault(pod["metadata"]["labels"][LABEL_FLEET], []).append(pod["metadata"]["name"])
    return list(
        itertools.chain(*(ready[fleet] for fleet in ready if fleet in whole and len(ready[fleet]) == instances))
    )


def _read(seen: list[Object]) -> dict[str, int]:
    """Of how many deployments each kind of alarm was read with data while they ran."""
    found: dict[str, set[tuple[str, str]]] = {"Traffic": set(), "PromQL": set()}
    for one in seen:
        status = one.get("status") or {}
        if deployment := status.get("deployment"):
            for alarm in status.get("alarms") or ():
                if alarm["state"] in ("OK", "ALARM"):
                    found[alarm["source"]].add((one["metadata"]["name"], deployment["startTime"]))
    return {source.lower(): len(which) for source, which in found.items()}


def _control(stages: Sequence[Rollouts], shape: Clean) -> dict[str, int]:
    """Kind of alarm -> bad revisions that it turned back, of one for each Endpoint under one alarm each."""
    guarded = dict(zip((stage.endpoint for stage in stages), itertools.cycle(ALARMS), strict=False))
    for stage, (_, config, kubernetes) in zip(stages, shape.policies(CONTROL_WAIT_SECONDS), strict=True):
        stage.guard(config, {**kubernetes, "alarms": [guarded[stage.endpoint]]})
    standins = stages[0].standins
    assert standins is not None
    standins.record = stages[0].world.directory / "bad"
    load = _Load(stages, shape)
    ended = _side_by_side(
        stages, lambda stage: stage.try_out(every=LOOK_SECONDS)["lastDeployment"], lambda: time.sleep(LOOK_SECONDS)
    )
    load.finish()
    kinds = {"traffic": FIRST_BAD["name"], "promql": PROMQL["name"]}
    return {
        kind: sum(
            (last["outcome"], last["cause"]) == ("RolledBack", "Alarm") and guarded[stage.endpoint]["name"] == name
            for stage, last in zip(stages, ended, strict=True)
        )
        for kind, name in kinds.items()
    }


PARTS: dict[str, Callable[..., list[Figure]]] = {
    "deployments-clean-traffic": disturbed,
    "deployments-clean-thousand": thousand,
}
"""Each takes a directory of its own and `quick`."""
