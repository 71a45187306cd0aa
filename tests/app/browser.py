"""What browser tests share: the address that they ask for, and waiting for its answer."""

import shutil
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
START = "flops=1e18&near=olmoe-1b-7b"


def answered(page: Any, query: str) -> None:
    """Wait until the answer of this address stands on the page, with what would change it."""
    for part in ("answer", "evidence", "changes"):
        page.wait_for_function(f"query => document.getElementById('{part}').dataset.asked === query", arg=query)
