"""`python -m sluice.pipeline`: serves until SIGTERM, and then lets running invocations end."""

import logging
import os
import sys

from aiohttp import web

from sluice.pipeline.server import BadRequest, application, parse, parse_memory

PORT = 8080
STOP_SECONDS = 25.0
"""Below the 30 s between SIGTERM and SIGKILL."""


def main() -> int:
    """The process. Returns the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    try:
        containers = parse(os.environ.get("SLUICE_PIPELINE"))
        memory_bytes = parse_memory(os.environ.get("SLUICE_PIPELINE_MEMORY_BYTES"))
    except BadRequest as error:
        sys.stderr.write(f"{error}\n")
        return 2
    web.run_app(
        application(containers, memory_bytes),
        port=PORT,
        print=None,
        access_log=None,
        shutdown_timeout=STOP_SECONDS,
        # A client that is gone ends the invocation: the containers see their connection closed.
        handler_cancellation=True,
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
