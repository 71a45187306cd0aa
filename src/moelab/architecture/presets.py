"""Public models by name, from their published configurations; and the way from a CONFIG argument to a model."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from moelab.architecture.config import ModelConfig
from moelab.architecture.huggingface import is_huggingface, read_gguf, read_huggingface
from moelab.architecture.transition import token_choice_config
from moelab.config import load_yaml
from moelab.errors import InputError
from moelab.files import read_json
from moelab.printable import suggest
from moelab.yaml_reader import parse_yaml

PRESETS = (
    "mixtral-8x7b",
    "olmoe-1b-7b",
    "qwen3-30b-a3b",
    "deepseek-v3",
    "gpt-oss-120b",
    "llama3-8b",
    "qwen3-235b-a22b",
    "kimi-k2",
    "glm-4.5",
    "glm-4.5-air",
    "gpt-oss-20b",
    "minimax-m2.5",
    "llama4-scout",
    "llama4-maverick",
    "deepseek-v2",
    "deepseek-v2-lite",
    "deepseek-moe-16b",
    "moonlight-16b-a3b",
    "qwen1.5-moe-a2.7b",
    "mixtral-8x22b",
    "dbrx",
    "phi-3.5-moe",
    "grok-1",
    "llama3-70b",
    "llama3.1-405b",
)

DESCRIBES = ("config.yaml", "config.json")
"""What describes a model in a folder: of a run, of a Hugging Face model."""

_RUN_KEYS = ("model", "data", "train", "name", "labels", "parent")


def load_preset(name: str) -> ModelConfig:
    """The architecture of a public model. Raises InputError naming the known presets."""
    if name not in PRESETS:
        raise InputError(f"preset: no such preset {name!r}; {suggest(name, PRESETS)}known: {', '.join(PRESETS)}")
    return _preset(name)


@cache
def _preset(name: str) -> ModelConfig:
    text = files("moelab.architecture").joinpath(f"presets/{name}.yaml").read_text(encoding="utf-8")
    return ModelConfig.parse(parse_yaml(text, name), name)


def load_model(config: str | Path) -> ModelConfig:
    """CONFIG as every command takes it: a model YAML, a run YAML, a run folder, a preset's name, the config.json of a
    Hugging Face model or a folder with one, or a GGUF file, of which the header is read.

    Of a run with a transition it is the model that the run ends with. Raises InputError naming the file and the field.
    """
    path = Path(config)
    if str(config) in PRESETS and not path.exists():
        return load_preset(str(config))
    if path.is_dir():
        path = next((path / name for name in DESCRIBES if (path / name).exists()), path)
        if path == Path(config):
            raise InputError(f"config: the folder {config} holds neither {' nor '.join(DESCRIBES)}")
    elif not path.exists():
        near = suggest(str(config), PRESETS)
        raise InputError(f"config: no file, folder or preset {str(config)!r}; {near}presets: {', '.join(PRESETS)}")
    if path.suffix == ".gguf":
        return read_gguf(path)
    value = read_json(path, "config") if path.suffix == ".json" else load_yaml(path)
    if is_huggingface(value):
        return read_huggingface(value, str(path))
    if not isinstance(value, dict):
        raise InputError(f"config: {path} must hold keys and values, not {type(value).__name__}")
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
