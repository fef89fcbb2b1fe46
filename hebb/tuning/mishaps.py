"""What went wrong in a worker, in a line. Imports neither Ray nor torch."""

from __future__ import annotations

_LONGEST = 300  # characters


def reason(text: str, kind: str) -> str:
    """Return the sentence of an error's text that says what went wrong; ``kind`` where there is no text."""
    if "CUDA out of memory" in text:
        return "the GPU was out of memory; a smaller batch, or fewer trials on a GPU (--gpu-exp, on Ray), may help"
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "Error" in line and not line.startswith((" ", "\t"))]
    return (errors[-1] if errors else lines[0] if lines else kind)[:_LONGEST]
