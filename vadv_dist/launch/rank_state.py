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
    """

    pulse: Pulse
    cause: str = ""
    asked: str = ""


_state = RankState(Pulse())


def rank_state() -> RankState:
    """This process's state."""
    return _state


def begin(cause: str) -> int:
    """Note why this attempt was started; return the file of the process's stacks (`write_stacks_on_signal`)."""
    _state.pulse, _state.cause, _state.asked = Pulse(), cause, ""
    return write_stacks_on_signal()


def ask(cause: str) -> None:
    """Ask this rank to stop; that of rank 0 counts."""
    _state.asked = cause


def beat() -> Beat:
    """Where this rank is."""
    return _state.pulse.read()
