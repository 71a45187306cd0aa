"""Public models with what is public about them: parameters as their makers print them, tokens, month, source."""

from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Literal

from moelab.architecture.config import ModelConfig
from moelab.architecture.counts import ParameterCount, count_parameters
from moelab.architecture.presets import load_preset
from moelab.notebook import Shown
from moelab.quantities import format_number, parse_number
from moelab.yaml_reader import parse_yaml

Counted = Literal["all", "without_input_embedding", "without_embeddings", "without_embeddings_with_mtp"]
"""What a published figure counts: everything; no input embedding; neither embedding nor head; that, but with
multi-token prediction."""


@dataclass(frozen=True, slots=True, kw_only=True, repr=False)
class ReleasedModel(Shown):
    """A public model: `total` and `active` parameters as printed (`671B`), what these figures count, training tokens,
    the month of its release, where this stands, and what remains to be explained; of pre-training its peak
    `learning_rate`, `batch_tokens` after any ramp, and `optimizer`, by `recipe`. None where nothing was published."""

    name: str
    total: str
    released: str
    source: str
    active: str | None = None
    total_is: Counted = "all"
    active_is: Counted = "all"
    tokens: float | None = None
    note: str = ""
    learning_rate: float | None = None
    batch_tokens: float | None = None
    optimizer: str | None = None
    recipe: str | None = None

    @property
    def config(self) -> ModelConfig:
        """Its architecture, the preset of this name."""
        return load_preset(self.name)

    @property
    def params_total(self) -> float:
        """Published total parameters."""
        return parse_number(self.total)

    @property
    def params_active(self) -> float | None:
        """Published active parameters."""
        return None if self.active is None else parse_number(self.active)

    def counted(self) -> tuple[float, float]:
        """Total and active parameters of its architecture, by what the published figures count."""
        params = count_parameters(self.config)
        return _counted(params, params.params_total, self.total_is), _counted(
            params, params.params_active, self.active_is
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data: what is published, and the counts of the architecture."""
        params = count_parameters(self.config)
        published = {"params_total": self.params_total, "params_active": self.params_active}
        counted = {"params_total": params.params_total, "params_active": params.params_active, "params_mtp": params.mtp}
        facts = {
            name: getattr(self, name)
            for name in (
                "released", "source", "total_is", "active_is", "tokens", "note", "learning_rate", "batch_tokens",
                "optimizer", "recipe",
            )
        }  # fmt: skip
        return {"name": self.name, **facts, "published": published, "counted": counted, "agrees": self.agrees}

    @property
    def agrees(self) -> bool:
        """Whether both published figures are ours within half of their last digit."""
        total, active = self.counted()
        return _rounds_to(total, self.total) and (self.active is None or _rounds_to(active, self.active))


def released_models() -> dict[str, ReleasedModel]:
    """Every preset's public facts, by name."""
    return dict(_read())


@cache
def _read() -> dict[str, ReleasedModel]:
    text = files("moelab.architecture").joinpath("released.yaml").read_text(encoding="utf-8")
    facts: dict[str, dict[str, Any]] = parse_yaml(text, "released.yaml")
    return {name: _one(name, values) for name, values in facts.items()}


def _one(name: str, values: dict[str, Any]) -> ReleasedModel:
    tokens = values.get("tokens")
    known = {**values, "tokens": None if tokens is None else parse_number(tokens)}
    for quantity in ("learning_rate", "batch_tokens"):
        if quantity in values:
            known[quantity] = parse_number(values[quantity])
    return ReleasedModel(name=name, **known)


def _counted(params: ParameterCount, figure: float, what: Counted) -> float:
    if what == "without_input_embedding":
        return figure - params.embedding
    if what == "without_embeddings":
        return figure - params.params_embedding
    if what == "without_embeddings_with_mtp":
        return figure - params.params_embedding + params.mtp
    return figure


def _rounds_to(value: float, printed: str) -> bool:
    """Whether `671B` is this value within half of its last digit."""
    digits, unit = printed[:-1], parse_number(f"1{printed[-1]}")
    decimals = len(digits.partition(".")[2])
    return abs(value / unit - float(digits)) <= 0.5 * 10**-decimals + 1e-9


_WORDS = {
    "all": "",
    "without_input_embedding": " without input embedding",
    "without_embeddings": " without embeddings",
    "without_embeddings_with_mtp": " without embeddings, with multi-token prediction",
}


def preset_columns() -> list[str]:
    """The heads of `preset_rows`."""
    return ["preset", "released", "published total", "ours", "published active", "ours", "tokens"]


def preset_rows() -> list[list[str]]:
    """A row of text per preset: published and counted parameters, by what the published figures count."""
    rows = []
    for model in released_models().values():
        total, active = model.counted()
        rows.append(
            [
                model.name,
                model.released,
                model.total,
                format_number(total, 4) + _WORDS[model.total_is],
                model.active or "-",
                format_number(active, 4) + _WORDS[model.active_is],
                format_number(model.tokens) if model.tokens else "-",
            ]
        )
    return rows
