"""The parser of every command, its errors, and the types of flag values. Never imports torch."""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from hebb.core.errors import ConfigError
from hebb.core.values import read_number, read_switch

if TYPE_CHECKING:
    from _typeshed import SupportsWrite


class Section(StrEnum):
    """The groups of flags in a help text, in their order there."""

    NETWORK = "network and data"
    TRAINING = "training"
    READOUT = "readout"
    SEARCH = "search space"
    COMPARISON = "what is compared"
    STOPPING = "early stopping"
    BUDGET = "budget and continuation"
    MACHINE = "machine"
    STORAGE = "storage"
    INSTEAD = "instead of training"


@dataclass(frozen=True)
class Exclusive:
    """A flag or verb that decides what a command does, and rules out flags of the command's other uses.

    Attributes:
        flag: as the user wrote it, ``--resume-run``.
        reason: what it does, to complete "--seed cannot be combined with --resume-run, which ...".
        others: makes the parser whose flags are ruled out.
    """

    flag: str
    reason: str
    others: Callable[[], Parser]


@dataclass(frozen=True)
class _Pair:
    """Two flags that do not go together, or of which one needs the other.

    Attributes:
        flag: the one that is refused.
        message: why.
        clash: tells from the options whether it is.
    """

    flag: str
    message: str
    clash: Callable[[argparse.Namespace], bool]


class _Use(NamedTuple):
    """A flag as the user wrote it, and the words up to the next flag."""

    flag: str
    action: argparse.Action
    words: list[str]

    def values(self) -> list[str]:
        """Return the words that belong to the flag; those after them are arguments of the command."""
        single = self.action.nargs is None
        return (
            self.words[:1]
            if single
            else self.words[: self.action.nargs if isinstance(self.action.nargs, int) else None]
        )


_RATE = "b0.layer.lr=VALUE sets the rate of a Hebbian block, classifier.lr=VALUE that of the classifier"
_SET_BY = {
    "epochs": "dataset_sup.epochs=N sets the epochs of the classifier, dataset_unsup.epochs=N of the Hebbian phases",
    "batch-size": "dataset_sup.batch_size=N sets the batches of the classifier, dataset_unsup.batch_size=N the others",
    **dict.fromkeys(("lr", "learning-rate"), _RATE),
    **dict.fromkeys(("optimizer", "optimiser"), "classifier.optimiser=NAME sets the optimiser of the classifier"),
    "momentum": "classifier.momentum=VALUE sets that of the classifier, with classifier.optimiser=sgd",
    "weight-decay": "classifier.weight_decay=VALUE sets that of the classifier",
    "samples": "dataset_sup.samples=N dataset_unsup.samples=N trains on fewer images",
    "size": "dataset_sup.size=N dataset_unsup.size=N resizes the images",
}
"""What sets a value for which other programs have a flag of this name."""
_SET_BY |= {name.replace("-", "_"): text for name, text in _SET_BY.items()}


HELP, HELP_ALL = ("-h", "--help"), "--help-all"

_WIDTH = 100  # characters of a line of a help text


class _HelpAll(argparse.Action):
    """Prints all flags, and exits."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        assert isinstance(parser, Parser)
        parser.print_help_all()
        parser.exit()


class Distinct(argparse.Action):
    """Stores several values; one that is listed twice, which would count once, is an error."""

    def __call__(self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, *_: object) -> None:
        """Store the values."""
        for value in values:
            if values.count(value) > 1:
                raise ConfigError(self.option_strings[0], f"{value} is given twice")
        setattr(namespace, self.dest, values)


class _Layout(argparse.RawDescriptionHelpFormatter):
    """Writes the value of a flag once: ``--training-mode, --train MODE``, and several as ``N ...``."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        names = ", ".join(action.option_strings)
        value = "" if action.nargs == 0 else self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{names} {value}".strip()

    def _format_args(self, action: argparse.Action, default_metavar: str) -> str:
        if action.nargs == "+":
            return f"{self._metavar_formatter(action, default_metavar)(1)[0]} ..."
        return super()._format_args(action, default_metavar)


def _wrapped(text: str) -> str:
    """Break the lines of a text that are longer than ``_WIDTH``."""
    return "\n".join(textwrap.fill(line, _WIDTH, break_on_hyphens=False) if line else "" for line in text.splitlines())


def described(purpose: str, example: str, last: str) -> str:
    """Return the head of a help text: what a command does, and an example whose flag ``last`` begins a second line."""
    return f"{purpose}\nexample: " + example.replace(f" {last}", f" \\\n      {last}")


class Parser(argparse.ArgumentParser):
    """An argument parser whose errors are ``ConfigError`` and name the nearest flag.

    ``--help`` lists the flags that ``put_first`` names, or all; ``--help-all`` lists all.

    Args:
        description: text above the flags.
        prog: how the command is called.
        exclusive: the flag or verb the parser is for, when it rules out others.
    """

    def __init__(self, description: str, *, prog: str | None = None, exclusive: Exclusive | None = None) -> None:
        super().__init__(
            description=_wrapped(description),
            prog=prog,
            formatter_class=_Layout,
            allow_abbrev=False,
            add_help=False,
        )
        self.register("type", int, whole)
        self.register("type", float, real)
        self._exclusive = exclusive
        self._pairs: list[_Pair] = []
        self._first: dict[str, str] = {}
        self.add_argument(*HELP, action="help", help="show this help")
        self.add_argument(HELP_ALL, action=_HelpAll, nargs=0, help="show all flags")
        self._sections = {title: self.add_argument_group(title) for title in Section}

    def section(self, title: Section) -> argparse._ArgumentGroup:
        """Return a group of flags; one without flags is not shown."""
        return self._sections[title]

    def put_first(self, flags: Mapping[str, str]) -> None:
        """Name the flags that ``--help`` lists, with what it says of each in a line; ``--help-all`` lists them all."""
        self._first = {self._name(flag): text for flag, text in flags.items()}

    def format_help(self, *, whole: bool = False) -> str:
        """Write the help text; its first line names the positional arguments and leaves the flags to the groups."""
        subjects = [str(action.metavar or action.dest) for action in self._get_positional_actions()]
        self.usage = " ".join(("%(prog)s", *subjects, "[flags]"))
        if whole or not self._first:
            return super().format_help()
        texts = {action: action.help for action in self._actions if action.option_strings}
        for action in texts:
            action.help = self._first.get(action.dest, argparse.SUPPRESS)
        asking = ("help", self._name(HELP_ALL))  # who reads this knows --help, and the last line names --help-all
        more = sum(action.help == argparse.SUPPRESS and action.dest not in asking for action in texts)
        try:
            return f"{super().format_help()}\n{self.prog} {HELP_ALL} lists {more} more flags, and says more of these\n"
        finally:
            for action, text in texts.items():
                action.help = text

    def print_help_all(self) -> None:
        """Print the help text with all flags."""
        self._print_message(self.format_help(whole=True), sys.stdout)

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """Print a text; argparse itself would be silent on a full disk."""
        stream: Any = file or sys.stdout
        print(message, end="", file=stream, flush=True)

    @property
    def _hint(self) -> str:
        return f"{self.prog} {HELP_ALL if self._first else HELP[-1]} lists the flags"

    def add_subject(self, flag: str, verb: str, **options: Any) -> None:
        """Add what a command is about: an argument if it is called by its verb, else the value of ``flag``."""
        if flag == verb:
            self.add_argument(options.pop("dest"), **options)
        else:
            self.add_argument(flag, required=True, **options)

    def rule_out(
        self, flag: str, other: str, reason: str, *, clash: Callable[[argparse.Namespace], bool] | None = None
    ) -> None:
        """Refuse ``flag`` beside ``other``, which ``reason`` describes; ``clash`` tells when, by default always."""
        first, second = self._name(flag), self._name(other)
        both = clash or (lambda options: {first, second} <= options.given)
        self._pairs.append(_Pair(flag, f"cannot be combined with {other}, which {reason}", both))

    def require_beside(self, flag: str, other: str, reason: str) -> None:
        """Refuse ``flag`` without ``other``, which ``reason`` describes."""
        first, second = self._name(flag), self._name(other)
        alone = _Pair(
            flag, f"needs {other}, which {reason}", lambda options: {first, second} & options.given == {first}
        )
        self._pairs.append(alone)

    def _name(self, flag: str) -> str:
        return self._option_string_actions[flag.split()[0]].dest

    def flags(self) -> list[str]:
        """List every flag that starts with two dashes."""
        return [flag for action in self._actions for flag in action.option_strings if flag.startswith("--")]

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print, in the words of the other errors."""
        hint = self._hint
        lacking = re.fullmatch(r"the following arguments are required: ([^,]+).*", message)
        if lacking:
            names = {argparse._get_action_name(action): action.choices for action in self._actions}
            raise ConfigError(lacking[1], "must be given", choices=names.get(lacking[1]) or (), hint=hint)
        place, problem = _sentence(message)
        raise ConfigError(place, problem, hint=hint)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raise for a word that is none of the action's choices."""
        if action.choices is not None and value not in action.choices:
            place = action.option_strings[0] if action.option_strings else str(action.metavar or action.dest)
            raise ConfigError(place, f"unknown '{value}'", given=str(value), choices=action.choices)

    def parse(self, arguments: list[str]) -> argparse.Namespace:
        """Parse the arguments of a command.

        Raises:
            ConfigError: for an argument that is unknown, with the nearest flag, or that the command rules out.
        """
        if self._exclusive is not None and not {*HELP, HELP_ALL}.isdisjoint(arguments):
            # also where the word stands in place of the flag's own value
            self.print_help_all() if HELP_ALL in arguments else self.print_help()
            self.exit()
        options, unknown = self.parse_known_args(arguments)
        if unknown:
            self._refuse(unknown[0])
        uses = self._uses(arguments)
        for name, several in uses.items():
            self._check_once(name, several)
        options.given = frozenset(uses)
        for pair in self._pairs:
            if pair.clash(options):
                raise ConfigError(pair.flag, pair.message)
        return options

    def given(self, arguments: list[str]) -> frozenset[str]:
        """Return the names under which the flags among the arguments are parsed, as ``dataset_sup``."""
        return frozenset(self._uses(arguments))

    def _uses(self, arguments: list[str]) -> dict[str, list[_Use]]:
        """Return every use of every flag, by the name under which it is parsed."""
        uses: dict[str, list[_Use]] = {}
        words: list[str] = []
        for argument in arguments:
            flag, separator, value = argument.partition("=")
            action = self._option_string_actions.get(flag)
            if action is None:
                words.append(argument)
            else:
                words = [value] if separator else []
                uses.setdefault(action.dest, []).append(_Use(flag, action, words))
        return uses

    def _check_once(self, name: str, uses: list[_Use]) -> None:
        """Raise for a flag with several values, of which argparse takes the last; the same one again is no harm."""
        values = list(dict.fromkeys(" ".join(use.values()) for use in uses))
        if len(values) == 1 or isinstance(uses[0].action, argparse._ExtendAction):
            return
        hint = f"{uses[-1].flag} takes several values at once" if uses[0].action.nargs == "+" else None
        raise ConfigError(uses[-1].flag, f"is given twice, as {values[0]} and {values[1]}", hint=hint)

    def _refuse(self, argument: str) -> NoReturn:
        flag = argument.partition("=")[0]
        if self._exclusive is not None and flag in self._exclusive.others().flags():
            raise ConfigError(flag, f"cannot be combined with {self._exclusive.flag}, which {self._exclusive.reason}")
        hint = self._hint
        if not argument.startswith("-"):
            raise ConfigError("command line", f"the word '{argument}' belongs to no flag", hint=hint)
        if flag.lstrip("-") in _SET_BY and "--set" in self.flags():
            paths = _SET_BY[flag.lstrip("-")]
            raise ConfigError("command line", f"unknown argument '{argument}'", hint=f"--set {paths}")
        raise ConfigError("command line", f"unknown argument '{argument}'", given=flag, choices=self.flags(), hint=hint)


def _sentence(message: str) -> tuple[str, str]:
    """Return the place and the problem of one of argparse's messages."""
    match = re.fullmatch(r"argument (\S+): (.*)", message, re.DOTALL)
    if match is None:
        return "command line", message
    place, problem = match[1].partition("/")[0], match[2]
    if number := re.fullmatch(r"expected (\d+) arguments", problem):
        problem = f"needs {number[1]} values"
    elif problem.startswith("expected"):
        problem = "needs a value"
    return place, problem.replace("ignored explicit argument", "takes no value, got")


def whole_number(least: int | None = None) -> Callable[[str], int]:
    """Return a reader of whole numbers; parsers read them for ``type=int``."""
    bound = "" if least is None else f" >= {least}"

    def read(text: str) -> int:
        number = int(text) if re.fullmatch("[+-]?[0-9]{1,4000}", text) else None
        if number is None or (least is not None and number < least):
            raise argparse.ArgumentTypeError(f"must be a whole number{bound}, got '{text}'")
        return number

    return read


def real_number(least: float | None = None, *, above: bool = False) -> Callable[[str], float]:
    """Return a reader of numbers; parsers read them for ``type=float``. ``above`` excludes the bound itself."""
    bound = "" if least is None else f" {'>' if above else '>='} {least:g}"

    def read(text: str) -> float:
        number = read_number(text, float)
        if number is None or (least is not None and (number <= least if above else number < least)):
            raise argparse.ArgumentTypeError(f"must be a number{bound}, got '{text}'")
        return float(number)

    return read


whole, natural, count, real = whole_number(), whole_number(0), whole_number(1), real_number()


def boolean(text: str) -> bool:
    """Read true or false."""
    value = read_switch(text)
    if value is None:
        raise argparse.ArgumentTypeError(f"must be true or false, got '{text}'")
    return value


def gigabytes(text: str) -> int:
    """Read a size in GB (10^9 bytes) as bytes."""
    size = read_number(text, float)
    if size is None or not 0 <= size < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number of gigabytes >= 0, got '{text}'")
    return int(size * 10**9)
