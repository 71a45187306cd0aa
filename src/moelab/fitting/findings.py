"""One thing that a check found in a table, with what mends it."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing found in a table: the check's name, what was found, and the option that mends it ('' for none)."""

    check: str
    text: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{self.text}; {self.mend}" if self.mend else self.text

    def to_dict(self) -> dict[str, str]:
        """Plain data: an entry of `moelab fit --check --json`."""
        return {"check": self.check, "text": self.text, "mend": self.mend}
