"""`python -m sluice.main`: the operator's process. Exit codes: 0 stopped, 1 failed, 2 wrong settings, 3 the Lease was
lost, 4 the API server was restored from a backup, 5 there is more to handle than at the start. Anything but 0 and 2 is
mended by a restart."""

import asyncio
import logging
import os
import signal
import sys

from sluice.kube.configuration import NoKubernetesError
from sluice.main.logs import set_up
from sluice.main.settings import Settings, SettingsError
from sluice.main.wiring import EXIT_FAILED, serve

EXIT_SETTINGS = 2
RECURSION_LIMIT = 12_000
"""An API server takes what is nested 10000 levels deep (maxNestingDepth in sigs.k8s.io/json), Python reads 1000. Who
may run a pod as a router may write a RouterReport like that, and kopf ends when it cannot read an object. To read one
takes 2 MB of the main thread's stack."""

logger = logging.getLogger("sluice.main")


async def _main(settings: Settings) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def catch_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)

    return await serve(settings, stop, catch_signals)


def main() -> None:
    """Run and exit."""
    sys.setrecursionlimit(RECURSION_LIMIT)
    try:
        settings = Settings.from_environment(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(EXIT_SETTINGS)
    set_up(settings.log_format, settings.log_level)
    try:
        code = asyncio.run(_main(settings))
    except NoKubernetesError as error:
        logger.error("%s", error)
        code = EXIT_FAILED
    except Exception:
        logger.exception("the operator failed")
        code = EXIT_FAILED
    logging.shutdown()
    # Threads that wait for AWS' answers would hold the process up for as long as a call may take.
    os._exit(code)


if __name__ == "__main__":
    main()
