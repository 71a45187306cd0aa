"""Executors train a study's runs. Three siblings start workers; what the workers do, and how they are monitored,
is the same for all of them, so all give the same numbers."""

from moelab.executors.board import Board, Observer, RunMonitor
from moelab.executors.collect import Outcome, run_all, session
from moelab.executors.options import ExecutorConfig
from moelab.executors.order import End, Order, Pool
from moelab.executors.worker import work

__all__ = [
    "Board",
    "End",
    "ExecutorConfig",
    "Observer",
    "Order",
    "Outcome",
    "Pool",
    "RunMonitor",
    "run_all",
    "session",
    "work",
]
