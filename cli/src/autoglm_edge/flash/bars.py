"""The work of `flash` as progress bars on standard error, one for each card or image."""

from __future__ import annotations

from types import TracebackType

from rich.progress import BarColumn, DownloadColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from autoglm_edge.console import err


class Bars:
    """Draws bars. A context manager; its methods may be called by several threads."""

    def __init__(self) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TextColumn("{task.fields[step]}", style="dim", markup=False),
            BarColumn(28),
            DownloadColumn(),
            TimeElapsedColumn(),
            console=err,
        )

    def __enter__(self) -> Bars:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def of(self, name: str) -> Bar:
        """Return the bar of one card or image."""
        return Bar(self._bars, name)


class Bar:
    """One bar: it begins anew with every step."""

    def __init__(self, bars: Progress, name: str) -> None:
        self._bars = bars
        self._name = name
        self._task: TaskID | None = None
        self._step = ""

    def __call__(self, step: str, done: int, total: int) -> None:
        """Show how far a step is."""
        if self._task is None:
            self._task = self._bars.add_task(self._name, total=None, step=step)
        if step != self._step:
            self._step = step
            self._bars.reset(self._task, total=total or None, step=step)
        self._bars.update(self._task, completed=done, total=total or None)
