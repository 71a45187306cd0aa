"""How one training run is spread over devices: tensor, pipeline, context, expert and data parallelism, and ZeRO."""

from dataclasses import dataclass, fields
from typing import Any, Literal, Self

from moelab.architecture.config import ModelConfig
from moelab.architecture.shape import Integers
from moelab.config import Config, Count
from moelab.errors import InputError

Zero = Literal[0, 1, 2, 3]
"""What data parallelism divides (arXiv 1910.02054): nothing; optimiser state; gradients too; parameters too."""

RECOMPUTATIONS = ("none", "selective", "full")
"""What the backward pass computes once more: nothing; norms, activations and permuted copies; whole layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayoutSizes:
    """The sizes of one layout (ints) or of many (int64 arrays that broadcast with those of a `Shape`)."""

    tp: Integers = 1
    pp: Integers = 1
    cp: Integers = 1
    ep: Integers = 1
    dp: Integers = 1
    vp: Integers = 1
    zero: Integers = 1

    @property
    def devices(self) -> Integers:
        """Devices of the run."""
        return self.tp * self.pp * self.cp * self.dp

    @property
    def expert_dp(self) -> Integers:
        """Copies of each expert in a stage: those among which its optimiser state is divided."""
        return self.tp * self.cp * self.dp // self.ep

    def take(self, index: Any) -> "LayoutSizes":
        """The layouts `index`, where the fields are arrays."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return LayoutSizes(**{n: v if isinstance(v, int) else v[index] for n, v in values.items()})


class Layout(Config):
    """Devices along each kind of parallelism: tp x pp x cp x dp of them in all.

    `ep` splits the experts of a stage over ep of its tp x cp x dp devices; the other experts' copies are data
    parallel. `vp` is the number of pieces of the model that each pipeline stage holds (interleaved schedule,
    arXiv 2104.04473). `zero` 1 divides the optimiser state over dp x cp, 2 gradients too, 3 parameters too.
    """

    tp: Count = 1
    pp: Count = 1
    cp: Count = 1
    ep: Count = 1
    dp: Count = 1
    vp: Count = 1
    zero: Zero = 1

    @classmethod
    def read(cls, text: str) -> Self:
        """`tp=8,pp=4,zero=1`. Raises InputError naming the part that cannot be read."""
        values: dict[str, Any] = {}
        for part in filter(None, (piece.strip() for piece in text.split(","))):
            key, equals, value = part.partition("=")
            if not equals:
                raise InputError(
                    f"layout: expected name=size with the names {', '.join(cls.model_fields)}, got {part!r}"
                )
            key = key.strip()
            if key in values:
                raise InputError(f"layout: {key} is given twice")
            values[key] = int(value) if key == "zero" and value.strip().isdecimal() else value.strip()
        return cls.parse(values, "layout")

    @property
    def sizes(self) -> LayoutSizes:
        """The same as plain numbers."""
        return LayoutSizes(**self.model_dump())

    @property
    def devices(self) -> int:
        """Devices of the run."""
        return int(self.sizes.devices)

    def __str__(self) -> str:
        """As `read` takes it, sizes of 1 left out."""
        parts = [f"{name}={size}" for name, size in self.model_dump().items() if size != 1 or name in ("dp", "zero")]
        return ",".join(parts)

    def check(self, config: ModelConfig, seq_len: int | None = None) -> None:
        """Raises InputError naming the field where this model cannot be split so."""
        if config.n_heads % self.tp:
            raise InputError(f"layout: tp must divide n_heads ({config.n_heads}), got {self.tp}")
        for name, width in _split_widths(config).items():
            if width % self.tp:
                raise InputError(f"layout: tp must divide {name} ({width}), got {self.tp}")
        if self.pp * self.vp > config.n_layers + 2:
            raise InputError(
                f"layout: pp x vp must be at most n_layers + 2 ({config.n_layers + 2}), got {self.pp * self.vp}"
            )
        if self.vp > 1 and self.pp == 1:
            raise InputError(f"layout: vp needs pp above 1, got {self.vp}")
        if config.moe is None and self.ep > 1:
            raise InputError(f"layout: ep must be 1 for a dense model, got {self.ep}")
        if config.moe is not None and config.moe.n_experts % self.ep:
            raise InputError(f"layout: ep must divide n_experts ({config.moe.n_experts}), got {self.ep}")
        if (stage := self.tp * self.cp * self.dp) % self.ep:
            raise InputError(
                f"layout: ep must divide tp x cp x dp ({stage}), the devices of a pipeline stage, got {self.ep}"
            )
        if seq_len is not None and seq_len % (self.tp * self.cp):
            raise InputError(f"layout: tp x cp must divide seq_len ({seq_len:,}), got {self.tp * self.cp}")


def _split_widths(config: ModelConfig) -> dict[str, int]:
    """Widths that tensor parallelism splits besides the heads. Routed experts are split by `ep` alone."""
    widths = {"d_ff": config.d_ff} if config.n_moe_layers < config.n_layers else {}
    if config.moe is not None and config.moe.d_shared:
        widths["moe.d_shared"] = config.moe.d_shared
    return widths
