"""What a measurement ran on."""

from __future__ import annotations

import os
import platform
from typing import Any

from unitvec import config


def describe() -> dict[str, Any]:
    """Cores, processor, operating system, Python, and how busy the machine was just before."""
    return {
        "cores": config.available_cores(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            fields = dict(line.split(":", 1) for line in file.read().split("\n\n")[0].splitlines() if ":" in line)
    except OSError:
        return platform.processor()
    known = {key.strip(): value.strip() for key, value in fields.items()}
    wide = [flag for flag in ("avx2", "avx512f", "avx512_vnni", "amx_int8") if flag in known.get("flags", "").split()]
    return ", ".join([known.get("model name") or platform.machine(), *wide])
