"""`python -m sluice.loader`: the init container's process. Exit codes: 0 everything is in place, 1 it is not (the
termination message says why), 2 SLUICE_LOADER is wrong, 143 the pod was stopped."""

import logging
import os
import signal
import sys
import threading
from types import FrameType
from typing import Final

from sluice.loader import message
from sluice.loader.deadline import Deadline
from sluice.loader.failure import BadRequest, LoadFailed, size_text
from sluice.loader.load import load
from sluice.loader.request import LoadRequest, parse

EXIT_FAILED: Final = 1
EXIT_REQUEST: Final = 2
EXIT_STOPPED: Final = 128 + signal.SIGTERM
GRACE_SECONDS: Final = 2.0
"""After the deadline, for what can end by itself to clean up; then it is cut off."""

logger = logging.getLogger("sluice.loader")


class _Outcome:
    """How the load ended, handed from the thread that works to the one that waits."""

    def __init__(self) -> None:
        self.done = threading.Event()
        self.code = EXIT_FAILED
        self.text = ""


def _work(request: LoadRequest, deadline: Deadline, outcome: _Outcome) -> None:
    try:
        loaded = load(request, deadline)
        outcome.code, outcome.text = 0, message.success(loaded)
        logger.info("%s are in place after %.1f s", size_text(loaded.placed_bytes), loaded.seconds)
    except LoadFailed as failed:
        logger.error("%s: %s", failed.reason, failed)
        outcome.text = message.failure(failed)
    except BaseException as error:
        logger.exception("the loader failed")
        bug = LoadFailed("ModelDataFailed", f"the loader failed: {type(error).__name__}; its log says where")
        outcome.text = message.failure(bug)
    finally:
        outcome.done.set()


def _run(request: LoadRequest) -> tuple[int, str]:
    deadline, outcome = Deadline(request.timeout_seconds), _Outcome()
    threading.Thread(target=_work, args=(request, deadline, outcome), name="load", daemon=True).start()
    # A server that sends a byte now and then, a name server that is silent, a disk that hangs: nothing of it can hold
    # this thread, which ends the process at the deadline whatever the others do.
    if not outcome.done.wait(deadline.remaining_seconds + GRACE_SECONDS):
        over = deadline.over()
        logger.error("%s: %s", over.reason, over)
        return EXIT_FAILED, message.failure(over)
    return outcome.code, outcome.text


def _stop(number: int, frame: FrameType | None) -> None:
    os._exit(EXIT_STOPPED)  # the first process of a container has no default for SIGTERM; what is here is kept


def main() -> None:
    """Run and exit."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s", force=True
    )
    for library in ("botocore", "boto3", "urllib3"):
        logging.getLogger(library).setLevel(logging.ERROR)
    signal.signal(signal.SIGTERM, _stop)
    try:
        request = parse(os.environ.get("SLUICE_LOADER"))
    except BadRequest as bad:
        logger.error("%s", bad)
        code, text = (
            EXIT_REQUEST,
            message.failure(LoadFailed("ModelDataFailed", f"the loader was asked wrongly: {bad}")),
        )
    else:
        code, text = _run(request)
    message.write(os.environ.get("SLUICE_TERMINATION_LOG", "/dev/termination-log"), text)
    logging.shutdown()
    # Threads may still wait for a server.
    os._exit(code)


if __name__ == "__main__":
    main()
