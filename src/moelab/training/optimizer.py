"""AdamW and Muon behind one interface, with state that is saved by parameter name.

Muon (Jordan et al. 2024; scaled as in arXiv 2502.16982) orthogonalises the momentum of hidden matrices. Its step is
multiplied by 0.2 sqrt(max(rows, columns)), the size of an AdamW step, so both share one learning rate. Expert weights
of shape (E, rows, columns) are E matrices; with `muon_split` a fused gate and up projection (2F, D) is two (F, D).
Embeddings, head, routers, norms and biases stay with AdamW.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from moelab.errors import MoelabError
from moelab.runs import TrainConfig
from moelab.training.adamw import AdamW
from moelab.training.parts import Parts

_ADAMW_ONLY = ("embed", "lm_head", "router", "norm")
_FUSED, _DOWN = "gate_up_proj", "down_proj"
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Optimizer:
    """Steps a model's parameters, or this process's parts of them; `state()` and `load_state()` exchange plain tensors
    named after the parameters."""

    def __init__(self, model: nn.Module | Parts, config: TrainConfig) -> None:
        self.config = config
        self.parts = model if isinstance(model, Parts) else Parts(model)
        self.named = self.parts.named
        muon = [n for n, p in self.named.items() if config.optimizer == "muon" and is_hidden_matrix(n, p)]
        self.muon = Muon(self.parts, muon, config) if muon else None
        self.adamw = AdamW(
            _decay_groups({n: p for n, p in self.named.items() if n not in muon}, config),
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            eps=config.epsilon,
            fused=True,
        )

    def step(self, learning_rate: float | Tensor) -> Tensor:
        """Clip the gradients' global norm, take one step, clear the gradients; returns the norm before clipping.

        It stays where the gradients are: the host does not wait for it. A rate that is a tensor is read on its device.
        """
        self.parts.take_gradients()
        parameters, norm = list(self.named.values()), self.parts.norm()
        nn.utils.clip_grads_with_norm_(parameters, self.config.grad_clip or float("inf"), norm)
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate
            group["capturable"] = self.adamw.is_recorded()
        self.adamw.step()
        if self.muon is not None:
            self.muon.step(learning_rate)
        self.clear_gradients()
        return norm

    def clear_gradients(self) -> None:
        """Forget all gradients."""
        for parameter in self.named.values():
            parameter.grad = None

    def take_expert_steps(self) -> tuple[int, int]:
        """Muon's steps on single experts since the last call, and how many of these had no token in the batch."""
        if self.muon is None:
            return 0, 0
        total = self.parts.total(self.muon.expert_steps).tolist()
        self.muon.expert_steps.zero_()
        return total[0], total[1]

    def state(self) -> dict[str, Tensor]:
        """Every optimiser tensor as `NAME.momentum`, `NAME.exp_avg`, `NAME.exp_avg_sq` and `NAME.step`."""
        tensors = {}
        for name, parameter in self.named.items():
            if self.muon is not None and parameter in self.muon.momentum:
                tensors[f"{name}.momentum"] = self.muon.momentum[parameter]
            for key, value in self.adamw.state.get(parameter, {}).items():
                tensors[f"{name}.{key}"] = value
        return tensors

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Restore what `state` returned. Raises MoelabError when a tensor is missing or has another shape."""
        for name, parameter in self.named.items():
            if self.muon is not None and parameter in self.muon.momentum:
                _copy(tensors, f"{name}.momentum", self.muon.momentum[parameter])
            elif f"{name}.step" in tensors:
                self.adamw.state[parameter] = {
                    "step": tensors[f"{name}.step"].clone(),
                    "exp_avg": _copy(tensors, f"{name}.exp_avg", torch.empty_like(parameter)),
                    "exp_avg_sq": _copy(tensors, f"{name}.exp_avg_sq", torch.empty_like(parameter)),
                }


class Muon:
    """Momentum, orthogonalised by five Newton-Schulz steps; matrices of one shape go through them as one batch.

    `expert_steps` (2,) counts the steps of single experts, and those of experts without a token in the batch: the
    gradient is zero there, and what is orthogonalised to full size is the momentum of earlier batches.
    """

    def __init__(self, parts: Parts, names: list[str], config: TrainConfig) -> None:
        self.config, self.parts = config, parts
        self.named = {name: parts.named[name] for name in names}
        self.momentum = {parameter: torch.zeros_like(parameter) for parameter in self.named.values()}
        self.halves = {name for name in names if config.muon_split and _FUSED in name}
        self.experts = [p for name, p in self.named.items() if p.ndim == 3 and name.endswith(_DOWN)]
        where = next(iter(self.named.values())).device
        self.expert_steps = torch.zeros(2, dtype=torch.int64, device=where)
        self.sides: dict[str, tuple[int, int]] = {}
        for name in names:
            rows, columns = self._matrices(name, torch.empty(parts.shape(name), device="meta")).shape[-2:]
            self.sides[name] = (min(rows, columns), max(rows, columns))

    @torch.no_grad()
    def step(self, learning_rate: float | Tensor) -> None:
        """One step with Nesterov momentum and decoupled weight decay; parameters without a gradient rest."""
        self._count_idle()
        beta, decay = self.config.muon_momentum, 1 - learning_rate * self.config.weight_decay
        names = [name for name, p in self.named.items() if p.grad is not None]
        if not names:
            return
        parameters = [self.named[name] for name in names]
        gradients = [p.grad for p in parameters if p.grad is not None]
        momenta = [self.momentum[p] for p in parameters]
        torch._foreach_lerp_(momenta, gradients, 1 - beta)
        wholes = self.parts.whole(names, torch._foreach_lerp(gradients, momenta, beta))
        steps = dict(zip(names, self.parts.own(names, self._orthogonalized(wholes)), strict=True))
        for (_, columns), group in self._by_sides(names).items():
            moved = [self.named[name] for name in group]
            torch._foreach_mul_(moved, decay)
            _add_scaled(moved, [steps[name] for name in group], -learning_rate * 0.2 * columns**0.5)

    def _orthogonalized(self, updates: dict[str, Tensor]) -> dict[str, Tensor]:
        """Whole updates by name, orthogonalised: matrices of one shape as one batch."""
        found = {}
        for (rows, _), group in self._by_sides(updates).items():
            views = [self._matrices(name, updates[name]) for name in group]
            wide = torch.cat([view if view.shape[-2] == rows else view.mT for view in views])
            pieces = orthogonalize(wide).split([len(view) for view in views])
            for name, piece, view in zip(group, pieces, views, strict=True):
                turned = piece if view.shape[-2] == rows else piece.mT
                found[name] = turned.reshape(updates[name].shape)
        return found

    def _by_sides(self, names: Iterable[str]) -> dict[tuple[int, int], list[str]]:
        """The names by the shorter and the longer side of their matrices."""
        groups: dict[tuple[int, int], list[str]] = defaultdict(list)
        for name in names:
            groups[self.sides[name]].append(name)
        return groups

    def _matrices(self, name: str, value: Tensor) -> Tensor:
        """A tensor of the parameter's shape as its matrices (n, rows, columns)."""
        halves = value.unflatten(-2, (2, -1)) if name in self.halves else value
        return halves.flatten(0, -3) if halves.ndim > 2 else halves[None]

    def _count_idle(self) -> None:
        """Before the momentum takes up the gradient: one row of `down` shows whether an expert has had tokens."""
        for parameter in self.experts:
            if parameter.grad is not None:
                moving = self.momentum[parameter][:, 0].any(-1)
                self.expert_steps[0] += len(parameter)
                self.expert_steps[1] += (moving & ~parameter.grad[:, 0].any(-1)).sum()


def _add_scaled(targets: list[Tensor], added: list[Tensor], scale: float | Tensor) -> None:
    """targets += scale added, in place; a scale that is a tensor stays on its device."""
    if isinstance(scale, Tensor):
        torch._foreach_add_(targets, torch._foreach_mul(added, scale))
    else:
        torch._foreach_add_(targets, added, alpha=scale)


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """The nearest semi-orthogonal matrix of each of (B, m, n), m <= n, up to singular values of about .7 to 1.2."""
    a, b, c = _NEWTON_SCHULZ
    x = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x


def is_hidden_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon may take this parameter: a matrix, or a stack of them, between two hidden layers."""
    matrices = parameter.ndim in (2, 3) and not name.endswith("bias")  # the experts' biases are stacked vectors
    return matrices and not any(word in name for word in _ADAMW_ONLY)


def _decay_groups(named: dict[str, Tensor], config: TrainConfig) -> list[dict[str, object]]:
    """Parameters of AdamW that decay (`weight_decay_on`) and those that do not."""
    decaying: list[Tensor] = []
    others: list[Tensor] = []
    for name, parameter in named.items():
        (decaying if _decays(name, parameter, config.weight_decay_on) else others).append(parameter)
    groups = [{"params": decaying, "weight_decay": config.weight_decay}, {"params": others, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _decays(name: str, parameter: Tensor, on: str) -> bool:
    """Whether weight decay on these parameters reaches this one."""
    if on == "all":
        return True
    return is_hidden_matrix(name, parameter) if on == "hidden" else parameter.ndim >= 2 and not name.endswith("bias")


def _copy(tensors: dict[str, Tensor], key: str, target: Tensor) -> Tensor:
    if key not in tensors or tensors[key].shape != target.shape:
        raise MoelabError(f"checkpoint: the optimiser's {key} is missing or has another shape")
    with torch.no_grad():
        return target.copy_(tensors[key])
