"""Asks Envoy itself which routes it refuses, and why: a process that reads a configuration with these routes alone and
ends (about 0.1 s). Many suspects are halved until the guilty ones are found."""

import asyncio
import json
import tempfile
from collections.abc import Mapping
from typing import Final

from sluice.api.routes import EndpointRouteSpec
from sluice.router.clusters import compile_fleet
from sluice.router.routes import compile_scope

TIMEOUT_SECONDS: Final = 20.0
_MOST: Final = 700
"""Characters of a reason; Envoy prints the whole configuration in front of it."""

Key = tuple[str, int]


async def find_refused(envoy: str, bootstrap: str, specs: Mapping[Key, EndpointRouteSpec]) -> dict[Key, str]:
    """The routes that Envoy, started with this bootstrap (JSON), would refuse, each with its reason."""
    if not specs:
        return {}
    reason = await _validate(envoy, bootstrap, [*specs.values()])
    if not reason:
        return {}
    keys = [*specs]
    if len(keys) == 1:
        return {keys[0]: reason}
    half = len(keys) // 2
    found: dict[Key, str] = {}
    for part in (keys[:half], keys[half:]):
        found |= await find_refused(envoy, bootstrap, {key: specs[key] for key in part})
    return found


async def _validate(envoy: str, bootstrap: str, specs: list[EndpointRouteSpec]) -> str:
    body = json.loads(bootstrap)
    del body["static_resources"]["listeners"][1:]
    manager = body["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    del manager["scoped_routes"], body["dynamic_resources"]
    hosts = []
    for number, spec in enumerate(specs):
        (host,) = compile_scope(spec, "candidate")["route_configuration"]["virtual_hosts"]
        hosts.append({**host, "name": f"candidate-{number}", "domains": [f"candidate-{number}"]})
        for fleet in (*spec.fleets, *(shadow.fleet for shadow in spec.shadows)):
            for cluster in compile_fleet(spec.endpoint_name, fleet, ()):
                del cluster["@type"]
                cluster["name"] = cluster["load_assignment"]["cluster_name"] = f"{number}/{cluster['name']}"
                body["static_resources"]["clusters"].append(cluster)
    # What is judged are the routes, not whether their clusters are there.
    manager["route_config"] = {"name": "candidates", "virtual_hosts": hosts, "validate_clusters": False}
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
            return f"Envoy's validation took longer than {TIMEOUT_SECONDS:g} s"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if process.returncode == 0:
        return ""
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    return lines[-1].rpartition(f"{file.name}'")[2].lstrip(": ")[-_MOST:] if lines else "Envoy gave no reason"
