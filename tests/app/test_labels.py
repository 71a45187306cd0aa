"""Messages of the page: options of the command line and fields of a budget are named by the labels of their fields."""

import re

import pytest

from moelab.app.controls import controls
from moelab.app.labels import field_of, worded, worded_page, worded_sections
from moelab.app.state import read_state
from moelab.planning.plan_page import answer_page, evidence_sections
from moelab.planning.request import plan_request


@pytest.mark.parametrize(
    ("text", "page"),
    [
        ("--tpot: needs --hardware, the devices that serve",
         "“Time per output token”: needs “Device that serves”, the devices that serve"),
        ("max_params 1000: nothing fits", "“Parameters” 1000: nothing fits"),
        ("plan: flops: is required, or gpus, days and train_hardware (missing: gpus, train_hardware)",
         "“Training FLOPs”: is required, or “Devices”, “Days” and “Device that trains” (missing: “Devices”, "
         "“Device that trains”)"),
        ("flops: contradicts gpus and days; give one", "“Training FLOPs”: contradicts “Devices” and “Days”; give one"),
        ("plan: serving.traffic.gpus: input should be greater than 0, got '0'",
         "“Devices of one replica”: must be above 0, got '0'"),
        ("serving: none can be served; the smallest: tpot: 0.001 ms cannot be met",
         "serving: none can be served; the smallest: “Time per output token”: 0.001 ms cannot be met"),
        ("limit them with --min-tokens-per-active or --max-tokens-per-active",
         "limit them with `--min-tokens-per-active` or `--max-tokens-per-active` of the command line"),
        ("on 256 devices with tp=2,pp=4,ep=8,dp=32,vp=4,zero=1: 1.19K device-hours",
         "on 256 devices (parallelism: tensor 2, pipeline 4, expert 8, data 32, 4 pieces in each pipeline stage, "
         "ZeRO stage 1): 1.19K device-hours"),
        ("dp=8,zero=3", "parallelism: data 8, ZeRO stage 3"),
        ("Two days within the limits, near it: 3", "Two days within the limits, near it: 3"),
        ("or --pay-serving to take them", "or `--pay-serving` of the command line to take them"),
        ("the law hoffmann2022 at 1e21 FLOPs", "the law hoffmann2022 at 1e21 FLOPs"),
    ],
)  # fmt: skip
def test_options_are_labels(text: str, page: str) -> None:
    assert worded(text) == page


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("plan: serving.traffic.gpus: input should be greater than 0, got '0'", "serve-gpus"),
        ("plan: serving.traffic.ttft: expected a number", "ttft"),
        ("--within: needs the objective balance", "within"),
        ("serving: no design within the limits; the smallest: tpot: 1 ms cannot be met", "tpot"),
        ("max_params 1000: no design fits", "max-params"),
        ("no design is near that within the days of this budget", ""),
    ],
)  # fmt: skip
def test_a_message_marks_the_field_that_it_names(text: str, name: str) -> None:
    assert field_of(text) == name


def test_no_option_of_a_field_is_left_on_the_page() -> None:
    pairs = {"flops": "1e21", "near": "olmoe-1b-7b", "law": "ludziejewski2025", "hardware": "h100",
             "serve-tokens": "1e13", "extrapolate": "yes"}  # fmt: skip
    state = read_state(list(pairs.items()))
    plan = plan_request(state.options({})).plan()
    page = worded_page(answer_page(plan, state.command))
    texts = [*page.answer]
    for part in [*page.sections, *worded_sections(evidence_sections(plan))]:
        texts += [*part.text, *part.warnings, *(each.caption for each in [*part.figures, *part.tables])]
        texts += [str(cell) for table in part.tables for row in table.rows for cell in row]
    named = {name for text in texts for name in re.findall(r"--([a-z-]+)", text)}
    assert not named & set(controls())
    assert not [text for text in texts if re.search(r"\b(?:tp|pp|ep|dp|vp|zero)=\d", text)]
    assert "--train-hardware" in " ".join(answer_page(plan, state.command).answer)
