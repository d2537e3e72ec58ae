"""From a prompt to certified images to a classifier, with real servers and a real browser."""

import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from playwright.sync_api import Browser

from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.train import classify
from inandout.stages.config import FinetuneConfig
from inandout.stages.finetune import finetune
from inandout.stages.pools.augment import augment
from inandout.stages.pools.config import AugmentConfig
from inandout.tracking.runs import artifact_folder
from tests.conftest import SIDE, start
from tests.review.browsing import enter, needs_chromium, press, until
from tests.stages.test_finetune import QUICK

pytestmark = [pytest.mark.slow, needs_chromium, pytest.mark.usefixtures("no_page_breaks", "no_server_stays")]


SERVERS: list["subprocess.Popen[str]"] = []


@pytest.fixture
def no_server_stays() -> Iterator[None]:
    yield
    for server in SERVERS:
        server.kill()
        server.communicate()
    SERVERS.clear()


def open_server(*options: str) -> "tuple[subprocess.Popen[str], str]":
    server = start("review", *options)
    SERVERS.append(server)
    assert server.stdout is not None
    line = server.stdout.readline()
    found = re.search(r"http://\S+", line)
    assert found is not None, line
    return server, found.group()


def close_server(server: "subprocess.Popen[str]") -> str:
    server.send_signal(signal.SIGINT)
    _, errors = server.communicate(timeout=120)
    assert server.returncode == 0
    return errors


def test_from_prompt_to_certified_pool_to_classifier(
    tiny: Path, tiny_base: Path, project: Path, browser: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = finetune(FinetuneConfig.from_flat(**{"data": str(tiny), "base": str(tiny_base)} | QUICK)).adapter
    drawn = {
        "data": str(tiny), "base": str(tiny_base), "adapter": str(adapter), "shot": "zero", "width": SIDE,
        "height": SIDE, "steps": 2, "guidance": 2, "scheduler": "dpm++", "alpha": 0.5,
    }  # fmt: skip

    server, address = open_server("--port=0", *(f"--{key}={value}" for key, value in drawn.items()))
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.goto(address)
    page.wait_for_selector("#request")
    page.fill("#prompt-a", "a 'deep' <b>crack</b>")
    page.fill("#number", "2")
    page.keyboard.press("Enter")
    until(page, "document.querySelectorAll('#attempts img').length === 2")
    assert page.locator("#prompt-lab-beside img").count() > 4, "real reference images"
    page.locator("#attempts .line button").first.click()
    page.wait_for_selector("#chosen code")
    option = page.text_content("#chosen code") or ""
    assert option in close_server(server)
    page.close()

    prompts = shlex.split(option)[1]
    pool = augment(AugmentConfig.from_flat(source="ddpm", n_aug=4, prompts=prompts, **drawn))

    server, address = open_server("--pool", pool.run_id, "--port=0")
    anna = enter(browser, address, "Anna")
    press(anna, "k", "r")
    anna.wait_for_selector("text=2 of 4 decided by you")
    anna.reload()
    anna.wait_for_selector("text=2 of 4 decided by you")
    server.kill()
    server.communicate()
    press(anna, "n", "k")
    anna.wait_for_selector("#trouble:has-text('nothing is saved now')")
    server, _ = open_server("--pool", pool.run_id, f"--port={address.rsplit(':', 1)[1].strip('/')}")
    anna.wait_for_selector("#trouble", state="hidden")
    press(anna, "k", "k")
    anna.wait_for_selector("text=all 4 decided: press Finish")
    ben = enter(browser, address, "Ben")
    press(ben, "k", "k", "k", "u")
    ben.wait_for_selector("text=Anna and Ben agree on 2 of 4")
    ben.click("#finish")
    ben.wait_for_selector("#finish-dialog[open]")
    assert "2 kept, 0 rejected, 2 unsure of 4" in (ben.text_content("#finish-text") or "")
    close_server(server)

    monkeypatch.setattr("inandout.stages.classify.train._log_model", lambda model, pixels: None)
    mixed = {"ddpm_pool": pool.run_id, "ddpm_ratio": 1.0, "n_aug": 2, "reviewed": True, "epochs": 1}
    run = mlflow.get_run(
        classify(ClassifyConfig.from_flat(data=str(tiny), shot="zero", width=SIDE, height=SIDE, **mixed)).run_id
    )  # fmt: skip
    assert (run.data.params["ddpm_pool_decided"], run.data.params["ddpm_pool_kept"]) == ("4", "2")
    assert run.data.tags["inandout.reviewers_ddpm_pool"] == "Anna, Ben"
    summary = mlflow.artifacts.load_dict(artifact_folder(run.info.run_id, "review_ddpm_pool.json").as_uri())
    assert [(share["prompt"], share["accepted"]) for share in summary["prompts"]] == [("a 'deep' <b>crack</b>", 0.5)]
