"""What the README prints is what the command prints."""

import re
from pathlib import Path

import pytest

from moelab.cli import main

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_the_answer_of_the_readme_is_that_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = re.search(r"```text\n\$ moelab (.*?)\n(.*?)```", readme, re.DOTALL)
    assert block is not None
    command, shown = block.groups()
    with pytest.raises(SystemExit) as end:
        main(command.split())
    assert end.value.code in (0, None)
    printed = " ".join(capsys.readouterr().out.split())
    parts = [" ".join(part.split()) for part in re.split(r"\n\.\.\.\n|\n\n", shown.strip())]
    assert len(parts) == 4
    for part in parts:
        assert part in printed
