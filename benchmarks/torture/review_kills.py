"""Kill the review server while a client posts decisions; none that it acknowledged may be lost."""

import json
import random
import socket
import threading
import time
from pathlib import Path

import requests

from benchmarks.torture.forked import Command
from benchmarks.torture.outcome import Outcome
from benchmarks.torture.project import restore, run_ids


def kill_review(count: int, seed: int, template: Path, project: Path) -> Outcome:
    """Kill the server `count` times on the same review, and read its decisions after each."""
    outcome = Outcome("kill review")
    if not count:
        return outcome
    restore(template, project)
    rng, acknowledged = random.Random(seed), list[tuple[str, str]]()
    for attempt in range(count):
        server, address = _start(project)
        if not address:
            outcome.count(f"start {attempt}", lost=f"the server does not start: {server.kill().message[-800:]}")
            continue
        killer = threading.Timer(rng.uniform(0.02, 0.5), server.kill)
        killer.start()
        acknowledged += _post_until_killed(address, f"reviewer {attempt}", rng)
        killer.join()
        missing = set(acknowledged) - _stored(project)
        outcome.count(f"kill {attempt}", lost=f"{len(missing)} of {len(acknowledged)} decisions" if missing else "")
    outcome.remark = f"{len(acknowledged)} decisions acknowledged"
    return outcome


def _start(project: Path) -> tuple[Command, str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Command(project, ["review", "--pool", run_ids(project, "augment")[0], "--port", str(port)])
    for _ in range(600):
        try:
            requests.get(f"http://127.0.0.1:{port}/api/session", timeout=5).raise_for_status()
            return server, f"http://127.0.0.1:{port}"
        except requests.RequestException:
            time.sleep(0.05)
    return server, ""


def _post_until_killed(address: str, reviewer: str, rng: random.Random) -> list[tuple[str, str]]:
    """Post decisions of one reviewer, and return those that the server acknowledged."""
    made: list[tuple[str, str]] = []
    seen: dict[str, int] = {}
    with requests.Session() as client:
        try:
            images = [each["id"] for each in client.get(f"{address}/api/session", timeout=5).json()["images"]]
            while True:
                image = rng.choice(images)
                body = {
                    "image": image, "decision": rng.choice(["keep", "reject", "unsure"]), "reviewer": reviewer,
                    "seen": seen.get(image, 0), "reason": "",
                }  # fmt: skip
                answer = client.post(
                    f"{address}/api/decisions", json=body, headers={"origin": address}, timeout=5
                )  # fmt: skip
                if answer.status_code == 201:
                    seen[image] = seen.get(image, 0) + 1
                    made.append((f"{reviewer} {image} {seen[image]}", body["decision"]))
        except (requests.RequestException, ValueError):
            return made


def _stored(project: Path) -> set[tuple[str, str]]:
    """Return the decisions in the log, numbered by reviewer and image."""
    found: set[tuple[str, str]] = set()
    numbers: dict[str, int] = {}
    for path in (project / ".inandout" / "review").glob("*/decisions.jsonl"):
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:
                continue  # half a line, never acknowledged
            key = f"{entry['reviewer']} {entry['image']}"
            numbers[key] = numbers.get(key, 0) + 1
            found.add((f"{key} {numbers[key]}", entry["decision"]))
    return found
