"""The HTTP layer: AWS JSON 1.1 for sagemaker and application-autoscaling, REST for the runtime, query for STS.

It decides nothing about SageMaker: it finds out who calls what, hands it to the simulator and writes the answer down.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web
from botocore.exceptions import BotoCoreError, ClientError

from . import control, deployments, runtime, sts
from .cloudwatch import CloudWatch
from .errors import ServiceError
from .faults import FaultKind
from .identity import DEFAULT_REGION, Caller, signature
from .operations import target_name
from .service_model import AUTOSCALING, RUNTIME, SAGEMAKER, STS
from .simulator import Simulator

log = logging.getLogger(__name__)

SIMULATOR = web.AppKey("simulator", Simulator)
CLOUDWATCH = web.AppKey("cloudwatch", CloudWatch)
_POLL_SECONDS = 0.2
_TARGETS = {"SageMaker": SAGEMAKER, "AnyScaleFrontendService": AUTOSCALING}
_JSON = "application/x-amz-json-1.1"


def _caller(request: web.Request) -> tuple[Caller, str]:
    simulator = request.app[SIMULATOR]
    signed = signature(request.headers.get("Authorization", ""))
    if signed is None:
        return simulator.callers.caller("anonymous"), DEFAULT_REGION
    return simulator.callers.caller(signed.access_key), signed.region


def _error(error: ServiceError, content_type: str = _JSON) -> web.Response:
    return web.Response(
        status=error.status,
        text=json.dumps({"__type": error.code, "message": error.message}),
        content_type=content_type,
        headers={"x-amzn-ErrorType": error.code, "x-amzn-RequestId": "simulated"},
    )


async def _latency(simulator: Simulator, operation: str, target: str, caller: Caller) -> None:
    fault = simulator.fault_of_call(FaultKind.LATENCY, operation, target, caller)
    if fault is not None:
        await asyncio.sleep(float(fault.parameters.get("seconds", 1.0)))


async def _lost(request: web.Request, operation: str, target: str, caller: Caller) -> web.Response | None:
    """What a client gets instead of an answer to a request that was carried out; None if nothing is lost."""
    fault = request.app[SIMULATOR].fault_of_call(FaultKind.LOST_RESPONSE, operation, target, caller)
    if fault is None:
        return None
    await asyncio.sleep(float(fault.parameters.get("seconds", 0)))
    if fault.parameters.get("mode", "drop") == "drop" and request.transport is not None:
        request.transport.abort()
    return _error(ServiceError("InternalFailure", "The response was lost.", 500))


async def _aws(request: web.Request) -> web.Response:
    if "X-Amz-Target" not in request.headers:
        return await _sts(request)
    prefix, _, operation = request.headers["X-Amz-Target"].rpartition(".")
    service = _TARGETS.get(prefix)
    caller, region = _caller(request)
    if service is None:
        return _error(ServiceError("UnknownOperationException", f"{prefix}.{operation} is not simulated."))
    simulator = request.app[SIMULATOR]
    try:
        body = json.loads(await request.read() or b"{}")
    except ValueError:
        return _error(ServiceError("SerializationException", "The request body is not JSON."))
    target = target_name(body) if isinstance(body, dict) else ""
    await _latency(simulator, operation, target, caller)
    code = "OK"
    try:
        answer = web.Response(
            text=json.dumps(simulator.call(service, operation, caller, region, body)),
            content_type=_JSON,
            headers={"x-amzn-RequestId": "simulated"},
        )
    except ServiceError as error:
        answer, code = _error(error), error.code
    if code == "OK" and (lost := await _lost(request, operation, target, caller)) is not None:
        answer, code = lost, "Lost"
    simulator.record(service, operation, caller, region, target, code)
    return answer


async def _sts(request: web.Request) -> web.Response:
    simulator = request.app[SIMULATOR]
    caller, region = _caller(request)
    form = {key: str(value) for key, value in (await request.post()).items()}
    action = form.get("Action", "")
    code, status = "OK", 200
    try:
        if simulator.fault_of_call(FaultKind.ACCESS_DENIED, action, form.get("RoleArn", ""), caller):
            raise ServiceError("AccessDenied", f"User: {caller.arn} is not authorized to perform: sts:{action}", 403)
        if action == "GetCallerIdentity":
            text = sts.get_caller_identity(caller)
        elif action == "AssumeRole":
            text = sts.assume_role(simulator.callers, caller, form, time.time())
        else:
            raise ServiceError("InvalidAction", f"The action {action} is not simulated.")
    except ServiceError as error:
        text, code, status = sts.error_body(error), error.code, error.status
    simulator.record(STS, action, caller, region, form.get("RoleArn", ""), code)
    return web.Response(text=text, status=status, content_type="text/xml")


async def _invoke(request: web.Request) -> web.Response:
    simulator = request.app[SIMULATOR]
    caller, region = _caller(request)
    name = request.match_info["name"]
    await request.read()
    await _latency(simulator, "InvokeEndpoint", name, caller)
    world = simulator.catch_up()
    code = "OK"
    try:
        if simulator.fault_of_call(FaultKind.THROTTLING, "InvokeEndpoint", name, caller):
            raise ServiceError("ThrottlingException", "Rate exceeded", 429)
        if simulator.fault_of_call(FaultKind.SERVER_ERROR, "InvokeEndpoint", name, caller):
            raise ServiceError("InternalFailure", "The request failed inside the service.", 500)
        variant, config = runtime.invoke(
            world,
            world.region(caller.account, region),
            name,
            request.headers.get("X-Amzn-SageMaker-Target-Variant"),
        )
        answer = web.Response(
            text=json.dumps(
                {"EndpointName": name, "EndpointConfigName": config, "VariantName": variant.name}
                | ({"Image": variant.images[0].resolved} if variant.images else {})
            ),
            content_type="application/json",
            headers={"x-Amzn-Invoked-Production-Variant": variant.name},
        )
    except ServiceError as error:
        answer, code = _error(error, "application/json"), error.code
    simulator.record(RUNTIME, "InvokeEndpoint", caller, region, name, code)
    return answer


async def read_alarms(app: web.Application, at: float | None = None) -> None:
    """Reads the watched alarms from CloudWatch, if one is configured; ``at`` is what the reading is good for."""
    simulator = app[SIMULATOR]
    if CLOUDWATCH not in app:
        return
    watched = deployments.watched_alarms(simulator.catch_up())
    begun = simulator.clock.now()
    if not watched:
        return
    try:
        states = await asyncio.to_thread(app[CLOUDWATCH].read, watched)
    except (BotoCoreError, ClientError) as error:
        log.warning("alarms cannot be read from %s: %s", app[CLOUDWATCH].endpoint_url, error)
        return
    simulator.take_reading(states, begun if at is None else at)


async def _poll_alarms(app: web.Application) -> AsyncIterator[None]:
    async def poll() -> None:
        while True:
            await read_alarms(app)
            await asyncio.sleep(_POLL_SECONDS)

    task = asyncio.create_task(poll()) if CLOUDWATCH in app and not app[SIMULATOR].clock.stepped else None
    yield
    if task is not None:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@web.middleware
async def _crash_log(request: web.Request, handler: Any) -> web.StreamResponse:
    try:
        response: web.StreamResponse = await handler(request)
    except (web.HTTPException, ConnectionError):  # a client that was killed in the middle is no fault of ours
        raise
    except Exception as error:
        log.exception("the simulator failed on %s %s", request.method, request.path)
        request.app[SIMULATOR].broken_responses.append(repr(error))
        return _error(ServiceError("InternalFailure", repr(error), 500))
    return response


def application(simulator: Simulator, cloudwatch_endpoint: str | None = None) -> web.Application:
    """The web application of one simulator; with a CloudWatch endpoint, deployments watch alarms there."""
    app = web.Application(client_max_size=16 * 1024 * 1024, middlewares=[_crash_log])
    app[SIMULATOR] = simulator
    if cloudwatch_endpoint:
        app[CLOUDWATCH] = CloudWatch(cloudwatch_endpoint)
        simulator.world.alarms.read_at = 0.0
    app.cleanup_ctx.append(_poll_alarms)
    app.router.add_post("/", _aws)
    app.router.add_post("/endpoints/{name}/invocations", _invoke)
    control.add_routes(app, simulator, lambda at: read_alarms(app, at))
    return app
