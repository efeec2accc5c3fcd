"""Whether a program's terminal is there, has closed, or never was."""

from __future__ import annotations

import os
import pty
import signal

from eas_queue.terminal import Terminal


def test_a_terminal_is_gone_once_it_has_closed() -> None:
    ours, theirs = pty.openpty()
    terminal = Terminal((theirs,))
    assert not terminal.is_gone

    os.close(ours)
    assert terminal.is_gone
    os.close(theirs)


def test_what_never_had_a_terminal_does_not_lose_one() -> None:
    ours, theirs = os.pipe()
    terminal = Terminal((ours, theirs))
    os.close(ours)
    os.close(theirs)

    assert not terminal.is_gone
    assert not Terminal((ours, theirs)).is_gone


def test_what_was_started_to_outlive_its_terminal_does() -> None:
    ours, theirs = pty.openpty()
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        terminal = Terminal((theirs,))
    finally:
        signal.signal(signal.SIGHUP, before)

    os.close(ours)
    assert not terminal.is_gone
    os.close(theirs)
