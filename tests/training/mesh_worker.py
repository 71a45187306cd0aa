"""One process of a group that trains one case after another; the test reads what each rank leaves behind.

    python mesh_worker.py RANK SIZE FOLDER

FOLDER holds `cases.json` (a name, a resolved run config and options for each) and gets NAME.RANK.json (losses, norms,
routes, bytes) and NAME.RANK.safetensors (this rank's rows of the first step's gradients).
"""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch.distributed import ProcessGroup
from torch.utils._python_dispatch import TorchDispatchMode

from moelab.data import Dataset
from moelab.model.router import Routing, TopKRouter
from moelab.runs import RunConfig, RunFolder
from moelab.training import Trainer, train_run
from moelab.training.kernels import computed_by
from moelab.training.processes import join, leave, world


class Traffic(TorchDispatchMode):
    """Adds up what this process sends in collectives, as a ring sends it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = {"gathered": 0.0, "scattered": 0.0, "exchanged": 0.0}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).split(".")[1] if "c10d" in str(func) else ""
        if name == "_allgather_base_":
            whole, part = args[0], args[1]
            self.sent["gathered"] += whole.nbytes - part.nbytes
        elif name == "_reduce_scatter_base_":
            part, whole = args[0], args[1]
            self.sent["scattered"] += whole.nbytes - part.nbytes
        elif name == "alltoall_base_":
            self.sent["exchanged"] += self._leaving(args)
        return func(*args, **(kwargs or {}))

    def _leaving(self, args: Any) -> float:
        """Of an all-to-all the rows that go to another process; without splits all are equal."""
        _, sent, boxed, _, splits = args[:5]
        group = ProcessGroup.unbox(boxed)
        splits = splits or [len(sent) // group.size()] * group.size()
        row = sent[0].nbytes if len(sent) else 0
        return row * (sum(splits) - splits[group.rank()])


def train(config: RunConfig, folder: Path, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """The curve of a case: losses, gradient norms, bytes, and of each step and layer the tokens' experts (in order of
    their numbers) and edges, by how much the last taken scored above the first rejected; and gradients by rows."""
    dataset = Dataset.open(config.data.path)
    dtype = getattr(torch, options.get("dtype", "float32"))
    trainer = Trainer(config, RunFolder.create(folder / "runs", config), dataset, dtype=dtype)
    found: dict[str, Any] = {"losses": [], "norms": [], "routes": [], "edges": [], "sent": []}
    gradients: dict[str, torch.Tensor] = {}
    chosen: list[torch.Tensor] = []
    edges: list[torch.Tensor] = []

    def note(_: Any, __: Any, routing: Routing) -> None:
        chosen.append(routing.chosen.sort(-1).values)
        edges.extend((taken[:, 0] - taken[:, 1]) / taken[:, 0].abs() for taken in routing.edges())

    for module in trainer.model.modules():
        if isinstance(module, TopKRouter):
            module.register_forward_hook(note)
    parts = trainer.layout.parts
    inner = parts.norm

    def norm() -> torch.Tensor:
        if not gradients:
            gradients.update({name: part.grad.clone() for name, part in parts.named.items() if part.grad is not None})
        return inner()

    parts.norm = norm  # type: ignore[method-assign]
    with computed_by(config.train):
        for _ in range(options.get("steps", config.train.steps)):
            chosen.clear()
            edges.clear()
            with Traffic() if options.get("traffic") else nullcontext() as traffic:
                found["losses"].append(float(trainer.step()))
            found["norms"].append(float(trainer.grad_norm))
            found["routes"].append([layer.tolist() for layer in chosen])
            found["edges"].append([layer.tolist() for layer in edges])
            if traffic is not None:
                found["sent"].append(traffic.sent)
        found["evaluation"] = trainer.evaluate().loss
    rows = getattr(trainer.layout, "rows", {})
    rank = world().rank
    found["rows"] = {name: [of_all[rank].start, of_all[rank].stop] for name, of_all in rows.items()}
    return found, gradients


def train_whole(config: RunConfig, folder: Path, options: dict[str, Any]) -> dict[str, Any]:
    """A run to its end, or until a step with a checkpoint of it, continued where it was interrupted."""
    dataset, root = Dataset.open(config.data.path), folder / options["root"]
    if "until" not in options:
        return {"loss": train_run(config, root, dataset).loss}
    trainer = Trainer(config, RunFolder.create(root, config), dataset)
    trainer.restore()
    with computed_by(config.train):
        while trainer.progress.step < options["until"]:
            trainer.monitor.put(trainer.progress.step + 1, trainer.step(), trainer.grad_norm)
            trainer.monitor.note_losses(trainer.progress, all_of_them=True)
    trainer.save(1.0)
    return {"step": trainer.progress.step}


def main(rank: int, size: int, folder: Path) -> None:
    """Join the group and work off its cases."""
    join("cpu", (folder / f"rendezvous-{size}").as_uri(), rank, size)
    torch.set_num_threads(1)
    for case in json.loads((folder / f"cases-{size}.json").read_text()):
        config, options = RunConfig.parse(case["config"]), case["options"]
        gradients: dict[str, torch.Tensor] = {}
        if "root" in options:
            found = train_whole(config, folder, options)
        else:
            found, gradients = train(config, folder, options)
        save_file(gradients, folder / f"{case['name']}.{rank}.safetensors")
        (folder / f"{case['name']}.{rank}.json").write_text(json.dumps(found))
    leave()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
