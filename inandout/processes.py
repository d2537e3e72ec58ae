"""Processes by name: who works on something, and whether they still live."""

import json
import os
import socket

import psutil


def this_process() -> str:
    """Machine, number and start of this process, as JSON; a number alone can be given to another process."""
    return json.dumps([socket.gethostname(), os.getpid(), psutil.Process().create_time()])


def is_dead(process: str) -> bool:
    """Whether a process, as `this_process` names it, was on this machine and is gone; of "" nothing is known."""
    if not process:
        return False
    host, pid, started = json.loads(process)
    if host != socket.gethostname():
        return False
    try:
        return bool(abs(psutil.Process(pid).create_time() - started) > 1)
    except psutil.NoSuchProcess:
        return True
