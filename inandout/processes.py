"""Process identifiers that stay unique after a PID is reused, and a check for dead processes."""

import json
import os
import socket

import psutil


def this_process() -> str:
    """Return host name, PID and start time of this process as JSON; a PID alone can be reused."""
    return json.dumps([socket.gethostname(), os.getpid(), psutil.Process().create_time()])


def is_dead(name: str) -> bool:
    """Return whether the process named by `this_process` ran on this machine and has ended; False for "".

    Zombie processes count as dead.
    """
    if not name:
        return False
    host, pid, started = json.loads(name)
    if host != socket.gethostname():
        return False
    try:
        process = psutil.Process(pid)
        return bool(abs(process.create_time() - started) > 1) or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
