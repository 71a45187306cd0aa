"""A checkpoint of a model that is sharded over a mesh: every process writes and reads its own rows, all together."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moelab.errors import MoelabError
from moelab.training.distributed_files import STATES, shapes_in, split_states
from moelab.training.mesh import Sharded
from moelab.training.tensor_files import Files, sync_and_sum


class ShardedFiles(Files):
    """The tensors of a layout; those that are not sharded (buffers, step counters) are written once."""

    def __init__(self, layout: Sharded) -> None:
        self.layout, self.everyone = layout, layout.everyone

    def write(self, folder: Path, model: dict[str, Tensor], optimizer: dict[str, Tensor]) -> dict[str, str]:
        from torch.distributed.checkpoint.api import CheckpointException
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
        from torch.distributed.checkpoint.state_dict_saver import save

        whole = {name: self._whole(name, tensor) for name, tensor in {**model, **optimizer}.items()}
        writer = HuggingFaceStorageWriter(str(folder), save_distributed=True)
        try:
            save(whole, storage_writer=writer)
        except CheckpointException as error:
            raise MoelabError(f"checkpoint: cannot write {folder}: {_first(error)}") from error
        own = folder.glob(f"shard-{self.everyone.rank + 1:05d}-*.safetensors")
        sums = self.everyone.all({path.name: sync_and_sum(path) for path in own})
        return {name: digest for of_rank in sums for name, digest in of_rank.items()}

    def read(self, folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """This process's rows, whatever mesh, or single process, wrote them."""
        from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
        from torch.distributed.checkpoint.state_dict_loader import load

        parts, rank = {}, self.everyone.rank
        for name, (shape, dtype) in shapes_in(folder).items():
            rows, has_rows = self.layout.rows.get(_parameter(name)), len(shape) > 0
            first = (rows[rank].stop - rows[rank].start,) if rows and has_rows else shape[:1]
            parts[name] = torch.empty((*first, *shape[1:]), dtype=dtype, device=self.layout.config.train.device)
        targets = {name: self._whole(name, part) for name, part in parts.items()}
        load(targets, storage_reader=HuggingFaceStorageReader(str(folder)))
        return split_states(parts)

    def _whole(self, name: str, part: Tensor) -> Tensor:
        """The rows as a tensor of the whole shape, which knows where they belong."""
        parameter, layout = _parameter(name), self.layout
        if parameter not in layout.rows or not part.ndim:
            return part
        return layout.ranks.tensor(part.detach(), layout.shapes[parameter], parameter in layout.of_experts)


def _parameter(name: str) -> str:
    """The parameter that a tensor belongs to: an optimiser's have a name behind it."""
    before, _, last = name.rpartition(".")
    return before if last in STATES else name


def _first(error: Any) -> str:
    """The first process's reason."""
    return next(iter(str(reason) for reason in error.failures.values()), str(error)).splitlines()[0]
