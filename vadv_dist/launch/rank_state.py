"""What a Ray Train worker's process knows of its run outside of the training thread.

Ray Train's controller calls these functions in the actor's main thread, while another thread trains.
"""

from dataclasses import dataclass

from vadv_dist.launch.stacks import write_stacks_on_signal
from vadv_dist.training.pulse import Beat, Pulse


@dataclass
class RankState:
    """State of this process's attempt.

    Attributes:
        pulse: its progress.
        cause: why the attempt was started in place of an earlier one of the same command; empty for the first.
        asked: why the controller asked to stop; empty if it did not.
        has_ended: whether the training has ended.
    """

    pulse: Pulse
    cause: str = ""
    asked: str = ""
    has_ended: bool = False


_state = RankState(Pulse())


def rank_state() -> RankState:
    """This process's state."""
    return _state


def begin(cause: str) -> int:
    """Note why this attempt was started; return the file of the process's stacks (`write_stacks_on_signal`)."""
    _state.pulse, _state.cause, _state.asked, _state.has_ended = Pulse(), cause, "", False
    return write_stacks_on_signal()


def ask(cause: str) -> None:
    """Ask this rank to stop; that of rank 0 counts."""
    _state.asked = cause


def has_ended() -> bool:
    """Whether this rank's training has ended."""
    return _state.has_ended


def beat() -> Beat:
    """Where this rank is."""
    return _state.pulse.read()
