"""The agent's own probes: /ready (this router may get requests) and /live (the loop turns)."""

from aiohttp import web

from sluice.router.agent import Agent


async def serve(agent: Agent, port: int) -> web.AppRunner:
    """Listen; the runner is to be cleaned up."""

    async def ready(_: web.Request) -> web.Response:
        return _answer(await agent.ready())

    async def live(_: web.Request) -> web.Response:
        return _answer(agent.alive())

    app = web.Application()
    app.add_routes([web.get("/ready", ready), web.get("/live", live)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    return runner


def _answer(good: bool) -> web.Response:
    return web.Response(text="ok\n") if good else web.Response(status=503, text="not yet\n")
