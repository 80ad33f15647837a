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


def resident_bytes() -> int:
    """Memory that this process holds."""
    return int(psutil.Process().memory_info().rss)
