"""Directories of the nodes that stored revisions name, as the administrator lists them now."""

import copy

from tests.core.cluster_stage import ClusterStage, blue_green
from tests.core.watched import name_of, reach

from sluice.core.cluster.actions import EnsureFleet
from sluice.core.resolve import Resolution, ResolveSettings, resolve

CACHE = {"modelDataAccess": {"cacheHostPath": "/var/cache/models/churn"}}


class Listed(ClusterStage):
    """An Endpoint under an administrator who lists directories."""

    directories: tuple[str, ...] = ("/var/cache/models",)

    def resolution(self) -> Resolution:
        settings = ResolveSettings("test", None, self.directories)
        return resolve(self.endpoint, lambda kind, name: self.objects.get((kind, name)), settings)


def served() -> Listed:
    """In service with a cache of the nodes."""
    stage = Listed(model_spec={"kubernetes": CACHE}, deploymentConfig=blue_green("CANARY", final=0))
    stage.in_service()
    return stage


def said(stage: ClusterStage) -> tuple[str, str, str]:
    """(result, reason, message) of the one command."""
    [ack] = stage.status.commands
    return ack.result, ack.reason or "", ack.message or ""


def test_a_revision_is_not_brought_back_with_a_directory_that_is_listed_no_more() -> None:
    stage = served()
    first = name_of(stage)
    stage.edit("Model", kubernetes={}, primaryContainer={"image": "two:1"})
    stage.step()
    stage.in_service()
    stage.directories = ("/mnt",)
    stage.annotate(rollback=first)
    stage.run(5)
    result, reason, message = said(stage)
    assert (result, reason) == ("Refused", "NotPermitted")
    assert "found /var/cache/models/churn, allowed by the administrator are directories below /mnt" in message
    assert stage.status.deployment is None
    stage.directories = ("/var/cache",)
    stage.annotate(rollback=f"{first}/2")
    stage.until("HeldByRollback", type_="Stalled")
    assert name_of(stage) == first


def test_a_revision_that_somebody_wrote_brings_no_directory_of_the_node() -> None:
    stage = served()
    forged = copy.deepcopy(next(iter(stage.revisions.values())))
    forged["metadata"]["name"] = "forged"
    forged["data"] |= {"fleetHash": "sha256:other"}
    forged["data"]["models"]["churn"]["kubernetes"]["modelDataAccess"]["cacheHostPath"] = "/etc/kubernetes"
    stage.revisions["forged"] = forged
    stage.annotate(rollback="forged")
    stage.step()
    assert said(stage)[:2] == ("Refused", "NotPermitted")
    assert not any(isinstance(action, EnsureFleet) for action in stage.actions)


def test_what_serves_is_gone_back_to_whatever_is_listed_now() -> None:
    """Its pods run with the directory already: nothing is made, and the way back must come."""
    stage = served()
    first = name_of(stage)
    stage.edit("Model", kubernetes={}, primaryContainer={"image": "two:1"})
    reach(stage, "Baking", 1)
    stage.directories = ()
    stage.annotate(rollback=first)
    stage.until("HeldByRollback", type_="Stalled")
    assert said(stage)[0] == "Done"
    assert (name_of(stage), stage.percent_new()) == (first, 0)
