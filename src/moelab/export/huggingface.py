"""A folder that transformers loads without remote code or network: config, weights, tokenizer, model card."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from moelab.architecture import ModelConfig
from moelab.errors import InputError, MoelabError
from moelab.export.canonical import DTYPES, canonical, check_dtype
from moelab.export.card import model_card
from moelab.export.check import (
    Check,
    check_tokenizer,
    compare,
    held_out,
    transformers_logits,
    transformers_version,
)
from moelab.export.families import choose_family
from moelab.export.family import Family
from moelab.export.gguf_graphs import choose_graph
from moelab.export.hf_config import hugging_face_config
from moelab.export.names import decides, hugging_face_tensors
from moelab.export.place import NOTE, check_folder, new_folder
from moelab.export.source import Source
from moelab.files import write_json, write_text
from moelab.notebook import Shown


@dataclass(frozen=True, kw_only=True, repr=False)
class Exported(Shown):
    """What was written. `check` is None where nothing was compared; then `unchecked` gives the reason."""

    path: Path
    form: str
    architecture: str
    dtype: str
    bytes: int
    check: Check | None
    unchecked: str = ""
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {
            "path": str(self.path),
            "to": self.form,
            "architecture": self.architecture,
            "dtype": self.dtype,
            "bytes": self.bytes,
            "check": None if self.check is None else self.check.to_dict(),
            "unchecked": self.unchecked,
            "notes": list(self.notes),
        }


def export_hugging_face(
    source: Source, out: Path, *, dtype: str = "fp32", force: bool = False, check: bool = True
) -> Exported:
    """Write the folder `out` and compare it with the trained model.

    Raises InputError for an architecture that no class represents, or a place that is taken; MoelabError where the
    exported model differs or the disk refuses: then nothing is left behind.
    """
    check_dtype(dtype)
    family = _choose(source.model.config)
    check_folder(out, force)
    model = canonical(source.model, family, dtype)
    library = transformers_version() if check else None
    unchecked = "" if library else ("--no-check" if not check else "transformers is not installed")
    notes = tuple(notes_on(source, family))
    with new_folder(out, force) as place:
        tensors = hugging_face_tensors(model.state_dict(), model.config, family)
        save_weights(tensors, place / "model.safetensors", dtype)
        _write_config(place, source, model.config, family, dtype)
        _write_tokenizer(place, source)
        found = None
        if library is not None:
            text = held_out(source.dataset, source.config.train.seq_len)
            logits = transformers_logits(place, text[0])
            check_tokenizer(place, source.dataset, text[0])
            found = compare(library, logits, model, source.model, text, exact=dtype == "fp32")
        write_text(place / "README.md", model_card(source, family, dtype, found, unchecked, notes))
        files = sorted(path.name for path in place.iterdir())
        write_json(
            place / NOTE,
            {
                "format": 1,
                "run_id": source.run_id,
                "class": family.class_name,
                "dtype": dtype,
                "check": None if found is None else found.to_dict(),
                "files": files,
            },
        )
    return Exported(
        path=out,
        form="hf",
        architecture=family.class_name,
        dtype=dtype,
        bytes=sum(path.stat().st_size for path in out.iterdir()),
        check=found,
        unchecked=unchecked,
        notes=notes,
    )


def _choose(config: ModelConfig) -> Family:
    """`choose_family`; its refusal also names the llama.cpp graph that can run the architecture."""
    try:
        return choose_family(config)
    except InputError as error:
        try:
            graph = choose_graph(config)[1]
        except InputError:
            raise error from None
        raise InputError(f"{error}; llama.cpp's {graph.name} runs it: --to gguf") from None


def notes_on(source: Source, family: Family) -> list[str]:
    """What people should know: where the exported function is not the one that training evaluated, or its form."""
    moe = source.model.config.moe
    notes: list[str] = []
    if source.model.config.mtp_layers:
        notes.append("the multi-token-prediction modules are not exported: inference does not use them")
    if moe is None:
        return notes
    if source.loses_capacity:
        notes.append(
            f"capacity_factor {moe.capacity_factor:g} is not exported: no token's choice is dropped, "
            "which is the model that the leak-free loss measures"
        )
    if source.record.transition_step is not None:
        notes.append(f"trained as a mixture of tokens up to step {source.record.transition_step}; exported as it ended")
    if moe.routed_scaling != 1 and not family.scales:
        notes.append(f"routed_scaling {moe.routed_scaling:g} is folded into the experts' down projections")
    if family.ungated_as_gate and not moe.shared_gate:
        notes.append(
            "the class has a gate on its shared experts: it is written as zeros, which is 1/2, "
            "and their down projection doubled"
        )
    if family.whole_shared and not family.interleaved and not moe.n_shared_experts:
        notes.append("the class has shared experts: they are written with width 0, which some engines may refuse")
    return notes


def save_weights(tensors: dict[str, Tensor], path: Path, dtype: str) -> None:
    """Write tensors as safetensors in `dtype`, but routers in fp32. Raises MoelabError where the disk refuses."""
    kind = DTYPES[dtype]
    written = {
        name: (tensor if decides(name) else tensor.to(kind)).contiguous().clone() for name, tensor in tensors.items()
    }
    try:
        save_file(written, path, metadata={"format": "pt"})
    except SafetensorError as error:
        raise MoelabError(f"--out: cannot write the weights: {error}") from error


def _write_config(place: Path, source: Source, config: ModelConfig, family: Family, dtype: str) -> None:
    end = source.dataset.manifest.end_of_text
    write_json(place / "config.json", hugging_face_config(config, family, dtype, source.config.train.seq_len, end))
    generation = {"bos_token_id": end, "eos_token_id": end, "pad_token_id": end, "do_sample": True, "temperature": 0.8}
    write_json(place / "generation_config.json", generation)


def _write_tokenizer(place: Path, source: Source) -> None:
    shutil.copyfile(source.dataset.tokenizer_path, place / "tokenizer.json")
    end = source.dataset.load_tokenizer().id_to_token(source.dataset.manifest.end_of_text)
    names = {"bos_token": end, "eos_token": end}
    write_text(place / "special_tokens_map.json", json.dumps(names, indent=1) + "\n")
    write_json(
        place / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **names,
            "model_max_length": source.config.train.seq_len,
            "clean_up_tokenization_spaces": False,
        },
    )
