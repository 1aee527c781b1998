"""Where writing is off (annotation sluice.dev/reconcile: disabled, or the operator's read-only mode): say what would be
done, and do nothing."""

from collections.abc import Callable
from dataclasses import replace

from sluice.api import names
from sluice.api.reasons import Reason
from sluice.core.endpoint.draft import Draft

_HOW = {
    Reason.RECONCILE_DISABLED: "annotation sluice.dev/reconcile: disabled",
    Reason.READ_ONLY: "read-only mode",
}


def frozen(d: Draft) -> Reason | None:
    """Why nothing may be written; None if it may."""
    if d.annotation(names.RECONCILE) == names.RECONCILE_DISABLED:
        return Reason.RECONCILE_DISABLED
    return Reason.READ_ONLY if d.given.settings.read_only else None


def say(d: Draft, reason: Reason, wish: str) -> None:
    """Stalled: what would otherwise be done."""
    d.stalled(reason, f"Nothing is written ({_HOW[reason]}); otherwise Sluice would: {wish}.")


def unless_frozen(d: Draft, reason: Reason | None, step: Callable[[Draft], None]) -> None:
    """Run a step; where writing is off, try it on a copy and say what it would have done."""
    if reason is None:
        step(d)
        return
    trial = d.fork()
    step(trial)
    if not trial.actions:
        d.take(trial)
        if d.verdict is not None and d.verdict.kind == "reconciling":
            # It waits for something after which it would write: the message must not promise that.
            d.verdict = replace(d.verdict, message=f"{d.verdict.message} Nothing is written ({_HOW[reason]}).")
        return
    say(d, reason, ", ".join(dict.fromkeys(type(action).__name__ for action in trial.actions)))
