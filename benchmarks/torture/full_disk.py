"""Run stages that write on a disk that is too small, enlarge the disk, and run it again.

    unshare --user --map-root-user --mount python -m benchmarks.torture.full_disk --count 10

The disk is a tmpfs in a mount namespace of this process, so that a normal user can make it on Linux.
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.torture.forked import run, warm_up
from benchmarks.torture.outcome import Outcome, unclear

NAMES = ["surfaces", "check", "augment memseg", "finetune", "augment ddpm", "augment inpaint", "classify", "promote"]
LARGE = 4 * 2**20
"""KiB of a disk that is large enough."""
UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
"""Command that runs another one where it may mount a tmpfs."""


def can_mount() -> bool:
    """Return whether this user may mount a tmpfs in a namespace."""
    if shutil.which("unshare") is None:
        return False
    with tempfile.TemporaryDirectory() as folder:
        mounted = subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", folder], capture_output=True, check=False)
    return mounted.returncode == 0


def fill_disks(count: int, seed: int) -> Outcome:
    """Run `count` attempts in a mount namespace."""
    if not count or not can_mount():
        return Outcome("full disk", remark="" if not count else "not tried: this system allows no user namespaces")
    command = [sys.executable, "-m", "benchmarks.torture.full_disk", "--count", str(count), "--seed", str(seed)]
    done = subprocess.run([*UNSHARE, *command], stdout=subprocess.PIPE, check=True)
    return Outcome(**json.loads(done.stdout))


def _fill(count: int, seed: int, disk: Path) -> Outcome:
    from benchmarks.torture.kills import STAGES
    from benchmarks.torture.project import differences, make_template, restore, snapshot

    outcome, rng = Outcome("full disk"), random.Random(seed)
    template, project, temporary = disk.with_name("template"), disk / "project", disk / "tmp"
    _mount(disk, LARGE, "")
    temporary.mkdir()
    shutil.rmtree(template, ignore_errors=True)
    made = disk / "made"
    make_template(made, project)
    shutil.move(made, template)

    def prepare() -> None:
        tempfile.tempdir = str(temporary)

    for number, name in enumerate(NAMES[:count]):
        restore(template, project)
        before = _used(disk)
        ended = run(project, STAGES[name](project), prepare)
        assert ended.code == 0, ended.message
        wanted, needed = snapshot(project), _used(disk) - before
        restore(template, project)
        run(project, STAGES[name](project), prepare)
        volatile = set(differences(wanted, snapshot(project)))
        for _ in range(len(range(number, count, len(NAMES)))):
            restore(template, project)
            free = rng.randint(0, int(needed * 1.3))
            _mount(disk, (_used(disk) + free) // 1024 + 1, "remount,")
            small = run(project, STAGES[name](project), prepare)
            _mount(disk, LARGE, "remount,")
            what = f"{name}, {free // 1024} of {needed // 1024} KiB free, code {small.code}"
            problem = "" if small.code == 0 else unclear(small.message)
            if small.code not in (0, 2):
                problem = f"code {small.code}: {small.message[-1000:]}"
            left_open = snapshot(project).get("runs left open", "(0,)")
            again = run(project, STAGES[name](project), prepare) if small.code else small
            changed = sorted(set(differences(wanted, snapshot(project))) - volatile)
            lost = f"differs: {changed[:8]} after {small.message[-300:]}" if changed else ""
            if again.code:
                lost = f"then code {again.code}: {again.message[-1000:]} after {small.message[-300:]}"
            if left_open != "(0,)":
                problem = f"{left_open} runs left RUNNING after {small.message[-300:]}"
            outcome.count(what, lost=lost, unclear=problem)
            for path in temporary.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    return outcome


def _mount(disk: Path, kibibytes: int, remount: str) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"{remount}size={kibibytes}k", "tmpfs", str(disk)], check=True)


def _used(disk: Path) -> int:
    info = os.statvfs(disk)
    return (info.f_blocks - info.f_bfree) * info.f_frsize


def main() -> None:
    """Print the outcome as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=len(NAMES))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    warm_up()
    with tempfile.TemporaryDirectory() as folder:
        disk = Path(folder) / "disk"
        disk.mkdir()
        try:
            outcome = _fill(options.count, options.seed, disk)
        finally:
            subprocess.run(["umount", str(disk)], check=False)
    print(json.dumps(vars(outcome)))


if __name__ == "__main__":
    main()
