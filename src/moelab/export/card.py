"""The model card: the architecture, the training, the text and the measurements of an exported model."""

from collections.abc import Iterable, Sequence

from moelab.evaluation.leaks import certify
from moelab.export.check import Check
from moelab.export.family import Family
from moelab.export.source import Source, find_study
from moelab.printable import markdown, printable
from moelab.quantities import format_number
from moelab.version import __version__

_MOST_CERTIFIED = 1e8
"""Parameters of the largest model whose leak is measured, in fp64: about half a minute of one core."""
_TRIALS = 8


def model_card(
    source: Source, family: Family, dtype: str, check: Check | None, unchecked: str, notes: Sequence[str]
) -> str:
    """README.md of an exported folder."""
    parts = [
        _front(source),
        f"# {markdown(source.title)}\n\n{_summary(source, family, dtype)}",
        "## Use\n\n" + _USE,
        "## Architecture\n\n" + _architecture(source) + _listed(notes),
        "## Training\n\n" + _training(source),
        "## Text\n\n" + _text(source),
        "## Measured\n\n" + _measured(source),
        "## Information leaks\n\n" + _leak(source),
        *_study(source),
        "## Equivalence with the trained model\n\n" + check_text(check, unchecked, dtype),
        "## Limits\n\nThe model continues text: it was trained for next-token prediction only. Properties that are not "
        f"listed here were not measured. Training used contexts of at most {source.record.seq_len:,} tokens.",
    ]
    return "\n\n".join(parts) + "\n"


def description(source: Source) -> str:
    """Two sentences for formats without a card: the model, and the texts it was trained on."""
    record = source.record
    texts = "; ".join(printable(f"{each.name} ({each.licence})") for each in source.dataset.manifest.sources)
    return (
        f"Language model with {record.params_total:,} parameters ({record.params_active:,} active), trained on "
        f"{record.tokens:,} tokens with moelab. Texts and their licences: {texts}."
    )


def _listed(notes: Sequence[str]) -> str:
    return "\n\n" + "\n".join(f"- {note}." for note in notes) if notes else ""


_USE = """```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH_OF_THIS_FOLDER")
tokenizer = AutoTokenizer.from_pretrained("PATH_OF_THIS_FOLDER")
tokens = tokenizer(tokenizer.bos_token + "The people", return_tensors="pt")
print(tokenizer.decode(model.generate(**tokens, max_new_tokens=40)[0]))
```

Every training document began after an end-of-text token, so prompts do best after one (`bos_token`)."""


def _front(source: Source) -> str:
    tags = ["moelab", *(["mixture-of-experts"] if source.model.config.moe else [])]
    listed = "\n".join(f"- {tag}" for tag in tags)
    return f"---\nlibrary_name: transformers\npipeline_tag: text-generation\ntags:\n{listed}\n---"


def _summary(source: Source, family: Family, dtype: str) -> str:
    record = source.record
    kind = "Mixture-of-Experts" if record.kind == "moe" else "dense"
    active = f", of which each token uses {record.params_active:,}" if record.kind == "moe" else ""
    return (
        f"A {kind} language model with {record.params_total:,} parameters{active}, trained from scratch on "
        f"{record.tokens:,} tokens with moelab {record.versions.get('moelab', '')}. It is written as "
        f"`{family.class_name}` in {dtype} and needs no remote code. "
        f"Run {source.run_id}, exported by moelab {__version__}."
    )


def _architecture(source: Source) -> str:
    config, record = source.model.config, source.record
    rows = [
        ("parameters", f"{record.params_total:,} ({record.params_non_embedding:,} without embeddings)"),
        ("active per token", f"{record.params_active:,} ({record.params_active_non_embedding:,} without embeddings)"),
        ("layers", f"{config.n_layers} of width {config.d_model}"),
        ("attention", f"{config.n_heads} heads of {config.head_dim}, {config.n_kv_heads} for keys and values"),
        ("QK-norm", {"none": "none", "head": "each head", "full": "the whole width"}[config.qk_norm]),
        ("embeddings", f"{config.vocab_size:,} tokens, {'tied' if config.tie_embeddings else 'not tied'} to the head"),
    ]
    moe = config.moe
    if moe is None:
        rows.append(("feed-forward", f"SwiGLU of width {config.d_ff}"))
    else:
        gates = "divided by their sum" if moe.normalize_gates else "as they are"
        balance = [f"a balance loss ({moe.balance_loss:g})"] if moe.balance_loss else []
        balance += ["a bias per expert"] if moe.bias_update else []
        rows += [
            ("MoE layers", f"{config.n_moe_layers} of {config.n_layers}" + _dense_width(source)),
            ("experts", f"{moe.n_experts} of width {moe.d_expert}, {moe.top_k} per token"),
            ("shared experts", _shared(source)),
            ("router", f"{moe.score} scores, gates {gates}" + _scaled(moe.routed_scaling)),
            ("balanced by", " and ".join(balance) or "nothing"),
        ]
    return _table(("", ""), rows)


def _dense_width(source: Source) -> str:
    config = source.model.config
    return f"; the others are dense, width {config.d_ff}" if config.n_moe_layers < config.n_layers else ""


def _shared(source: Source) -> str:
    moe = source.model.config.moe
    if moe is None or not moe.n_shared_experts:
        return "none"
    gate = ", weighed by a gate" if moe.shared_gate else ""
    return f"{moe.n_shared_experts}, together of width {moe.d_shared}{gate}"


def _scaled(scaling: float) -> str:
    return "" if scaling == 1 else f", times {scaling:g}"


def _training(source: Source) -> str:
    record, train = source.record, source.config.train
    rows = [
        (
            "tokens",
            f"{record.tokens:,} ({record.unique_tokens:,} unique; {record.epochs:.3g} passes over them)",
        ),
        (
            "FLOPs",
            f"{format_number(record.train_flops)} (an exact count, attention as the full square, not a measurement)",
        ),
        ("steps", f"{train.steps:,} of {train.batch_tokens:,} tokens, sequences of {train.seq_len:,}"),
        ("optimiser", f"{record.optimizer}, learning rate {record.learning_rate:g}, {record.schedule} schedule"),
        ("precision", f"{record.precision} on {record.device}, seed {record.seed}"),
    ]
    if record.transition_step is not None:
        rows.append(("transition", f"mixture of tokens up to step {record.transition_step:,}, then token choice"))
    if record.parent_run:
        rows.append(("branched from", f"run {record.parent_run} after step {record.parent_step:,}"))
    return _table(("", ""), rows)


def _text(source: Source) -> str:
    manifest = source.dataset.manifest
    rows = [
        (
            markdown(each.name),
            markdown(each.version or ""),
            markdown(each.licence),
            f"{each.train.tokens:,}",
            f"{each.validation.tokens:,}",
        )
        for each in manifest.sources
    ]
    limit = source.config.data.unique_tokens
    cut = f" The run saw the first {limit:,} training tokens of these." if limit else ""
    return (
        _table(("source", "version", "licence of the text", "training tokens", "held-out tokens"), rows)
        + f"\n\nA {manifest.tokenizer_origin} byte-level BPE tokenizer with {manifest.vocab_size:,} tokens. "
        f"Data hash {manifest.manifest_hash[:16]}.{cut} The licences are those of the texts, as their manifest records "
        "them; no licence is claimed here for the weights."
    )


def _measured(source: Source) -> str:
    record = source.record
    rows = [("loss as trained", f"{record.loss:.4f} nats per token")]
    if record.loss_leak_free is not None:
        rows.append(("loss leak-free (what is exported)", f"{record.loss_leak_free:.4f} nats per token"))
    rows.append(("bits per byte", f"{record.bits_per_byte:.4f}"))
    rows += [(f"loss on {markdown(name)}", f"{loss:.4f}") for name, loss in record.loss_by_source.items()]
    notes = "".join(f"\n\n{markdown(note)}." for note in source.dataset.notes())
    return "On held-out documents of the same sources, at the end of training:\n\n" + _table(("", ""), rows) + notes


def _leak(source: Source) -> str:
    promise = (
        "As exported, the output for a token depends on that token and those before it in its sequence, never on later "
        "tokens or other sequences"
    )
    if source.record.params_total > _MOST_CERTIFIED:
        return f"{promise}. This follows from the architecture; the model is too large for the measurement in fp64."
    found = certify(source.model, trials=_TRIALS)
    exported = (
        f"{promise}. Measured in fp64 with {found.trials} changed tokens: with capacity and mixing off the largest "
        f"change of a logit that should not change is {found.leak_free_change:.1g}."
    )
    if not found.can_leak:
        return f"{exported} The same holds for training."
    return (
        f"{exported} In training it could leak: of the logits of earlier tokens {found.earlier_rate:.1%} and of other "
        f"sequences {found.others_rate:.1%} changed on a random batch."
    )


def _study(source: Source) -> list[str]:
    study = find_study(source)
    if study is None:
        return []
    about = f" {markdown(' '.join(study.about.split()))}" if study.about else ""
    text = f'It was trained in the study "{markdown(study.name)}".{about}'
    if source.config.labels:
        text += " Labels: " + ", ".join(markdown(f"{key} {value}") for key, value in source.config.labels.items()) + "."
    row = study.verified
    if row is None:
        return [f"## Study\n\n{text}"]
    laws = [
        (markdown(law), f"{value['value']:.4f}", f"{value['low']:.4f} to {value['high']:.4f}")
        for law, value in row.get("predicted", {}).items()
    ]
    text += (
        f"\n\nRole in its verification: {markdown(row.get('role'))}. Measured {row.get('measured'):.4f} nats per "
        "token; the laws fitted to the study's other runs predicted:\n\n"
    )
    return [f"## Study\n\n{text}" + _table(("law", "predicted", "80 % interval"), laws)]


def check_text(check: Check | None, unchecked: str, dtype: str) -> str:
    """The comparison of the exported model with the trained one, as text."""
    if check is None:
        return f"It was not compared with the trained model ({unchecked})."
    rounding = "" if dtype == "fp32" else f" (of the weights rounded to {dtype})"
    return (
        f"Checked with {check.library}, both in fp32, on {_compared(check)}: the largest difference of a logit"
        f"{rounding} is {check.difference:.1e}; {check.tolerance:.1e} would pass. Loss on these tokens: trained "
        f"{check.loss_trained:.6f}, exported {check.loss_exported:.6f} nats per token."
    )


def _compared(check: Check) -> str:
    if check.compared == check.tokens:
        return f"{check.tokens:,} held-out tokens"
    return (
        f"{check.compared:,} of {check.tokens:,} held-out tokens (the others follow a choice between experts "
        "so close that rounding decides it)"
    )


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
