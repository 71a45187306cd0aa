"""Checks of a study before any run: what it names is there, its text can be read and is enough for the runs."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

from moelab.data import Dataset
from moelab.data.archives import default_cache
from moelab.data.sources import open_sources
from moelab.data.tokenizer import SMALLEST_VOCABULARY, tokenizer_bytes
from moelab.errors import InputError
from moelab.fitting.prior import NONE, read_prior
from moelab.laws import all_laws, get_law
from moelab.planning import Space
from moelab.runs import RunConfig
from moelab.serving import load_hardware
from moelab.studies.build import preview
from moelab.studies.config import StudyConfig
from moelab.studies.folder import StudyFolder


def check_text(study: StudyConfig, *, prepare: bool) -> None:
    """Raises InputError naming the first source or tokenizer that cannot be read, or a vocabulary that is too small.

    Streamed data sets need a package of their own; they are checked only where the text is to be prepared here.
    """
    data = study.data
    here = [place for place, name in enumerate(data.sources) if prepare or not name.startswith("hf:")]
    names = [data.sources[place] for place in here]
    if data.names is not None and len(data.names) == len(data.sources):
        labels = [data.names[place] for place in here]
    else:
        labels = list(data.names or ())
    try:
        open_sources(names, data.text_field, default_cache(), labels)
        vocabulary = _vocabulary(study)
    except InputError as error:
        raise InputError(f"study {study.name}, data: {error}") from None
    if vocabulary < SMALLEST_VOCABULARY:
        raise InputError(f"study {study.name}, data.vocab_size: at least {SMALLEST_VOCABULARY}, got {vocabulary}")


def tokens_there(study: StudyConfig, data: str | Path) -> int | None:
    """Training tokens that a run can see: of the prepared text, else at most `data.max_tokens`; None if unknown."""
    try:
        return len(Dataset.open(data).train) - 1
    except InputError:
        return None if study.data.max_tokens is None else study.data.max_tokens - 1


def check_runs(study: StudyConfig, configs: Iterable[RunConfig], there: int | None) -> None:
    """Raises InputError naming the entry whose model lacks tokens of the vocabulary, or whose runs lack text.

    `there` is the number of training tokens, None if unknown. Only runs that compare fresh text with repeated text
    (`equal_resources`) are refused where theirs would repeat; others may repeat it.
    """
    configs = sorted(configs, key=lambda config: "times" in config.labels)
    vocabulary = _vocabulary(study)
    for config in configs:
        if config.model.vocab_size < vocabulary:
            raise InputError(
                f"study {study.name}, runs {config.labels['group']}: model.vocab_size: must be at least the text's "
                f"{vocabulary} (data.vocab_size), got {config.model.vocab_size}"
            )
    for find in (_too_much, _repeats):
        for config in configs:
            problem = find(config, there)
            if problem is not None:
                raise InputError(f"study {study.name}, runs {config.labels['group']}: {problem}")


def _vocabulary(study: StudyConfig) -> int:
    """Size of the vocabulary: the study's, or that of its tokenizer."""
    if study.data.tokenizer is None:
        return study.data.vocab_size
    return len(tokenizer_bytes(study.data.load_tokenizer()))


def _too_much(config: RunConfig, there: int | None) -> str | None:
    """The reason why a run cannot have its number of unique tokens; None if it can."""
    unique = config.data.unique_tokens
    if there is None or unique is None or unique <= there:
        return None
    reuse = config.labels.get("reuse")
    if reuse == "strict":
        given = f"reuse: strict gives {config.name} the {unique:,} tokens that the dense model sees"
    elif reuse == "loose":
        given = f"reuse: loose gives {config.name} {unique:,} different tokens, half of those it sees"
    else:
        given = f"data.unique_tokens: {config.name} is given {unique:,}"
    return f"{given}; the text has {there:,}"


def _repeats(config: RunConfig, there: int | None) -> str | None:
    """The reason why a run that has to see every token once would repeat some; None if it would not."""
    fresh, dense = config.labels.get("reuse") == "fresh", config.labels.get("times")
    limits = [limit for limit in (there, config.data.unique_tokens) if limit is not None]
    tokens = config.train.steps * config.train.batch_tokens
    if not limits or tokens <= min(limits) or not (fresh or dense):
        return None
    what = "reuse: fresh text for" if fresh else f"dense_flops: at {dense}, fresh text for"
    instead = "fewer FLOPs, more text (data), or no `fresh` in reuse" if fresh else "fewer FLOPs or more text (data)"
    return f"{what} {config.name} is {tokens:,} tokens, there are {min(limits):,}; give {instead}"


def check_study(study: StudyConfig, folder: StudyFolder) -> None:
    """Raises InputError naming the first law, space, device, source, design or budget that cannot be used."""
    check_names(study)
    check_text(study, prepare=True)
    check_plan(study, preview(study), tokens_there(study, folder.data))


def check_plan(study: StudyConfig, parts: dict[str, list[RunConfig]], there: int | None) -> None:
    """Raises InputError naming the entry for which the text, of `there` tokens, is not enough.

    Of the parts that `preview` gives; not of those that wait for the winner of a stage, which may be another design.
    """
    for name, configs in parts.items():
        check_runs(study, configs, there)
        if name.startswith("stage "):
            break


def check_names(study: StudyConfig) -> None:
    """Raises InputError naming the first law, prior, space or device that is not there."""
    for name in study.fit.laws if study.fit is not None else []:
        if name != "all":
            _named(f"study {study.name}, fit.laws", get_law, name)
    check_prior(study)
    if study.plan is not None:
        Space.parse(study.plan.space, f"study {study.name}, plan.space")
    _named(f"study {study.name}, serving.hardware", load_hardware, study.serving.hardware)


def check_prior(study: StudyConfig) -> None:
    """Raises InputError where the file of `fit.prior` cannot be read, or is no prior of a law that the study fits."""
    fit = study.fit
    if fit is not None and fit.prior is not None and fit.prior != NONE:
        _named(f"study {study.name}, fit.prior", partial(_prior_for, fit.laws), fit.prior)


def _prior_for(laws: Sequence[str], file: str) -> None:
    known = read_prior(file)
    named = [law.id for law in all_laws().values() if not law.variant_of] if "all" in laws else laws
    chosen = [name for name in named if known.is_for(name)]
    if not chosen:
        raise InputError(f"{known.name} is for {known.law}, which is not among fit.laws ({', '.join(laws)})")
    for name in chosen:
        if name in all_laws():  # a law of one's own may be registered later
            known.of(get_law(name))


def _named(field: str, load: object, name: str) -> None:
    assert callable(load)
    try:
        load(name)
    except InputError as error:
        raise InputError(f"{field}: {str(error).removeprefix('prior: ')}") from None
