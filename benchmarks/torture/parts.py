"""The parts of the torture test on one template."""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.torture.bad_requests import send_all
from benchmarks.torture.forked import apart, run
from benchmarks.torture.full_disk import fill_disks
from benchmarks.torture.hostile_files import read_hostile
from benchmarks.torture.kills import kill_stages
from benchmarks.torture.outcome import Outcome, table
from benchmarks.torture.project import make_template, restore, run_ids
from benchmarks.torture.review_kills import kill_review
from benchmarks.torture.server_memory import Server, measure_server
from benchmarks.torture.two_processes import run_twice


def run_parts(options: argparse.Namespace, folder: Path) -> list[Outcome]:
    """Run the parts with the numbers of attempts in `options`, and print each outcome when it is known."""
    outcomes = []
    for outcome in _each(options, folder):
        print("\n".join([table([outcome]).splitlines()[-1], *outcome.notes]), file=sys.stderr, flush=True)
        outcomes.append(outcome)
    return outcomes


def _each(options: argparse.Namespace, folder: Path) -> Iterator[Outcome]:
    template, project = folder / "template", folder / "project"
    only = [name for name in options.stages.split(",") if name]
    if options.files:
        found = apart(lambda: vars(read_hostile(options.files, options.seed, folder / "files")))
        assert found is not None
        yield Outcome(**found)
    if options.kills or options.pairs or options.requests:
        make_template(template, project)
    yield from kill_stages(options.kills - options.kills // 10, options.seed, template, project, only)
    yield kill_review(options.kills // 10, options.seed, template, project)
    yield run_twice(options.pairs, template, project, only)
    yield fill_disks(options.disks, options.seed)
    if options.requests:
        yield from _serve(options.requests, template, project)


def _serve(count: int, template: Path, project: Path) -> Iterator[Outcome]:
    restore(template, project)
    promoted = run(project, ["promote", "--run", run_ids(project, "classify")[0], "--points", "validation"])
    assert promoted.code == 0, promoted.message
    server = Server(project, "models:/inandout@champion")
    try:
        server.wait()
        yield send_all(count, server.send)
        yield measure_server(server, 1)
    finally:
        server.stop()
