"""Find out that a run hangs, and which rank is the cause."""

from collections.abc import Sequence
from dataclasses import dataclass

from vadv_dist.training.pulse import Beat


@dataclass(frozen=True)
class Heard:
    """What is known of one rank.

    Attributes:
        rank: the rank.
        place: its process and machine, for messages.
        beat: its last answer; None before the first.
        silent_s: seconds since the oldest question that it has not answered; 0 if it has answered all.
    """

    rank: int
    place: str
    beat: Beat | None
    silent_s: float


@dataclass(frozen=True)
class Hang:
    """A run that hangs.

    Attributes:
        ranks: the ranks that cause it, as far as one can tell.
        text: a sentence that names them.
    """

    ranks: tuple[int, ...]
    text: str


def find_hang(heard: Sequence[Heard], timeout_s: float) -> Hang | None:
    """Whether a run hangs.

    It does if a rank does not answer although it has answered before, or if all ranks answer and none has made
    progress: a rank that only waits for another one stands still too, but one that waits for data or writes a
    checkpoint does not count as standing still, and the others wait for it.

    Args:
        heard: all ranks.
        timeout_s: seconds after which silence or standstill is a hang.
    """
    silent = [one for one in heard if one.silent_s > timeout_s and one.beat is not None]
    if silent:
        return Hang(tuple(one.rank for one in silent), "; ".join(_silence(one) for one in silent))
    beats = [one.beat for one in heard if one.beat is not None]
    if len(beats) < len(heard) or any(one.silent_s > timeout_s for one in heard):
        return None  # a rank is still starting
    still_s = min((beat.still_s for beat in beats), default=0.0)
    if still_s <= timeout_s:
        return None
    behind = min(beat.step for beat in beats)
    if all(beat.step == behind for beat in beats):
        ranks = "The only rank has" if len(beats) == 1 else f"All {len(beats)} ranks have"
        text = f"{ranks} stood still at step {behind} for {still_s:.0f} s"
        return Hang(tuple(one.rank for one in heard), text)
    late = [one for one in heard if one.beat is not None and one.beat.step == behind]
    named = ", ".join(f"rank {one.rank} ({one.place})" for one in late)
    ahead = max(beat.step for beat in beats)
    return Hang(
        tuple(one.rank for one in late),
        f"{named} has stood still at step {behind} for {still_s:.0f} s, while others are at step {ahead}",
    )


def _silence(one: Heard) -> str:
    assert one.beat is not None
    return (
        f"rank {one.rank} ({one.place}) has not answered for {one.silent_s:.0f} s; it was {one.beat.doing} "
        f"after step {one.beat.step}"
    )
