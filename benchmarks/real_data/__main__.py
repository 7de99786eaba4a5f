"""`python -m benchmarks.real_data open_bandit|hillstrom|bank`: prints figures with intervals and judges nothing."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.real_data import bank, hillstrom, open_bandit
from benchmarks.real_data.tables import DataMissing, folder_of_data

CHECKS = {"open_bandit": open_bandit.report, "hillstrom": hillstrom.report, "bank": bank.report}


def main() -> None:
    """Run one check; what a person can mend is one sentence and exit code 1."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.real_data", description=__doc__)
    parser.add_argument("check", choices=CHECKS)
    parser.add_argument("--data", type=Path, help="folder of the public data; default: NBA_CHECK_DATA")
    asked = parser.parse_args()
    try:
        CHECKS[asked.check](folder_of_data(asked.data))
    except DataMissing as error:
        print(f"real_data: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
