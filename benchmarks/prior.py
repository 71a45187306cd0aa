"""Make the prior of moelab2026 from public runs, published laws and our reference runs.

    MOELAB_PUBLISHED_RUNS=... python benchmarks/prior.py --out src/moelab/fitting/priors/moelab2026.json

Half a minute. The file lists its sources with their hashes; it holds means and covariances only, no runs. Run it again
when `results/reference` has grown.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
from prior_tables import tables

from moelab.files import write_json
from moelab.fitting.hierarchy import build_prior
from moelab.fitting.prior import Prior
from moelab.laws import get_law

ROOT = Path(__file__).parents[1]
NAME = "moelab2026, public runs and published laws"
OUTER = (0.31, 1.0)
"""Outer exponents: from the lowest of arXiv 2608.07222 to 1, that of the laws without one."""


def with_outer(prior: Prior) -> Prior:
    """The prior with the outer exponent, independent of the other coefficients."""
    low, high = np.log(OUTER)
    mean, covariance = np.append(prior.mean, 0.5 * (low + high)), np.diag(np.append(np.zeros(len(prior.mean)), 1.0))
    covariance *= (0.5 * (high - low)) ** 2
    covariance[:-1, :-1] = prior.covariance
    return replace(prior, coefficients=(*prior.coefficients, "k"), mean=mean, covariance=covariance)


def main() -> None:
    """Build, print and write the prior."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the prior here")
    parser.add_argument("--reference", type=Path, default=ROOT / "results" / "reference", help="folder of own records")
    options = parser.parse_args()
    folder = os.environ.get("MOELAB_PUBLISHED_RUNS")
    if not folder:
        parser.error("MOELAB_PUBLISHED_RUNS must name the folder of published runs")
    prior = with_outer(build_prior(get_law("moelab2026"), tables(Path(folder), options.reference), NAME))
    law = get_law("moelab2026-outer")
    for name, mean, spread in zip(law.coefficients, prior.mean, np.sqrt(np.diag(prior.covariance)), strict=True):
        kind = "log " if name in law.positive else ""
        print(f"{kind + name:12s} {mean:9.4f} +- {spread:.4f}")
    print(f"noise {prior.noise[0]:.2%}; sha256 {prior.sha256}")
    for source in prior.sources:
        print(f"  {source['name']}: {source['rows']} rows, {source['kind']}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        write_json(options.out, prior.to_json())


if __name__ == "__main__":
    main()
