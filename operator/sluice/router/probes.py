"""What the agent serves: its probes /ready (this router may get requests) and /live (the loop turns), and /traffic,
which the operator reads for alarms."""

from aiohttp import web

from sluice.router import traffic
from sluice.router.admin import Admin, EnvoyUnavailable
from sluice.router.agent import Agent
from sluice.router.traffic import WrongQuestionError


async def serve(agent: Agent, admin: Admin, port: int) -> web.AppRunner:
    """Listen; the runner is to be cleaned up."""
    runner = web.AppRunner(application(agent, admin), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner


def application(agent: Agent, admin: Admin) -> web.Application:
    """All paths."""

    async def ready(_: web.Request) -> web.Response:
        return _answer(await agent.ready())

    async def live(_: web.Request) -> web.Response:
        return _answer(agent.alive())

    async def counted(request: web.Request) -> web.Response:
        try:
            return web.json_response(await traffic.read(admin, request.query.getall("fleet", [])))
        except WrongQuestionError as error:
            return web.Response(status=400, text=f"{error}\n")
        except EnvoyUnavailable as error:
            return web.Response(status=503, text=f"{error}\n")

    app = web.Application()
    app.add_routes([web.get("/ready", ready), web.get("/live", live), web.get("/traffic", counted)])
    return app


def _answer(good: bool) -> web.Response:
    return web.Response(text="ok\n") if good else web.Response(status=503, text="not yet\n")
