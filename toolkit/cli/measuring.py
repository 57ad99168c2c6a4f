"""The progress bar of everything that measures."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from toolkit.profiler.schedule import OnProgress, Progress


@contextmanager
def measuring() -> Iterator[OnProgress]:
    """A progress bar on stderr, drawn between blocks only: a thread that redraws would disturb what is measured.

    Nothing is drawn where stderr is no terminal.
    """
    from rich.console import Console
    from rich.progress import BarColumn, TextColumn
    from rich.progress import Progress as Bar

    columns = (BarColumn(bar_width=24), TextColumn("{task.fields[left]:>9} {task.description}"))
    console = Console(stderr=True)
    with Bar(*columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=1.0, left="")

        def show(progress: Progress) -> None:
            left = f"{progress.left_s:.0f} s left"
            bar.update(task, completed=progress.done, description=progress.text, left=left, refresh=True)

        yield show
