import platform
import subprocess
import sys

import pytest

PAGES = """
import resource, torch
from inandout.diffusion.heap import keep_freed_memory

{call}
for step in range(6):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(1 << 21) for _ in range(20)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def pages_of_a_step(call: str) -> int:
    """That a process has to ask for to hold the 160 MB that it held in the steps before."""
    command = [sys.executable, "-c", PAGES.format(call=call)]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_what_was_freed_is_not_asked_for_again() -> None:
    assert pages_of_a_step("") > 1000
    assert pages_of_a_step("keep_freed_memory()") < 10
