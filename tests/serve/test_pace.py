"""Blocks begin as late as they can: a page in simulated time settles, whatever the model and the network take."""

import pytest

from relic_jax.serve.pace import SPARE, Pace


def play(making, trip, blocks=120, hiccups=()):
    """A page that shows blocks of a second, on a server that makes one in `making(i)` seconds, `trip` there and back.

    Returns:
      For each block: the seconds that it waited at the page (negative: the page for it), and those from its beginning
      to its first frame.
    """
    pace, now, over, free = Pace(1.0), 0.0, 0.0, 0.0
    results = []
    for i in range(blocks):
        begin = max(now + pace.wait(now), free)
        pace.begun()
        free = begin + making + (0.5 if i in hiccups else 0)
        arrives = max(free, now) + trip / 2
        pace.sent(max(free, now))
        early = over - arrives if i else None
        shown = max(arrives, over) if i else arrives
        over = shown + 1.0
        heard = shown + trip / 2
        pace.shown(heard, early)
        now = heard
        results.append((early, shown - begin))
    return results


@pytest.mark.parametrize(("making", "trip"), [(0.05, 0.002), (0.3, 0.002), (0.3, 0.2), (0.6, 0.08)])
def test_a_block_waits_a_little_and_no_more(making, trip):
    settled = play(making, trip)[60:]
    assert all(0.5 * SPARE < early < 1.5 * SPARE for early, _ in settled)
    assert all(delay < making + trip + 1.6 * SPARE for _, delay in settled)


def test_what_was_late_once_is_begun_earlier_for_a_while():
    results = play(0.3, 0.01, hiccups=[60])
    assert results[60][0] < 0, "half a second more than ever can't be foreseen"
    assert all(early > 0 for early, _ in results[61:])
    assert results[61][0] > 3 * SPARE > results[119][0], "the lead is taken back little by little"


def test_a_server_that_is_slower_than_time_never_rests():
    """Making takes longer than showing: the next begins as soon as the one before is sent."""
    pace = Pace(1.0)
    pace.begun()
    pace.sent(1.5)
    assert pace.wait(1.5) == 0
    pace.begun()
    pace.shown(1.6, None)
    pace.shown(3.1, -0.5)
    assert pace.lead == 1.0


def test_the_page_has_the_word_when_there_is_time():
    pace = Pace(1.0)
    for _ in range(5):
        pace.shown(0.0, 0.8)
    pace.begun()
    pace.sent(0.2)
    assert pace.wait(0.2) is None
    pace.shown(0.3, 0.3)
    assert 0 < pace.wait(0.3) < 1
