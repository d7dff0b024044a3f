"""Progress bars of long work on files."""

from __future__ import annotations

from tqdm import tqdm


def progress(what: str, total: int, done: int = 0) -> tqdm:
    """A bar over so many bytes with the rate and the time left; `update` it with bytes."""
    return tqdm(total=total, initial=done, desc=what, unit="B", unit_scale=True, unit_divisor=1000)
