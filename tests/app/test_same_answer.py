"""Twenty settings drawn at random: page, command line and Python give the same plan to the last digit."""

import json
import random
from typing import Any
from urllib.parse import quote, urlencode

import pytest

from moelab.app.controls import controls
from moelab.app.state import read_state
from moelab.cli import main
from moelab.planning.request import plan_request
from tests.app.conftest import Client

pytestmark = pytest.mark.slow
VALUES = {
    "max-params": ["3B", "10B", "200B"], "max-active": ["1B", "20B"], "max-memory": ["40GB", "1TB"],
    "unique-tokens": ["20B", "2T"], "max-tokens": ["500B"], "hardware": ["h100", "b200", "mi300x"],
    "precision": ["fp8"], "kv-precision": ["fp8"], "kinds": ["moe", "dense", "moe,dense"], "seq-len": ["2048", "8192"],
    "near": ["olmoe-1b-7b", "mixtral-8x7b"], "law": ["ludziejewski2025", "abnar2025", "all"], "extrapolate": ["yes"],
}  # fmt: skip


def drawn(seed: int) -> list[tuple[str, str]]:
    """A budget and three to five further settings that do not contradict one another."""
    chance = random.Random(seed)
    pairs = {"flops": f"{chance.choice([1, 2, 5])}e{chance.randint(19, 23)}"}
    for name in chance.sample(sorted(VALUES), chance.randint(3, 5)):
        pairs[name] = chance.choice(VALUES[name])
    if "hardware" in pairs and chance.random() < 0.5:
        pairs |= {"serve-tokens": "1e13", "tpot": "100ms"}
    if pairs.get("kinds") == "dense":
        pairs.pop("near", None)
    return list(pairs.items())


def counted(value: Any) -> Any:
    """JSON as it is read back, without the seconds that anything took."""
    return json.loads(json.dumps(value))


@pytest.mark.parametrize("seed", range(20))
def test_the_plan_is_one(seed: int, client: Client, capsys: pytest.CaptureFixture[str]) -> None:
    pairs = drawn(seed)
    state = read_state(pairs)
    assert {name for name, _ in pairs} <= set(controls())
    reply = client.get(f"/download/plan.json?{urlencode(pairs, quote_via=quote)}")
    words = state.command.split()[1:]
    with pytest.raises(SystemExit) as end:
        main([*words, "--json"])
    printed = capsys.readouterr()
    if reply.status == 422:
        assert end.value.code == 2
        assert printed.err.strip() == f"error: {reply.text}"
        return
    assert end.value.code == 0
    page, command = json.loads(reply.body), json.loads(printed.out)
    assert page == command
    assert page == counted(plan_request(state.options({})).plan().to_dict())
