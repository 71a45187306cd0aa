"""Tensors in files: a checkpoint's, whole or from the parts that processes hold, and a model's weights alone."""

import os
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moelab.errors import MoelabError
from moelab.files import sha256_file, write_with
from moelab.training.distributed_files import read_whole, split_states
from moelab.training.processes import World

_MODEL, _OPTIMIZER = "model.safetensors", "optimizer.safetensors"


class Files:
    """How a checkpoint's tensors are written and read: whole ones in two files, by one process."""

    everyone = World()

    def write(self, folder: Path, model: dict[str, Tensor], optimizer: dict[str, Tensor]) -> dict[str, str]:
        """Write them into a folder; the SHA-256 of each file by its name."""
        files = {_MODEL: model, _OPTIMIZER: optimizer}
        for name, tensors in files.items():
            save_file(contiguous(tensors), folder / name)
        return {name: sync_and_sum(folder / name) for name in files}

    def read(self, folder: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The model's and the optimiser's tensors, whole, whatever wrote them."""
        if (folder / _MODEL).exists():
            return load_file(folder / _MODEL), load_file(folder / _OPTIMIZER)
        return split_states(read_whole(folder))


WHOLE = Files()


def save_weights(path: Path, model: dict[str, Tensor]) -> str:
    """Write a model's weights atomically as safetensors; returns the file's SHA-256.

    Raises MoelabError naming the file that cannot be written.
    """
    try:
        write_with(path, lambda temporary: save_file(contiguous(model), temporary))
    except SafetensorError as error:  # a full disk, among others
        raise MoelabError(f"cannot write {path}: {error}") from error
    return sha256_file(path)


def contiguous(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as safetensors writes them."""
    return {name: tensor.detach().contiguous() for name, tensor in tensors.items()}


def sync_and_sum(path: Path) -> str:
    """The SHA-256 of a file that is on the disk now."""
    with open(path, "rb") as stream:
        os.fsync(stream.fileno())
    return sha256_file(path)
