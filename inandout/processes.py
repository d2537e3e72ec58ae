"""Processes by name: who works on something, and whether they still live."""

import json
import os
import socket

import psutil


def this_process() -> str:
    """Machine, number and start of this process, as JSON; a number alone can be given to another process."""
    return json.dumps([socket.gethostname(), os.getpid(), psutil.Process().create_time()])


def is_dead(name: str) -> bool:
    """Whether a process, as `this_process` names it, was on this machine and is gone; of "" nothing is known.

    One that has ended but whose parent has not asked how is gone, too.
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
