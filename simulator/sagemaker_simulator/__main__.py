"""``python -m sagemaker_simulator``: serves one simulator until it is told to stop."""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path

from aiohttp import web

from . import outside, server
from .faults import FaultKind, parse
from .settings import Settings
from .simulator import DEFAULT_ACCOUNT, Simulator


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="sagemaker_simulator", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--speed", type=float, default=1.0, help="simulated seconds per second (default 1)")
    parser.add_argument(
        "--clock", choices=["running", "stepped"], default="running", help="stepped: time passes by request only"
    )
    parser.add_argument("--cloudwatch-endpoint", help="where alarms are read, such as moto's server")
    parser.add_argument("--account", default=DEFAULT_ACCOUNT, help="account of access keys nobody introduced")
    parser.add_argument("--seed", type=int, default=0, help="of every dice: fault probabilities, traffic")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, its value as JSON; repeatable"
    )
    parser.add_argument("--faults", type=Path, help="JSON file with a list of faults to begin with")
    return parser.parse_args()


def main() -> None:
    """Parses arguments and serves."""
    arguments = _arguments()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    settings = Settings()
    settings.change({name: json.loads(value) for name, _, value in (one.partition("=") for one in arguments.set)})
    speed = 0.0 if arguments.clock == "stepped" else arguments.speed
    simulator = Simulator(speed, arguments.account, settings, arguments.seed)
    for body in json.loads(arguments.faults.read_text()) if arguments.faults else []:
        fault = parse(body)
        if fault.kind in (FaultKind.MAINTENANCE, FaultKind.EXTERNAL_CHANGE):
            outside.schedule(simulator.world, fault)
        else:
            simulator.world.faults.set(fault)
    web.run_app(
        server.application(simulator, arguments.cloudwatch_endpoint),
        host=arguments.host,
        port=arguments.port,
        access_log=None,
    )


if __name__ == "__main__":
    main()
