"""Counters that Prometheus reads at /metrics."""

from __future__ import annotations

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 1.5, 2, 4, 8)


class Metrics:
    """Of one server."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"relic_{name}", text, labels, registry=self._registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"relic_{name}", text, registry=self._registry)

        self.blocks = counter("blocks", "Blocks made")
        self.dropped = counter("dropped_blocks", "Blocks made and never sent, for a reset or a branch")
        self.late = counter("late_blocks", "Blocks that a page stood still for")
        self.stalled = counter("stall_seconds", "Seconds that pages stood still")
        self.closed = counter("closed", "Connections that the server ended", "code")
        self.playing = gauge("sessions", "Users who play")
        self.waiting = gauge("waiting", "Users in the queue")
        self.queued = gauge("queued_blocks", "Blocks asked for and not begun")
        self.ready = gauge("ready", "1 when the model is warm")
        self.block_seconds = Histogram(
            "relic_block_seconds",
            "Seconds of a step, by the number of its sessions",
            ["sessions"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        memory = gauge("process_resident_bytes", "Memory of the server's process")
        memory.set_function(resident_bytes)

    def text(self) -> bytes:
        """As Prometheus reads it."""
        return generate_latest(self._registry)


def resident_bytes(process: int | None = None) -> int:
    """Memory of a process, by default this one; 0 where the system doesn't say."""
    try:
        pages = int(Path(f"/proc/{process or 'self'}/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
