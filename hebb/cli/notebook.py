"""A line of a notebook cell that changes while the cell runs, and is gone at the end. It needs no widgets."""

from __future__ import annotations

from typing import Any


class NotebookLine:
    """One line below a cell; the text that was printed before and after it stays."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, text: str) -> None:
        """Show a text in place of the last one."""
        self._display({"text/plain": text})

    def clear(self) -> None:
        """Leave nothing."""
        if self._handle is not None:
            self._display({"text/plain": "", "text/html": ""})

    def _display(self, data: dict[str, str]) -> None:
        from IPython.display import display

        if self._handle is None:
            self._handle = display(data, raw=True, display_id=True)
        else:
            self._handle.update(data, raw=True)
