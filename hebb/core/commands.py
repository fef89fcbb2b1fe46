"""Commands as the user can type them, for messages that name the next step. Never imports torch."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from hebb.core import shipped
from hebb.core.errors import ConfigError

_SCRIPTS: dict[str, tuple[str, ...]] = {
    "train": ("multi_layer.py",),
    "resume": ("multi_layer.py", "--resume-run"),
    "evaluate": ("multi_layer.py", "--evaluate"),
    "list": ("multi_layer.py", "--list"),
    "search": ("ray_search.py",),
    "post-hoc": ("post_hoc_loss.py",),
    "analysis": ("analysis.py",),
    "demo": ("demo.py",),
}
"""For each verb of ``hebb``, the script at the root of the repository that does the same."""


def line(verb: str, *arguments: object) -> str:
    """Write a command, quoted for a shell, the way the running one was called.

    That is ``hebb resume DIR``, or ``python multi_layer.py --resume-run DIR`` if a script of the repository was called.
    """
    return quoted(*_start(verb), *arguments)


def quoted(*words: object) -> str:
    """Write words as a shell reads them back when they are pasted; every printed command comes from here."""
    return shlex.join(map(str, words))


def words_of(text: str, where: str) -> tuple[str, ...]:
    """Read words as a shell does; ``where`` is the place an error names."""
    try:
        return tuple(shlex.split(text))
    except ValueError as error:
        problem = f"must be words as in a shell, got '{text}'"
        raise ConfigError(where, problem, hint=str(error).lower()) from None


def tensorboard(folder: Path) -> str:
    """Write the command that shows the runs in a folder."""
    return quoted("tensorboard", "--logdir", folder)


def name(verb: str) -> str:
    """Return how a verb is called, for its help: the script that is running, or ``hebb VERB``."""
    return Path(sys.argv[0]).name if _script_is_running() else f"{program()} {verb}"


def program() -> str:
    """Return the command whose verbs are called."""
    return "python -m hebb" if Path(sys.argv[0]).parts[-2:] == ("hebb", "__main__.py") else "hebb"


def _start(verb: str) -> list[str]:
    called = Path(sys.argv[0])
    if _script_is_running():
        script, *flag = _SCRIPTS[verb]
        return ["python", str(called.with_name(script)), *flag]
    return [*program().split(), verb]


def _script_is_running() -> bool:
    called = Path(sys.argv[0])
    return called.name in {script for script, *_ in _SCRIPTS.values()} and called.resolve().parent == shipped.CHECKOUT
