"""Libraries of the extra ``bulk``."""

from __future__ import annotations

from typing import Any

from unitvec.errors import UnitvecError


def pyarrow(what: str) -> Any:
    """The library, for files of a kind.

    Raises:
        UnitvecError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError:
        raise UnitvecError(f"{what} files need pyarrow: pip install 'unitvec[bulk]'") from None
    return pyarrow
