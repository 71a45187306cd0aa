"""A model sharded over a mesh of data x expert processes trains as one process does: curves, gradients, checkpoints.

Groups of two and of four processes are started once and work off all cases (`mesh_worker.py`).
"""

import importlib.util
import json
import math
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from moelab.architecture.communication import COUNT_BYTES, GATE_BYTES, step_traffic
from moelab.config import dump_yaml
from moelab.data import Dataset
from moelab.errors import InputError, MoelabError
from moelab.runs import RunConfig, RunFolder
from moelab.training import train_run

WORKER = Path(__file__).with_name("mesh_worker.py")
STEPS = 50
GENTLE = {"learning_rate": 0.003}
"""In fp32 differences of rounding grow from step to step; at the usual 0.02 a dense curve leaves 1e-6 in 50 steps."""
HALF = {"precision": "bf16", "dispatch": "grouped"}
BATCH = {"tokens": STEPS * 128, "batch_tokens": 128, "evaluations": 1}
SHARED = {"n_experts": 4, "top_k": 2, "d_expert": 16, "n_shared_experts": 1, "d_shared": 16}
BALANCED = {**SHARED, "balance_loss": 0.1, "z_loss": 0.01, "bias_update": 0.01}
CHOICE = {"n_experts": 4, "top_k": 2, "d_expert": 16, "router": "expert_choice", "group_size": 2}
LATENT = {"q_lora_rank": 6, "kv_lora_rank": 6, "qk_nope_head_dim": 4, "qk_rope_head_dim": 4, "v_head_dim": 5}
EXACT = {"dtype": "float64"}
KINDS: dict[str, dict[str, Any]] = {
    "dense": {},
    "shared": {"moe": BALANCED},
    "choice": {"moe": CHOICE},
    "latent": {"moe": SHARED, "mla": LATENT},
}
MESHES = [(2, 1), (1, 2), (2, 2), (4, 1)]
CURVES = [(kind, mesh) for kind in KINDS for mesh in MESHES if kind != "dense" or mesh[1] == 1]
MUON = {"optimizer": "muon", "micro_batch": 1, "muon_split": True, "tokens": 10 * 128}
FLIPPING = {"moe": {"n_experts": 64, "top_k": 4, "d_expert": 8}}
LONGER = {"batch_tokens": 512, "tokens": STEPS * 512, "evaluations": 1}
FLIPS = {"steps": 32}
SEEDS = [(0, (2, 1)), (1, (2, 1)), (0, (2, 2)), (2, (2, 2))]
"""Among 64 experts scores lie close together, and a run makes 32,768 choices: rounding flips one in some of them."""
NEAR_TIE = 1e-4
"""Weights differ by rounding alone until a route flips, so only scores this close (relative) can change their order."""
SENT: dict[str, dict[str, Any]] = {
    "dense": {},
    "shared": {"moe": BALANCED},
    "choice": {"moe": CHOICE},
    "latent": {"moe": SHARED, "mla": {**LATENT, "q_lora_rank": 8, "kv_lora_rank": 8, "v_head_dim": 6}},
}
"""All first dimensions are divided by four: what is padded sends more than the formula has."""
COUNTED = [(kind, mesh) for kind in SENT for mesh in MESHES if kind != "dense" or mesh[1] == 1]
RECOMPUTED = [(kind, mesh) for kind in ("selective", "full") for mesh in ((2, 1), (1, 2), (2, 2))]
ALL_CHOOSE_ALL = {"n_experts": 4, "top_k": 4, "d_expert": 16}


def named(kind: str, mesh: tuple[int, int], what: str = "fp64") -> str:
    return f"{kind}-{mesh[0]}x{mesh[1]}-{what}"


def on(mesh: tuple[int, int]) -> dict[str, Any]:
    return {"parallel": {"data": mesh[0], "expert": mesh[1]}}


@pytest.fixture(scope="module")
def worker() -> ModuleType:
    spec = importlib.util.spec_from_file_location("mesh_worker", WORKER)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


Alone = Callable[[RunConfig, dict[str, Any]], tuple[dict[str, Any], dict[str, torch.Tensor]]]


class Groups:
    """What groups of processes found, by the name of the case."""

    def __init__(self, folder: Path, configs: dict[str, RunConfig]) -> None:
        self.folder, self.configs = folder, configs

    def ranks(self, name: str) -> list[dict[str, Any]]:
        """What each rank found."""
        size = self.configs[name].train.processes
        return [json.loads((self.folder / f"{name}.{rank}.json").read_text()) for rank in range(size)]

    def gradients(self, name: str) -> dict[str, torch.Tensor]:
        """The whole gradients of the first step, put together from the ranks' rows."""
        found = self.ranks(name)
        parts = [load_file(self.folder / f"{name}.{rank}.safetensors") for rank in range(len(found))]
        wholes = {}
        for key in parts[0]:
            ordered = sorted(range(len(found)), key=lambda rank: tuple(found[rank]["rows"][key]))
            wholes[key] = torch.cat([parts[rank][key] for rank in ordered])
        return wholes


def all_cases(make: Callable[..., RunConfig], parent: RunConfig) -> list[tuple[str, RunConfig, dict[str, Any]]]:
    cases = []
    for kind, mesh in CURVES:
        model, dispatch = KINDS[kind], {} if kind == "dense" else {"dispatch": "loop"}
        cases.append((named(kind, mesh), make(model, **BATCH, **dispatch, **on(mesh)), EXACT))
        if kind in ("dense", "shared"):
            rate = GENTLE if kind == "dense" else {}
            cases.append((named(kind, mesh, "fp32"), make(model, **BATCH, **rate, **on(mesh)), {}))
            half = {**BATCH, **HALF} if kind == "shared" else {**BATCH, "precision": "bf16"}
            cases.append((named(kind, mesh, "bf16"), make(model, **half, **on(mesh)), {"steps": 10}))
    for mesh in MESHES:
        case = make({"moe": BALANCED}, **{**BATCH, **MUON, "dispatch": "loop"}, **on(mesh))
        cases.append((named("shared", mesh, "muon"), case, EXACT))
        case = make({"moe": ALL_CHOOSE_ALL}, **BATCH, **on(mesh))
        cases.append((named("all", mesh, "bytes"), case, {"steps": 2, "traffic": True}))
    for seed, mesh in SEEDS:
        cases.append((named(f"seed{seed}", mesh, "fp32"), make(FLIPPING, **LONGER, seed=seed, **on(mesh)), FLIPS))
    for kind, mesh in COUNTED:
        case = make(SENT[kind], **BATCH, **on(mesh))
        cases.append((named(kind, mesh, "bytes"), case, {"steps": 2, "traffic": True}))
    for mesh in ((2, 1), (1, 2), (2, 2)):
        case = make({"moe": {**ALL_CHOOSE_ALL, "balance_loss": 0}}, **BATCH, micro_batch=1, **on(mesh))
        cases.append((named("all", mesh, "pieces"), case, {"steps": 2, "traffic": True}))
    for kind, mesh in RECOMPUTED:
        again = {**BATCH, "recompute": kind, **on(mesh)}
        cases += [
            (named("latent", mesh, kind), make(KINDS["latent"], **again, dispatch="loop"), {**EXACT, "steps": 5}),
            (named("choice", mesh, kind), make(KINDS["choice"], **again), {**EXACT, "steps": 5}),
            (named("sorted", mesh, kind), make({"moe": SHARED}, **again, dispatch="sorted"), {"steps": 3}),
            (named("all", mesh, kind), make({"moe": ALL_CHOOSE_ALL}, **again), {"steps": 2, "traffic": True}),
            (named("slots", mesh, kind), make(KINDS["choice"], **again), {"steps": 2, "traffic": True}),
        ]
    for dispatch in ("padded", "sorted", "grouped"):
        cases.append(
            (f"dispatch-{dispatch}", make({"moe": SHARED}, dispatch=dispatch, **BATCH, **on((1, 2))), {"steps": 3})
        )
    saved, moved = (make({"moe": BALANCED}, **{**BATCH, "tokens": 20 * 128}, **on(m)) for m in ((2, 2), (4, 1)))
    cases += [
        ("save", saved, {"root": "saved", "until": 10}),
        ("again", saved, {"root": "saved", "until": 12}),
        ("resumed", saved, {"root": "saved"}),
        ("straight", saved, {"root": "straight"}),
        ("save-to-move", saved, {"root": "moved", "until": 10}),
        ("moved", moved.replace(parent={"run": saved.run_id, "step": 10, "adopted": True}), {"root": "moved"}),
        ("from-one", saved.replace(parent={"run": parent.run_id, "step": 10, "adopted": True}), {"root": "one"}),
    ]
    return cases


@pytest.fixture(scope="module")
def groups(make_runs: Callable[..., RunConfig], worker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Groups:
    folder = tmp_path_factory.mktemp("groups")
    parent = make_runs({"moe": BALANCED}, **{**BATCH, "tokens": 20 * 128})
    worker.train_whole(parent, folder, {"root": "one", "until": 10})
    cases = all_cases(make_runs, parent)
    running = []
    for size in (2, 4):
        ours = [{"name": n, "config": c.to_dict(), "options": o} for n, c, o in cases if c.train.processes == size]
        (folder / f"cases-{size}.json").write_text(json.dumps(ours))
        for rank in range(size):
            command = [sys.executable, str(WORKER), str(rank), str(size), str(folder)]
            running.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    errors = [process.communicate(timeout=600)[1] for process in running]
    assert [process.returncode for process in running] == [0] * 6, "\n".join(errors)[-6000:]
    return Groups(folder, {name: config for name, config, _ in cases})


@pytest.fixture(scope="module")
def alone(worker: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """A function that trains a case in this process, once for all tests."""
    folder, known = tmp_path_factory.mktemp("alone"), {}

    def train(config: RunConfig, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
        plain = config.replace(train={**config.train.to_dict(), "parallel": None, "processes": 1})
        key = (plain.run_id, json.dumps(options))
        if key not in known:
            known[key] = worker.train(plain, folder, options)
        return known[key]

    return train


def close(found: list[float], expected: list[float], rel: float) -> None:
    assert found == pytest.approx(expected, rel=rel, abs=0)


def the_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], rel: float) -> None:
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        assert float((found[name] - gradient).abs().max()) <= rel * float(gradient.abs().max()), name


@pytest.mark.dist
@pytest.mark.parametrize(("kind", "mesh"), CURVES)
def test_the_curve_of_one_process(groups: Groups, alone: Alone, kind: str, mesh: tuple[int, int]) -> None:
    name = named(kind, mesh)
    expected, gradients = alone(groups.configs[name], EXACT)
    for found in groups.ranks(name):
        close(found["losses"], expected["losses"], 1e-9)
        close(found["norms"], expected["norms"], 1e-9)
        close([found["evaluation"]], [expected["evaluation"]], 1e-9)
    the_same_gradients(groups.gradients(name), gradients, 1e-9)


@pytest.mark.dist
@pytest.mark.parametrize("mesh", [(2, 1), (4, 1)])
def test_the_curve_of_a_dense_model_in_fp32(groups: Groups, alone: Alone, mesh: tuple[int, int]) -> None:
    name = named("dense", mesh, "fp32")
    expected, gradients = alone(groups.configs[name], {})
    close(groups.ranks(name)[0]["losses"], expected["losses"], 1e-6)
    the_same_gradients(groups.gradients(name), gradients, 1e-5)


def first_flip(ranks: list[dict[str, Any]], expected: dict[str, Any]) -> int:
    """The first step in which a token goes to another expert than in one process; all steps where none does."""
    for step, layers in enumerate(expected["routes"]):
        for layer, routes in enumerate(layers):
            if flipped(ranks, routes, step, layer):
                return step
    return len(expected["routes"])


def flipped(ranks: list[dict[str, Any]], routes: list[list[int]], step: int, layer: int) -> list[int]:
    """The tokens of one layer that go to other experts than these."""
    found = [experts for rank in ranks for experts in rank["routes"][step][layer]]
    assert len(found) == len(routes)
    return [token for token, experts in enumerate(routes) if experts != found[token]]


def is_near_tie(ranks: list[dict[str, Any]], expected: dict[str, Any], step: int) -> bool:
    """Whether in one process the tokens nearly chose otherwise, in the first layer of this step where some do."""
    for layer, routes in enumerate(expected["routes"][step]):
        tokens = flipped(ranks, routes, step, layer)
        if tokens:
            return max(expected["edges"][step][layer][token] for token in tokens) < NEAR_TIE
    raise AssertionError(f"no route flips in step {step}")


def test_a_flipped_route_is_found() -> None:
    routes = [[[0, 1], [2, 3]], [[2, 3], [0, 1]]]
    alone = {"routes": [routes] * 3, "edges": [[[0.5, 0.5], [0.5, 1e-6]]] * 3}
    ranks = [{"routes": [[layer[:1] for layer in routes]] * 3}, {"routes": [[layer[1:] for layer in routes]] * 3}]
    assert first_flip(ranks, alone) == 3
    ranks[1]["routes"] = [*ranks[1]["routes"][:2], [[[2, 3]], [[0, 2]]]]
    assert first_flip(ranks, alone) == 2
    assert is_near_tie(ranks, alone, 2)
    alone["edges"] = [[[0.5, 0.5], [0.5, 0.5]]] * 3
    assert not is_near_tie(ranks, alone, 2)


@pytest.mark.dist
@pytest.mark.parametrize("mesh", MESHES)
def test_the_curve_in_fp32_until_a_route_flips(groups: Groups, alone: Alone, mesh: tuple[int, int]) -> None:
    """At the usual rate. The whole curve holds where no route flips, and one that does was a near tie."""
    same_until_a_flip(groups, alone, named("shared", mesh, "fp32"))


def same_until_a_flip(groups: Groups, alone: Alone, name: str, options: dict[str, Any] | None = None) -> int | None:
    """The step of the first flipped route; until then, or to the end, losses are those of one process to 1e-6."""
    expected, _ = alone(groups.configs[name], options or {})
    ranks, steps = groups.ranks(name), len(expected["losses"])
    flip = first_flip(ranks, expected)
    print(f"{name}: {'no route flips' if flip == steps else f'the first route flips in step {flip}'} of {steps}")
    close(ranks[0]["losses"][:flip], expected["losses"][:flip], 1e-6)
    assert flip == steps or is_near_tie(ranks, expected, flip), flip
    return None if flip == steps else flip


@pytest.mark.dist
def test_some_route_flips_and_the_curve_holds_until_then(groups: Groups, alone: Alone) -> None:
    """Runs of other seeds: in some of them rounding sends a token to another expert, and the test finds where."""
    flips = [same_until_a_flip(groups, alone, named(f"seed{seed}", mesh, "fp32"), FLIPS) for seed, mesh in SEEDS]
    found = [flip for flip in flips if flip is not None]
    assert found
    assert min(found) > 0


def error(found: dict[str, torch.Tensor], exact: dict[str, torch.Tensor]) -> float:
    """|found - exact| / |exact| over all gradients."""
    off = sum(float((found[name].double() - each.double()).square().sum()) for name, each in exact.items())
    return math.sqrt(off / sum(float(each.double().square().sum()) for each in exact.values()))


@pytest.mark.dist
@pytest.mark.parametrize(("kind", "mesh"), [(k, m) for k, m in CURVES if k in ("dense", "shared")])
def test_bf16_is_as_exact_as_in_one_process(groups: Groups, alone: Alone, kind: str, mesh: tuple[int, int]) -> None:
    """The first loss is the same, and gradients are as far from those of fp32 as one process's are."""
    name = named(kind, mesh, "bf16")
    config = groups.configs[name]
    expected, gradients = alone(config, {"steps": 10})
    full = config.replace(train={**config.train.to_dict(), "precision": "fp32", "kernels": "torch"})
    _, exact = alone(full, {"steps": 1})
    ranks = groups.ranks(name)
    flip = first_flip(ranks, expected) if kind == "shared" else len(expected["losses"])
    apart = max(abs(one / other - 1) for one, other in zip(ranks[0]["losses"], expected["losses"], strict=True))
    errors = error(groups.gradients(name), exact), error(gradients, exact)
    print(f"{name}: gradients {errors[0]:.5f} from fp32, in one process {errors[1]:.5f}; losses apart by {apart:.1e}")
    print(f"{name}: the first of 10 steps with a flipped route: {flip if flip < 10 else 'none'}")
    close(ranks[0]["losses"][:1], expected["losses"][:1], 1e-6)
    assert errors[0] <= 1.02 * errors[1] < 0.1
    assert apart < 0.1


@pytest.mark.dist
@pytest.mark.parametrize("mesh", MESHES)
def test_muon_takes_the_steps_of_one_process(groups: Groups, alone: Alone, mesh: tuple[int, int]) -> None:
    name = named("shared", mesh, "muon")
    expected, gradients = alone(groups.configs[name], EXACT)
    close(groups.ranks(name)[0]["losses"], expected["losses"], 1e-9)
    close(groups.ranks(name)[0]["norms"], expected["norms"], 1e-9)
    the_same_gradients(groups.gradients(name), gradients, 1e-9)


@pytest.mark.dist
@pytest.mark.parametrize("dispatch", ["padded", "sorted", "grouped"])
def test_every_dispatch_computes_rows_of_other_processes(groups: Groups, alone: Alone, dispatch: str) -> None:
    name = f"dispatch-{dispatch}"
    expected, gradients = alone(groups.configs[name], {"steps": 3})
    close(groups.ranks(name)[0]["losses"], expected["losses"], 1e-5)
    the_same_gradients(groups.gradients(name), gradients, 1e-5)


def by_formula(config: RunConfig, mesh: tuple[int, int], **how: Any) -> dict[str, float]:
    """What a process sends in a step, as at balance."""
    tokens = config.train.batch_tokens // config.train.processes
    sent = step_traffic(config.model, data=mesh[0], expert=mesh[1], local_tokens=tokens, **how)
    return {part: float(getattr(sent, part)) for part in ("gathered", "scattered", "exchanged")}


@pytest.mark.dist
@pytest.mark.parametrize("mesh", MESHES)
def test_the_bytes_of_a_step_are_those_of_the_formula(groups: Groups, mesh: tuple[int, int]) -> None:
    """Every expert gets every token, so all rows are where the formula has them."""
    expected = by_formula(groups.configs[named("all", mesh, "bytes")], mesh)
    for found in groups.ranks(named("all", mesh, "bytes")):
        assert found["sent"] == [expected] * 2


@pytest.mark.dist
@pytest.mark.parametrize(("kind", "mesh"), COUNTED)
def test_the_bytes_of_routed_rows_are_those_of_the_routes(groups: Groups, kind: str, mesh: tuple[int, int]) -> None:
    """Parameters and gradients are the formula's; so are the rows, with those that really left in place of balance."""
    name = named(kind, mesh, "bytes")
    config, ranks = groups.configs[name], groups.ranks(name)
    expected = by_formula(config, mesh)
    assert (expected["exchanged"] > 0) == (kind != "dense" and mesh[1] > 1)
    for rank, found in enumerate(ranks):
        assert len(found["sent"]) == 2
        for step, sent in enumerate(found["sent"]):
            rows = (
                expected["exchanged"] if kind in ("dense", "choice") else exchanged(config, ranks, mesh[1], rank, step)
            )
            assert sent == {**expected, "exchanged": rows}


def exchanged(config: RunConfig, ranks: list[dict[str, Any]], size: int, rank: int, step: int) -> float:
    """Bytes of rows by the routes of a step: every row that leaves or arrives is sent back once, forward and backward,
    with its gate or the gate's gradient; and the counts."""
    assert config.model.moe is not None
    own, first = config.model.moe.n_experts // size, rank - rank % size
    total = 0.0
    for layer in range(config.model.n_moe_layers):
        owners = [
            [expert // own for experts in found["routes"][step][layer] for expert in experts]
            for found in ranks[first : first + size]
        ]
        me = rank - first
        leaving = sum(owner != me for owner in owners[me])
        arriving = sum(owner == me for other, each in enumerate(owners) if other != me for owner in each)
        total += (leaving + arriving) * (2 * 4 * config.model.d_model + GATE_BYTES)
        total += config.model.moe.n_experts * COUNT_BYTES * (size - 1) / size
    return total


@pytest.mark.dist
@pytest.mark.parametrize("mesh", [(2, 1), (1, 2), (2, 2)])
def test_the_bytes_of_accumulated_pieces_are_those_of_the_formula(groups: Groups, mesh: tuple[int, int]) -> None:
    name = named("all", mesh, "pieces")
    config = groups.configs[name]
    passes = config.train.batch_tokens // config.train.processes // config.train.seq_len
    expected = by_formula(config, mesh, passes=passes)
    for found in groups.ranks(name):
        assert found["sent"] == [expected] * 2


@pytest.mark.dist
@pytest.mark.parametrize(("kind", "mesh"), RECOMPUTED)
def test_recomputed_activations_change_nothing_but_the_rows_sent(
    groups: Groups, alone: Alone, kind: str, mesh: tuple[int, int]
) -> None:
    """The curve and the gradients are those of one process that keeps its activations."""
    for model, options, rel in (("latent", EXACT, 1e-9), ("choice", EXACT, 1e-9), ("sorted", {}, 1e-5)):
        name, steps = named(model, mesh, kind), 5 if options else 3
        config = groups.configs[name]
        plain = config.replace(train={**config.train.to_dict(), "recompute": None})
        expected, gradients = alone(plain, {**options, "steps": steps})
        for found in groups.ranks(name):
            close(found["losses"], expected["losses"], rel)
            close(found["norms"], expected["norms"], rel)
        the_same_gradients(groups.gradients(name), gradients, rel)
    for model in ("all", "slots"):
        config = groups.configs[named(model, mesh, kind)]
        tokens = config.train.batch_tokens // config.train.processes
        sent = step_traffic(config.model, data=mesh[0], expert=mesh[1], local_tokens=tokens, recompute=True)
        expected_bytes = {part: getattr(sent, part) for part in ("gathered", "scattered", "exchanged")}
        assert [each for found in groups.ranks(named(model, mesh, kind)) for each in found["sent"]] == [
            expected_bytes
        ] * (2 * config.train.processes)


def weights_of(folder: Path, config: RunConfig) -> dict[str, torch.Tensor]:
    return load_file(folder / config.run_id / "model.safetensors")


def steps_apart(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor], atol: float) -> None:
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, atol=atol, rtol=1e-3, msg=name)


@pytest.mark.dist
def test_a_resumed_run_ends_bit_equal_on_the_same_mesh(groups: Groups) -> None:
    config = groups.configs["straight"]
    straight, resumed = (weights_of(groups.folder / root, config) for root in ("straight", "saved"))
    assert straight.keys() == resumed.keys()
    assert all(torch.equal(straight[name], tensor) for name, tensor in resumed.items())
    record = json.loads((groups.folder / "saved" / config.run_id / "record.json").read_text())
    assert record["resumed"] == 2
    assert record["processes"] == 4


@pytest.mark.dist
def test_a_checkpoint_goes_on_at_another_mesh(groups: Groups, dataset: Dataset) -> None:
    straight = weights_of(groups.folder / "straight", groups.configs["straight"])
    steps_apart(weights_of(groups.folder / "moved", groups.configs["moved"]), straight, 1e-4)
    steps_apart(weights_of(groups.folder / "one", groups.configs["from-one"]), straight, 1e-4)
    parent = groups.configs["save-to-move"]
    plain = parent.replace(train={**parent.train.to_dict(), "parallel": None, "processes": 1})
    alone = plain.replace(parent={"run": parent.run_id, "step": 10, "adopted": True})
    record = train_run(alone, groups.folder / "moved", dataset)
    assert (record.parent_run, record.parent_step) == (parent.run_id, 10)
    assert any("train.parallel 2 x 2 to None" in note for note in record.notes)
    steps_apart(weights_of(groups.folder / "moved", alone), straight, 1e-4)


def test_what_a_mesh_cannot_do_is_refused(make_run: Any) -> None:
    moe = {"n_experts": 4, "top_k": 2, "d_expert": 16}
    with pytest.raises(InputError, match=r"train\.parallel\.expert: the model is dense; allowed: 1"):
        make_run(**on((1, 2)))
    with pytest.raises(InputError, match=r"train\.parallel\.expert: must divide the 4 experts, got 3"):
        make_run({"moe": moe}, **{**on((1, 3)), "batch_tokens": 96})
    with pytest.raises(InputError, match=r"model\.moe\.group_size: .* allowed: a divisor of the 2 sequences"):
        make_run({"moe": {**moe, "router": "expert_choice"}}, **on((2, 1)))
    with pytest.raises(InputError, match=r"parallel: data x expert: must divide the 8 sequences of a batch, got 3"):
        make_run({"moe": moe}, **BATCH, **on((3, 1)))
    with pytest.raises(InputError, match=r"train\.parallel: expected keys and values \(data, expert\), got '2x2'"):
        make_run({"moe": moe}, parallel="2x2")
    with pytest.raises(InputError, match=r"processes: must be the 4 of parallel"):
        make_run({"moe": moe}, processes=2, **on((2, 2)))
    mixing = {**moe, "router": "mixture_of_tokens", "group_size": 2}
    with pytest.raises(InputError, match=r"train\.transition: not with train\.parallel"):
        make_run({"moe": mixing}, transition={"at": 0.5}, **on((2, 1)))
    with pytest.raises(
        InputError, match=r"train\.compile: rows sent between processes are not compiled; allowed: none"
    ):
        make_run({"moe": moe}, compile="blocks", dispatch="grouped", precision="bf16", **on((1, 2)))


def test_a_mesh_is_part_of_the_name_and_its_size_is_processes(make_run: Any) -> None:
    moe = {"moe": {"n_experts": 4, "top_k": 2, "d_expert": 16}}
    wide, deep = make_run(moe, **on((2, 1))), make_run(moe, **on((1, 2)))
    assert wide.train.processes == deep.train.processes == 2
    assert len({make_run(moe).run_id, make_run(moe, processes=2).run_id, wide.run_id, deep.run_id}) == 4


@pytest.mark.dist
def test_a_killed_rank_ends_the_run_and_the_same_call_goes_on(make_run: Any, dataset: Dataset, tmp_path: Path) -> None:
    config = make_run({"moe": SHARED}, **{**BATCH, "tokens": 300 * 128}, **on((1, 2)))

    def kill(_: dict[str, float]) -> None:
        last = max(process.pid or 0 for process in multiprocessing.active_children())
        os.kill(last, signal.SIGKILL)

    with pytest.raises(MoelabError, match=r"^process 1 of 2 was ended by SIGKILL; .* the same command goes on from"):
        train_run(config, tmp_path, dataset, checkpoint_seconds=0.1, watch=kill)
    record = train_run(config, tmp_path, dataset)
    assert (record.status, record.resumed) == ("finished", 1)


DYING = """
import os, signal
from pathlib import Path
from moelab.__main__ import main
from moelab.training import Trainer
inner = Trainer.step
def step(self):
    if os.environ["RANK"] == "1" and self.progress.step == 7 and not Path("died").exists():
        Path("died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return inner(self)
Trainer.step = step
main()
"""


@pytest.mark.dist
def test_torchrun_starts_a_mesh_again_where_a_rank_died(make_run: Any, tmp_path: Path) -> None:
    config = make_run({"moe": SHARED}, **{**BATCH, "tokens": 12 * 128}, keep_steps=(5,), **on((1, 2)))
    (tmp_path / "run.yaml").write_text(dump_yaml(config.to_dict()))
    (tmp_path / "dying.py").write_text(DYING)
    words = ["torch.distributed.run", "--nproc-per-node=2", "--standalone", "--max-restarts=1", "dying.py"]
    done = subprocess.run(
        [sys.executable, "-m", *words, "train", "run.yaml", "--out", "runs", "--json"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "died").exists()
    record = RunFolder.open(tmp_path / "runs" / config.run_id).load_record()
    assert (record.status, record.resumed, record.processes) == ("finished", 1, 2)
