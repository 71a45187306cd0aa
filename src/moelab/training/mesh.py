"""A model sharded over a mesh of data x expert processes: FSDP2 for everything, experts shared out over `expert` ranks.

Rank r is data rank r // expert and expert rank r % expert, so the processes that exchange rows are neighbours. Every
parameter is split along its first dimension: an expert weight (E, ...) first over the expert ranks, then over the data
ranks, everything else over all ranks. Each process trains on its share of the batch. Losses are divided by the number
of processes and gradients added up, so the gradient is that of the whole batch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, Shard
from torch.utils import _pytree

from moelab.model import LanguageModel, LossOutput, build_model, draw, outline_model
from moelab.model.exchange import Exchange
from moelab.model.feed_forward import Experts
from moelab.model.moe import RoutingOutput
from moelab.model.router import BalanceTerm
from moelab.runs import RunConfig
from moelab.runs.train_config import Parallel
from moelab.training.processes import World
from moelab.training.replicated import Replicated, prepare_layers
from moelab.training.sharded_parts import ShardedParts

# FSDP follows the tensors of what a layer returns, to make its weights whole again before their gradients are formed.
for _output in (BalanceTerm, RoutingOutput, LossOutput):
    _pytree.register_dataclass(_output)


class Ranks:
    """Which rows of a tensor lie where."""

    def __init__(self, parallel: Parallel, device: str) -> None:
        self.data, self.expert = parallel.data, parallel.expert
        grid = torch.arange(parallel.processes).view(self.data, self.expert)
        self.all = DeviceMesh(device, grid.flatten(), mesh_dim_names=("all",))
        self.experts = DeviceMesh(device, grid.T, mesh_dim_names=("expert", "data"))

    def rows(self, length: int, of_experts: bool) -> list[slice]:
        """Of a first dimension of this length, what each rank holds."""
        if not of_experts:
            return _shares(length, self.data * self.expert)
        own = length // self.expert
        places = [divmod(rank, self.expert) for rank in range(self.data * self.expert)]
        inner = _shares(own, self.data)
        return [slice(e * own + inner[d].start, e * own + inner[d].stop) for d, e in places]

    def tensor(self, part: Tensor, shape: torch.Size, of_experts: bool) -> DTensor:
        """This process's rows as a tensor of the whole shape."""
        mesh, places = (self.experts, [Shard(0), Shard(0)]) if of_experts else (self.all, [Shard(0)])
        stride = torch.empty(shape, device="meta").stride()
        return DTensor.from_local(part, mesh, places, run_check=False, shape=shape, stride=stride)


class Sharded(Replicated):
    """Each process holds its rows of every parameter, and whole buffers."""

    sharded = True

    def __init__(self, config: RunConfig, everyone: World, dtype: torch.dtype = torch.float32) -> None:
        train = config.train
        assert train.parallel is not None
        self.config, self.everyone = config, everyone
        self.ranks = Ranks(train.parallel, train.device)
        model = outline_model(config.model, train.dispatch).to(dtype)
        self.shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
        self.of_experts = {name for name in self.shapes if isinstance(_owner(model, name), Experts)}
        self.rows = {n: self.ranks.rows(shape[0], n in self.of_experts) for n, shape in self.shapes.items()}
        self.take(model)
        self._fill(model, train.seed)

    def take(self, model: LanguageModel) -> None:
        """Shard a model without values."""
        train, modules = self.config.train, list(model.modules())
        in_bf16 = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
        policy = in_bf16 if train.precision == "bf16" else MixedPrecisionPolicy()
        for experts in modules:
            if isinstance(experts, Experts):
                self._share_out(experts)
                fully_shard(experts, mesh=self.ranks.experts["data"], mp_policy=policy)
        prepare_layers(model, train)
        for layer in [*model.model.layers, *model.mtp]:
            fully_shard(layer, mesh=self.ranks.all)
        fully_shard(model, mesh=self.ranks.all)
        for module in modules:
            if isinstance(module, FSDPModule):
                module.set_gradient_divide_factor(1.0)
                module.set_force_sum_reduction_for_comms(True)
        for method in ("loss", "balance_counts"):
            register_fsdp_forward_method(model, method)
        self.model = model

    def _share_out(self, experts: Experts) -> None:
        """Leave this process's experts alone in a module without values."""
        for name, whole in list(experts.named_parameters()):
            own = torch.empty(whole.shape[0] // self.ranks.expert, *whole.shape[1:], dtype=whole.dtype, device="meta")
            experts.register_parameter(name, nn.Parameter(own))
        if self.ranks.expert > 1:
            experts.exchange = Exchange(self.ranks.experts["expert"].get_group(), self.ranks.expert)

    @torch.no_grad()
    def _fill(self, model: LanguageModel, seed: int) -> None:
        """Every parameter's whole initial values are drawn, one after another, and its own rows kept."""
        model.to_empty(device=self.config.train.device)
        for buffer in model.buffers():
            buffer.zero_()
        model.unshard()  # type: ignore[operator]
        model.reshard()  # type: ignore[operator]
        self.parts = ShardedParts(model, self.everyone, self.rows)
        for name, part in self.parts.named.items():
            whole = torch.empty(self.shapes[name])
            draw(model, name, whole, seed)
            part.copy_(whole[self.rows[name][self.everyone.rank]])

    def loss(self, tokens: Tensor, targets: Tensor, **options: Any) -> LossOutput:
        return self.model.loss(tokens, targets, **options)

    @contextmanager
    def piece(self, last: bool) -> Iterator[None]:
        """Gradients of earlier pieces are kept whole until those of the last one are there."""
        module: Any = self.model
        module.set_requires_gradient_sync(last)
        module.set_is_last_backward(last)
        yield

    @property
    def divisor(self) -> int:
        return self.everyone.size

    def state(self) -> dict[str, Tensor]:
        return {name: self.parts.named.get(name, tensor) for name, tensor in self.model.state_dict().items()}

    @torch.no_grad()
    def load(self, tensors: dict[str, Tensor]) -> None:
        for name, part in self.state().items():
            if name not in tensors or tensors[name].shape != part.shape:
                raise RuntimeError(f"{name} is missing or has another shape")
            part.copy_(tensors[name])

    @torch.no_grad()
    def whole_model(self) -> LanguageModel:
        """Of use to the first process alone, on its CPU; the others send it their rows and return the model as it
        is."""
        train, whole = self.config.train, None
        if self.everyone.main:
            whole = build_model(self.config.model, dispatch=train.dispatch).to(self.model.head_weight.dtype)
        for name, part in self.state().items():
            arrived = self._at_first(name, part.detach())
            if whole is not None:
                target = whole.get_parameter(name) if name in self.rows else whole.get_buffer(name)
                target.copy_(arrived)
        return self.model if whole is None else whole

    def _at_first(self, name: str, part: Tensor) -> Tensor:
        """The whole tensor in the first process, from the rows of all."""
        if name not in self.rows:
            return part
        rows, shape, main = self.rows[name], self.shapes[name], self.everyone.main
        lengths = [(of_rank.stop - of_rank.start) * shape[1:].numel() if main else 0 for of_rank in rows]
        arrived = part.new_empty(sum(lengths))
        dist.all_to_all_single(arrived, part.flatten(), lengths, [part.numel(), *[0] * (len(rows) - 1)])
        if not main:
            return part
        whole = part.new_empty(shape)
        for of_rank, piece in zip(rows, arrived.split(lengths), strict=True):
            whole[of_rank] = piece.view(-1, *shape[1:])
        return whole


def _shares(length: int, parts: int) -> list[slice]:
    """FSDP's shares: equal, and what is left for the last ones."""
    each = -(-length // parts)
    return [slice(min(i * each, length), min((i + 1) * each, length)) for i in range(parts)]


def _owner(model: nn.Module, name: str) -> nn.Module:
    return model.get_submodule(name.rpartition(".")[0])
