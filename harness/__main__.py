"""``python -m harness <verb> [settings]``."""

import gc
import signal
import sys
import traceback

GARBAGE = (50_000, 20, 20)
"""Containers made before each look for reference cycles, and looks before a longer one. With Python's own numbers a
third of the time to read a large results folder goes into looking again and again through what stays; answering leaves
no cycle behind."""
INTERRUPTED, DEFECT = 130, 70
"""Exit statuses of Ctrl-C and of an error of the program itself; 1 to 3 are what a verb says."""


def run() -> None:
    """The command ``adaretake`` of an installed package."""
    gc.set_threshold(*GARBAGE)
    try:
        from harness.cli import main  # late: a Ctrl-C while it is imported ends here as well

        status = main(sys.argv[1:])
    except KeyboardInterrupt:
        print("interrupted: the same command goes on where this one stopped", file=sys.stderr)
        status = INTERRUPTED
    except Exception:
        traceback.print_exc()
        status = DEFECT
    if status == INTERRUPTED:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a further one would be a traceback of the interpreter's end
    sys.exit(status)


if __name__ == "__main__":
    run()
