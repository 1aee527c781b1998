"""What the agent serves: its probes /ready (this router may get requests) and /live (the loop turns), and /traffic,
which the operator reads for alarms."""

from aiohttp import web

from sluice.router import traffic
from sluice.router.admin import Admin, EnvoyUnavailable
from sluice.router.agent import Agent
from sluice.router.traffic import MAX_FLEETS, WrongQuestionError


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
            named = request.query.getall("fleet", []) if request.method == "GET" else await _lines(request)
            return web.json_response(await traffic.read(admin, named))
        except WrongQuestionError as error:
            return web.Response(status=400, text=f"{error}\n")
        except EnvoyUnavailable as error:
            return web.Response(status=503, text=f"{error}\n")

    # A fleet's name has 63 characters at most.
    app = web.Application(client_max_size=64 * MAX_FLEETS)
    app.add_routes([web.get("/ready", ready), web.get("/live", live)])
    app.add_routes([web.get("/traffic", counted), web.post("/traffic", counted)])
    return app


async def _lines(request: web.Request) -> list[str]:
    """Raises WrongQuestionError, web.HTTPRequestEntityTooLarge."""
    try:
        return (await request.read()).decode("ascii").split()
    except UnicodeDecodeError:
        raise WrongQuestionError("names of fleets are ASCII") from None


def _answer(good: bool) -> web.Response:
    return web.Response(text="ok\n") if good else web.Response(status=503, text="not yet\n")
