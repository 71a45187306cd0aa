"""Messages of the page: options of the command line and fields of a budget are named by the labels of their fields."""

import re

import pytest

from moelab.app.controls import controls
from moelab.app.labels import worded, worded_page, worded_sections
from moelab.app.state import read_state
from moelab.planning.plan_page import answer_page, evidence_sections
from moelab.planning.request import plan_request


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("--tpot: needs --hardware, the devices that serve",
         "“Time per output token”: needs “Device that serves”, the devices that serve"),
        ("max_params 1000: nothing fits", "“Parameters” 1000: nothing fits"),
        ("plan: flops: is required, or gpus", "“Training FLOPs”: is required, or gpus"),
        ("or --pay-serving to take them", "or `--pay-serving` of the command line to take them"),
        ("the law hoffmann2022 at 1e21 FLOPs", "the law hoffmann2022 at 1e21 FLOPs"),
    ],
)  # fmt: skip
def test_options_are_labels(text: str, page: str) -> None:
    assert worded(text) == page


def test_no_option_of_a_field_is_left_on_the_page() -> None:
    pairs = {"flops": "1e21", "near": "olmoe-1b-7b", "law": "ludziejewski2025", "hardware": "h100",
             "serve-tokens": "1e13", "extrapolate": "yes"}  # fmt: skip
    state = read_state(list(pairs.items()))
    plan = plan_request(state.options({})).plan()
    page = worded_page(answer_page(plan, state.command))
    texts = [*page.answer]
    for part in [*page.sections, *worded_sections(evidence_sections(plan))]:
        texts += [*part.text, *part.warnings]
    named = {name for text in texts for name in re.findall(r"--([a-z-]+)", text)}
    assert not named & set(controls())
    assert "--train-hardware" in " ".join(answer_page(plan, state.command).answer)
