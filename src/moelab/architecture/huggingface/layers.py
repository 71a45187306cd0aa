"""What differs from layer to layer in a config.json: what each sees, whether it has positions, where the MoE is."""

from collections.abc import Sequence
from typing import Any

from moelab.architecture.huggingface.settings import Settings

KINDS = {"full_attention": "full", "sliding_attention": "window", "chunked_attention": "chunk"}


def shortest(pattern: Sequence[Any]) -> list[Any]:
    """The shortest beginning whose repetition gives the whole pattern."""
    for length in range(1, len(pattern)):
        if all(one == pattern[i % length] for i, one in enumerate(pattern)):
            return list(pattern[:length])
    return list(pattern)


def kinds_of(s: Settings, otherwise: Sequence[str]) -> list[str]:
    """The kind of every layer by `layer_types`, or as the class fills them in."""
    given, n_layers = s.items("layer_types"), s.count("num_hidden_layers")
    if given is None:
        return list(otherwise)
    unknown = next((one for one in given if not isinstance(one, str) or one not in KINDS), None)
    if unknown is not None:
        s.refuse("layer_types", f"{unknown!r} layers; it has {', '.join(KINDS)}"[:160])
    if len(given) != n_layers:
        s.wrong("layer_types", f"{n_layers} layers, as num_hidden_layers has")
    return [KINDS[one] for one in given]


def windows(s: Settings, kinds: Sequence[str], key: str = "sliding_window") -> dict[str, Any]:
    """`sliding_window` and `sliding_pattern` of layers of these kinds.

    A window as long as the longest context is none.
    """
    if all(kind == "full" for kind in kinds):
        return {}
    size, longest = s.count(key), s.count_or_none("max_position_embeddings")
    if "chunk" not in kinds and longest is not None and size >= longest:
        return {}
    pattern = shortest(kinds)
    return {"sliding_window": size, "sliding_pattern": None if pattern == ["window"] else pattern}


def every_layer(s: Settings) -> list[str]:
    """The kinds of a class whose layers all have the window, where one is set."""
    kind = "full" if s.get("sliding_window") in (None, 0) else "window"
    return [kind] * s.count("num_hidden_layers")


def after(s: Settings) -> list[str]:
    """The kinds of a class whose layers from `max_window_layers` on have the window, where one is set."""
    first = s.count("max_window_layers", 0)
    return ["window" if kind == "window" and layer >= first else "full" for layer, kind in enumerate(every_layer(s))]


def alternating(s: Settings, period: int) -> list[str]:
    """Windows, but for every `period`-th layer, which sees everything."""
    return ["window" if (layer + 1) % period else "full" for layer in range(s.count("num_hidden_layers"))]


def positions(s: Settings) -> list[str]:
    """Of Llama 4: the layers with positions, by `no_rope_layers` (1: with) or every one but each n-th."""
    n_layers, every = s.count("num_hidden_layers"), s.count("no_rope_layer_interval")
    given = s.items("no_rope_layers") or [int((layer + 1) % every != 0) for layer in range(n_layers)]
    if len(given) != n_layers or any(one not in (0, 1) for one in given):
        s.wrong("no_rope_layers", f"{n_layers} zeros and ones, as num_hidden_layers has layers")
    return ["rope" if one else "none" for one in given]


def placement(s: Settings, key: str, moe_layers: Sequence[int]) -> dict[str, int]:
    """`n_dense_layers` and `moe_every` that put the MoE into these layers, of which there is one at least.

    Raises InputError naming `key` where none do.
    """
    n_layers, first = s.count("num_hidden_layers"), moe_layers[0]
    steps = [moe_layers[1] - first] if len(moe_layers) > 1 else [1, n_layers - first]
    fitting = [step for step in steps if 0 < step <= first + 1 and list(moe_layers) == [*range(first, n_layers, step)]]
    if not fitting:
        s.refuse(key, "these MoE layers: after some leading dense layers, every n-th is MoE")
    return {"n_dense_layers": first - fitting[0] + 1, "moe_every": fitting[0]}
