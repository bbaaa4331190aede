"""Handle SIGTERM (Kubernetes, `docker stop`, `kill`) and SIGUSR1, including what a command may finish before it ends.

Both end a command alike, and differ in the exit code. SIGTERM has a shell's, 143. SIGUSR1 is a notice that the machine
will be taken away (Slurm's `--signal`), and has 75: run the same command again elsewhere. Where only SIGTERM can be
sent, `VADV_SIGTERM_IS_NOTICE=1` makes it such a notice.

Only the command line installs the handlers (`sigterm_raises`); a program that uses this package keeps its own.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from vadv_dist.errors import NoticedError

# A shell's exit codes for a process that was ended by Ctrl-C and by SIGTERM.
STOPPED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
# After a notice: EX_TEMPFAIL of sysexits.h.
NOTICED = NoticedError.exit_code
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
_NOTICE = "VADV_SIGTERM_IS_NOTICE"
# Fraction of the grace period, and maximum seconds, reserved for exiting: a job manager kills when its own time is up.
_LEAVING_SHARE, _LEAVING_S = 0.1, 1.0
_AT_ONCE_S = 5.0  # for cleaning up after a second SIGTERM
_AGAIN_S = 0.05  # after which a signal is sent again whose exception was lost


class TerminatedError(KeyboardInterrupt):
    """SIGTERM or SIGUSR1 ends a command like Ctrl-C.

    A KeyboardInterrupt, because that is the only exception of a signal handler that Ray's calls pass through.
    """


@dataclass
class StopRequest:
    """A request to stop at the next safe point.

    Attributes:
        is_working: whether the work has started; before that there is nothing to finish, and no request is made.
        cause: what requested a stop, such as `SIGTERM`; empty if nothing did.
        is_notice: whether the machine will be taken away, so that the command should run again.
    """

    is_working: bool = False
    cause: str = ""
    is_notice: bool = False

    @property
    def asked(self) -> bool:
        """Whether a stop was requested."""
        return bool(self.cause)

    def ask(self, cause: str, *, is_notice: bool) -> None:
        """Request a stop; the first cause remains."""
        if not self.cause:
            self.is_notice = is_notice
            self.cause = cause


@dataclass
class _Listener:
    """The handler: requests a stop if possible, otherwise raises."""

    pid: int
    request: StopRequest | None = None
    has_raised: bool = False
    first: int = 0
    has_asked: bool = False
    was_noticed: bool = False

    def __call__(self, number: int, frame: object) -> None:
        if os.getpid() != self.pid:  # a forked child that inherited the handler
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            return
        self.first = self.first or number
        if self.request is not None and self.request.is_working and not self.has_asked:
            # Another notice, such as that of the node, may have asked before any signal did.
            self.has_asked = True
            self.request.ask(signal.Signals(number).name, is_notice=_is_notice(number))
            self.was_noticed = self.request.is_notice
        else:
            self.has_raised = True
            raise TerminatedError


_listener: _Listener | None = None


def listens() -> bool:
    """Whether this process has installed the SIGTERM handler."""
    return _listener is not None


def is_termination(error: KeyboardInterrupt) -> bool:
    """Whether an exception was caused by a signal; Ray raises its own KeyboardInterrupt instead of the handler's."""
    return isinstance(error, TerminatedError) or (_listener is not None and _listener.has_raised)


def termination() -> tuple[str, int]:
    """Name of the first signal that ended the command (SIGTERM if there was none), and the exit code for it."""
    number = (_listener.first if _listener is not None else 0) or signal.SIGTERM
    was_noticed = _is_notice(number) or (_listener is not None and _listener.was_noticed)
    return signal.Signals(number).name, NOTICED if was_noticed else TERMINATED


def _is_notice(number: int) -> bool:
    return number == signal.SIGUSR1 or os.environ.get(_NOTICE, "").lower() in ("1", "true", "yes")


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Raise `TerminatedError` in the main thread on SIGTERM or SIGUSR1 during the block, as Python does for Ctrl-C.

    Neither is lost where Python ignores exceptions, as in finalizers and in calls from compiled code. A process that
    was started with one of them ignored continues to ignore it.
    """
    global _listener
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    heard = [number for number in _SIGNALS if before[number] is not signal.SIG_IGN]
    if threading.current_thread() is not threading.main_thread() or signal.SIGTERM not in heard:
        yield
        return
    _listener = _Listener(os.getpid())
    for number in heard:
        signal.signal(number, _listener)
    try:
        with _again_if_lost():
            yield
    finally:
        for number in heard:
            signal.signal(number, before[number])
        _listener = None


@contextmanager
def _again_if_lost() -> Iterator[None]:
    """Send a signal again if Python ignored the exception of its handler."""
    before, timers = sys.unraisablehook, list[threading.Timer]()

    def look(ignored: "sys.UnraisableHookArgs") -> None:
        if not issubclass(ignored.exc_type, KeyboardInterrupt):
            before(ignored)
            return
        by_us = _listener.first if _listener is not None else signal.SIGTERM
        number = by_us if issubclass(ignored.exc_type, TerminatedError) else signal.SIGINT
        timers.append(threading.Timer(_AGAIN_S, os.kill, (os.getpid(), number)))
        timers[-1].daemon = True
        timers[-1].start()

    sys.unraisablehook = look
    try:
        yield
    finally:
        sys.unraisablehook = before
        for timer in timers:
            timer.cancel()


@contextmanager
def sigterm_kept() -> Iterator[None]:
    """Preserve this process's SIGTERM handler during a block that replaces it, as `ray.init` does (also in C++)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler: Any = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        if _listener is not None and error.code == signal.SIGTERM:  # raised by the handler that `ray.init` installs
            _listener.has_raised = True
            raise TerminatedError from None
        raise
    finally:
        if handler is not None:  # None: not installed by Python, which cannot restore it
            signal.signal(signal.SIGTERM, handler)


@contextmanager
def finishing_first(
    grace_s: float, *, on_signal: Callable[[str], None], safe: Callable[[], str]
) -> Iterator[StopRequest]:
    """Yield a request that the first signal sets; a second one raises, and the process ends after the grace period.

    Until `is_working` is set, the first one raises too. Without `sigterm_raises`, no signal makes a request.

    Args:
        grace_s: seconds after the first signal within which the process ends.
        on_signal: called in another thread with the signal's name when it requests a stop.
        safe: returns what is saved, for the message after the grace period.
    """
    request = StopRequest()
    listener = _listener
    if listener is None or threading.current_thread() is not threading.main_thread():
        yield request
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        """Time the grace period in another thread, because a long call of C code delays Python's handlers."""
        deadline: float | None = None
        first = 0  # that of the listener is set only when the main thread gets to it
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not select.select([reading], [], [], left_s)[0]:
                name = signal.Signals(first).name
                message = f"vadv: {name}: trainer.grace_s ({grace_s:g} s) is over. {safe()}\n"
                os.write(2, message.encode())  # not through a console, whose lock the main thread may hold
                os._exit(NOTICED if request.is_notice or _is_notice(first) else TERMINATED)
            received = os.read(reading, 1)
            if not received:  # the block has ended
                return
            if received[0] in _SIGNALS and deadline is None:
                first = received[0]
                deadline = time.monotonic() + grace_s - min(_LEAVING_S, grace_s * _LEAVING_SHARE)
                if request.is_working:
                    on_signal(signal.Signals(received[0]).name)
            elif received[0] in _SIGNALS:
                deadline = min(deadline or 0.0, time.monotonic() + _AT_ONCE_S)

    thread = threading.Thread(target=watch, name="vadv-grace", daemon=True)
    before, listener.request = listener.request, request
    replaced = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread.start()
    try:
        yield request
    finally:
        signal.set_wakeup_fd(replaced)
        listener.request = before
        os.close(writing)
        thread.join()
        os.close(reading)
