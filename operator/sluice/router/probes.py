"""What the agent serves: its probes /ready (this router may get requests) and /live (the loop turns), and /traffic,
which the operator reads for alarms."""

import asyncio
from typing import Final

from aiohttp import web

from sluice.router import traffic
from sluice.router.admin import Admin, EnvoyUnavailable
from sluice.router.agent import Agent
from sluice.router.traffic import WrongQuestionError

AT_ONCE: Final = 2
"""Questions about traffic: for each Envoy's main thread walks over all that it has counted. The operator asks a router
one after the other."""
MOST_WAITING: Final = 8


async def serve(agent: Agent, admin: Admin, port: int) -> web.AppRunner:
    """Listen; the runner is to be cleaned up."""
    runner = web.AppRunner(application(agent, admin), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner


def application(agent: Agent, admin: Admin) -> web.Application:
    """All paths."""
    turn = asyncio.Semaphore(AT_ONCE)
    asking = 0

    async def ready(_: web.Request) -> web.Response:
        return _answer(await agent.ready())

    async def live(_: web.Request) -> web.Response:
        return _answer(agent.alive())

    async def counted(request: web.Request) -> web.Response:
        nonlocal asking
        if asking == AT_ONCE + MOST_WAITING:
            return web.Response(status=503, text="too many ask at once\n")
        asking += 1
        try:
            async with turn:
                return web.json_response(await traffic.read(admin, request.query.getall("fleet", [])))
        except WrongQuestionError as error:
            return web.Response(status=400, text=f"{error}\n")
        except EnvoyUnavailable as error:
            return web.Response(status=503, text=f"{error}\n")
        finally:
            asking -= 1

    app = web.Application()
    app.add_routes([web.get("/ready", ready), web.get("/live", live), web.get("/traffic", counted)])
    return app


def _answer(good: bool) -> web.Response:
    return web.Response(text="ok\n") if good else web.Response(status=503, text="not yet\n")
