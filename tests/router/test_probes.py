"""What the agent serves costs Envoy little, however many ask."""

import asyncio
import json
from collections import Counter
from collections.abc import Collection
from typing import cast

from aiohttp.test_utils import TestClient, TestServer

from sluice.router.admin import Admin
from sluice.router.agent import Agent
from sluice.router.probes import AT_ONCE, MOST_WAITING, application


class SlowEnvoy:
    """It answers when it is let, and counts who has asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()

    async def server_info(self) -> str:
        self.asked += 1
        await self.answers.wait()
        return json.dumps({"uptime_current_epoch": "7s"})

    async def traffic_stats(self, fleets: Collection[str]) -> str:
        return json.dumps({"stats": []})


async def test_few_questions_about_traffic_reach_envoy_at_once() -> None:
    envoy = SlowEnvoy()
    async with TestClient(TestServer(application(cast(Agent, None), cast(Admin, envoy)))) as client:

        async def ask() -> int:
            async with client.get("/traffic?fleet=churn-a") as answer:
                return answer.status

        asking = [asyncio.create_task(ask()) for _ in range(AT_ONCE + MOST_WAITING + 5)]
        async with asyncio.timeout(60):
            refused, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
            assert {task.result() for task in refused} == {503}
            assert envoy.asked == AT_ONCE
            envoy.answers.set()
            assert Counter(await asyncio.gather(*asking)) == {200: AT_ONCE + MOST_WAITING, 503: 5}
            assert await ask() == 200
