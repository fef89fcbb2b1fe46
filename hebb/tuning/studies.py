"""The storage in which a search keeps its Optuna study, so that optuna-dashboard shows it while it runs.

Ray goes on with a study of the same name, and a continued search suggests its earlier points once more, so that every
point would stand twice. So each session that suggests anything begins a study of its own: ``NAME``, ``NAME-2``, ...

Nothing is read back from a study: the folder of the search says what was chosen, and its runs what they measured.
"""

from __future__ import annotations

import contextlib
import itertools
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from hebb.config.vocabulary import Algorithm
from hebb.core import commands, extras
from hebb.core.errors import ConfigError, HebbError
from hebb.tuning.search import Search

if TYPE_CHECKING:
    from optuna.storages import BaseStorage

FLAG = "--storage"
_SQLITE = "sqlite:///"
_FORMS = ("sqlite:///FILE.db", "FILE.log (a journal)", "postgresql://HOST/DATABASE", "mysql://HOST/DATABASE")


def check(search: Search, text: str | None) -> None:
    """Raise for a search without a study, and for what can be no storage; nothing is opened."""
    if text is None:
        return
    algorithm = search.spec.plan.algorithm
    if algorithm != Algorithm.OPTUNA:
        raise ConfigError(FLAG, f"keeps the study of algorithm optuna, and this search is by {algorithm}")
    if shown(text) != text:
        problem = "must not hold a password: search.json, its archive and report.html keep the URL"
        hint = "~/.pgpass (PostgreSQL) or read_default_file=~/.my.cnf in the URL (MySQL) holds it"
        raise ConfigError(FLAG, problem, hint=hint)
    kind, separator, rest = text.partition(":")
    if separator and kind.startswith("redis"):
        raise ConfigError(FLAG, "Optuna keeps no study at a redis URL", choices=_FORMS)
    if separator and not rest.startswith("//"):  # the rest may hold a password
        raise ConfigError(FLAG, f"must be a URL or a file, and begins with '{kind}:'", choices=_FORMS)
    if re.match(r"sqlite\b", kind, re.IGNORECASE) and (text == _SQLITE or file_of(text) is None or ":memory:" in rest):
        raise ConfigError(FLAG, f"must name a file: sqlite:///FILE.db, got '{text}'")
    file = file_of(text)
    if file is not None and (file.is_dir() or not file.parent.is_dir()):
        problem = "is a folder" if file.is_dir() else f"there is no folder '{file.parent}'"
        raise ConfigError(FLAG, f"must be a file in a folder that exists, got '{file}': {problem}")
    if "://" in text:
        extras.require(FLAG, "sqlalchemy", extra="search")


def absolute(text: str | None) -> str | None:
    """Return a storage whose file does not depend on the working folder; an empty text is none."""
    if not text:
        return None
    if text.startswith(_SQLITE) and text != _SQLITE and ":memory:" not in text:
        return f"{_SQLITE}{Path(text.removeprefix(_SQLITE)).absolute()}"
    return text if ":" in text else str(Path(text).absolute())


def file_of(text: str) -> Path | None:
    """Return the file of a storage; None for a database server."""
    if text.startswith(_SQLITE):
        return Path(text.removeprefix(_SQLITE).partition("?")[0])
    return None if ":" in text else Path(text)


def shown(text: str) -> str:
    """Return a storage as it may be printed: without a password, which may itself hold @ and /."""
    text = re.sub(r"(://[^:/\s]*):\S*@", r"\1:***@", text)
    return re.sub(r"(?i)([?&](?:password|passwd|sslpassword)=)[^&\s]*", r"\1***", text)


class Study:
    """The study of a session, in a storage.

    Attributes:
        storage: the storage, for Ray's searcher.
        name: of the study; empty until it has begun.
    """

    def __init__(self, search: Search, text: str) -> None:
        self._search, self._text = search, text
        self.storage: BaseStorage = _opened(text)
        self.name = ""

    def check_writable(self) -> None:
        """Raise where the storage takes no study, and leave none: a database may open that cannot be written."""
        from optuna.study import StudyDirection

        with failing(self._text):
            self.storage.delete_study(self.storage.create_new_study([StudyDirection.MINIMIZE]))

    def begin(self) -> str:
        """Make the study, once, and return its name, the first one that is free."""
        from optuna.exceptions import DuplicatedStudyError

        for number in itertools.count(1) if not self.name else ():
            name = self._search.folder.name + (f"-{number}" if number > 1 else "")
            with contextlib.suppress(DuplicatedStudyError), failing(self._text):
                self._create(name)
                self.name = name
                break
        return self.name

    def _create(self, name: str) -> None:
        import optuna

        search = self._search
        ways = {"max": "maximize", "min": "minimize"}
        study = optuna.create_study(
            storage=self.storage, study_name=name, directions=[ways[one.mode.value] for one in search.objectives]
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            study.set_metric_names([one.metric for one in search.objectives])
        study.set_user_attr("folder", str(search.folder))
        study.set_user_attr("sampler", str(search.spec.plan.sampler))
        study.set_user_attr("seeds", list(search.seeds))
        if search.constraints:
            study.set_user_attr("constraints", list(map(str, search.constraints)))

    def note(self) -> str:
        """Say in a line where the study is."""
        place = shown(self._text)
        dashboard = commands.quoted("optuna-dashboard", place)
        return f"note: the study is '{self.name}' in {place}; {dashboard} shows it while the search runs"


def of_search(search: Search, text: str | None) -> Study | None:
    """Open the storage of a search; its study begins when it is used, in a folder that the search has claimed.

    Raises:
        ConfigError: where the storage cannot be opened, or not be written.
    """
    check(search, text)
    if text is None:
        return None
    study = Study(search, text)
    study.check_writable()
    return study


def _opened(text: str) -> BaseStorage:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with failing(text):
        if "://" in text:
            return optuna.storages.RDBStorage(text)
        from optuna.storages.journal import JournalFileBackend

        with open(text, "ab"):  # the backend says nothing of a file that it cannot write
            pass
        return optuna.storages.JournalStorage(JournalFileBackend(text))


@contextlib.contextmanager
def failing(text: str) -> Iterator[None]:
    """Say in a line that a storage cannot be opened or written."""
    from optuna.exceptions import DuplicatedStudyError, OptunaError

    kinds: tuple[type[Exception], ...] = (OSError, ImportError, RuntimeError, ValueError, OptunaError)
    with contextlib.suppress(ImportError):
        from sqlalchemy.exc import SQLAlchemyError

        kinds = (*kinds, SQLAlchemyError)
    try:
        yield
    except (DuplicatedStudyError, HebbError):
        raise
    except kinds as error:
        raise ConfigError(FLAG, f"cannot keep a study in '{shown(text)}'", hint=_reason(error)) from None


def _reason(error: Exception) -> str:
    """Return the first line of what the database says: that of the innermost error."""
    while error.__cause__ is not None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    text = str(getattr(error, "orig", None) or error) or type(error).__name__
    return shown(" ".join(text.split("\n")[0].split()))
