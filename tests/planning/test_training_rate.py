"""Utilisation in training inside a plan: predicted for each design by default, or stated in a named convention."""

import json
from copy import copy
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moelab.architecture import Shape, count_flops
from moelab.architecture.layout import RECOMPUTATIONS, Layout
from moelab.architecture.training_memory import TrainingStep, device_memory
from moelab.cli import main
from moelab.errors import InputError
from moelab.laws import get_law
from moelab.planning import Budget, Space
from moelab.planning.feasible import compute_of, training_price
from moelab.planning.lattice import Lattice, enumerate_designs
from moelab.planning.layouts import layouts
from moelab.planning.plan import plan
from moelab.planning.served_design import assumptions
from moelab.planning.training_rate import cluster_of, utilisation
from moelab.planning.utilisation import most_mfu
from moelab.serving import load_hardware
from moelab.serving.products import ProductRates
from moelab.serving.training_calibration import training_calibration
from moelab.serving.training_layout import USABLE, choose_layouts

MACHINE: dict[str, Any] = {"gpus": 64, "days": 10, "train_hardware": "h100"}
SPACE = Space(d_model=[1024, 2048, 4096], n_layers=[16, 24, 32], n_experts=[8, 64], top_k=[2, 8], n_dense_layers=[0])
JOINT = get_law("ludziejewski2025")


@pytest.fixture(scope="module")
def lattice() -> Lattice:
    return enumerate_designs(SPACE)


def test_every_design_has_its_own_compute(lattice: Lattice) -> None:
    share = utilisation(lattice, Budget.parse(MACHINE))
    assert share.shape == (len(lattice),)
    assert np.all((share > 0.01) & (share < 0.9))
    # Wide experts take fewer rows a product than narrow ones of the same FLOPs: more experts a token is slower.
    wide, fine = (np.median(share[lattice.of_option("top_k") == k]) for k in (2, 8))
    assert fine < wide < np.median(share[~lattice.is_moe])
    compute = compute_of(lattice, Budget.parse(MACHINE))
    assert np.allclose(compute, 64 * 10 * 86400 * 989.4e12 * share)


def test_parts_of_a_lattice_agree_with_the_whole(lattice: Lattice) -> None:
    budget = Budget.parse(MACHINE)
    whole, rows = utilisation(lattice, budget), np.arange(3, len(lattice), 7)
    assert np.allclose(utilisation(lattice.take(rows), budget), whole[rows])


def test_lattices_of_one_table_keep_their_classes_apart() -> None:
    """A part that stands for itself has other classes than the lattice it comes from; neither moves the other's."""
    whole = enumerate_designs(SPACE.replace(n_layers=[16, 24, 36]))
    names = [field.name for field in fields(Lattice) if field.name not in ("space", "table")]
    columns = {name: getattr(whole, name) for name in names}
    alone = Lattice(space=whole.space, table=copy(whole.table), **columns)
    half = Lattice(space=whole.space, table=whole.table, **{name: columns[name][1::2] for name in names})
    cluster = cluster_of(whole, Budget.parse(MACHINE))
    expected = layouts(alone, cluster).rows
    layouts(half, cluster)
    assert np.array_equal(layouts(whole, cluster).rows, expected)


def test_the_layout_of_a_class_is_nearly_the_best_of_its_designs(lattice: Lattice) -> None:
    budget = Budget.parse(MACHINE)
    cluster = cluster_of(lattice, budget)
    rows = np.arange(0, len(lattice), 5)
    best = choose_layouts(lattice.take(rows).shape, cluster, training_calibration())
    mine = lattice.flops_train[rows] / utilisation(lattice, budget)[rows] / 989.4e12
    assert np.all(mine <= 1.2 * best.seconds)


@pytest.mark.parametrize("machine", [MACHINE, {**MACHINE, "gpus": 1024}, {**MACHINE, "gpus": 8}], ids=str)
def test_every_design_has_a_layout_that_it_can_train_on(machine: dict[str, Any]) -> None:
    """Each by itself, as `moelab count --layout --train-memory` checks a layout that it is given."""
    space = Space(
        d_model=[1024, 2560, 6144, 10240], n_layers=[14, 20, 34, 50, 62, 90], aspect=(10, 300), n_experts=[8, 64, 160],
        top_k=[1, 2, 6], n_shared_experts=[0, 2], n_dense_layers=[0],
    )  # fmt: skip
    lattice = enumerate_designs(space)
    cluster = cluster_of(lattice, Budget.parse(machine))
    chosen = layouts(lattice, cluster)
    for row in np.random.default_rng(0).permutation(np.flatnonzero(chosen.fits))[:150].tolist():
        layout = Layout(**{name: int(getattr(chosen.sizes, name)[row]) for name in Layout.model_fields})
        recompute = RECOMPUTATIONS[int(chosen.recompute[row])]
        step = TrainingStep(seq_len=4096, micro_batch=int(chosen.micro_batch[row]), recompute=recompute)
        config = lattice.config(row)
        layout.check(config, 4096)
        assert layout.devices <= cluster.gpus
        assert device_memory(Shape.of(config), layout, step).total <= USABLE * 80e9


def test_a_stated_share_names_its_flops(lattice: Lattice) -> None:
    full = utilisation(lattice, Budget.parse({**MACHINE, "mfu": 0.4, "mfu_convention": "full"}))
    causal = utilisation(lattice, Budget.parse({**MACHINE, "mfu": 0.4}))
    half = count_flops(lattice.shape, 4096, causal=True).train
    assert full == 0.4
    assert np.allclose(causal, 0.4 * lattice.flops_train / half)


def test_what_is_slow_on_hardware_loses() -> None:
    space = Space(d_model=[2048], n_layers=[24], n_experts=[64, 256, 1024], top_k=[1, 2, 4, 8, 16, 32], kinds=["moe"])
    predicted = plan(Budget.parse(MACHINE), [JOINT], space).best
    assert predicted.training is not None
    stated = plan(Budget.parse({**MACHINE, "mfu": predicted.training["mfu"]}), [JOINT], space).best
    finest = max(c.top_k for c in plan(Budget.parse(MACHINE), [JOINT], space, top=5).candidates)
    assert finest <= 8
    assert stated.tokens > 0


def test_a_plan_reports_how_its_design_trains() -> None:
    result = plan(Budget.parse({**MACHINE, "train_precision": "fp8"}), [JOINT], SPACE)
    training = result.best.training
    assert training is not None
    assert training["mfu_low"] < training["mfu"] < training["mfu_high"]
    assert training["mfu_own"] == pytest.approx(training["mfu"] * 989.4 / 1978.9)
    assert training["days"] == pytest.approx(10, rel=0.01)
    assert training["device_hours"] == pytest.approx(64 * 240, rel=0.01)
    assert training["calibration"]["id"] == "megatron-bridge-26.08"
    assert Layout.read(training["layout"]).devices == 64
    assert "The predicted MFU is" in result.sentence
    assert "of the fp8 peak" in result.sentence
    bf16 = plan(Budget.parse(MACHINE), [JOINT], SPACE).best
    assert result.best.train_flops > bf16.train_flops
    priced = training_price(enumerate_designs(SPACE), 1e21, Budget.parse(MACHINE))
    assert priced.std() > 0


def test_idle_devices_are_named_and_paid_for() -> None:
    space = Space(d_model=[2048], n_layers=[24], n_experts=[64], top_k=[8], n_dense_layers=[0], kinds=["moe"])
    even, odd = (
        plan(Budget.parse({**MACHINE, "gpus": gpus, "train_gpu_price": 2}), [JOINT], space) for gpus in (64, 71)
    )
    assert even.best.training is not None
    assert odd.best.training is not None
    used = odd.best.training["gpus_used"]
    assert used < 71
    assert f"on {used} of 71 devices (the others idle)" in odd.sentence
    assert "idle" not in even.sentence
    assert odd.best.training["device_hours"] == pytest.approx(71 * 240)
    assert odd.best.training["dollars"] == pytest.approx(2 * 71 * 240)
    assert odd.best.cost is not None
    assert odd.best.cost["train"] == pytest.approx(2 * 71 * 240)
    assert odd.best.tokens >= 0.999 * even.best.tokens


def test_devices_that_hold_no_design_are_refused() -> None:
    space = Space(d_model=[8192], n_layers=[64], n_experts=[512], top_k=[8], kinds=["moe"], aspect=(48, 160))
    with pytest.raises(InputError, match="gpus 8: the training of no design fits the memory of these devices"):
        plan(Budget.parse({**MACHINE, "gpus": 8}), [JOINT], space)


def test_devices_that_nobody_named_are_an_assumption() -> None:
    """With FLOPs alone those that serve train too; the sentence names them, and how many were assumed."""
    served = {"flops": 1e22, "serving": {"hardware": "h200"}}
    result = plan(Budget.parse(served), [JOINT], SPACE)
    assert result.best.training is not None
    assert f"Training on {result.best.training['gpus']:,} h200 devices is an assumption" in result.sentence
    named = plan(Budget.parse({**served, "train_hardware": "h100"}), [JOINT], SPACE)
    assert "assumption" not in named.sentence


def test_a_file_of_a_measured_machine_plans(tmp_path: Path) -> None:
    """Its measured products are no hindrance, and a device of the fit is known as such from its own file."""
    rates = ProductRates(rows=(1, 4096), dense=(1e13, 5e14), experts=(1e13, 3e14))
    h100 = load_hardware("h100")
    measured = h100.calibrated().replace(products={"bf16": rates.to_dict()})
    assert hash(measured) == hash(measured.replace(slowdown=measured.slowdown))
    h100.replace(calibration=measured.to_dict()).to_yaml(tmp_path / "mine.yaml")
    mine = str(tmp_path / "mine.yaml")
    result = plan(Budget.parse({"flops": 1e22, "train_hardware": mine, "serving": {"hardware": mine}}), [JOINT], SPACE)
    assert result.best.training is not None
    assert result.best.training["calibration"]["device_in_fit"]
    assert result.best.training["calibration"]["not_calibrated"] == ["precision"], "no dense or MoE bf16 rows on H100"


def test_a_device_of_a_file_is_named_and_not_its_path(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    load_hardware("h100").replace(name="Our Device", price=2.0).to_yaml(mine)
    serving = {"hardware": str(mine), "tokens": 1e16}
    result = plan(Budget.parse({"flops": 1e22, "serving": serving}), [JOINT], SPACE)
    lines = [result.sentence, *result.warnings, *assumptions(result.budget, result.best)]
    assert not any(str(tmp_path) in line for line in lines)
    assert sum("Our Device" in line for line in lines) >= 3


def test_a_plan_names_what_its_training_has_no_rows_with() -> None:
    known = plan(Budget.parse({**MACHINE, "train_precision": "fp8"}), [JOINT], SPACE)
    assert known.best.training is not None
    inside = known.best.training["calibration"]
    assert (inside["not_calibrated"], inside["held_out_by"], inside["without_rows"]) == ([], "model", [])
    assert "on measured layouts with models left out)" in known.sentence
    plain = plan(Budget.parse(MACHINE), [JOINT], SPACE.replace(kinds=["dense"]))
    assert plain.best.training is not None
    outside = plain.best.training["calibration"]
    assert (outside["device_in_fit"], outside["precision_in_fit"]) == (True, False)
    assert outside["error"] > inside["error"]
    assert "with models and precisions left out; no rows with dense designs in bf16)" in plain.sentence
    other = plan(Budget.parse({**MACHINE, "train_hardware": "mi300x"}), [JOINT], SPACE)
    assert other.best.training is not None
    assert not other.best.training["calibration"]["device_in_fit"]
    assert "no rows with AMD Instinct MI300X" in other.sentence


MACHINE_WORDS = ("--gpus", "8", "--days", "1", "--train-hardware", "h100")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--flops", "1e21", "--mfu-convention", "full"), "--mfu-convention: needs --mfu"),
        (("--flops", "1e22", "--train-precision", "fp8"), "--train-precision: needs --train-hardware"),
        ((*MACHINE_WORDS, "--mfu", "1.06"), "--mfu: must be at most 1 of the bf16 peak in bf16 on NVIDIA H100"),
        ((*MACHINE_WORDS, "--mfu", "2.1", "--train-precision", "fp8"), "--mfu: must be at most 2 of the bf16 peak in"),
        ((*MACHINE_WORDS, "--mfu", "0.6", "--train-precision", "fp32"), "--mfu: must be at most 0.5 of the bf16 peak"),
        (
            (*MACHINE_WORDS, "--train-precision", "nvfp4"),
            "--train-precision: NVIDIA H100 80 GB SXM multiplies in fp32, bf16, fp16, fp8, not in nvfp4",
        ),
        (
            ("--flops", "1e22", "--hardware", "a100", "--train-precision", "fp8"),
            "--train-precision: NVIDIA A100 80 GB SXM multiplies in fp32, bf16, fp16, not in fp8",
        ),
        ((*MACHINE_WORDS, "--train-precision", "fp9"), "--train-precision: input should be 'fp32', 'bf16'"),
        ((*MACHINE_WORDS, "--mfu", "0.4", "--mfu-convention", "half"), "--mfu-convention: input should be 'causal'"),
    ],
)
def test_wrong_words_are_refused(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", *words])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("device", "precision", "most"), [("h100", "fp8", 2.0), ("gb300", "nvfp4", 6.0), ("cpu", "bf16", 1.0)]
)
def test_a_stated_mfu_may_reach_the_peak_of_its_arithmetic(device: str, precision: str, most: float) -> None:
    """FP8 and NVFP4 exceed the bf16 peak: Megatron-Bridge's rows have up to 1.43 of it."""
    stated = {"gpus": 8, "days": 1, "train_hardware": device, "train_precision": precision}
    assert most_mfu(load_hardware(device), precision) == pytest.approx(most, rel=2e-3)
    budget = Budget.parse({**stated, "mfu": 0.99 * most})
    assert budget.mfu == 0.99 * most
    table = {"dense": 0.4, "experts": {512: 1.02 * most}}
    for beyond in (1.02 * most, table):
        with pytest.raises(InputError, match="mfu: must be at most"):
            Budget.parse({**stated, "mfu": beyond})


def test_a_stated_mfu_in_fp8_is_of_the_bf16_peak(lattice: Lattice) -> None:
    """Time follows from the share of the bf16 peak alone; the sentence and the JSON name both shares."""
    eight = Budget.parse({**MACHINE, "mfu": 1.2, "train_precision": "fp8", "mfu_convention": "full"})
    assert compute_of(lattice, eight) == pytest.approx(64 * 10 * 86400 * 989.4e12 * 1.2)
    narrow = plan(eight, [JOINT], SPACE)
    training = narrow.best.training
    assert training is not None
    assert (training["mfu"], training["precision"]) == (1.2, "fp8")
    assert training["mfu_own"] == pytest.approx(0.6, rel=1e-3)
    assert (
        "At the given MFU of 120% of the bf16 peak, 60% of the fp8 peak (the full square of scores)" in narrow.sentence
    )


def test_count_prints_training_memory(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["count", "qwen3-30b-a3b", "--train-memory", "--layout", "ep=8,dp=8,zero=1", "--micro-batch", "2"]
    for more in ([], ["--json"]):
        with pytest.raises(SystemExit) as ended:
            main([*words, *more])
        assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "training memory per device, bf16 and AdamW, ep=8,dp=8,zero=1 (8 devices), 2 x 4,096 tokens" in text
    found = json.loads(text[text.index("{") :])["training_memory"]
    assert list(found["recompute"]) == list(RECOMPUTATIONS)
    assert found["recompute"]["full"]["total"] < found["recompute"]["none"]["total"]
