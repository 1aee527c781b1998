"""From listed objects to what a pass decides from."""

from typing import Any

from sluice.cluster.seen import routers


def pod(name: str, uid: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"}}


def report(name: str, uid: str, *routes: tuple[str, int], rejected: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "metadata": {"name": name},
        "spec": {
            "podUID": uid,
            "schemaVersion": 1,
            "routes": [{"name": route, "uid": "u", "generation": generation} for route, generation in routes],
            "rejected": [{"name": route, "uid": "u", "generation": 9, "message": "no"} for route in rejected],
        },
    }


def test_a_report_may_come_in_parts_and_counts_for_the_very_pod() -> None:
    found = routers(
        [
            {**pod("r-0", "uid-0"), "status": {"conditions": [{"type": "Ready", "status": "True"}]}},
            pod("r-1", "uid-1"),
            {**pod("r-2", "uid-2"), "status": {"containerStatuses": [{"state": {"running": {}}}]}},
        ],
        [
            report("r-0", "uid-0", ("other", 5)),
            report("r-0.3", "uid-0", ("more", 6), ("churn", 7)),
            report("r-0.9", "uid-0", ("last", 8), rejected=("churn",)),
            report("r-1", "uid-1"),
            report("r-2", "an earlier pod's", ("churn", 7)),
        ],
        "churn",
    )
    assert [router.never_ran for router in found] == [False, True, False]
    first, second, third = (router.report for router in found)
    assert first is not None
    assert [(route.name, route.generation) for route in first.routes] == [("churn", 7)]
    assert [(route.name, route.generation) for route in first.rejected] == [("churn", 9)]
    assert second is not None
    assert (second.routes, second.rejected) == ((), ())
    assert third is None
