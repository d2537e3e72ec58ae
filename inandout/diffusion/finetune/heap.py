"""Memory that one step of a training frees and the next one takes again."""

import ctypes
import platform

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of these options in glibc's malloc.h."""


def keep_freed_memory() -> None:
    """From now on this process keeps what it frees, but for blocks of more than 32 MB.

    glibc gives the free end of its memory back to the system, which has to clear every page of it when it is asked for
    again, in every step. Other C libraries go on as they are.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)
        libc.mallopt(_TRIM_THRESHOLD, (1 << 31) - 1)
