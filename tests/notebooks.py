"""Run a text notebook of the gallery in a kernel of its own, of the Python that runs this file.

python tests/notebooks.py PAGE    raises what a cell raises; what a cell writes to stderr is an error too
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

_PATIENCE = 300
"""Seconds for the start of a kernel, and for its outputs. The defaults are 60 and 4, and outputs that come later than
these 4 seconds after the end of their cell, as on a busy machine, are dropped without an error."""
_KERNEL = "hebb-tests"
_CELL = re.compile(r"^```\{code-cell\} ipython3\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def cells(page: Path) -> list[str]:
    """Return the code of a text notebook, cell by cell."""
    text = page.read_text(encoding="utf-8")
    parts = _CELL.findall(text)
    assert len(parts) == text.count("{code-cell}")
    return parts


def run(code: list[str], folder: Path) -> list[dict[str, Any]]:
    """Run cells in a folder, and return all their outputs.

    The kernel talks through sockets of the file system: a port that was free when it was chosen may be taken, by one of
    Ray's processes or another kernel, before the kernel opens it.
    """
    import nbclient
    import nbformat
    from traitlets.config import Config

    with tempfile.TemporaryDirectory(prefix="hebb-") as place:  # short, as the names of sockets must be
        own = {name: str(Path(place) / name) for name in ("JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")}
        _write_kernel(Path(own["JUPYTER_DATA_DIR"]))
        _write_settings(Path(own["IPYTHONDIR"]))
        before = {name: os.environ.get(name) for name in own}
        os.environ.update(own)
        try:
            notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in code])
            client = nbclient.NotebookClient(
                notebook,
                kernel_name=_KERNEL,
                resources={"metadata": {"path": str(folder)}},
                startup_timeout=_PATIENCE,
                iopub_timeout=_PATIENCE,
                raise_on_iopub_timeout=True,
                config=Config(KernelManager={"transport": "ipc", "ip": str(Path(place) / "kernel")}),
            )
            client.execute()
        finally:
            for name, value in before.items():
                os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    return [output for cell in notebook.cells for output in cell.outputs]


def _write_kernel(data: Path) -> None:
    """Describe a kernel of this Python, whatever kernels the user has."""
    folder = data / "kernels" / _KERNEL
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(json.dumps({"argv": command, "display_name": _KERNEL, "language": "python"}))


def _write_settings(folder: Path) -> None:
    """Let the kernel keep no history, and say nothing about its sockets."""
    profile = folder / "profile_default"
    profile.mkdir(parents=True)
    (profile / "ipython_kernel_config.py").write_text(
        "c.HistoryManager.enabled = False\nc.IPKernelApp.log_level = 'ERROR'\n"
    )


def errors(outputs: list[dict[str, Any]]) -> list[str]:
    """Return what cells wrote to stderr."""
    return [output["text"] for output in outputs if output.get("name") == "stderr"]


if __name__ == "__main__":
    import hebb

    ORIGIN = f"import hebb\nassert hebb.__file__ == {hebb.__file__!r}, hebb.__file__"
    said = errors(run([ORIGIN, *cells(Path(sys.argv[1]))], Path.cwd()))
    sys.exit("\n".join(said) or None)
