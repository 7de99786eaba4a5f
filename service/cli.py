"""The command `nba`: hands over to `serve`, which must start fast, or to all other commands, which need not."""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Sequence

_WORKERS, _INHERITED = re.compile(r"[1-9]|[1-5][0-9]|6[0-4]"), re.compile(r"[0-9]+,[0-9]+")


def main() -> None:
    """Run a command; a failure that a person can mend is one sentence and exit code 1."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    asked = plain_serve(sys.argv[1:])
    if asked is None:
        from service.commands import main as run_command

        run_command()
        return
    from service.serve import serve

    try:
        serve(*asked)
    except KeyboardInterrupt:  # what the server passes on when it has drained
        sys.exit(130)
    except Exception as error:
        from service.commands import tell

        if not tell(error):
            raise
        sys.exit(1)


def plain_serve(arguments: Sequence[str]) -> tuple[int, str] | None:
    """Return workers and what was inherited where the arguments are a plain `serve`.

    None for every other command and whatever is written otherwise, which is for the full command line to understand or
    to refuse. Only a supervisor says `--inherited`.
    """
    match tuple(arguments):
        case ("serve",):
            return 1, ""
        case ("serve", "--workers", number) if _WORKERS.fullmatch(number):
            return int(number), ""
        case ("serve", "--inherited", numbers) if _INHERITED.fullmatch(numbers):
            return 1, numbers
    return None


if __name__ == "__main__":
    main()
