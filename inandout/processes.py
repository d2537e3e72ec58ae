"""Process identifiers that stay unique after a PID is reused, and a check for dead processes."""

import json
import math
import os
import socket
from pathlib import Path

import psutil

_INITIAL_NAMESPACE = "pid:[4026531836]"
"""PID namespace of processes outside containers, the same after every start of a machine."""


def this_process() -> str:
    """Return machine, start of the machine, PID namespace, PID and start of this process as JSON.

    A PID alone can be reused. Containers may share a host name, and have PIDs of their own. The start is counted in
    clock ticks since the start of the machine where the system tells it, because the wall clock may be set.
    """
    return json.dumps([*_machine(), os.getpid(), _started(os.getpid())])


def is_dead(name: str) -> bool:
    """Return whether the process named by `this_process` has ended; False if that cannot be known from here.

    Processes of other machines and containers, and names in any other form, cannot be known. Zombie processes count as
    dead.
    """
    try:
        host, machine, boot, namespace, pid, started = json.loads(name)
    except (ValueError, TypeError, RecursionError):
        return False
    here = _machine()
    if [host, machine, namespace] != [here[0], here[1], here[3]] or type(pid) is not int or pid <= 0:
        return False
    if boot != here[2]:
        return bool(machine) and namespace == _INITIAL_NAMESPACE
    try:
        process = psutil.Process(pid)
        return _started(pid) != started or process.status() == psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
        return True
    except (psutil.Error, OSError, OverflowError):
        return False


def allowed_cores() -> int:
    """Return the number of processor cores that this process may use, by its affinity and the quota of its cgroup."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _read("/sys/fs/cgroup/cpu.max").partition(" ")
    if quota.isdecimal() and period.isdecimal() and int(period) > 0:
        cores = min(cores, math.ceil(int(quota) / int(period)))
    return max(cores, 1)


def _machine() -> list[str]:
    """Return host name, machine id, boot id and PID namespace; "" for what the system does not tell."""
    return [
        socket.gethostname(), _read("/etc/machine-id"), _read("/proc/sys/kernel/random/boot_id"), _namespace(),
    ]  # fmt: skip


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started(pid: int) -> float:
    """Return the start of a process: clock ticks since the start of the machine, or seconds where they are unknown."""
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        return int(stat.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19])
    return psutil.Process(pid).create_time()
