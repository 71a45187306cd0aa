"""What a fit owes its prior, in words: for the fit itself, and for what is predicted or planned with it."""

from collections.abc import Mapping
from typing import Any

from moelab.laws.moelab2026 import EXPERTS

MOSTLY = 0.5
"""Share of a coefficient's variance from which it is named as owed to the prior."""


def owed(share: Mapping[str, float]) -> list[str]:
    """The coefficients of which the prior left most of the variance, from `share` of a fit's prior."""
    return [name for name, value in share.items() if value >= MOSTLY]


def owed_notes(law: str, prior: Mapping[str, Any] | None, moe: bool) -> list[str]:
    """One line on what a law's prediction owes the prior of its fit; with `moe`, on what experts are worth.

    None without a prior, and where the runs decide every coefficient.
    """
    share = {} if prior is None else prior.get("share", {})
    mostly = owed(share)
    if prior is None or not mostly:
        return []
    verb = "comes" if len(mostly) == 1 else "come"
    line = f"{law}: {len(mostly)} of {len(share)} coefficients {verb} mostly from the prior {prior['name']!r}"
    known = [name for name in EXPERTS if name in share]
    worth = [name for name in known if name in mostly]
    if not moe or not worth:
        return [f"{line} ({', '.join(mostly)})"]
    count = f"all {len(known)}" if len(worth) == len(known) else f"{len(worth)} of the {len(known)}"
    return [f"{line}, among them {count} that state what experts are worth ({', '.join(worth)})"]
