"""The command that runs, as one line that a shell can repeat."""

import shlex
import sys


def command_line() -> str:
    """`moelab ...` with the words of this process, quoted."""
    return shlex.join(["moelab", *sys.argv[1:]])
