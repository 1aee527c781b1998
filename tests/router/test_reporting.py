"""What a router's reports say at the end, whatever became of single writes."""

from copy import deepcopy
from typing import Any, cast

import pytest

from sluice.api.routes import RouteReport, RouterReportSpec
from sluice.ports.kube import Conflict, Kube, KubeUnavailable, Object
from sluice.router.reporting import Reporter, whole

POD, UID = "router-1", "11111111-aaaa"
DRAINING = ("iris-main-0123456789",)


class Stored:
    """The reports as an API server holds them; `lose` answers: what the next writes do is done and not heard of."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.lose = 0
        self.writes = 0

    async def get(self, _kind: str, _namespace: str, name: str) -> Object | None:
        return deepcopy(self.objects.get(name))

    async def create(self, _kind: str, _namespace: str, body: Object) -> Object:
        if body["metadata"]["name"] in self.objects:
            raise Conflict("it exists")
        return self._store(body)

    async def replace(self, _kind: str, _namespace: str, body: Object) -> Object:
        stored = self.objects[body["metadata"]["name"]]
        if body["metadata"]["resourceVersion"] != stored["metadata"]["resourceVersion"]:
            raise Conflict("it is another one by now")
        return self._store(body)

    def _store(self, body: Object) -> Object:
        self.writes += 1
        stored = deepcopy(body)
        stored["metadata"]["resourceVersion"] = str(self.writes)
        self.objects[body["metadata"]["name"]] = stored
        if self.lose:
            self.lose -= 1
            raise KubeUnavailable("no answer")
        return deepcopy(stored)

    def routes(self) -> list[dict[str, Any]]:
        """What all parts together say."""
        return [route for stored in self.objects.values() for route in stored["spec"].get("routes", ())]


def spec(*draining: str) -> RouterReportSpec:
    return RouterReportSpec(
        podUID=UID, routes=(RouteReport(name="iris", uid="22222222-bbbb", generation=7, draining=draining),)
    )


@pytest.fixture
def stored() -> Stored:
    return Stored()


@pytest.fixture
def reporter(stored: Stored) -> Reporter:
    return Reporter(cast(Kube, stored), "team", POD, UID)


async def test_a_write_without_an_answer_is_not_taken_for_none(stored: Stored, reporter: Reporter) -> None:
    """The requests that ran have ended before the report of them could be repeated: what is to be told is what was
    written last, as far as anybody heard, and yet it is not what stands there."""
    assert await reporter.write(spec())
    stored.lose = 1
    assert not await reporter.write(spec(*DRAINING))
    assert stored.routes()[0]["draining"] == list(DRAINING)

    assert await reporter.write(spec())
    assert not stored.routes()[0].get("draining")


async def test_equal_reports_are_written_once_and_each_endpoint_in_one_part(stored: Stored, reporter: Reporter) -> None:
    assert await reporter.write(spec())
    before = stored.writes
    assert await reporter.write(spec())
    assert stored.writes == before
    assert await reporter.write(spec(*DRAINING))
    assert stored.writes == before + 1
    assert len(stored.routes()) == 1


async def test_a_report_that_somebody_changed_is_read_again(stored: Stored, reporter: Reporter) -> None:
    assert await reporter.write(spec())
    for one in stored.objects.values():
        one["metadata"]["resourceVersion"] = "another"
    assert not await reporter.write(spec(*DRAINING))
    assert await reporter.write(spec(*DRAINING))
    assert stored.routes()[0]["draining"] == list(DRAINING)


async def test_a_namespace_may_have_more_routes_than_a_part_of_the_report(stored: Stored) -> None:
    """The agent ended with the whole report, and again after each start."""
    routes = tuple(RouteReport(name=f"e{number}", uid=f"u{number}", generation=1) for number in range(2500))
    reporter = Reporter(cast(Kube, stored), "team-a", POD, UID)
    assert await reporter.write(whole(UID, routes, ()))
    assert sorted(route["name"] for route in stored.routes()) == sorted(route.name for route in routes)
    for part in stored.objects.values():
        RouterReportSpec.model_validate(part["spec"])  # as the API server would
