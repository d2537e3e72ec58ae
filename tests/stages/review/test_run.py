import json
import signal
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

import mlflow
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from pydantic import ValidationError

from inandout.data.manifest import Review, Sample, digests
from inandout.errors import InputError
from inandout.mixing import mix
from inandout.review.decisions import DecisionLog
from inandout.stages.classify.config import ClassifyConfig
from inandout.stages.classify.scores import Result
from inandout.stages.classify.train import classify
from inandout.stages.config import FinetuneConfig
from inandout.stages.finetune import finetune
from inandout.stages.pools.augment import augment
from inandout.stages.pools.config import AugmentConfig
from inandout.stages.pools.pool import Pool
from inandout.stages.review import run as stage
from inandout.stages.review.config import ReviewConfig
from inandout.stages.review.run import review
from inandout.tracking.runs import artifact_folder
from tests.conftest import SIDE, start
from tests.review.sessions import write_pool
from tests.stages.test_finetune import QUICK

pytestmark = pytest.mark.slow


def make(tiny: Path, n: int = 6) -> Pool:
    return augment(AugmentConfig.from_flat(data=str(tiny), n_aug=n, width=SIDE, height=SIDE))


def decide(pool: Pool, reviewer: str, *decisions: Review) -> None:
    """Run a review session in which `reviewer` decides on the first images."""

    def serve(*_: object) -> None:
        (folder,) = Path(".inandout/review").iterdir()
        log = DecisionLog(folder / "decisions.jsonl")
        images = digests([sample.image for sample in pool.samples])
        for image, decision in zip(images, decisions, strict=False):
            log.decide(image, decision, "", reviewer, 0)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stage, "serve", serve)
        review(ReviewConfig(pool=pool.run_id))


def runs_of(name: str) -> list[Any]:
    found = mlflow.search_runs(search_all_experiments=True, output_format="list")
    return [run for run in found if run.data.tags.get("inandout.stage") == name]


def test_a_review_is_a_run_linked_to_its_pool_with_decisions_as_artifact(tiny: Path, project: Path) -> None:
    pool = make(tiny)
    decide(pool, "Anna", "keep", "reject")
    (run,) = runs_of("review")
    assert run.info.status == "FINISHED"
    assert run.data.params["pool"] == pool.run_id
    assert (run.data.metrics["review_keep"], run.data.metrics["review_reject"]) == (1, 1)
    assert run.data.tags["inandout.reviewers"] == "Anna"
    lines = artifact_folder(run.info.run_id, "decisions.jsonl").read_text().splitlines()
    assert [json.loads(line)["decision"] for line in lines] == ["keep", "reject"]
    decide(pool, "Ben", "keep", "keep")
    newest = max(runs_of("review"), key=lambda run: run.info.start_time)
    summary = json.loads(artifact_folder(newest.info.run_id, "summary.json").read_text())
    assert summary["reviewers"] == {"Anna": 2, "Ben": 2}
    assert summary["together"] == {"keep": 1, "reject": 0, "unsure": 1}


def test_decisions_of_another_machine_are_loaded_when_the_page_opens(tiny: Path, project: Path) -> None:
    pool = make(tiny)
    decide(pool, "Anna", "keep", "reject")
    (folder,) = Path(".inandout/review").iterdir()
    for path in folder.iterdir():
        path.unlink()
    decide(pool, "Ben", "keep")
    assert [decision.reviewer for decision in DecisionLog(folder / "decisions.jsonl").read()] == ["Anna", "Anna", "Ben"]


def train(tiny: Path, pool: str, n_aug: int) -> Result:
    return classify(
        ClassifyConfig.from_flat(
            data=str(tiny), memseg_pool=pool, reviewed=True, n_aug=n_aug, width=SIDE, height=SIDE, epochs=1
        )
    )  # fmt: skip


def test_training_uses_kept_images_only_and_too_few_raise_an_error(
    tiny: Path, project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setattr("inandout.stages.classify.train._log_model", lambda model, pixels: None)
    pool = make(tiny)
    with pytest.raises(InputError, match=r"2 images are needed, but review kept 0 of 6.*6 undecided"):
        train(tiny, pool.run_id, 2)
    decide(pool, "Anna", "reject", "keep", "unsure", "keep", "keep")
    with pytest.raises(InputError, match=r"so 1 are missing \(1 rejected, 1 unsure, 1 undecided\)"):
        train(tiny, pool.run_id, 4)
    seen: list[str] = []

    def spied(real: list[Sample], memseg: list[Sample], *rest: Any) -> list[Sample]:
        seen.extend(sample.image.name for sample in memseg)
        return mix(real, memseg, *rest)

    monkeypatch.setattr("inandout.stages.classify.train.mix", spied)
    run = mlflow.get_run(train(tiny, pool.run_id, 2).run_id)
    assert seen == ["000001.png", "000003.png", "000004.png"]
    assert (run.data.params["memseg_pool_decided"], run.data.params["memseg_pool_kept"]) == ("5", "3")
    assert run.data.tags["inandout.reviewers_memseg_pool"] == "Anna"
    logged = json.loads(artifact_folder(run.info.run_id, "review_memseg_pool.json").read_text())
    assert logged["prompts"][0]["accepted"] == 0.6
    assert train(tiny, pool.run_id, 2).run_id == run.info.run_id
    decide(pool, "Ben", "keep", "reject")
    assert train(tiny, pool.run_id, 2).run_id != run.info.run_id, "decisions are part of the fingerprint"


def test_reviewed_without_a_pool_raises_an_error() -> None:
    with pytest.raises(ValidationError, match="needs ddpm_pool or memseg_pool"):
        ClassifyConfig.from_flat(reviewed=True)


def test_a_missing_pool_raises_an_error(project: Path) -> None:
    with pytest.raises(InputError, match="no-such-run"):
        review(ReviewConfig(pool="no-such-run"))


def test_the_prompt_lab_logs_attempts_and_chosen_prompts(
    tiny: Path, tiny_base: Path, project: Path
) -> None:  # fmt: skip
    adapter = finetune(FinetuneConfig.from_flat(**{"data": str(tiny), "base": str(tiny_base)} | QUICK)).adapter

    def try_it(app: FastAPI, *_: object) -> None:
        client = TestClient(app)
        start = client.get("/api/prompt-lab").json()["start"]
        assert (start["alpha"], start["prompts"]) == (0.5, ["a scratch"])
        client.post("/api/attempts", json=start | {"prompts": ["a scratch", "a crack"], "number": 2}).raise_for_status()
        deadline = time.monotonic() + 120
        while (attempt := client.get("/api/attempts").json()["attempts"][0])["state"] != "done":
            assert attempt["state"] != "failed", attempt
            assert time.monotonic() < deadline
            time.sleep(0.05)
        client.post("/api/prompts", json={"prompt": "a crack", "use": True}).raise_for_status()
        assert "--prompts 'a crack'" in client.post("/api/finish").json()["message"]

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(stage, "serve", try_it)
        review(
            ReviewConfig.from_flat(
                data=str(tiny), base=str(tiny_base), adapter=str(adapter), alpha=0.5, prompts="a scratch",
                shot="zero", width=SIDE, height=SIDE, steps=2, guidance=2, scheduler="dpm++",
            )
        )  # fmt: skip
    (run,) = runs_of("review")
    folder = artifact_folder(run.info.run_id, "prompt_lab")
    assert (folder / "prompts.txt").read_text() == "a crack\n"
    assert {path.name for path in (folder / "attempt-0001").iterdir()} == {
        "0-00.png", "0-01.png", "1-00.png", "1-01.png", "attempt.json"
    }  # fmt: skip


def ask(address: str, body: dict[str, object] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    parts = urllib.parse.urlsplit(address)
    headers = {"Content-Type": "application/json", "Origin": f"{parts.scheme}://{parts.netloc}"}
    request = urllib.request.Request(address, data, headers)
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.load(answer)


def test_a_killed_server_loses_no_decision_and_a_stopped_one_exits_cleanly(project: Path, tmp_path: Path) -> None:
    rows = write_pool(tmp_path / "pool", 3)
    images = digests([row.image for row in rows])
    for round_, stop in enumerate((signal.SIGKILL, signal.SIGINT)):
        server = start("review", "--pool", str(tmp_path / "pool"), "--port=0")
        assert server.stdout is not None
        line = server.stdout.readline()
        address = line.split()[2]
        assert address.startswith("http://127.0.0.1:"), line
        body = {"image": images[round_], "decision": "keep", "reviewer": "Anna", "seen": 0}
        assert ask(f"{address}api/decisions", body) == {"saved": True}
        server.send_signal(stop)
        server.communicate(timeout=60)
        assert server.returncode == (-signal.SIGKILL if stop == signal.SIGKILL else 0)
    runs = sorted(runs_of("review"), key=lambda run: run.info.start_time)
    assert [run.info.status for run in runs] == ["KILLED", "FINISHED"]
    assert len(artifact_folder(runs[1].info.run_id, "decisions.jsonl").read_text().splitlines()) == 2


def test_other_addresses_require_a_token_and_a_used_port_raises_an_error(project: Path, tmp_path: Path) -> None:
    write_pool(tmp_path / "pool", 2)
    server = start("review", "--pool", str(tmp_path / "pool"), "--port=0", "--host=0.0.0.0")
    assert server.stdout is not None
    address = server.stdout.readline().split()[2]
    assert "/?token=" in address
    port = address.split(":")[2].split("/")[0]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        ask(f"http://127.0.0.1:{port}/api/session")
    with pytest.raises(InputError, match=f"port = {port}: cannot listen"):
        review(ReviewConfig(pool=str(tmp_path / "pool"), port=int(port), host="0.0.0.0"))
    server.send_signal(signal.SIGTERM)
    server.communicate(timeout=60)
    assert server.returncode == 0
