"""The capability table: what becomes of a command on each backend and in each situation.

SageMaker cannot stop, pause or promote an update: such commands are refused by name, not swallowed. In the cluster
core.cluster.steering and gates judge their values."""

from sluice.api.reasons import CommandResult

Situation = str
"""settled or moving."""

RETRY, ROLLBACK, PROMOTE, PAUSE, IGNORE_FIRING = "retry", "rollback", "promote", "pause", "ignore-firing"

TABLE: dict[tuple[str, str], dict[Situation, CommandResult]] = {
    ("SageMaker", RETRY): {"settled": CommandResult.DONE, "moving": CommandResult.QUEUED},
    ("SageMaker", ROLLBACK): {"settled": CommandResult.DONE, "moving": CommandResult.QUEUED},
    ("SageMaker", PROMOTE): {"settled": CommandResult.REFUSED, "moving": CommandResult.REFUSED},
    ("SageMaker", PAUSE): {"settled": CommandResult.REFUSED, "moving": CommandResult.REFUSED},
    ("SageMaker", IGNORE_FIRING): {"settled": CommandResult.DONE, "moving": CommandResult.QUEUED},
    ("Cluster", RETRY): {"settled": CommandResult.DONE, "moving": CommandResult.DONE},
    ("Cluster", ROLLBACK): {"settled": CommandResult.DONE, "moving": CommandResult.DONE},
    ("Cluster", PROMOTE): {"settled": CommandResult.REFUSED, "moving": CommandResult.DONE},
    ("Cluster", PAUSE): {"settled": CommandResult.QUEUED, "moving": CommandResult.DONE},
    ("Cluster", IGNORE_FIRING): {"settled": CommandResult.DONE, "moving": CommandResult.DONE},
}


def outcome(backend: str, command: str, situation: Situation) -> CommandResult:
    """What becomes of the command; unknown combinations are refused."""
    return TABLE.get((backend, command), {}).get(situation, CommandResult.REFUSED)
