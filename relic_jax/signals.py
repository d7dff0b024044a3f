"""Ctrl-C and SIGTERM that wait for the end of what is at hand: a step, a block."""

from __future__ import annotations

import signal


class Interruption:
    """While it is entered, SIGTERM and SIGINT only set `signal`; a second one acts as it always does."""

    signal: int = 0

    def __enter__(self) -> Interruption:
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        self.signal = number
        self.__exit__()
