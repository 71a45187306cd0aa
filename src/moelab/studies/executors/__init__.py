"""Executors: who trains a study's runs. Three siblings start workers; what the workers do, and how they are watched,
is the same for all of them, so all give the same numbers."""

from moelab.studies.executors.board import Board, Lookout, Observer
from moelab.studies.executors.collect import Outcome, run_all, session
from moelab.studies.executors.options import ExecutorConfig
from moelab.studies.executors.order import End, Order, Pool, work

__all__ = [
    "Board",
    "End",
    "ExecutorConfig",
    "Lookout",
    "Observer",
    "Order",
    "Outcome",
    "Pool",
    "run_all",
    "session",
    "work",
]
