"""``python -m harness <verb> [overrides]``."""

import sys

from harness.cli import main


def run() -> None:
    """The command ``adaretake`` of an installed package."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    run()
