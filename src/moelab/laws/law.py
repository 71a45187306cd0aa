"""A scaling law: a formula with its gradient, published coefficients, the meaning of its variables, its range."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from moelab.architecture import ModelConfig, Shape
from moelab.errors import InputError
from moelab.laws.design import IN_TABLES, Conversion, Design, Refusal
from moelab.notebook import Shown, html_table, short_repr

Array = NDArray[Any]
Values = Mapping[str, Any]
"""Name -> float or array. Coefficients of shape (B, 1) and variables of shape (n,) give results of shape (B, n)."""
Formula = Callable[[Values, Values], tuple[Array, Callable[[], dict[str, Array]]]]
"""(coefficients, variables) -> the value, and a function that returns its derivative by each coefficient.
Both share their intermediate results, hold for complex numbers, and broadcast."""
Mark = Literal["read", "second-hand", "recomputed"]
SHARES = ("sparsity", "weight_sparsity", "shared_share")
"""Variables at least 0 and below 1; the others are positive."""
RATES = ("expert_activation", "activation_rate")
"""Variables above 0 and at most 1: what one token uses of what there is."""
COUNTS = ("n_experts", "expert_ratio")
"""Variables of at least 1: all there is over what one token uses."""
MOE_VARIABLES = (
    "n_experts", "expert_ratio", "sparsity", "expert_activation", "activation_rate", "active_experts", "shared_share",
    "granularity", "granularity_ling", "expansion",
)  # fmt: skip
"""Variables in which a MoE model differs from a dense one of the same size."""
SCALE = ("tokens", "unique_tokens", "train_flops")
"""Variables, beside every `params_*`, in which a law may extrapolate."""
RANGE_SLACK = 0.01
"""log10 distance outside the fitted range that still counts as inside, since widths are rounded."""
Compute = Callable[[Array, float, Values], dict[str, Array]]
Converter = Callable[[Design], tuple[dict[str, Array], list[Refusal]]]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Law(Shown):
    """One law of one paper. `moelab laws ID` prints it; its file is the place to read it.

    `linear` names the coefficients that enter linearly (in the loss, or in its logarithm where `log_linear`); a fit
    solves for them. `positive` ones are fitted as logarithms. `search` gives the box from which starts of the other
    coefficients are drawn and `bounds` the limits of a fit. `hold` names what may be held at its published value when
    a table is too small; `aliases` are the paper's names for ours. `ranges` are the published fit's; None is unknown,
    never guessed. `kind` names what the formula predicts: the loss in nats per token, or the compute leverage over a
    dense model. `at_compute` places the law's variables on a compute budget, `choices` are the discrete values that
    its optimum considers, and `settings` what else may be set there. `definition` is what a fit file keeps of a law of
    one's own: its formula, or the path and hash of its Python file. `optional` are variables that a table or a design
    need not give, with their neutral value or the variable they equal then. `variant_of` names the law that stands for
    this one where every law is asked.
    """

    id: str
    title: str
    citation: str
    form: str
    variables: tuple[str, ...]
    coefficients: tuple[str, ...]
    formula: Formula
    convert: Converter
    published: Mapping[str, float] | None = None
    mark: Mark | None = None
    unpublished: str = ""
    note: str = ""
    meaning: Mapping[str, str] = field(default_factory=dict)
    flops: str = ""
    ranges: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)
    kind: Literal["loss", "leverage"] = "loss"
    covers_dense: bool = True
    covers_moe: bool = True
    linear: tuple[str, ...] = ()
    log_linear: bool = False
    positive: tuple[str, ...] = ()
    search: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    hold: tuple[str, ...] = ()
    aliases: Mapping[str, str] = field(default_factory=dict)
    at_compute: Compute | None = None
    choices: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    settings: tuple[str, ...] = ()
    definition: Mapping[str, Any] | None = None
    optional: Mapping[str, float | str] = field(default_factory=dict)
    variant_of: str = ""

    @property
    def separates_moe(self) -> bool:
        """Whether a variable distinguishes a MoE model from a dense one: of experts, or active beside other sizes."""
        active = [name.startswith("params_active") for name in self.variables if name.startswith("params_")]
        return bool(set(MOE_VARIABLES) & set(self.variables)) or (any(active) and not all(active))

    def __repr__(self) -> str:
        return short_repr(self, id=self.id, kind=self.kind, variables=self.variables, form=self.form, mark=self.mark)

    def _repr_html_(self) -> str:
        published = self.published or {}
        rows = [(name, published.get(name)) for name in self.coefficients]
        title = f"{self.title} ({self.citation}): {self.form}"
        return html_table(["coefficient", "published"], rows, title=title, note=self.note or self.unpublished)

    def loss(self, coefficients: Values | None, variables: Values) -> Array:
        """The predicted loss (leverage for such a law). `coefficients` None means the published ones."""
        return self.formula(self._coefficients(coefficients), self._variables(variables))[0]

    def gradient(self, coefficients: Values | None, variables: Values) -> dict[str, Array]:
        """The derivative of `loss` by each coefficient, each broadcastable to the shape of the loss."""
        return self.formula(self._coefficients(coefficients), self._variables(variables))[1]()

    def supports(self, variables: Values | Sequence[str]) -> bool:
        """Whether every variable of the law is among `variables`."""
        return set(self.variables) - set(self.optional) <= set(variables)

    def with_optional(self, variables: Values) -> dict[str, Any]:
        """The variables, completed by the neutral values of those that may be absent."""
        found = dict(variables)
        for name, value in self.optional.items():
            if name not in found and not (isinstance(value, str) and value not in found):
                like = np.asarray(next(iter(found.values()))) if found else np.array(1.0)
                found[name] = found[value] if isinstance(value, str) else np.full(like.shape, value)
        return found

    def extrapolation(self, variables: Values, ranges: Mapping[str, tuple[float, float] | None] | None = None) -> Array:
        """Largest log10 distance outside the fitted range, per design; 0 inside, NaN where the range is unknown.

        It is unknown where the law's size or its tokens have no known range, unless that of the compute stands in for
        both and the compute is given. A share S, such as `sparsity`, is measured as 1 / (1 - S): for experts, the
        factor by which they outnumber those in use.
        """
        known = {k: r for k, r in (self.ranges if ranges is None else ranges).items() if r and k in variables}
        scale = [name for name in self.variables if name.startswith("params_") or name == "tokens"]
        if not known or not (set(scale) <= set(known) or "train_flops" in known):
            return np.full(np.broadcast_shapes(*(np.shape(value) for value in variables.values())), np.nan)
        return np.maximum.reduce(
            np.broadcast_arrays(*(_distance(name, variables[name], known[name]) for name in known))
        )

    def farthest(self, variables: Values, ranges: Mapping[str, tuple[float, float] | None]) -> str | None:
        """The variable of which one design's `extrapolation` is the distance; None inside, or with no known range."""
        distances = self.distances(variables, ranges)
        name = max(distances, key=lambda each: distances[each], default=None)
        return None if name is None or distances[name] <= 0 else name

    def distances(
        self, variables: Values, ranges: Mapping[str, tuple[float, float] | None], scale: bool = True
    ) -> dict[str, float]:
        """By variable with a known range, one design's log10 distance outside it; without `scale`, not of those in
        which a law may extrapolate: sizes, tokens, compute."""
        known = {k: r for k, r in ranges.items() if r and k in variables}
        kept = [name for name in known if scale or not (name in SCALE or name.startswith("params"))]
        return {name: float(_distance(name, variables[name], known[name])) for name in kept}

    def variables_of(
        self,
        model: ModelConfig | Shape,
        tokens: Any,
        seq_len: Any = 4096,
        unique_tokens: Any = None,
        published: bool = True,
    ) -> Conversion:
        """Convert architectures into this law's own variables: its N, its experts, its granularity, its compute.

        `model` may be a lattice of n shapes; `tokens` broadcasts against it. The conversion holds for each design
        whether the law applies and, where not, the reason. With `published` false only the form's limits count, not
        those of the published coefficients (a fit of one's own has its own range).
        """
        return self.read(Design.of(model, tokens, seq_len, unique_tokens), published)

    def read(self, design: Design, published: bool = True) -> Conversion:
        """As `variables_of`, for a design whose counts several laws share."""
        variables, refusals = self.convert(design)
        if not published:
            # A fit of one's own was given the table's counts, not the paper's: see `Design.in_tables`.
            variables |= {name: design.in_tables(name) for name in IN_TABLES if name in variables}
        if not self.covers_dense:
            refusals.append(Refusal("this law does not describe dense models", design.dense))
        if not self.covers_moe:
            refusals.append(Refusal("this law describes dense models only", ~design.dense))
        kept = [refusal for refusal in refusals if published or not refusal.published_only]
        return Conversion.of(variables, kept)

    def _coefficients(self, given: Values | None) -> Values:
        if given is None:
            if self.published is None:
                raise InputError(f"{self.id}: has no published coefficients ({self.unpublished}); fit it first")
            return self.published
        missing = [name for name in self.coefficients if name not in given]
        if missing:
            raise InputError(f"{self.id}: coefficients missing: {', '.join(missing)}")
        return given

    def _variables(self, given: Values) -> Values:
        given = self.with_optional(given)
        missing = [name for name in self.variables if name not in given]
        if missing:
            needs = ", ".join(self.variables)
            raise InputError(f"{self.id}: variables missing: {', '.join(missing)}; the law needs {needs}")
        return {name: np.asarray(given[name]) * 1.0 for name in self.variables}


def _distance(name: str, value: Any, limits: tuple[float, float]) -> Array:
    low, high = limits
    value = np.asarray(value, float)
    if name in SHARES:
        value, low, high = 1 / (1 - value), 1 / (1 - low), 1 / (1 - high)
    with np.errstate(divide="ignore"):
        position, bottom, top = np.log10(value), np.log10(low), np.log10(high)
    return np.maximum(0.0, np.maximum(position - top, bottom - position))
