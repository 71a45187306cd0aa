"""How long a report of 2,000 runs takes to open in Chromium: until its text, its first figure and all figures stand.

    python benchmarks/report_speed.py

The report has what a study's has: losses by size, predictions against measurements of two laws, residuals, 60 learning
curves, and tables of all runs and of their routing. It prints seconds from the start of the navigation, and the
processor seconds of the page's main thread (Chromium's own account), `--repeat` times. Needs Playwright and Chromium.
"""

import argparse
import json
import math
import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

from moelab.report import Fact, Figure, Page, Section, Table, figures, write_page

METRICS = ("TaskDuration", "ScriptDuration", "LayoutDuration", "RecalcStyleDuration")


def runs(count: int) -> list[dict[str, Any]]:
    """Rows of runs whose loss follows a law of size and tokens, with noise."""
    chance = random.Random(0)
    found = []
    for number in range(count):
        active, tokens = 10 ** chance.uniform(5, 8), 10 ** chance.uniform(7, 10)
        experts = chance.choice([1, 8, 16, 64])
        loss = 1.7 + 480 / active**0.34 / experts**0.1 + 2000 / tokens**0.37 + chance.gauss(0, 0.02)
        found.append(
            {
                "run": f"{number:016x}", "label": f"d{chance.choice([64, 128, 256])} {number}",
                "kind": "moe" if experts > 1 else "dense", "params_active": int(active),
                "params_total": int(active * (1 + math.log2(experts))), "tokens": int(tokens), "n_experts": experts,
                "train_flops": 6 * active * tokens, "loss": loss, "bits": loss / 2.1,
                "speed": round(chance.uniform(1e4, 1e6)),
            }
        )  # fmt: skip
    return found


def report(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the report."""
    chance = random.Random(1)
    points, residuals, curves = [], [], []
    for law in ("abnar2025", "ludziejewski2025"):
        for row in rows:
            predicted = row["loss"] + chance.gauss(0, 0.03)
            held_out, error = row["train_flops"] > 1e18, predicted / row["loss"] - 1
            points.append(
                {"law": law, "measured": row["loss"], "predicted": predicted, "low": predicted - 0.05,
                 "high": predicted + 0.05, "held_out": held_out, "label": row["label"], "kind": row["kind"]}
            )  # fmt: skip
            residuals += [
                {"variable": name, "x": row[name], "error_rel": error, "law": law, "label": row["label"]}
                for name in ("params_active", "tokens", "n_experts")
            ]
    for row in rows[:60]:
        curves += [
            {"run": row["run"], "label": row["label"], "kind": row["kind"], "tokens": row["tokens"] * share,
             "loss": row["loss"] * share**-0.05}
            for share in (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
        ]  # fmt: skip
    columns = ["run", "parameters", "active", "tokens", "FLOPs", "loss", "bits/byte", "tokens/s"]
    names = ["label", "params_total", "params_active", "tokens", "train_flops", "loss", "bits", "speed"]
    routing = [[row["label"], *(chance.random() for _ in range(5))] for row in rows]
    page = Page(
        title="A study of 2,000 runs",
        answer=["Train the MoE model.", "It is ahead of dense by 0.1 nats.", "This is a synthetic table."],
        facts=[Fact("Runs", f"{len(rows):,}", "synthetic")],
        sections=[
            Section("The runs", figures=[Figure(figures.loss_by_size(rows), "Loss against size and tokens.")],
                    tables=[Table(columns, [[row[name] for name in names] for row in rows])]),
            Section("Laws", figures=[Figure(figures.predicted_measured(points), "Predicted against measured."),
                                     Figure(figures.residuals(residuals), "Residuals by variable.")]),
            Section("Learning curves and routing", figures=[Figure(figures.learning_curves(curves), "60 runs.")],
                    tables=[Table(["run", "violation", "idle", "load cv", "dropped", "near ties"], routing)]),
        ],
    )  # fmt: skip
    write_page(page, path)


WATCH = """
window.seen = {};
const marks = { tables: "table.prepared", first_figure: ":is(.chart canvas, .chart svg):not([style*=hidden] *)" };
new MutationObserver(() => {
  for (const [name, wanted] of Object.entries(marks))
    if (!(name in window.seen) && document.querySelector(wanted)) window.seen[name] = performance.now() / 1000;
}).observe(document, { childList: true, subtree: true, attributes: true });
"""


def opened(browser: Any, path: Path) -> dict[str, float]:
    """Seconds until parts of the page stand, and its processor seconds until all figures do."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.add_init_script(WATCH)
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    page.goto(path.as_uri(), wait_until="commit")
    page.wait_for_function("window.seen.first_figure")
    cpu = metrics(session)["TaskDuration"]
    paint = "performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000"
    found = {"text_s": page.evaluate(paint)}
    found |= {f"{name}_s": seconds for name, seconds in page.evaluate("window.seen").items()}
    found["first_figure_cpu_s"] = cpu
    count = "[...document.querySelectorAll('.chart')].filter((node) => node.querySelector('svg, canvas')).length"
    page.wait_for_function(f"{count} === document.querySelectorAll('.chart').length")
    page.wait_for_timeout(1500)
    found |= {f"all_figures_{name}_s": value for name, value in metrics(session).items()}
    page.close()
    return {name: round(value, 3) for name, value in found.items()}


def metrics(session: Any) -> dict[str, float]:
    """Processor seconds of the page's main thread by kind."""
    found = {each["name"]: each["value"] for each in session.send("Performance.getMetrics")["metrics"]}
    return {name: found[name] for name in METRICS}


def main() -> None:
    """Write, open, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000)
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder) / "report.html"
        begun = time.process_time()
        report(runs(given.runs), path)
        print(json.dumps({"written_cpu_s": round(time.process_time() - begun, 2), "bytes": path.stat().st_size}))
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for _ in range(given.repeat):
            print(json.dumps(opened(browser, path)), flush=True)
        browser.close()


if __name__ == "__main__":
    main()
