"""moelab answers "which Mixture-of-Experts model should we train?": train small, fit laws, plan, verify.

    import moelab
    runs = moelab.load_table("studies/quickstart/runs")
    law = moelab.fit(runs, law="ludziejewski2025")
    print(law.predict(params_active=2e5, n_experts=8, tokens=4e6))
    print(moelab.plan(moelab.Budget(flops=1e21, max_params=1e10)).best.label)
    print(moelab.compare("olmoe-1b-7b", flops=1e22))

The names below load their room when first used, so `import moelab` costs nothing and needs no torch.
"""

from moelab.version import __version__ as __version__

TYPE_CHECKING = False  # for type checkers this name is True; `typing` itself would be most of what an import costs
if TYPE_CHECKING:
    from typing import Any

    from moelab.architecture import ModelConfig as ModelConfig
    from moelab.architecture import MoEConfig as MoEConfig
    from moelab.architecture import count_flops as count_flops
    from moelab.architecture import count_parameters as count_parameters
    from moelab.architecture import load_model as load_model
    from moelab.architecture.count import ModelCount as ModelCount
    from moelab.architecture.count import count as count
    from moelab.data import Dataset as Dataset
    from moelab.data import PrepareConfig as PrepareConfig
    from moelab.data.prepare import prepare as prepare
    from moelab.errors import InputError as InputError
    from moelab.errors import MoelabError as MoelabError
    from moelab.export import Exported as Exported
    from moelab.export.export_run import export_run as export_run
    from moelab.fitting import Comparison as Comparison
    from moelab.fitting import Finding as Finding
    from moelab.fitting import FittedLaw as FittedLaw
    from moelab.fitting import check_table as check_table
    from moelab.fitting import compare_laws as compare_laws
    from moelab.fitting import isoflop_budgets as isoflop_budgets
    from moelab.fitting import isoflop_slice as isoflop_slice
    from moelab.fitting import isoflop_surface as isoflop_surface
    from moelab.fitting import load_fits as load_fits
    from moelab.fitting import save_fits as save_fits
    from moelab.fitting.fit import fit as fit
    from moelab.fitting.predict import Predictions as Predictions
    from moelab.fitting.predict import predict as predict
    from moelab.laws import all_laws as all_laws
    from moelab.laws import get_law as get_law
    from moelab.laws import register_law as register_law
    from moelab.model import build_model as build_model
    from moelab.planning import Budget as Budget
    from moelab.planning import Plan as Plan
    from moelab.planning import Space as Space
    from moelab.planning.compare import compare as compare
    from moelab.planning.plan import Planner as Planner
    from moelab.planning.plan import plan as plan
    from moelab.planning.sides import DesignComparison as DesignComparison
    from moelab.runs import RunConfig as RunConfig
    from moelab.runs import RunRecord as RunRecord
    from moelab.runs.load_run import load_run as load_run
    from moelab.runs.table import load_table as load_table
    from moelab.serving.served_model import ServedModel as ServedModel
    from moelab.serving.serving_cost import serving_cost as serving_cost
    from moelab.studies import StudyConfig as StudyConfig
    from moelab.studies import StudyOutcome as StudyOutcome
    from moelab.studies import load_study as load_study
    from moelab.studies import run_study as run_study
    from moelab.training.train import train as train

_ROOMS = {
    "moelab.architecture": (
        "MoEConfig",
        "ModelConfig",
        "count_flops",
        "count_parameters",
        "load_model",
    ),
    "moelab.architecture.count": (
        "ModelCount",
        "count",
    ),
    "moelab.data": (
        "Dataset",
        "PrepareConfig",
    ),
    "moelab.data.prepare": ("prepare",),
    "moelab.errors": (
        "InputError",
        "MoelabError",
    ),
    "moelab.export": ("Exported",),
    "moelab.export.export_run": ("export_run",),
    "moelab.fitting": (
        "Comparison",
        "Finding",
        "FittedLaw",
        "check_table",
        "compare_laws",
        "isoflop_budgets",
        "isoflop_slice",
        "isoflop_surface",
        "load_fits",
        "save_fits",
    ),
    "moelab.fitting.fit": ("fit",),
    "moelab.fitting.predict": (
        "Predictions",
        "predict",
    ),
    "moelab.laws": (
        "all_laws",
        "get_law",
        "register_law",
    ),
    "moelab.model": ("build_model",),
    "moelab.planning": (
        "Budget",
        "Plan",
        "Space",
    ),
    "moelab.planning.compare": ("compare",),
    "moelab.planning.plan": (
        "Planner",
        "plan",
    ),
    "moelab.planning.sides": ("DesignComparison",),
    "moelab.runs": (
        "RunConfig",
        "RunRecord",
    ),
    "moelab.runs.load_run": ("load_run",),
    "moelab.runs.table": ("load_table",),
    "moelab.serving.served_model": ("ServedModel",),
    "moelab.serving.serving_cost": ("serving_cost",),
    "moelab.studies": (
        "StudyConfig",
        "StudyOutcome",
        "load_study",
        "run_study",
    ),
    "moelab.training.train": ("train",),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = [*_HOME]


def __getattr__(name: str) -> "Any":
    """Load a public name from its room (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module 'moelab' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return [*_HOME, "__version__"]
