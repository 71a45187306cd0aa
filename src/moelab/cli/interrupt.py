"""How a command that Ctrl-C stops ends: one line that names what the same command will continue with, exit code 130."""

CODE = 130
"""The exit code of what was interrupted, as shells have it: 128 and the number of the signal."""

_CONTINUES = {
    "train": "the same command continues the run from its newest checkpoint, or starts it where there is none",
    "study": "the same command keeps what is finished and continues with the rest",
    "data prepare": "nothing half-written is left; the same command reuses what was downloaded and prepares again",
    "fit": "nothing was written; the same command fits again from the start",
    "export": "nothing half-written is left; the same command exports again from the start",
}
"""By command, where the work itself did not name more."""


class Interrupted(Exception):
    """Ctrl-C; the message is what the same command will continue with, or empty."""


def continues(command: str) -> str:
    """What the same command will continue with, by its path (`moelab data prepare`); empty where that means nothing."""
    return _CONTINUES.get(command.partition(" ")[2], "")
