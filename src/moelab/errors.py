"""The two kinds of failure moelab reports: the caller's input was wrong, or the work itself failed."""


class MoelabError(Exception):
    """The work failed (a run diverged, a file was damaged). The command line exits with 1."""


class InputError(MoelabError):
    """The input was wrong. The message is one line naming the field and what is allowed; exit code 2."""
