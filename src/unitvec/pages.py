"""Gives memory back to the system."""

from __future__ import annotations

import ctypes
import gc
import mmap
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt

_MADV_DONTNEED = 4


def release(arrays: Iterable[npt.NDArray[np.generic]]) -> bool:
    """Give the pages of arrays back; what they held is zeros from then on, or read anew from the file they map.

    Returns:
        Whether this system can.
    """
    if sys.platform != "linux":
        return False
    library = ctypes.CDLL(None)
    for array in arrays:
        # Only whole pages: others' data may lie on the first and the last one.
        begin = -(-array.ctypes.data // mmap.PAGESIZE) * mmap.PAGESIZE
        end = (array.ctypes.data + array.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
        if end > begin:
            library.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)
    return True


def resident() -> int:
    """Bytes of this process that are in memory and in no file; 0 where the system does not tell."""
    try:
        fields = Path("/proc/self/statm").read_text().split()
    except OSError:
        return 0
    return (int(fields[1]) - int(fields[2])) * mmap.PAGESIZE


def collect() -> None:
    """Free what is unreachable, and give it back."""
    gc.collect()
    trim()


def trim() -> None:
    """Give back what the C library keeps of memory that was freed."""
    if sys.platform == "linux" and hasattr(library := ctypes.CDLL(None), "malloc_trim"):
        library.malloc_trim(0)
