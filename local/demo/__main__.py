"""`python -m demo`: the story, live in a terminal or as plain lines; exits with 1 if any of it does not happen."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from demo import story
from demo.surroundings import DemoError, Surroundings


def main() -> int:
    """Parse arguments and tell the story."""
    parser = argparse.ArgumentParser(prog="demo", description=__doc__)
    parser.add_argument("--plain", action="store_true", help="lines instead of a table, as where there is no terminal")
    parser.add_argument("--transcript", type=Path, metavar="FILE", help="write what the screen showed to a file")
    arguments = parser.parse_args()
    try:
        surroundings = Surroundings.from_environment()
        with surroundings.alone():
            story.tell(
                surroundings,
                plain=arguments.plain or not sys.stdout.isatty(),
                transcript=arguments.transcript,
            )
    except DemoError as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr, flush=True)
        return 1
    except KeyboardInterrupt:
        print("\nThe demo was interrupted; what it started is still there. `make down` removes it.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
