"""The leak certificate: change one token and measure which earlier tokens and which other sequences notice.

A causal language model's output at a position must depend on that position and those before it in the same sequence.
Expert Choice, capacity drops and mixing break that; the certificate says how much. Measured in fp64 on the reference
path, so that zero means below 1e-9 and rounding cannot pass for a leak.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.errors import InputError
from moelab.model import LanguageModel, build_model, leak_free

ZERO = 1e-9
"""Changes of a logit below this count as none."""


@dataclass(frozen=True, kw_only=True)
class LeakCertificate:
    """Rates over (changed token, observed position) pairs, and the largest changes of a logit.

    `earlier` looks at the positions before the changed token in its sequence, `others` at all positions of the other
    sequences. `leak_free_*` is the same with capacity lifted and mixing off, which must be zero for every router.
    """

    earlier_rate: float
    others_rate: float
    earlier_change: float
    others_change: float
    leak_free_change: float
    trials: int

    @property
    def clean(self) -> bool:
        """Whether nothing leaked."""
        return self.earlier_change < ZERO and self.others_change < ZERO


@torch.no_grad()
def certify(
    model: LanguageModel | ModelConfig, *, batch: int = 8, seq_len: int = 16, trials: int = 16, seed: int = 0
) -> LeakCertificate:
    """Change `trials` random tokens of a random batch, one at a time, and compare all logits.

    A config is built with fresh weights from `seed`. Raises InputError for fewer than two sequences or positions.
    """
    if batch < 2 or seq_len < 2 or trials < 1:
        raise InputError("leaks: batch and seq_len must be at least 2 and trials at least 1")
    reference = _reference(model, seed)
    vocab_size = reference.config.vocab_size
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, vocab_size, (batch, seq_len), generator=generator)
    places = torch.randint(0, batch * (seq_len - 1), (trials,), generator=generator).tolist()
    # The first position has none before it: changed tokens stand at positions 1 and later.
    pairs = [(place // (seq_len - 1), place % (seq_len - 1) + 1) for place in places]
    as_trained = [_change(reference, tokens, *pair) for pair in pairs]
    with leak_free(reference):
        alone = [_change(reference, tokens, *pair) for pair in pairs[:4]]
    earlier = torch.cat([change[0] for change in as_trained])
    others = torch.cat([change[1] for change in as_trained])
    return LeakCertificate(
        earlier_rate=float((earlier > ZERO).double().mean()),
        others_rate=float((others > ZERO).double().mean()),
        earlier_change=float(earlier.max()),
        others_change=float(others.max()),
        leak_free_change=max(float(torch.cat(change).max()) for change in alone),
        trials=trials,
    )


def _reference(model: LanguageModel | ModelConfig, seed: int) -> LanguageModel:
    """The same weights in fp64 with the reference dispatch; the model that was passed in stays as it is."""
    config = model if isinstance(model, ModelConfig) else model.config
    reference = build_model(config, seed=seed, dispatch="loop")
    if isinstance(model, LanguageModel):
        reference.load_state_dict(model.state_dict())
    return reference.double().eval()


def _change(model: LanguageModel, tokens: Tensor, row: int, position: int) -> tuple[Tensor, Tensor]:
    """Largest change of a logit at every earlier position, and at every position of the other sequences."""
    changed = tokens.clone()
    changed[row, position] = (changed[row, position] + 1) % model.config.vocab_size
    difference = (model(tokens) - model(changed)).abs().amax(-1)
    others = torch.cat((difference[:row], difference[row + 1 :])).flatten()
    return difference[row, :position], others
