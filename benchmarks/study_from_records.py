"""Go on with a study from records alone: a folder in which their runs count as finished, without weights.

    python benchmarks/study_from_records.py configs/studies/predictions.yaml results/predictions/runs studies/next
    moelab study configs/studies/predictions.yaml --out studies/next   # trains the others

Prepares the study's text, resolves its runs as this machine would, and writes config and record of those that have one.
Records of runs that the study does not hold, or that another text, device or thread count gives another id, are named.
"""

import argparse
import shutil
import sys
from pathlib import Path

from moelab.data.prepare import prepare
from moelab.runs import RunFolder
from moelab.studies import load_study
from moelab.studies.build import build_runs
from moelab.training.resolve import resolve_run


def restore(study_file: str, records: Path, out: Path) -> tuple[list[str], list[str]]:
    """Write the folder; the ids that were restored, and those of records that no run of the study has."""
    study = load_study(study_file)
    dataset = prepare(study.data, out / "data").dataset
    ids = []
    for config in build_runs(study, study.runs, str(out / "data"), {}):
        resolved = resolve_run(config, dataset, root=out / "runs")
        record = records / f"{resolved.run_id}.json"
        if record.is_file():
            folder = RunFolder.create(out / "runs", resolved)
            shutil.copyfile(record, folder.path / "record.json")
            folder.load_record()
            ids.append(resolved.run_id)
    return ids, sorted({path.stem for path in records.glob("*.json")} - set(ids))


def main() -> None:
    """Restore and print how many."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("records", type=Path)
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    ids, unknown = restore(options.study, options.records, options.out)
    print(f"{len(ids)} finished runs in {options.out}")
    if unknown:
        sys.exit(f"no run of the study here: {', '.join(unknown)}")


if __name__ == "__main__":
    main()
