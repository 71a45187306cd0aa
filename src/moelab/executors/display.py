"""A study's terminal output while it works: a bar over all runs, a line per running one, plain lines for results."""

import time

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from moelab.executors import Board
from moelab.printable import printable
from moelab.quantities import format_seconds

_MOST_ROWS = 16
"""Runs that are shown one by one; a cluster may run hundreds."""
_SUM_UP_SECONDS = 60.0
"""Interval of the summary line where there is no terminal."""


class Display:
    """Prints to stderr. On a terminal the board is live; elsewhere a line per finished run and per minute stands in."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self.started = time.monotonic()
        self._live: Live | None = None
        self._printed: set[str] = set()
        self._flops_before = 0.0
        self._stage_started = self._summed_up = time.monotonic()

    def stage(self, title: str) -> None:
        """Print the title of the stage that begins."""
        self.close()
        self._printed.clear()
        self._flops_before = -1.0
        self._stage_started = self._summed_up = time.monotonic()
        minutes, seconds = divmod(int(time.monotonic() - self.started), 60)
        clock = f"{minutes:02d}:{seconds:02d}"
        self.console.print(Text(f"{clock}  {printable(title)}", style="bold"))

    def line(self, text: str) -> None:
        """Print a plain line."""
        self.console.print(Text(f"       {printable(text)}"), soft_wrap=True)

    def board(self, board: Board) -> None:
        """Show the state of a stage's runs; called about twice a second."""
        if self._flops_before < 0:
            self._flops_before = board.done_flops
        if self.console.is_terminal:
            if self._live is None:
                self._live = Live(console=self.console, refresh_per_second=4, transient=True)
                self._live.start()
            self._live.update(self._draw(board))
        elif time.monotonic() - self._summed_up > _SUM_UP_SECONDS:
            self._summed_up = time.monotonic()
            self.line(self.summary(board))
        self._print_finished(board)

    def close(self) -> None:
        """End the live part, if there is one."""
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _print_finished(self, board: Board) -> None:
        for record in board.finished:
            if record.run_id not in self._printed:
                self._printed.add(record.run_id)
                loss = "diverged" if record.loss is None else f"loss {record.loss:.3f}"
                speed = f"{record.tokens_per_second / 1e3:.1f}k tokens/s, {format_seconds(record.seconds)}"
                self.line(f"{self._place(board):>3}/{board.total}  {board.names[record.run_id]:<30} {loss}  {speed}")
                for note in record.notes:
                    self.line(f"         {note}")
        for run_id in board.failed.keys() - self._printed:
            self._printed.add(run_id)
            self.line(
                f"{self._place(board):>3}/{board.total}  {board.names[run_id]:<30} failed: {board.failed[run_id]}"
            )

    def _place(self, board: Board) -> int:
        """How many of this board's runs were printed; a stage may have several boards, branches after trunks."""
        return len(self._printed & board.names.keys())

    def _draw(self, board: Board) -> Group:
        rows = Table.grid(padding=(0, 2))
        shown = [(run_id, numbers) for run_id, numbers in board.running.items() if numbers]
        for run_id, numbers in shown[:_MOST_ROWS]:
            rows.add_row(
                Text(f"       {printable(board.names[run_id])}"),
                ProgressBar(total=1.0, completed=numbers["step"] / numbers["steps"], width=24),
                f"loss {numbers['loss']:.3f}",
                f"{numbers['tokens_per_second'] / 1e3:.1f}k tokens/s",
            )
        return Group(rows, Text(f"       {self.summary(board)}"))

    def summary(self, board: Board) -> str:
        """One line: runs done, running and failed, tokens per second, time left."""
        share = board.done_flops / board.total_flops if board.total_flops else 1.0
        parts = [f"{len(board.finished)}/{board.total} runs done", f"{len(board.running)} running"]
        if board.failed:
            parts.append(f"{len(board.failed)} failed")
        if board.tokens_per_second:
            parts.append(f"{board.tokens_per_second / 1e3:.1f}k tokens/s")
        return ", ".join([*parts, f"{share:.0%} of the work"]) + self._left(board)

    def _left(self, board: Board) -> str:
        done = board.done_flops - self._flops_before
        elapsed = time.monotonic() - self._stage_started
        if done <= 0:
            return ""
        left = (board.total_flops - board.done_flops) * elapsed / done
        return f", about {format_seconds(max(left, 1))} left"
