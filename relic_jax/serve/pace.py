"""When a block is begun: as late as it can be and still be there when the page has shown the one before.

A block that is begun early waits at the page, and with it the keys that it applied. So the page says of each block
how long it had waited when its first frame was shown, and the server begins the next so that it waits `SPARE`. That
needs neither clocks that agree nor a guess at the network: what takes how long doesn't matter, only what came out.
"""

from __future__ import annotations

import math

SPARE = 0.1  # seconds that a block is to wait: a few frames of jitter
_GAIN = 0.25  # of what was too early; what was too late counts whole, for a picture that stands still is seen


class Pace:
    """Of one user. `lead` is how long before a block is needed it is begun."""

    def __init__(self, block_seconds: float):
        self._block = self.lead = block_seconds
        self.restart()

    def restart(self) -> None:
        """Nothing is on its way: the next block is wanted at once. What was learned of the way stays."""
        self._due: float | None = -math.inf

    def begun(self) -> None:
        """A block is being made; when the next is due, the page's word on an earlier one says (or `sent`)."""
        self._due = None

    def sent(self, now: float) -> None:
        """A block is on its way. Where making takes longer than showing, the next can't wait for the page's word."""
        if self.lead >= self._block:
            self._due = now

    def shown(self, now: float, early: float | None) -> None:
        """The page shows a block that had waited for `early` seconds; negative: it came too late."""
        if early is not None:
            wrong = early - SPARE
            self.lead -= wrong * (_GAIN if wrong > 0 else 1)
            self.lead = min(max(self.lead, 0.0), self._block)
        if self._due is None:
            self._due = now + self._block - self.lead

    def wait(self, now: float) -> float | None:
        """Seconds until a block is to be begun; 0 or less: now; None: the page's word has to come first."""
        return None if self._due is None else self._due - now
