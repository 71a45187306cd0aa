"""The exported model against the trained one: logits on held-out text by another library, compared with ours."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from moelab.data import Dataset, ValidationBatches
from moelab.errors import MoelabError
from moelab.model import LanguageModel, leak_free
from moelab.model.router import Routing, TopKRouter

TOLERANCE = 5e-5
"""Largest difference of a logit that passes, times the largest logit where that is above 1: fp32 rounding."""
CHECK_TOKENS, CHECK_LENGTH = 1024, 256
"""Held-out tokens of a check, about, and the most of one sequence."""
_TIE = 1e-5
"""A choice between experts closer than this, relative to the score, may fall the other way by rounding."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """How an exported model compares with the trained one on `tokens` held-out tokens, both computed in fp32.

    `difference` is the largest of a logit, over the tokens up to the first choice of experts in their sequence that
    rounding decides (`compared`): against the trained model leak-free, or against its weights rounded where the dtype
    is not fp32. Losses are nats per token: the trained model leak-free, and the exported one.
    """

    library: str
    difference: float
    tolerance: float
    tokens: int
    compared: int
    loss_trained: float
    loss_exported: float

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def held_out(dataset: Dataset, seq_len: int) -> tuple[Tensor, Tensor]:
    """Tokens and targets (B, T) of held-out text, about CHECK_TOKENS together."""
    length = min(seq_len, CHECK_LENGTH)
    rows = CHECK_TOKENS // length
    batch = next(iter(ValidationBatches(dataset, length, rows, rows * length)))
    return torch.from_numpy(batch.inputs), torch.from_numpy(batch.targets)


@torch.no_grad()
def compare(
    library: str,
    theirs: Tensor,
    canonical: LanguageModel,
    trained: LanguageModel,
    held_out: tuple[Tensor, Tensor],
    *,
    exact: bool,
) -> Check:
    """`theirs` (B, T, V): another library's fp32 logits of the exported weights. Raises MoelabError where they differ.

    They are held to those of `trained` where the weights are `exact`, else to those of `canonical`, which is our model
    with exactly the exported weights.
    """
    tokens, targets = held_out
    with expert_choices(canonical) as settled:
        rounded = canonical(tokens)
    mask = settled_tokens(settled, tokens.shape)
    with leak_free(trained):
        whole = trained(tokens)
    ours = whole if exact else rounded
    difference = float(((theirs.float() - ours).abs().amax(-1) * mask).max())
    tolerance = TOLERANCE * max(1.0, float(ours.abs().max()))
    if not bool(mask.any()):
        raise MoelabError(
            "export: nothing can be compared, because every held-out sequence begins with a tie between experts; "
            "--no-check exports without it"
        )
    if not math.isfinite(difference) or difference > tolerance:
        raise MoelabError(
            f"export: the exported model differs from the trained one: by {library} its logits are {difference:.2g} "
            f"apart on held-out text (at most {tolerance:.2g} would pass); nothing was kept"
        )
    return Check(
        library=library,
        difference=difference,
        tolerance=tolerance,
        tokens=tokens.numel(),
        compared=int(mask.sum()),
        loss_trained=_loss(whole, targets),
        loss_exported=_loss(theirs.float(), targets),
    )


def transformers_version() -> str | None:
    """The version of transformers, None where it is not installed (or cannot be used)."""
    try:
        import transformers
    except ImportError:
        return None
    return f"transformers {transformers.__version__}"


@torch.no_grad()
def transformers_logits(folder: Path, tokens: Tensor, **options: Any) -> Tensor:
    """Logits (B, T, V) of an exported model, loaded by transformers in fp32: from disk alone, running no code of it.

    Raises MoelabError where it cannot be loaded, or finds a tensor too many or too few.
    """
    from transformers import AutoModelForCausalLM

    with _quiet():
        try:
            model, found = AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True, **options
            )
        except Exception as error:
            raise MoelabError(
                f"export: transformers cannot load what was written: {error}; nothing was kept"
            ) from error
        wrong = {kind: names for kind, names in found.items() if names}
        if wrong:
            raise MoelabError(f"export: transformers found wrong tensors ({wrong}); nothing was kept")
        logits: Tensor = model.eval()(tokens).logits
    return logits


def check_tokenizer(folder: Path, dataset: Dataset, tokens: Tensor, **options: Any) -> None:
    """Raises MoelabError where transformers' tokenizer gives other ids than ours for held-out text."""
    from transformers import AutoTokenizer

    ours = dataset.load_tokenizer()
    with _quiet():
        theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True, **options)
        for row in tokens.tolist():
            text = ours.decode(row, skip_special_tokens=True)
            if theirs(text, add_special_tokens=False).input_ids != ours.encode(text, add_special_tokens=False).ids:
                raise MoelabError("export: transformers tokenizes held-out text differently; nothing was kept")


@contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no warnings of other libraries on the user's screen."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


@contextmanager
def expert_choices(model: LanguageModel) -> Iterator[list[Tensor]]:
    """While the block runs, every router notes which tokens (T,) it chose for by a clear margin."""
    clear: list[Tensor] = []

    def note(router: Any, _: Any, routing: Routing) -> None:
        for edge in routing.edges():
            finite = edge.nan_to_num(neginf=0.0)  # nothing is left to take in the groups of experts
            clear.append(edge[:, 0] - edge[:, 1] > _TIE * finite.abs().amax(-1))

    handles = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, TopKRouter)]
    try:
        yield clear
    finally:
        for handle in handles:
            handle.remove()


def settled_tokens(clear: list[Tensor], shape: torch.Size) -> Tensor:
    """Where rounding can have decided nothing yet, (B, T): attention carries a token's experts to those after it."""
    settled = torch.ones(shape, dtype=torch.bool)
    for each in clear:
        settled &= each.view(shape)
    return settled.long().cumprod(1).bool()


def _loss(logits: Tensor, targets: Tensor) -> float:
    return float(torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten()))
