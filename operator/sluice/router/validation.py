"""Asks Envoy itself why it refuses a route: one process that reads a configuration with this route alone and ends."""

import asyncio
import json
import tempfile
from typing import Final

from sluice.api.routes import EndpointRouteSpec
from sluice.router.clusters import compile_fleet
from sluice.router.routes import compile_scope

TIMEOUT_SECONDS: Final = 20.0


async def validate(envoy: str, bootstrap: str, spec: EndpointRouteSpec) -> str:
    """The reason why Envoy, started with this bootstrap (JSON), would not take this route; empty if it would."""
    body = json.loads(bootstrap)
    manager = body["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["scoped_routes"], body["dynamic_resources"]
    manager["route_config"] = compile_scope(spec, "candidate")["route_configuration"]
    fleets = [*spec.fleets, *(shadow.fleet for shadow in spec.shadows)]
    for fleet in fleets:
        for cluster in compile_fleet(spec.endpoint_name, fleet, ()):
            del cluster["@type"]
            body["static_resources"]["clusters"].append(cluster)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(body, file)
        file.flush()
        process = await asyncio.create_subprocess_exec(
            envoy,
            *("--mode", "validate", "--log-level", "critical", "--disable-hot-restart", "-c", file.name),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_SECONDS)
        except TimeoutError:
            process.kill()
            await process.wait()
            return f"Envoy's validation took longer than {TIMEOUT_SECONDS:g} s"
        finally:
            if process.returncode is None:
                process.kill()
    if process.returncode == 0:
        return ""
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    reason = next((line for line in lines if "error initializing" in line), lines[-1] if lines else "no reason given")
    return reason.split("]", 4)[-1].strip().replace(file.name, "candidate")
