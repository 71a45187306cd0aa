"""AdamW and Muon behind one interface, with state that is saved by parameter name.

Muon (Jordan et al. 2024; scaled as in arXiv 2502.16982) orthogonalises the momentum of hidden matrices. Its step is
multiplied by 0.2 sqrt(max(rows, columns)), the size of an AdamW step, so both share one learning rate. Expert weights
of shape (E, rows, columns) are E matrices. Embeddings, head, routers, norms and biases stay with AdamW.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from moelab.errors import MoelabError
from moelab.runs import TrainConfig

_ADAMW_ONLY = ("embed", "lm_head", "router", "norm")
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


class Optimizer:
    """Steps a model's parameters; `state()` and `load_state()` exchange plain tensors named after the parameters."""

    def __init__(self, model: nn.Module, config: TrainConfig) -> None:
        self.config = config
        self.named = dict(model.named_parameters())
        muon = [n for n, p in self.named.items() if config.optimizer == "muon" and is_hidden_matrix(n, p)]
        self.muon = Muon([self.named[name] for name in muon], config) if muon else None
        self.adamw = torch.optim.AdamW(
            _decay_groups({n: p for n, p in self.named.items() if n not in muon}, config.weight_decay),
            lr=config.learning_rate,
            betas=(config.beta1, config.beta2),
            eps=config.epsilon,
            fused=True,
        )

    def step(self, learning_rate: float) -> Tensor:
        """Clip the gradients' global norm, take one step, clear the gradients; returns the norm before clipping.

        It stays where the gradients are: the host does not wait for it.
        """
        parameters = list(self.named.values())
        limit = self.config.grad_clip or float("inf")
        norm = nn.utils.clip_grad_norm_(parameters, limit)
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate
        self.adamw.step()
        if self.muon is not None:
            self.muon.step(learning_rate)
        for parameter in parameters:
            parameter.grad = None
        return norm

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
    """Momentum, orthogonalised by five Newton-Schulz steps; matrices of one shape go through them as one batch."""

    def __init__(self, parameters: Iterable[Tensor], config: TrainConfig) -> None:
        self.config = config
        self.momentum = {parameter: torch.zeros_like(parameter) for parameter in parameters}
        self.groups: dict[tuple[int, int], list[Tensor]] = defaultdict(list)
        for parameter in self.momentum:
            rows, columns = parameter.shape[-2:]
            self.groups[min(rows, columns), max(rows, columns)].append(parameter)

    @torch.no_grad()
    def step(self, learning_rate: float) -> None:
        """One step with Nesterov momentum and decoupled weight decay; parameters without a gradient rest."""
        beta, decay = self.config.muon_momentum, 1 - learning_rate * self.config.weight_decay
        for (rows, columns), group in self.groups.items():
            parameters = [p for p in group if p.grad is not None]
            if not parameters:
                continue
            gradients = [p.grad for p in parameters if p.grad is not None]
            momenta = [self.momentum[p] for p in parameters]
            torch._foreach_lerp_(momenta, gradients, 1 - beta)
            nesterov = torch._foreach_lerp(gradients, momenta, beta)
            wide = torch.cat([_as_wide(update, rows) for update in nesterov])
            updates = orthogonalize(wide)
            steps = _as_before(updates, parameters, rows)
            torch._foreach_mul_(parameters, decay)
            torch._foreach_add_(parameters, steps, alpha=-learning_rate * 0.2 * columns**0.5)


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
    return parameter.ndim in (2, 3) and not any(word in name for word in _ADAMW_ONLY)


def _as_wide(matrix: Tensor, rows: int) -> Tensor:
    """(m, n) or (E, m, n) as (E, rows, columns) with rows <= columns."""
    matrix = matrix if matrix.ndim == 3 else matrix[None]
    return matrix if matrix.shape[-2] == rows else matrix.mT


def _as_before(updates: Tensor, parameters: list[Tensor], rows: int) -> list[Tensor]:
    """Undo `_as_wide` for every parameter of a group."""
    counts = [p.shape[0] if p.ndim == 3 else 1 for p in parameters]
    pieces = updates.split(counts)
    return [
        (piece if p.shape[-2] == rows else piece.mT).reshape(p.shape)
        for piece, p in zip(pieces, parameters, strict=True)
    ]


def _decay_groups(named: dict[str, nn.Parameter], weight_decay: float) -> list[dict[str, object]]:
    """Matrices decay; vectors (norms, biases) do not."""
    matrices = [p for p in named.values() if p.ndim >= 2]
    vectors = [p for p in named.values() if p.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def _copy(tensors: dict[str, Tensor], key: str, target: Tensor) -> Tensor:
    if key not in tensors or tensors[key].shape != target.shape:
        raise MoelabError(f"checkpoint: the optimiser's {key} is missing or has another shape")
    with torch.no_grad():
        return target.copy_(tensors[key])
