"""The lattice of real architectures that a plan searches, as `space.yaml` describes it (defaults: frontier scale)."""

from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BeforeValidator, Field, model_validator

from moelab.architecture.attention import LayerKind
from moelab.architecture.config import Activation, ModelConfig
from moelab.config import Config, Context, Count, Positive
from moelab.planning.attention_axis import AttentionOption, AttentionWord
from moelab.planning.axes import Axis, AxisOrZero, Ratios
from moelab.yaml_reader import parse_yaml

Pattern = tuple[LayerKind, ...]

_OPTIONS = (
    "kinds", "vocab_size", "seq_len", "tie_embeddings", "qk_norm", "activation", "normalize_gates", "routing",
    "mtp_layers",
)  # fmt: skip
"""What is no axis of the default space: a space that gives nothing else is the default space with these."""

_FROM_TEMPLATE = ("vocab_size", "tie_embeddings", "qk_norm", "activation")
DEFAULT_KINDS = ("full",)
"""Kinds of attention of a space that names none: full, as in the runs of every law."""

_IN_LAYOUTS = ("n_shared_experts", "n_dense_layers", "moe_every")


class Layout(Config):
    """Which layers have experts, and the experts that every token uses."""

    n_shared_experts: int = Field(default=0, ge=0)
    n_dense_layers: int = Field(default=0, ge=0)
    moe_every: int = Field(default=1, gt=0)


def _words(attention: Any) -> bool:
    """Whether attention is given by words alone."""
    return all(isinstance(kind, str) for kind in _kinds(attention))


def _lines_of(attention: Any) -> list[Any]:
    """The lines of the default space of these kinds of attention; a word that is no kind stays, to be refused."""
    lines, kinds = default_axes()["attention"], _kinds(attention)
    unknown = [kind for kind in kinds if kind not in get_args(AttentionWord)]
    return [line for line in lines if line["kind"] in kinds] + unknown


def _kinds(value: Any) -> Any:
    """A list of kinds, or one."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _patterns(value: Any) -> Any:
    """A list of patterns, or one pattern."""
    if isinstance(value, str) or (isinstance(value, list | tuple) and value and isinstance(value[0], str)):
        value = (value,)
    return tuple((part,) if isinstance(part, str) else tuple(part) for part in value)


@cache
def default_axes() -> dict[str, Any]:
    """The axes of the default space, as `space.yaml` beside this module lists them."""
    text = files("moelab.planning").joinpath("space.yaml").read_text(encoding="utf-8")
    return dict(parse_yaml(text, "the default space"))


def _default_widths() -> tuple[int, ...]:
    """Multiples of 256, then of 512 and 1,024, all of them whole numbers of heads."""
    bands = ((256, 6144, 256), (6144, 10240, 512), (10240, 16384, 1024))
    return tuple(sorted({d for first, last, step in bands for d in range(first, last + 1, step)}))


def _default_depths() -> tuple[int, ...]:
    """Every depth to 32, then every second, then every fourth."""
    return (*range(4, 33), *range(34, 65, 2), *range(68, 129, 4))


class Space(Config):
    """The architectures to search. Every combination that fits together is a design; dense ones come first.

    A space that names no axis is the default one (`planning/space.yaml`): what released models of the last years use,
    with full attention. `attention` given as words alone, such as [full, window, latent], opens the default space's
    lines of these kinds: no law sees them.
    Every axis is a list, one value, or {from, to, step}; `aspect` bounds d_model / n_layers, no variable of any law.

    Attention: `attention` lists kinds, each a word (full, window, latent) or the fields of an `AttentionOption`. Words
    are crossed with `n_heads` (null: d_model / head_dim), `head_dim`, `heads_per_kv`, and for windows with
    `sliding_pattern` (lists of window, chunk and full) and `sliding_window`.

    Feed-forward: the one that a token uses has width `ffn_ratio` x d_model in dense and MoE layers. In a MoE layer it
    is split over `top_k` routed and `n_shared_experts` shared experts of equal width, rounded to `d_expert_step`. Hence
    the granularity G = top_k + n_shared_experts, as in fine-grained MoE (arXiv 2402.07871, 2401.06066). `d_shared` sets
    the total width of the shared experts instead; `d_expert` and `d_ff` set the widths of experts and of dense layers.

    Experts: `n_experts` x `top_k`, within `experts_per_choice`, the bounds of their ratio; `n_shared_experts` x
    `n_dense_layers` x `moe_every`, or the combinations of these that `layouts` lists.

    `routing: loss_free` gives the configs sigmoid scores with loss-free balancing, as DeepSeek-V3 trains; `released`
    gives it to designs with shared experts alone, as in the default space. With `template` all designs have every
    further option of that model: rotary scaling, biases, sinks, norms, groups of experts.
    """

    d_model: Axis = Field(default_factory=_default_widths)
    n_layers: Axis = Field(default_factory=_default_depths)
    aspect: tuple[Positive, Positive] = (48.0, 160.0)
    attention: Annotated[tuple[AttentionOption, ...], BeforeValidator(_kinds)] = (AttentionOption(kind="full"),)
    n_heads: Axis | None = None
    head_dim: Axis = (64, 128)
    heads_per_kv: Axis = (4,)
    sliding_pattern: Annotated[tuple[Pattern, ...], BeforeValidator(_patterns)] | None = None
    sliding_window: Axis | None = None
    mtp_layers: AxisOrZero = (0,)
    ffn_ratio: Ratios = (3.0, 4.0)
    d_ff: Axis | None = None
    d_expert: Axis | None = None
    d_shared: Axis | None = None
    kinds: tuple[Literal["dense", "moe"], ...] = ("dense", "moe")
    n_experts: Axis = (4, 8, 16, 32, 64, 128, 256, 512)
    top_k: Axis = (1, 2, 4, 6, 8)
    experts_per_choice: tuple[Positive, Positive] | None = None
    layouts: tuple[Layout, ...] | None = None
    n_shared_experts: AxisOrZero = (0, 1, 2)
    n_dense_layers: AxisOrZero = (0, 1, 3)
    moe_every: Axis = (1,)
    d_expert_step: Count = 64
    d_ff_step: Count = 64
    min_d_expert: Count = 64
    vocab_size: Count = Field(default=65536, le=2**31)
    seq_len: Context = 4096
    tie_embeddings: bool = False
    qk_norm: Literal["none", "head", "full", "l2"] = "head"
    activation: Activation = "swiglu"
    normalize_gates: bool | None = Field(default=None, description="null: yes, except with top_k 1")
    routing: Literal["softmax", "loss_free", "released"] = "softmax"
    template: ModelConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _whole(cls, data: Any) -> Any:
        """A space that names no axis is the default space; a template gives its own vocabulary and kind of layers."""
        if not isinstance(data, dict):
            return data
        given = {name for name, value in data.items() if value is not None}
        if not given - {*_OPTIONS, "attention"} and _words(data.get("attention", DEFAULT_KINDS)):
            return default_axes() | data | {"attention": _lines_of(data.get("attention", DEFAULT_KINDS))}
        data = dict(data)
        if "attention" not in given and given & {"sliding_pattern", "sliding_window"}:
            data["attention"] = ("window",)
        template = data.get("template")
        if isinstance(template, ModelConfig | dict):
            plain = template.to_dict() if isinstance(template, ModelConfig) else template
            data |= {name: plain[name] for name in _FROM_TEMPLATE if name in plain and name not in given}
        return data

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.aspect[0] > self.aspect[1]:
            raise ValueError(f"aspect: expected [low, high] of d_model / n_layers, got {list(self.aspect)}")
        if any(size % 2 for size in self.head_dim):
            raise ValueError(f"head_dim: must be even for rotary embeddings, got {list(self.head_dim)}")
        if not self.kinds:
            raise ValueError("kinds: expected dense, moe or both")
        if self.layouts is not None:
            if not self.layouts:
                raise ValueError("layouts: needs at least one value")
            for name in _IN_LAYOUTS:
                if self._differs(name):
                    raise ValueError(f"{name}: contradicts layouts; give one of them")
        if self.template is not None:
            for name in _FROM_TEMPLATE:
                if getattr(self, name) != getattr(self.template, name):
                    raise ValueError(f"{name}: contradicts template's {getattr(self.template, name)}")
        self._check_attention()
        return self

    def _check_attention(self) -> None:
        if not self.attention:
            raise ValueError("attention: needs at least one kind: full, window or latent")
        for name in ("n_heads", "head_dim", "heads_per_kv"):
            own = [getattr(o, name) is not None or (name == "n_heads" and o.heads_ratio) for o in self.attention]
            if self._differs(name) and all(own):
                raise ValueError(f"{name}: every kind of attention sets its own; change it there, or give attention")
        windows = [option for option in self.attention if option.kind == "window"]
        if (self.sliding_pattern or self.sliding_window) and not windows:
            raise ValueError("sliding_pattern, sliding_window: need the kind window in attention")
        if self.sliding_window is None and any(option.window is None for option in windows):
            raise ValueError("sliding_window: windows need a size in tokens")
        for pattern in self.sliding_pattern or ():
            if not any(kind != "full" for kind in pattern):
                raise ValueError("sliding_pattern: needs a `window` or `chunk` layer; attention: full has none")

    def _differs(self, name: str) -> bool:
        return bool(getattr(self, name) != type(self).model_fields[name].default)

    @property
    def attention_options(self) -> tuple[AttentionOption, ...]:
        """The kinds of attention with every field filled in from the space's own axes."""
        filled = []
        for option in self.attention:
            own = {
                "n_heads": option.n_heads if option.heads_ratio else option.n_heads or self.n_heads,
                "head_dim": option.head_dim or self.head_dim,
                "heads_per_kv": option.heads_per_kv or self.heads_per_kv,
                "ffn_ratio": option.ffn_ratio or self.ffn_ratio,
            }
            if option.kind != "window":
                filled.append(option.model_copy(update=own))
                continue
            patterns = [option.layers] if option.layers else list(self.sliding_pattern or (("window",),))
            sizes = [option.window] if option.window else list(self.sliding_window or ())
            filled += [
                option.model_copy(update={**own, "layers": layers, "window": size})
                for layers in patterns
                for size in sizes
            ]
        return tuple(filled)

    @property
    def expert_layouts(self) -> tuple[Layout, ...]:
        """Shared experts, leading dense layers and the period of MoE layers, each combination once."""
        if self.layouts is not None:
            return self.layouts
        return tuple(
            Layout(n_shared_experts=shared, n_dense_layers=leading, moe_every=every)
            for shared in self.n_shared_experts
            for leading in self.n_dense_layers
            for every in self.moe_every
        )
