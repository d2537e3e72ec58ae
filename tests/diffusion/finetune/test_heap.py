import os
import platform
import subprocess
import sys

import pytest

PAGES = """
import ctypes, resource
from inandout.diffusion.finetune.heap import keep_freed_memory

{call}
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.memset.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
for step in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(1 << 23) for _ in range(20)]
    for block in blocks:
        libc.memset(block, 1, 1 << 23)
    for block in blocks:
        libc.free(block)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_of_a_step(call: str) -> int:
    """That a process has to ask for to hold the 160 MB that it held in the steps before.

    It begins with glibc's defaults as fixed thresholds, as otherwise glibc finds others by itself, by chance good ones.
    """
    command = [sys.executable, "-c", PAGES.format(call=call)]
    thresholds = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    process = subprocess.run(command, capture_output=True, check=True, env=os.environ | thresholds)
    return int(process.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_what_was_freed_is_not_asked_for_again() -> None:
    assert pages_of_a_step("") > 20  # of 2 MB where the system has such pages, else of 4 KB
    assert pages_of_a_step("keep_freed_memory()") < 10
