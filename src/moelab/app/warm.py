"""What the planning processes do before and beside their plans."""

import contextlib

from moelab.errors import MoelabError


def warm() -> None:
    """Answer the page's example once, so that the first visitor finds everything loaded."""
    from moelab.app.answers import answer, evidence
    from moelab.app.state import EXAMPLE, read_state

    state = read_state(EXAMPLE.items())
    with contextlib.suppress(MoelabError):
        answer(state, {})
        evidence(state, {})


def readers() -> None:
    """Load what reads tables and fit files, in the process that does nothing else: their limits hold for it alone."""
    import moelab.app.fitting
    import moelab.planning.chosen_laws  # noqa: F401


def check_fit(path: str) -> list[str]:
    """The laws in a fit file. Raises InputError for a file that is none."""
    from moelab.planning.chosen_laws import laws_of, rules_of

    rules = rules_of([path])
    return [rule.rule for rule in rules] if rules else [fitted.law.id for fitted in laws_of([path])]
