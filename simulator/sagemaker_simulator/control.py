"""The control endpoint under ``/_simulator``: the clock, faults, alarms, changes from outside, and what happened."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from . import activities, deployments, endpoints, outside
from .errors import ServiceError
from .faults import FaultKind, parse
from .identity import DEFAULT_REGION
from .simulator import Simulator
from .state import Endpoint, Region

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
ReadAlarms = Callable[[float], Awaitable[None]]


def _variants(endpoint: Endpoint) -> dict[str, Any]:
    return {
        name: {
            "currentWeight": one.current_weight,
            "desiredWeight": one.desired_weight,
            "currentInstanceCount": one.current_count,
            "desiredInstanceCount": one.desired_count,
            "images": [image.resolved for image in one.images],
        }
        for name, one in endpoint.variants.items()
    }


def _region(region: Region) -> dict[str, Any]:
    return {
        "account": region.account,
        "region": region.name,
        "models": {name: dict(one.fields) for name, one in region.models.items()},
        "endpointConfigs": {name: dict(one.fields) for name, one in region.configs.items()},
        "endpoints": {
            one.name: {
                "status": one.status,
                "endpointConfigName": one.config.name,
                "failureReason": one.failure_reason,
                "variants": _variants(one),
                "leftover": sorted(one.leftover),
                "activity": activities.as_dict(one.activity),
                "lastModifiedTime": one.modified,
            }
            for one in region.endpoints.values()
        },
        "tags": region.tags,
        "scalableTargets": list(region.scalable_targets.values()),
    }


class Control:
    """Handlers over one simulator."""

    def __init__(self, simulator: Simulator, read_alarms: ReadAlarms) -> None:
        self._simulator = simulator
        self._read_alarms = read_alarms

    async def clock(self, request: web.Request) -> web.Response:
        """POST {"advance": seconds}: lets simulated time pass; {"speed": n}: it runs at that speed from now on.
        GET: what time it is."""
        clock = self._simulator.clock
        if request.method == "POST":
            wanted = await request.json()
            if "speed" in wanted:
                clock.pace(float(wanted["speed"]))
            else:
                seconds = float(wanted["advance"])
                await self._read_alarms(clock.now() + seconds)
                clock.advance(seconds)
        self._simulator.catch_up()
        return web.json_response({"now": clock.now(), "speed": clock.speed})

    async def set_fault(self, request: web.Request) -> web.Response:
        """POST: sets a fault. Maintenance and changes from outside are done at once, or ``after`` seconds."""
        fault = parse(await request.json())
        world = self._simulator.catch_up()
        if fault.kind in (FaultKind.MAINTENANCE, FaultKind.EXTERNAL_CHANGE):
            outside.schedule(world, fault)
            return web.json_response({"id": 0})
        return web.json_response({"id": world.faults.set(fault).id})

    async def faults(self, _request: web.Request) -> web.Response:
        """GET: the faults that are set, with how often each has struck."""
        return web.json_response(self._simulator.catch_up().faults.as_list())

    async def clear_faults(self, request: web.Request) -> web.Response:
        """DELETE: one fault by id, or all."""
        named = request.match_info.get("id")
        try:
            self._simulator.catch_up().faults.clear(int(named) if named else None)
        except KeyError as error:
            raise web.HTTPNotFound(text=f"fault {named} is not set") from error
        return web.json_response({})

    async def requests(self, request: web.Request) -> web.Response:
        """GET: the request log and its counters. DELETE: forgets them."""
        if request.method == "DELETE":
            self._simulator.requests.reset()
        shown = self._simulator.requests.as_dict()
        if "counts" in request.query:
            del shown["requests"]
        return web.json_response(shown)

    async def state(self, _request: web.Request) -> web.Response:
        """GET: everything that exists, and every response the service model did not allow."""
        world = self._simulator.catch_up()
        return web.json_response(
            {
                "now": world.now,
                "settings": world.settings.as_dict(),
                "alarms": world.alarms.as_dict(),
                "brokenResponses": self._simulator.broken_responses,
                "regions": [_region(region) for region in world.regions.values()],
            }
        )

    async def reset(self, _request: web.Request) -> web.Response:
        """POST: forgets everything but the time."""
        self._simulator.reset()
        return web.json_response({})

    async def settings(self, request: web.Request) -> web.Response:
        """PUT {name: value}: changes settings. GET: shows them."""
        world = self._simulator.catch_up()
        if request.method == "PUT":
            world.settings.change(await request.json())
        return web.json_response(world.settings.as_dict())

    async def alarm(self, request: web.Request) -> web.Response:
        """POST {"state": "OK" | "ALARM" | "INSUFFICIENT_DATA"}: sets an alarm. DELETE: leaves it to CloudWatch."""
        world = self._simulator.catch_up()
        if request.method == "DELETE":
            world.alarms.unset(request.match_info["name"])
        else:
            world.alarms.set(request.match_info["name"], (await request.json())["state"])
        deployments.alarms_changed(world)
        return web.json_response(world.alarms.as_dict())

    async def image(self, request: web.Request) -> web.Response:
        """POST {"image": reference, "digest": sha256}: what a tag stands for from now on."""
        body = await request.json()
        self._simulator.world.image_digests[body["image"]] = body["digest"]
        return web.json_response({})

    async def caller(self, request: web.Request) -> web.Response:
        """POST {"accessKeyId", "account", "role"}: whose an access key is."""
        body = await request.json()
        self._simulator.callers.introduce(body["accessKeyId"], body["account"], body.get("role", ""))
        return web.json_response({})

    async def role(self, request: web.Request) -> web.Response:
        """POST {"roleArn", "externalId"}: the ExternalId that AssumeRole asks for (null: none any more)."""
        body = await request.json()
        if body.get("externalId") is None:
            self._simulator.callers.external_ids.pop(body["roleArn"], None)
        else:
            self._simulator.callers.external_ids[body["roleArn"]] = body["externalId"]
        return web.json_response({})

    async def endpoint(self, request: web.Request) -> web.Response:
        """PUT: a change by somebody else. DELETE: somebody else deletes it (``?now=1``: it is gone at once)."""
        world = self._simulator.catch_up()
        region = world.region(
            request.query.get("account", self._simulator.callers.account), request.query.get("region", DEFAULT_REGION)
        )
        found = endpoints.find(world, region, request.match_info["name"])
        if request.method == "DELETE":
            if "now" in request.query:
                endpoints.remove(found)
            else:
                endpoints.delete_endpoint(world, region, {"EndpointName": found.name})
        else:
            outside.change(world, found, await request.json())
        return web.json_response({"status": found.status})


@web.middleware
async def _explain(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A wrong control request is told what is wrong with it."""
    try:
        return await handler(request)
    except (ValueError, KeyError, TypeError, json.JSONDecodeError) as error:
        return web.json_response({"error": f"{type(error).__name__}: {error}"}, status=400)
    except ServiceError as error:
        return web.json_response({"error": error.message}, status=409)


def add_routes(app: web.Application, simulator: Simulator, read_alarms: ReadAlarms) -> None:
    """Mounts the control endpoint at ``/_simulator``."""
    handlers = Control(simulator, read_alarms)
    sub = web.Application(middlewares=[_explain])
    sub.add_routes(
        [
            web.get("/clock", handlers.clock),
            web.post("/clock", handlers.clock),
            web.get("/faults", handlers.faults),
            web.post("/faults", handlers.set_fault),
            web.delete("/faults", handlers.clear_faults),
            web.delete("/faults/{id}", handlers.clear_faults),
            web.get("/requests", handlers.requests),
            web.delete("/requests", handlers.requests),
            web.get("/state", handlers.state),
            web.post("/reset", handlers.reset),
            web.get("/settings", handlers.settings),
            web.put("/settings", handlers.settings),
            web.post("/alarms/{name}", handlers.alarm),
            web.delete("/alarms/{name}", handlers.alarm),
            web.post("/images", handlers.image),
            web.post("/callers", handlers.caller),
            web.post("/roles", handlers.role),
            web.put("/endpoints/{name}", handlers.endpoint),
            web.delete("/endpoints/{name}", handlers.endpoint),
        ]
    )
    app.add_subapp("/_simulator/", sub)
