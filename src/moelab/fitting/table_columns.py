"""What the columns of somebody's table are: settings of the runs, outcomes, labels; and what columns are called."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

import numpy as np

from moelab.fitting.columns import RULES, Columns
from moelab.laws import all_laws

RUN_NAMES = (
    "run_id", "run_name", "run", "name", "id", "experiment", "experiment_id", "experiment_name", "hyper_id", "trial",
    "trial_id", "job", "job_id", "uuid", "exp", "exp_id", "exp_name", "run_hash",
)  # fmt: skip
"""Columns that name a run, the surest first."""
STEP_NAMES = ("tokens", "step", "steps", "_step", "global_step", "trainer/global_step", "iteration", "iter")
"""Columns that rise while a run trains."""
AT_STEP = ("step", "_step", "global_step", "trainer/global_step", "iteration", "iter")
"""Columns of the step that a row was measured at; `steps` may be the whole run's."""
MODEL_NAMES = ("model", "model_name", "model_id", "checkpoint", "ckpt", "hf_model")
"""Columns that name a run where a step is part of the name, or a revision stands beside them."""
REVISIONS = ("revision", "checkpoint", "ckpt", "branch")
"""Columns of the checkpoint of a model on a hub: step1000."""
SWEPT = (
    "learning_rate", "lr", "max_lr", "peak_lr", "batch_tokens", "batch_size", "global_batch_size", "batch",
)  # fmt: skip
"""Columns that are searched for the best value of each design."""
LABELS = {
    *RUN_NAMES, "seed", "replicate", "status", "device", "parent_run", "index", "unnamed:_0", "", "created", "date",
    "time", "timestamp", "_timestamp", "url", "path", "file", "host", "note", "notes", "comment", "source", "user",
    "state",
}  # fmt: skip
"""Columns that name a run or its circumstances."""
OUTCOMES = {
    *LABELS, "bits_per_byte", "train_loss", "seconds", "tokens_per_second", "peak_memory_bytes", "resumed", "spikes",
    "stopped_at", "threads", "processes", "dispatch", "_runtime", "runtime", "mfu", "wall_clock", "perplexity",
    "max_violation", "drop_rate", "dropped_share", "tokens_per_s", "throughput", "step_time",
}  # fmt: skip
"""Columns that a run's settings do not decide, or that its seed may change."""
_LOSSES = re.compile(r"loss|perplexity|accuracy|\bbpb\b|_bpb|\bbpc\b|\bppl\b|bits_per_byte")
PER_BYTE = re.compile(r"(^|[/_.])bpb$|bits_per_byte")
_MEASURED = re.compile(_LOSSES.pattern + r"|^routing_|grad_norm|violation|drop_|dropped|imbalance|_seconds$|entropy")
_ANY_LOSS = re.compile(r"loss|cross.?entropy|\bnll\b", re.IGNORECASE)
_OTHER_LOSS = re.compile(
    r"aux|balanc|z.?loss|router|grad|_step|step_|__(MIN|MAX)|\d+[kmbt]$|^loss_\d|scale|spike| - ", re.IGNORECASE
)
"""Losses beside that of the text (of the router), their gradients, one run's chart, or one of several tokens."""
_UNITS = {
    "k": 1e3, "thousand": 1e3, "thousands": 1e3, "m": 1e6, "mn": 1e6, "million": 1e6, "millions": 1e6, "b": 1e9,
    "bn": 1e9, "g": 1e9, "billion": 1e9, "billions": 1e9, "t": 1e12, "tn": 1e12, "trillion": 1e12, "trillions": 1e12,
    "%": 0.01, "percent": 0.01,
}  # fmt: skip
_SYNONYMS: dict[str, str] = {
    "loss": "loss valloss validationloss lossvalidation evalloss losseval testloss finalloss crossentropy nll celoss "
    "ce",
    "params_total": "params nparams numparams parameters numparameters nparameters modelsize size totalparams n "
    "totalparameters parametercount totalparametercount paramcount numberofparameters",
    "params_active": "activeparams activeparameters activatedparams activatedparameters nactive nactiveparams "
    "activeparametercount",
    "params_dense": "denseparams denseparameters denseparametercount",
    "params_non_embedding": "nonembeddingparams nonembeddingparameters nnonembedding paramsnoembedding",
    "tokens": "tok toks ntok ntoks "
    "ntokens numtokens traintokens trainingtokens tokensseen seentokens datasize tokencount d "
    "numberoftokens tokenstrained totaltokens tokensprocessed",
    "unique_tokens": "nuniquetokens numuniquetokens distincttokens",
    "train_flops": "flops flop trainingflops trainingflop trainflop compute totalflops budget budgetflops c",
    "n_experts": "experts numexperts nexpert nrouted routedexperts nroutedexperts numlocalexperts numberofexperts",
    "top_k": "topk k numexpertspertok expertspertoken",
    "granularity": "expertgranularity",
    "activation_rate": "activationratio activeratio",
}
_OF_A_UNIT = {"active": "params_active", "total": "params_total"}
"""Words that name parameters where a unit follows them: active_M, total (B)."""
_PROPORTIONAL = 0.01
"""Relative spread up to which a ratio is one number: whole steps are rounded."""
_BY_NAME = {word: name for name, words in _SYNONYMS.items() for word in words.split()}


def plain(name: str) -> str:
    """A column's name in lower case with an underscore for blanks, hyphens and dots: Run Name -> run_name."""
    return re.sub(r"[\s.-]+", "_", name.strip().lower())


def present(columns: Columns, names: tuple[str, ...]) -> list[str]:
    """The columns of these names, in the names' order, whatever their case and with blanks for underscores."""
    by_name = {plain(name): name for name in reversed(list(columns))}
    return [by_name[name] for name in names if name in by_name]


def known_names() -> set[str]:
    """Every variable of a law, and what one follows from."""
    names = set(RULES) | {need for rules in RULES.values() for needs, _ in rules for need in needs}
    for law in all_laws().values():
        names |= {*law.variables, *law.ranges}
    return names


def is_outcome(name: str, target: str) -> bool:
    """Whether a column is measured or names a run, by what it is called."""
    return name == target or plain(name) in OUTCOMES or bool(_MEASURED.search(name.lower()))


def is_label(name: str) -> bool:
    """Whether a column names a run or its circumstances."""
    return plain(name) in LABELS


def is_loss(name: str) -> bool:
    """Whether a column is another measure of the loss, whose noise is that of the loss."""
    return bool(_LOSSES.search(name.lower()))


def setting_columns(columns: Columns, target: str) -> list[str]:
    """The columns that a run's configuration decides: no outcome, no label.

    A column of text, or of numbers that no law reads, that differs in every row is a label or was measured.
    """
    known = known_names() | set(SWEPT)
    return [
        name
        for name, values in columns.items()
        if not is_outcome(name, target) and (name in known or not _all_differ(values))
    ]


def following(columns: Columns, settings: Iterable[str]) -> list[str]:
    """The settings that no law reads and that a swept column decides within each size and data: min_lr = lr / 10,
    steps = tokens / batch_tokens. Each is proportional to a swept column or to its inverse."""
    known = known_names() | set(SWEPT)
    names = list(settings)
    swept = {
        name: values for name in names if name.lower() in SWEPT and (values := _positive(columns[name])) is not None
    }
    if not swept:
        return []
    label = row_groups(columns, [name for name in names if name in known and name.lower() not in SWEPT])
    found = []
    for name in names:
        values = None if name in known else _positive(columns[name])
        if values is None:
            continue
        products = (values * other**power for other in swept.values() for power in (1.0, -1.0) if np.ptp(other) > 0)
        if not _constant(values, label) and any(_constant(product, label) for product in products):
            found.append(name)
    return found


def _positive(values: np.ndarray) -> np.ndarray | None:
    if values.dtype.kind not in "iuf" or not (np.isfinite(values).all() and (values > 0).all()):
        return None
    return values.astype(float)


def _constant(values: np.ndarray, label: np.ndarray) -> bool:
    """Whether positive values are equal within each group, but for rounding."""
    low, high = np.full(label.max() + 1, np.inf), np.zeros(label.max() + 1)
    np.minimum.at(low, label, values)
    np.maximum.at(high, label, values)
    return bool((high <= low * (1 + _PROPORTIONAL)).all())


def _all_differ(values: np.ndarray) -> bool:
    return len(values) > 2 and len(codes(values)[1]) == len(values)


def codes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Per row the number of its value among the distinct ones, and those; missing values are equal to one another."""
    if values.dtype.kind in "fiub":
        distinct, index = np.unique(values, return_inverse=True, equal_nan=True)
        return index, distinct
    found: dict[str, int] = {}
    index = np.array([found.setdefault(str(value), len(found)) for value in values])
    return index, np.array(list(found))


def row_groups(columns: Columns, names: Iterable[str]) -> np.ndarray:
    """(n,): a number per row, equal where the rows agree in every named column."""
    rows = len(next(iter(columns.values())))
    label = np.zeros(rows, int)
    for name in names:
        index, distinct = codes(columns[name])
        label = np.unique(label * len(distinct) + index, return_inverse=True)[1]
    return label


def quoted(name: str) -> str:
    """A column's name as an expression reads it."""
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else '"' + name.replace('"', '""') + '"'


def suggestions(columns: Iterable[str]) -> dict[str, tuple[str, str]]:
    """By variable that no column is named as: the column that looks like it, and the expression that maps it."""
    names = list(columns)
    known = {*known_names(), "loss"}
    found: dict[str, tuple[str, str]] = {}
    letters = {name.strip().lower() for name in names}
    for column in names:
        if column in known:
            continue
        bare, factor = _without_unit(column)
        letter = "loss" if bare == "l" and {"n", "d"} <= letters else None  # L(N, D)
        unit = _OF_A_UNIT.get(bare) if factor > 1 else None
        variable = letter or unit or _BY_NAME.get(bare) or _by_last_part(column, known) or _near(bare, known)
        if variable is not None and variable not in names and variable not in found:
            expression = quoted(column) if factor == 1 else f"{factor:g} * {quoted(column)}".replace("e+0", "e")
            found[variable] = (column, expression)
    bytes_ = next((name for name in names if PER_BYTE.search(name.lower())), None)
    if bytes_ is not None and "loss" not in (*names, *found):
        found["loss"] = (bytes_, quoted(bytes_))
    if "loss" not in (*names, *found) and len(only := losses_of(names)) == 1:
        found["loss"] = (only[0], quoted(only[0]))
    return found


def losses_of(columns: Iterable[str]) -> list[str]:
    """The columns that look like a loss on held-out text, by a part of their names; those of training where it is all
    there is."""
    names = [name for name in columns if _ANY_LOSS.search(name) and not _OTHER_LOSS.search(name)]
    return [name for name in names if not re.search("train", name, re.IGNORECASE)] or names


def _by_last_part(column: str, known: set[str]) -> str | None:
    """The variable that a nested or grouped field ends in: config.model.n_params, model/num_params."""
    last = re.split(r"[./]", column)[-1]
    if last == column or " - " in column:  # m0 - val/loss is one run's chart
        return None
    found = last if last in known else _BY_NAME.get(re.sub(r"[^a-z0-9]", "", last.lower()))
    return None if found == "loss" and "/" in column else found  # train/loss is none of those to fit


def _without_unit(column: str) -> tuple[str, float]:
    """The letters and digits of a name, and the factor of the unit it ends in: Active Params (M) -> 1e6."""
    match = re.search(
        r"[\s_]*[(\[]\s*(?:in\s+)?([a-z%]+)[^)\]]*[)\]]\s*$|_(millions?|billions?|m|b|bn)$", column.lower()
    )
    unit = next((word for word in match.groups() if word), "") if match else ""
    unit = unit if unit in _UNITS else ""
    bare = column[: match.start()] if match and unit else column
    return re.sub(r"[^a-z0-9]", "", bare.lower()), _UNITS.get(unit, 1.0)


def _near(bare: str, known: set[str]) -> str | None:
    names = {name.replace("_", ""): name for name in known}
    near = get_close_matches(bare, names, n=1, cutoff=0.88)
    return names[near[0]] if near and len(bare) > 4 and near[0][0] == bare[0] else None
