"""The presets as a page of documentation: `moelab presets --markdown > docs/presets.md`. A test keeps it current."""

from moelab.architecture import ModelConfig
from moelab.architecture.released import preset_columns, preset_rows, released_models
from moelab.errors import InputError
from moelab.export.families import choose_family
from moelab.export.gguf_graphs import choose_graph
from moelab.planning.held import in_default_space
from moelab.quantities import format_number

_HEAD = """# Presets

Written by `moelab presets --markdown > docs/presets.md`; edit `released.yaml` and the folder `presets` of
`src/moelab/architecture/`, not this page.

Every command takes these names where it takes a model. *Published* is what the makers print; *ours* is the exact
count of the architecture, which equals the class of transformers built without memory (tests hold it; Grok-1 and
DeepSeekMoE 16B have no class there). Where a published figure leaves something out or adds it, *ours* does the same
and the column names it. *Default space*: the planner's, with the model's kind of attention opened, holds a design with
the same experts, leading dense layers and heads, layers within 5 %, widths within 10 %, total and active parameters
within 2 %.
*Trainable*: moelab builds the same architecture; *exportable*: to a class of transformers, or to GGUF. Multi-token-
prediction layers stand beside the total.
"""


def presets_markdown() -> str:
    """The page: a row per preset, then the published figures that differ, with the cause."""
    columns = [*preset_columns(), "default space", "trainable", "exportable"]
    lines = [_HEAD, f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for row, model in zip(preset_rows(), released_models().values(), strict=True):
        trainable, exported = model.config.unbuildable is None, exportable(model.config)
        held = "-" if model.config.moe is None else "yes" if in_default_space(model.config) else "no"
        lines.append(f"| {' | '.join([*row, held, 'yes' if trainable else 'no', exported])} |")
    lines += ["", "Published figures that are not ours rounded:", ""]
    lines += [f"- {model.name}: {model.note} ({model.source})." for model in released_models().values() if model.note]
    return "\n".join([*lines, *_rates()]) + "\n"


def _rates() -> list[str]:
    """What is public about the learning rates and batches of pre-training."""
    lines = ["", "Pre-training, as printed (the batch after any ramp); a plan shows the nearest of these:", ""]
    lines += ["| preset | peak learning rate | batch, tokens | optimizer | source |", "|---|---|---|---|---|"]
    for model in released_models().values():
        if model.learning_rate is not None:
            batch = "-" if model.batch_tokens is None else format_number(model.batch_tokens)
            lines.append(f"| {model.name} | {model.learning_rate:.2g} | {batch} | {model.optimizer} | {model.recipe} |")
    return lines


def exportable(config: ModelConfig) -> str:
    """Where an architecture can be exported to: a class, a graph of llama.cpp, both or neither."""
    found = []
    for choose in (choose_family, lambda model: choose_graph(model)[1]):
        try:
            found.append(choose(config).name)
        except InputError:
            found.append("")
    family, graph = found
    places = ([family] if family else []) + ([f"GGUF {graph}"] if graph else [])
    return ", ".join(places) or "no"
