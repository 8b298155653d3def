"""The command ``ossnet``: the same program as the binary, out of the module's own library."""

import signal
import sys

from . import _ossnet


def main() -> int:
    """Runs ``sys.argv``; returns the exit status."""
    # Python's own handler would only note an interrupt, for an interpreter that does not run meanwhile.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    return _ossnet.command(["ossnet", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
