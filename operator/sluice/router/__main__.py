"""`python -m sluice.router`: `bootstrap --out FILE` writes Envoy's configuration, `agent` keeps its routes up to date,
`relay` serves streams, `drain` lets the router go, `show` prints what Envoy has. Exit codes: 0 done, 1 failed, 2 wrong
settings."""

import argparse
import asyncio
import gc
import json
import logging
import signal
import sys
from pathlib import Path

from sluice.router.admin import Admin, EnvoyUnavailable
from sluice.router.bootstrap import BootstrapSettings, bootstrap
from sluice.router.draining import drain, drained
from sluice.router.relay import LAST_WORDS_SECONDS, Relay
from sluice.router.settings import Settings, WrongSettingError

logger = logging.getLogger("sluice.router")

BOOTSTRAP = Path("/etc/envoy/bootstrap.json")


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m sluice.router", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    written = commands.add_parser("bootstrap", help="write Envoy's configuration")
    written.add_argument("--out", type=Path, required=True)
    agent = commands.add_parser("agent", help="keep Envoy's routes up to date")
    agent.add_argument("--bootstrap", type=Path, default=BOOTSTRAP, help="what Envoy was started with")
    commands.add_parser("relay", help="frame streams between Envoy and Envoy")
    commands.add_parser("show", help="print what Envoy has in force, as JSON")
    commands.add_parser("drain", help="fail health checks and wait until no request is left")
    chosen = parser.parse_args(arguments)
    try:
        settings = Settings.from_environment()
    except WrongSettingError as error:
        print(error, file=sys.stderr)  # noqa: T201 - nothing is set up yet
        return 2
    logging.basicConfig(
        stream=sys.stderr, level=settings.log_level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s"
    )
    if chosen.command == "bootstrap":
        write_bootstrap(settings, chosen.out)
        return 0
    if chosen.command == "drain":
        return asyncio.run(_drain(settings))
    if chosen.command == "show":
        return asyncio.run(_show(settings))
    if chosen.command == "relay":
        return asyncio.run(_relay(settings))
    return asyncio.run(_agent(settings, chosen.bootstrap))


def write_bootstrap(settings: Settings, out: Path) -> None:
    """Envoy's configuration."""
    body = bootstrap(
        BootstrapSettings(
            directory=settings.run_directory,
            namespace=settings.namespace,
            address=settings.address,
            port=settings.port,
            metrics_port=settings.metrics_port,
            access_log=settings.access_log,
            max_connections=settings.max_connections,
            max_streams=settings.max_streams,
            heap_bytes=settings.heap_bytes or None,
        )
    )
    out.write_text(json.dumps(body, indent=1) + "\n")


def admin_of(settings: Settings) -> Admin:
    """This pod's Envoy."""
    return Admin(BootstrapSettings(directory=settings.run_directory).admin)


async def _agent(settings: Settings, bootstrap_file: Path) -> int:
    # Half a second of CPU and 30 MB of libraries, which no other command needs: they run at each start of a router.
    from sluice.kube.client import KubeClient
    from sluice.kube.configuration import NoKubernetesError, load_configuration
    from sluice.router.agent import Agent
    from sluice.router.probes import serve

    if not settings.pod_name or not settings.pod_uid:
        logger.critical("POD_NAME and POD_UID must be set (downward API): the report carries them")
        return 2
    try:
        kube = KubeClient(await load_configuration(), identity=settings.pod_name)
    except NoKubernetesError as error:
        logger.critical("%s", error)
        return 2
    admin = admin_of(settings)
    agent = Agent(settings, kube, admin, bootstrap_file)
    runner = await serve(agent, admin, settings.health_port)
    task = asyncio.create_task(agent.run(), name="agent")
    stop = _stop_signal()
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
    finally:
        task.cancel()
        stopped.cancel()
        await asyncio.gather(task, stopped, return_exceptions=True)
        await runner.cleanup()
        await admin.close()
        await kube.close()
    return 0


async def _relay(settings: Settings) -> int:
    # What was imported is no garbage, and streams leave few cycles: looking for them costs a fifth of a stream's start.
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 50, 50)
    relay, admin = Relay(settings.run_directory), admin_of(settings)
    stop = _stop_signal()
    try:
        await relay.start()
        await stop.wait()
        # Envoy takes streams for as long as it takes anything: the hooks of the other containers drain it. They give it
        # a little longer, so that the callers of streams that are cut are told.
        await drained(admin, max(0, settings.drain_seconds - LAST_WORDS_SECONDS))
    finally:
        await relay.close()
        await admin.close()
    return 0


def _stop_signal() -> asyncio.Event:
    """Set by SIGTERM and SIGINT."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


async def _show(settings: Settings) -> int:
    admin = admin_of(settings)
    try:
        print(await admin.config())  # noqa: T201 - what was asked for
    except EnvoyUnavailable as error:
        print(f"Envoy does not answer: {error}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        await admin.close()
    return 0


async def _drain(settings: Settings) -> int:
    admin = admin_of(settings)
    try:
        return 0 if await drain(admin, settings.drain_seconds) else 1
    finally:
        await admin.close()


if __name__ == "__main__":
    sys.exit(main())
