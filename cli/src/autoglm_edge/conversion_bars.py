"""The stages of a conversion as progress bars on standard error."""

from __future__ import annotations

from types import TracebackType

from rich.markup import escape
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from autoglm_edge.console import err


class Bars:
    """Draws the stages of a conversion as progress bars on standard error. A context manager."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description:9}"), BarColumn(28), TimeElapsedColumn())
        self._bars = Progress(*columns, TextColumn("{task.fields[what]}", style="dim", markup=False), console=err)
        self._task: TaskID | None = None

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._finish()
        self._bars.stop()

    def stage(self, name: str, steps: int) -> None:
        """Begin a bar; the one before is full."""
        self._finish()
        self._task = self._bars.add_task(name, total=steps, what="")

    def step(self, what: str) -> None:
        """Advance the bar, and lengthen it where more steps come than were expected."""
        if self._task is None:
            return
        task = self._bars.tasks[self._task]
        if task.total is not None and task.completed + 1 > task.total:
            self._bars.update(self._task, total=task.completed + 2)
        self._bars.update(self._task, advance=1, what=what)

    def note(self, text: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(f"[yellow]note:[/yellow] {escape(text)}", soft_wrap=True)

    def _finish(self) -> None:
        if self._task is not None:
            task = self._bars.tasks[self._task]
            self._bars.update(self._task, total=task.completed, what="")
