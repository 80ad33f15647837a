"""Bytes, rows and memory as a person writes them."""

from __future__ import annotations

import psutil


def show_size(n_bytes: float) -> str:
    """Bytes as a person writes them."""
    size, units = float(n_bytes), ["B", "KiB", "MiB", "GiB", "TiB", "PiB"]
    while size >= 1024 and len(units) > 1:
        size, units = size / 1024, units[1:]
    return f"{size:.0f} {units[0]}" if units[0] == "B" else f"{size:.1f} {units[0]}"


def show_amount(amount: float, unit: str) -> str:
    """An amount of something as a person writes it."""
    return show_size(amount) if unit == "bytes" else f"{amount:,.0f} {unit}"


def show_done(done: float, total: float, unit: str) -> str:
    """How much of all is done; `total` is 0 as long as nobody knows it."""
    return f"{show_amount(done, unit)} of {show_amount(total, unit)}" if total else show_amount(done, unit)


def resident_bytes() -> int:
    """Memory that this process holds."""
    return int(psutil.Process().memory_info().rss)
