"""The console script: Ctrl-C is one line from the first moment, also while the package is still being imported."""

import signal
import sys


def main() -> int:
    """Runs the command line; returns its exit code."""
    try:
        from understudy.cli import main as run
    except KeyboardInterrupt:
        print("understudy: interrupted before it began", file=sys.stderr)
        return 130
    code = run()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # all is said and kept; Python only takes itself down
    return code
