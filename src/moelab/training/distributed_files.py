"""Checkpoints by torch.distributed.checkpoint, in safetensors: each process writes a file of its rows.

Every file holds the offsets of its tensors, so any number of processes, on any mesh, reads what it needs of them. Files
of whole tensors are read in the same way.
"""

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

STATES = ("momentum", "exp_avg", "exp_avg_sq", "step")
"""How the names of the optimiser's tensors end, behind the parameter's."""


def split_states(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The model's and the optimiser's."""
    of_optimizer = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] in STATES}
    return {name: tensor for name, tensor in tensors.items() if name not in of_optimizer}, of_optimizer


def shapes_in(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """The whole shape and the dtype of every tensor in a folder's files."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader

    held: Any = HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata
    return {name: (meta.size, meta.properties.dtype) for name, meta in held.items()}


def read_whole(folder: Path) -> dict[str, Tensor]:
    """Every tensor in a folder's files, whole, in this process alone."""
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.state_dict_loader import load

    tensors = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in shapes_in(folder).items()}
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        load(tensors, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    return tensors
