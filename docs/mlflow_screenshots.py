"""Take screenshots of the MLflow UI for the documentation: a comparison of runs, and the trials of a search.

python docs/mlflow_screenshots.py --store sqlite:////path/to/mlflow.db     # needs Chromium and the extra `dev`
"""

import argparse
import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

import mlflow
import requests
from playwright.sync_api import Page, sync_playwright

HERE = Path(__file__).parent
PARENT = "mlflow.parentRunId"
COLUMNS = [
    *(f"params.`{name}`" for name in ("shot", "n_aug", "seed")),
    *(f"metrics.`{name}`" for name in ("ap", "precision", "recall")),
]
SETTLING = 4000
"""Milliseconds that the UI needs to draw its charts."""


def options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--store", required=True, help="tracking store with finished runs of classify and of a search")
    parser.add_argument("--experiment", default="inandout", help="experiment of the runs (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder for the two images (default: docs)")
    return parser.parse_args()


@contextmanager
def mlflow_ui(store: str) -> Iterator[str]:
    """Run `mlflow ui` and yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", store, "--host", "127.0.0.1"]
    server = subprocess.Popen([*command, "--port", str(port), "--workers", "1"])
    try:
        yield _answering(f"http://127.0.0.1:{port}", server)
    finally:
        server.terminate()
        server.wait()


def _answering(address: str, server: "subprocess.Popen[bytes]") -> str:
    while server.poll() is None:
        try:
            requests.get(f"{address}/health", timeout=5)
            return address
        except (requests.ConnectionError, requests.Timeout):  # still starting
            time.sleep(0.5)
    raise SystemExit("mlflow ui exited before it answered; see its message above")


def compare(page: Page, address: str, experiment: str) -> None:
    """Open the table of `classify` runs, sorted by decreasing average precision."""
    query = {
        "workflowType": "machine_learning",
        "searchFilter": "tags.`inandout.stage` = 'classify' and attributes.status = 'FINISHED'",
        "orderByKey": "metrics.`ap`",
        "orderByAsc": "false",
    }
    page.goto(f"{address}/#/experiments/{experiment}/runs?{urlencode(query, quote_via=quote)}")
    page.get_by_role("button", name="Toggle sidebar").click()
    page.get_by_role("link", name="n_aug=").first.wait_for()


def study(page: Page, address: str, experiment: str) -> None:
    """Open the parallel coordinates of parameters and validation AP of the trials of the newest search."""
    wanted = "tags.`inandout.stage` = 'trial' and attributes.status = 'FINISHED'"
    trials = mlflow.MlflowClient(address).search_runs([experiment], wanted)
    if not trials:
        raise SystemExit("no finished trial in this experiment; run `python -m inandout search` first")
    newest = [run for run in trials if run.data.tags[PARENT] == trials[0].data.tags[PARENT]]
    query = {"runs": json.dumps([run.info.run_id for run in newest]), "experiments": json.dumps([experiment])}
    page.goto(f"{address}/#/compare-runs?{urlencode(query, quote_via=quote)}")
    page.get_by_role("button", name="Clear All").click()
    for box, name in ((0, "alpha"), (0, "ddpm_ratio"), (1, "val_ap")):
        page.get_by_role("combobox").nth(box).click()
        page.keyboard.type(name)
        page.keyboard.press("Enter")
        page.keyboard.press("Escape")
    page.locator(".js-plotly-plot").first.wait_for()


def take_screenshot(page: Page, path: Path) -> None:
    """Save a JPEG after the page has settled."""
    page.wait_for_timeout(SETTLING)
    page.screenshot(path=path, type="jpeg", quality=85)
    print(f"{path}: {path.stat().st_size // 1000} kB")


def main() -> None:
    """Take both screenshots."""
    given = options()
    with mlflow_ui(given.store) as address, sync_playwright() as playwright:
        experiment = mlflow.MlflowClient(address).get_experiment_by_name(given.experiment)
        if experiment is None:
            raise SystemExit(f"no experiment {given.experiment!r} in {given.store}")
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name, open_page, height in (("ui_compare", compare, 480), ("ui_study", study, 600)):
            page = browser.new_page(viewport={"width": 1280, "height": height})
            page.set_default_timeout(120_000)
            page.add_init_script(_local_storage(experiment.experiment_id))
            open_page(page, address, experiment.experiment_id)
            take_screenshot(page, given.out / f"{name}.jpg")
        browser.close()


def _local_storage(experiment: str) -> str:
    """Return a script that stores the selected columns and the closed assistant, as the UI does in the browser."""
    columns = json.dumps({"selectedColumns": COLUMNS})
    items = {
        f'MLflowLocalStorage-1.1-ExperimentPage-["{experiment}"]-ReactComponentState': columns,
        "mlflow.assistant.fab.autoOpenedOnFirstLoad_v1": "true",
    }
    return "".join(f"localStorage.setItem({json.dumps(key)}, {json.dumps(value)});" for key, value in items.items())


if __name__ == "__main__":
    main()
