"""The running simulator: a world, its clock, its callers and its log; one object the HTTP layer talks to."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import Any

from . import deployments, operations, validation
from .clock import Clock
from .errors import ServiceError, access_denied, throttled
from .faults import Fault, FaultKind
from .identity import Caller, Callers
from .request_log import Entry, RequestLog
from .settings import Settings
from .state import World

log = logging.getLogger(__name__)

DEFAULT_ACCOUNT = "111122223333"
_BEFORE = (FaultKind.THROTTLING, FaultKind.SERVER_ERROR, FaultKind.ACCESS_DENIED, FaultKind.QUOTA)


class Simulator:
    """Everything but the network. ``call`` answers one request at the clock's now."""

    def __init__(
        self, speed: float = 1.0, account: str = DEFAULT_ACCOUNT, settings: Settings | None = None, seed: int = 0
    ) -> None:
        self.clock = Clock(speed)
        self.callers = Callers(account)
        self.requests = RequestLog()
        self._defaults = settings or Settings()
        self._seed = seed
        self.world = World(self.clock.now(), self._fresh_settings(), seed)
        self.broken_responses: list[str] = []
        """Responses the service model does not allow: must stay empty, tests check it."""

    def _fresh_settings(self) -> Settings:
        settings = Settings()
        settings.change(self._defaults.as_dict())
        settings.quotas = dict(self._defaults.quotas)
        return settings

    def reset(self) -> None:
        """Forgets objects, faults, alarms, settings that were changed, and the request log; time goes on."""
        reading = self.world.alarms.read_at
        self.world = World(self.clock.now(), self._fresh_settings(), self._seed)
        self.world.alarms.read_at = reading
        self.requests.reset()

    def catch_up(self) -> World:
        """The world at the clock's now."""
        self.world.advance(self.clock.now())
        return self.world

    def take_reading(self, states: dict[tuple[str, str], str], at: float) -> None:
        """Takes over a reading of CloudWatch, by region and name, begun at simulated time ``at``."""
        world = self.catch_up()
        world.alarms.reading(states, at)
        deployments.alarms_changed(world)

    def fault_of_call(self, kind: FaultKind, operation: str, target: str, caller: Caller) -> Fault | None:
        """Whether a fault of that kind strikes this call."""
        return self.world.faults.strike(kind, target=target, operation=operation, role=caller.label)

    def call(self, service: str, operation: str, caller: Caller, region: str, body: Any) -> dict[str, Any]:
        """Answers one sagemaker or application-autoscaling request; raises ServiceError for a refusal."""
        world = self.catch_up()
        target = operations.target_name(body) if isinstance(body, dict) else ""
        fault = world.faults.strike(*_BEFORE, target=target, operation=operation, role=caller.label)
        if fault is not None:
            raise _refusal(fault, service, operation, caller, target)
        request = validation.check_request(service, operation, body)
        handler = operations.handler(service, operation)
        response = handler(world, world.region(caller.account, region), request)
        try:
            validation.check_response(service, operation, response)
        except validation.ResponseDoesNotFitError as error:
            log.error("the simulator answered what the service model does not allow: %s", error)
            self.broken_responses.append(str(error))
            raise ServiceError("InternalFailure", str(error), HTTPStatus.INTERNAL_SERVER_ERROR) from error
        return response

    def record(self, service: str, operation: str, caller: Caller, region: str, target: str, code: str) -> None:
        """Adds a request to the log."""
        self.requests.add(
            Entry(round(self.world.now, 3), service, operation, caller.label, caller.account, region, target, code)
        )


def _refusal(fault: Fault, service: str, operation: str, caller: Caller, target: str) -> ServiceError:
    parameters = fault.parameters
    match fault.kind:
        case FaultKind.THROTTLING:
            return throttled()
        case FaultKind.ACCESS_DENIED:
            prefix = "application-autoscaling" if service == "application-autoscaling" else "sagemaker"
            return access_denied(caller.arn, f"{prefix}:{operation}", target or "*")
        case FaultKind.QUOTA:
            reason = "The account-level service limit 'Number of endpoints' is 0 endpoints."
            return ServiceError("ResourceLimitExceeded", str(parameters.get("reason", reason)))
        case _:
            status = int(parameters.get("status", HTTPStatus.INTERNAL_SERVER_ERROR))
            code = "ServiceUnavailable" if status == HTTPStatus.SERVICE_UNAVAILABLE else "InternalFailure"
            return ServiceError(str(parameters.get("code", code)), "The request failed inside the service.", status)
