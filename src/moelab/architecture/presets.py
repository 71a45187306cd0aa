"""Public models by name, from their published configurations; and the way from a CONFIG argument to a model."""

from importlib.resources import files
from pathlib import Path
from typing import Any

from moelab.architecture.config import ModelConfig
from moelab.architecture.transition import token_choice_config
from moelab.config import load_yaml
from moelab.errors import InputError
from moelab.yaml_reader import parse_yaml

PRESETS = (
    "mixtral-8x7b",
    "olmoe-1b-7b",
    "qwen3-30b-a3b",
    "qwen3-235b-a22b",
    "deepseek-v3",
    "gpt-oss-120b",
    "llama3-8b",
    "llama3-70b",
    "llama3.1-405b",
)

_RUN_KEYS = ("model", "data", "train", "name", "labels", "parent")


def load_preset(name: str) -> ModelConfig:
    """The architecture of a public model. Raises InputError naming the known presets."""
    if name not in PRESETS:
        raise InputError(f"preset: no such preset {name!r}; known: {', '.join(PRESETS)}")
    text = files("moelab.architecture").joinpath(f"presets/{name}.yaml").read_text(encoding="utf-8")
    return ModelConfig.parse(parse_yaml(text, name), name)


def load_model(config: str | Path) -> ModelConfig:
    """CONFIG as every command takes it: a model YAML, a run YAML, a run folder, or a preset's name.

    Of a run with a transition it is the model that the run ends with.
    """
    path = Path(config)
    if str(config) in PRESETS and not path.exists():
        return load_preset(str(config))
    if path.is_dir():
        path = path / "config.yaml"
        if not path.exists():
            raise InputError(f"config: the folder {config} holds no config.yaml, so it is not a run")
    elif not path.exists():
        raise InputError(f"config: no file, folder or preset {str(config)!r}; presets: {', '.join(PRESETS)}")
    value = load_yaml(path)
    model = ModelConfig.parse(_model_part(value), str(path))
    train = value.get("train")
    turns = isinstance(train, dict) and train.get("transition") is not None
    return token_choice_config(model) if turns else model


def _model_part(value: dict[str, Any]) -> Any:
    """A run YAML keeps its architecture under `model`."""
    if "model" not in value or "vocab_size" in value:
        return value
    unknown = [key for key in value if key not in _RUN_KEYS]
    if unknown:
        raise InputError(f"config: unknown key {unknown[0]!r} beside model; known: {', '.join(_RUN_KEYS)}")
    return value["model"]
