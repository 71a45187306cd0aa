"""What can be known to be wrong with a study before anything is trained."""

from moelab.errors import InputError
from moelab.laws import get_law
from moelab.planning import Space
from moelab.runs import RunConfig
from moelab.serving import load_hardware
from moelab.studies.config import StudyConfig
from moelab.studies.folder import StudyFolder
from moelab.studies.preview import preview
from moelab.studies.text import check_runs, check_text, tokens_there


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
    """Raises InputError naming the first law, space or device that is not there."""
    for name in study.fit.laws if study.fit is not None else []:
        if name != "all":
            _named(f"study {study.name}, fit.laws", get_law, name)
    if study.plan is not None:
        Space.parse(study.plan.space, f"study {study.name}, plan.space")
    _named(f"study {study.name}, serving.hardware", load_hardware, study.serving.hardware)


def _named(field: str, load: object, name: str) -> None:
    assert callable(load)
    try:
        load(name)
    except InputError as error:
        raise InputError(f"{field}: {error}") from None
