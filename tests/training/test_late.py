"""Losses that are read late: in order, none lost, and only on a CUDA device late at all."""

from collections import deque
from typing import Any

import torch

from moelab.training.late import LateLosses


class Pending:
    """Stands for a copy from a CUDA device: notes whether the host waited for it."""

    def __init__(self) -> None:
        self.waited = False

    def synchronize(self) -> None:
        self.waited = True


def waiting(losses: LateLosses, count: int) -> list[Any]:
    events = [Pending() for _ in range(count)]
    losses._waiting = deque((step, torch.tensor(float(step)), event) for step, event in enumerate(events))
    return events


def test_a_cpu_has_its_losses_at_once() -> None:
    losses = LateLosses()
    losses.put(1, torch.tensor(2.5))
    losses.put(2, 3.5)
    assert losses.take(False) == [(1, 2.5), (2, 3.5)]
    assert losses.take(True) == []


def test_the_last_steps_of_a_device_are_not_waited_for() -> None:
    losses = LateLosses()
    events = waiting(losses, 6)
    assert losses.take(False) == [(0, 0.0), (1, 1.0)]
    assert [event.waited for event in events] == [True, True, False, False, False, False]
    assert losses.take(False) == []
    assert losses.take(True) == [(2, 2.0), (3, 3.0), (4, 4.0), (5, 5.0)]


def test_several_processes_wait_for_every_step() -> None:
    losses = LateLosses(processes=2)
    waiting(losses, 2)
    assert losses.take(False) == [(0, 0.0), (1, 1.0)]
