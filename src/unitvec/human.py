"""Numbers as people read them, and as Ollama writes them."""

from __future__ import annotations

from datetime import datetime, timedelta


def number(count: int) -> str:
    """22713216 as ``22.71M``: how parameters are counted."""
    for size, letter, digits in ((10**9, "B", 1), (10**6, "M", 2)):
        if count >= size:
            return f"{count // size}{letter}" if count % size == 0 else f"{count / size:.{digits}f}{letter}"
    return f"{count / 1000:.0f}K" if count >= 1000 else str(count)


def size(count: int) -> str:
    """45960996 bytes as ``45 MB``; one decimal below ten."""
    for unit, letters in ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "KB")):
        if count >= unit:
            value = count / unit
            return f"{int(value)} {letters}" if value >= 10 or count % unit == 0 else f"{value:.1f} {letters}"
    return f"{count} B"


def duration(span: timedelta) -> str:
    """About how long: ``18 seconds``, ``About a minute``, ``2 weeks``."""
    seconds = abs(span.total_seconds())
    minutes, hours = int(seconds // 60), round(seconds / 3600)
    if minutes < 1:
        count = int(seconds)
        return "Less than a second" if count < 1 else f"{count} second{'s' * (count > 1)}"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    days = hours // 24
    for limit, unit, name in ((14, 1, "days"), (60, 7, "weeks"), (730, 30, "months")):
        if days < limit:
            return f"{days // unit} {name}"
    return f"{days // 365} years"


def moment(when: datetime, now: datetime) -> str:
    """``4 minutes from now``, ``2 days ago``; ``Forever`` for what lies decades ahead."""
    span = when - now
    if span > timedelta(days=365 * 20):
        return "Forever"
    return f"{duration(span)} {'from now' if span > timedelta(0) else 'ago'}"
