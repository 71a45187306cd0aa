"""The parts of a model that is sharded over a mesh, as its optimiser sees them: rows of matrices, and whole experts.

AdamW works on rows as on anything else. Muon needs whole matrices: each belongs to one process, which gets its rows
from all, orthogonalises it and sends the rows of the step back. A shard of experts holds whole ones, so they stay.
"""

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.distributed as dist
from torch import Tensor, nn

from moelab.training.parts import Parts
from moelab.training.processes import World


class ShardedParts(Parts):
    """Parts of dimension 0, in the order of the ranks.

    `rows` of a name are those that each process holds. Each of `named` shares its memory with the model's parameter.
    """

    def __init__(self, model: nn.Module, everyone: World, rows: dict[str, list[slice]]) -> None:
        self.named = {name: _local(parameter).requires_grad_() for name, parameter in model.named_parameters()}
        self._parameters, self.everyone, self.rows = dict(model.named_parameters()), everyone, rows

    def shape(self, name: str) -> torch.Size:
        """The shape of the whole matrix; of experts, of those that this process holds."""
        part = self.named[name]
        return part.shape if part.ndim > 2 else torch.Size((self.rows[name][-1].stop, *part.shape[1:]))

    def take_gradients(self) -> None:
        for name, parameter in self._parameters.items():
            part = self.named[name]
            assert part.data_ptr() == _local(parameter).data_ptr(), f"{name} has moved"
            part.grad, parameter.grad = None if parameter.grad is None else _local(parameter.grad), None

    def norm(self) -> Tensor:
        """Every element of every gradient lies in one process, so squares add up, whatever the meshes."""
        return self.everyone.sum(super().norm().square()).sqrt()

    def whole(self, names: Sequence[str], parts: Sequence[Tensor]) -> dict[str, Tensor]:
        given = dict(zip(names, parts, strict=True))
        matrices, owners = self._owners(names)
        mine = [name for name in matrices if owners[name] == self.everyone.rank]
        sent = [[given[name] for name in matrices if owners[name] == rank] for rank in range(self.everyone.size)]
        expected = [[self._part(name, rank) for name in mine] for rank in range(self.everyone.size)]
        arrived = _exchange(sent, expected, like=parts[0])
        wholes = {name: torch.cat([of_rank[index] for of_rank in arrived]) for index, name in enumerate(mine)}
        return {**{name: given[name] for name in names if name not in owners}, **wholes}

    def own(self, names: Sequence[str], wholes: dict[str, Tensor]) -> list[Tensor]:
        matrices, owners = self._owners(names)
        mine = [name for name in matrices if owners[name] == self.everyone.rank]
        theirs = [[name for name in matrices if owners[name] == rank] for rank in range(self.everyone.size)]
        sent = [[wholes[name][self.rows[name][rank]] for name in mine] for rank in range(self.everyone.size)]
        expected = [[self.named[name].shape for name in owned] for owned in theirs]
        arrived = _exchange(sent, expected, like=self.named[names[0]])
        found = {
            name: part
            for owned, parts in zip(theirs, arrived, strict=True)
            for name, part in zip(owned, parts, strict=True)
        }
        return [found[name] if name in found else wholes[name] for name in names]

    def total(self, count: Tensor) -> Tensor:
        return self.everyone.sum(count)

    def _owners(self, names: Sequence[str]) -> tuple[list[str], dict[str, int]]:
        """The sharded matrices, and who orthogonalises each: the one with the least to do, the largest first."""
        matrices = [name for name in names if self.named[name].ndim == 2]
        load, owners = [0] * self.everyone.size, {}
        for name in sorted(matrices, key=lambda each: (-self.shape(each).numel(), each)):
            owners[name] = load.index(min(load))
            load[owners[name]] += self.shape(name).numel()
        return matrices, owners

    def _part(self, name: str, rank: int) -> torch.Size:
        rows = self.rows[name][rank]
        return torch.Size((rows.stop - rows.start, *self.shape(name)[1:]))


def _local(tensor: Tensor) -> Tensor:
    """What this process holds of a DTensor, sharing its memory."""
    held: Tensor = tensor.detach().to_local()  # type: ignore[attr-defined]
    return held


def _exchange(sent: list[list[Tensor]], expected: list[list[torch.Size]], like: Tensor) -> list[list[Tensor]]:
    """Send each rank its tensors in one message; returns those of the expected shapes from each."""
    sizes = [[shape.numel() for shape in shapes] for shapes in expected]
    outgoing = torch.cat([part.flatten() for parts in sent for part in parts] or [like.new_empty(0)])
    arrived = like.new_empty(sum(map(sum, sizes)))
    leaving = [sum(part.numel() for part in parts) for parts in sent]
    dist.all_to_all_single(arrived, outgoing, [sum(of_rank) for of_rank in sizes], leaving)
    ends = list(accumulate(sum(of_rank) for of_rank in sizes))
    found = []
    for shapes, lengths, end in zip(expected, sizes, ends, strict=True):
        pieces = arrived[end - sum(lengths) : end].split(lengths)
        found.append([piece.view(shape) for piece, shape in zip(pieces, shapes, strict=True)])
    return found
