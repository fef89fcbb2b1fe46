"""Write docs/rules/, a page for every method, and docs/paths.md, from the entries and docstrings of the code.

python docs/write_rules.py

The pages hold nothing of their own, so a rule is described where it is written, and a test compares them with the code.
"""

from __future__ import annotations

import dis
import inspect
import re
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

import hebb.rules  # noqa: E402
from hebb import builtin  # noqa: E402
from hebb.config import catalog, fields, grammar, paths  # noqa: E402
from hebb.config.catalog import Catalog  # noqa: E402
from hebb.config.fields import Value  # noqa: E402
from hebb.config.registry import RULES, HebbianRule, LocalRule, Rule, SettlingRule  # noqa: E402
from hebb.config.vocabulary import Learning  # noqa: E402
from hebb.energy.coding import Coding, ErrorDescent  # noqa: E402
from hebb.nn import response  # noqa: E402

KINDS = {
    Learning.HEBBIAN: "layer-local rule",
    Learning.LOCAL: "layer-local loss",
    Learning.BACKPROP: "gradient of the loss of the network",
    Learning.SETTLE: "settling network",
}
PRESETS = 8  # shown of those that use a rule
GRADIENT = re.compile(r"^ +d\w+/d\w+\S* *=", re.MULTILINE)
"""A line of a docstring with the derivative of a loss."""


def pages() -> dict[str, str]:
    """Return the text of every page by its file name."""
    builtin.load()
    presets = catalog.load()
    rules = sorted(RULES.entries(), key=lambda rule: list(KINDS).index(rule.learning))
    return {"README.md": index(rules), **{f"{rule.name}.md": page(rule, presets) for rule in rules}}


def index(rules: list[Rule]) -> str:
    """Return the page that lists the others."""
    lines = ["# Rules", "", "| method | kind | what | source |", "|---|---|---|---|"]
    lines += [
        f"| [{rule.name}]({rule.name}.md) | {KINDS[rule.learning]} | {cell(rule.summary)} | {cell(rule.source)} |"
        for rule in rules
    ]
    lines += ["", "`python docs/write_rules.py` writes these pages from the code, which they quote."]
    return "\n".join(lines) + "\n"


def page(rule: Rule, known: Catalog) -> str:
    """Return the page of a rule."""
    parts = [
        f"# {rule.name}",
        f"{rule.summary[0].upper()}{rule.summary[1:]}.",
        f"- source: {rule.source}\n- kind: {KINDS[rule.learning]}; for {' and '.join(rule.archs)}{_batch(rule)}",
        "## Equations",
        *equations(rule),
        "## Fields",
        "A field with a token can be written in a preset string; all can be set by name (`--set b0.layer.NAME=...`).",
        field_table(rule, known),
    ]
    if isinstance(rule, SettlingRule):
        parts += ["## Settings of the network", "Written in front: `settle:name=value,name=value`.", settings(rule)]
    command = f'python multi_layer.py --preset "{example(rule)}" --dataset {_data(rule)} --dry-run'
    parts += ["## Try it", f"```bash\n{command}\n```"]
    used = [name for name, model in known.models.items() if rule.name in {b.layer.method for b in model.network.blocks}]
    if used:
        more = f" and {len(used) - PRESETS} more (`--list presets`)" if len(used) > PRESETS else ""
        parts.append("Presets with it: " + ", ".join(f"`{name}`" for name in used[:PRESETS]) + more + ".")
    return "\n\n".join(parts) + "\n"


def _batch(rule: Rule) -> str:
    words = (["two views of every image"] if rule.views == 2 else []) + (["labels"] if rule.labels else [])
    return f"; a batch carries {' and '.join(words)}" if words else ""


def equations(rule: Rule) -> list[str]:
    """Return the blocks with the rule's equations: what it shares with others, then its own."""
    if isinstance(rule, HebbianRule):
        shared = indented(hebb.rules.__doc__ or "")
        own = [("y", rule.signal), ("in place of (sum_b y u) w", rule.decay), ("bias", rule.bias_step)]
        own.append(("start", rule.initialise))
        own += [("the weights as the input meets them", rule.effective), ("the weights after a step", rule.project)]
        own.append(("the state, before y", rule.advance))
        parts = [*answer(rule), fenced(shared)]
        for name, function in own:
            if function is not None:
                parts += [f"{name}, {where(function)}:", fenced(documented(function)), *helpers(function)]
        return [*parts, rate_text("adaptive" in rule.fields)]
    if isinstance(rule, LocalRule):
        module = inspect.getmodule(rule.loss)
        assert module is not None
        parts = [f"The loss, {where(rule.loss)}:", fenced(documented(rule.loss)), *helpers(rule.loss)]
        if rule.projector is not None:
            parts += [f"The projector, {where(rule.projector)}:", fenced(documented(rule.projector))]
        if module.__name__.endswith(rule.name.lower()):
            whole = documented(module).partition("\n")[2].strip("\n")
            gradient = ", and the gradient that a neuron follows" if GRADIENT.search(whole) else ""
            parts += [f"The whole{gradient}:", fenced(whole)]
        return parts
    if isinstance(rule, SettlingRule):
        kind = rule.network()
        bases = [k for k in kind.__mro__[1:] if k.__module__ == kind.__module__ and k.__doc__]
        if issubclass(kind, Coding):
            bases = [Coding, ErrorDescent]
        return [text for k in (kind, *bases) for text in (f"{where(k)}:", fenced(documented(k)))]
    from hebb.nn.feedback import FeedbackLinear

    descended = "w <- w - step(dL/dw)      L: mean cross-entropy of the batch (classifier.loss), step: Adam or SGD"
    if rule.name == "FA":
        return [fenced(descended), f"{where(FeedbackLinear)}:", fenced(documented(FeedbackLinear))]
    return [fenced(descended)]


def answer(rule: HebbianRule) -> list[str]:
    """Return the blocks that say what u is, by the fields that the rule has, and what the layer computes from it."""
    own = {name for arch in rule.archs for name in rule.fields_on(arch)}
    over = "b over samples and output pixels,"
    if "response" not in own:
        power = "sign(w)|w|^(p-1)" if "lebesgue_p" in own else "w"
        bias = " + bias" if "add_bias" in own else ""
        return [cell(f"For input x, weights w and pre-activation u = x * {power}{bias} the layer computes, {over}")]
    usual = " and ".join(sorted({str(rule.defaults[arch]["response"]) for arch in rule.archs}))
    shown = {f"u, by `response`, {usual} by default": response.respond}
    shown["`surround`, a filter on u"] = response.surround_kernel
    met = ", as the input meets them (below)" if rule.effective else ""
    parts = [f"The layer answers an input x with u, through its weights w{met}."]
    for name, function in shown.items():
        parts += [f"{name}, {where(function)}:", fenced(documented(function))]
    return [*parts, f"From u the layer computes, {over}"]


def helpers(function: Any) -> list[str]:
    """Return the blocks of the functions of the same file that a function calls."""
    names = [step.argval for step in dis.get_instructions(function) if step.opname == "LOAD_GLOBAL"]
    there = [getattr(inspect.getmodule(function), name, None) for name in dict.fromkeys(names)]
    called = [f for f in there if inspect.isfunction(f) and f.__module__ == function.__module__ and f.__doc__]
    return [text for f in called for text in (f"where {where(f)}:", fenced(documented(f)))]


def rate_text(adaptive: bool) -> str:
    """Return what the rate of a Hebbian layer is."""
    from hebb.rules import rates

    schedule = fenced(documented(rates.scheduled))
    if not adaptive:
        return f"The rate, {where(rates.scheduled)}, by the schedule `lr_decay`:\n\n{schedule}"
    return (
        f"The rate, {where(rates.norm_dependent)}, with `v1`:\n\n{fenced(documented(rates.norm_dependent))}\n\n"
        f"and with `v0` by the schedule `lr_decay`:\n\n{schedule}"
    )


def documented(thing: Any) -> str:
    """Return a docstring as plain text, without its list of arguments."""
    text = inspect.cleandoc(thing.__doc__ or "").partition("\n\nArgs:")[0].partition("\n\nAttributes:")[0]
    return text.replace("``", "")


def indented(text: str) -> str:
    """Return the first indented block of a text."""
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("    "))
    block = []
    for line in lines[start:]:
        if not line.startswith("    "):
            break
        block.append(line[4:])
    return "\n".join(block).replace("``", "")


def fenced(text: str) -> str:
    """Return text as it stands."""
    return f"```text\n{text}\n```"


def where(thing: Any) -> str:
    """Return a link to the file of a function or class."""
    path = Path(inspect.getfile(inspect.unwrap(thing))).resolve().relative_to(ROOT).as_posix()
    return f"[`{thing.__name__}`](../../{path})"


def field_table(rule: Rule, presets: Catalog) -> str:
    """Return the fields of a rule with their defaults on each architecture."""
    needed: dict[str, Value] = {"out_channels": 1, "kernel_size": 1}
    shown: dict[str, fields.Field] = {}
    values: dict[str, dict[str, str]] = {}
    for arch in rule.archs:
        mine = rule.fields_on(arch)
        required = {name: value for name, value in needed.items() if name in mine}
        layer = grammar.make_layer(rule.name, arch, required, presets.defaults, "page")
        values[arch] = {name: "" if name in needed else _written(getattr(layer, name)) for name in mine}
        shown |= mine
    lines = [f"| token | name | {' | '.join(rule.archs)} | legal | meaning |", f"|{'---|' * (4 + len(rule.archs))}"]
    for name, entry in shown.items():
        own = " | ".join(values[arch].get(name, "-") for arch in rule.archs)
        token = f"`{entry.token}`" if entry.token else ""
        lines.append(f"| {token} | `{name}` | {own} | {entry.legal} | {cell(entry.meaning)} |")
    return "\n".join(lines)


def settings(rule: SettlingRule) -> str:
    """Return the settings of a settling network."""
    lines = ["| name | default | legal | meaning |", "|---|---|---|---|"]
    lines += [f"| `{s.name}` | {_written(s.default)} | {s.legal} | {cell(s.meaning)} |" for s in rule.settings]
    return "\n".join(lines)


def _written(value: Value | None) -> str:
    return value or "" if value is None or isinstance(value, str) else grammar.number(value)


def cell(text: str) -> str:
    """Return text that a cell of a table shows as it stands."""
    for letter in ("\\", "|", "*", "<"):
        text = text.replace(letter, f"\\{letter}")
    return text


def example(rule: Rule) -> str:
    """Return a small network with the rule."""
    if isinstance(rule, SettlingRule):
        return f"{rule.name}-c64:flatten {rule.name}"
    if rule.labels and isinstance(rule, HebbianRule):
        return f"SoftKrotov-c16-k3-p1:bn:triangle:max_2_2_0 {rule.name}-r3:flatten"
    if "CNN" in rule.archs:
        return f"{rule.name}-c16-k3-p1:bn:triangle:max_2_2_0 BP:flatten"
    return f"{rule.name}-c64:flatten:relu BP"


def _data(rule: Rule) -> str:
    return {Learning.LOCAL: "Digits_lpl", Learning.SETTLE: "Digits_settle"}.get(rule.learning, "Digits_1")


def paths_page() -> str:
    """Return the page of the paths of ``--set``."""
    lines = [
        "# What `--set` can change",
        "",
        "`--set PATH=VALUE` changes one value of a run; the same paths are the keys of a search space and of",
        "`overrides` in Python. `hebb list paths [WORD]` prints this page, or the paths that contain a word.",
    ]
    for title, group in paths.paths().items():
        lines += [
            "",
            f"## {title[0].upper()}{title[1:]}",
            "",
            "| path | legal | default | meaning |",
            "|---|---|---|---|",
        ]
        lines += [f"| `{p.name}` | {cell(p.legal)} | {cell(p.default)} | {cell(p.meaning)} |" for p in group]
    lines += ["", "`python docs/write_rules.py` writes this page from the code."]
    return "\n".join(lines) + "\n"


def main(folder: Path = HERE / "rules") -> None:
    """Write the pages, and remove those of rules that are gone."""
    (HERE / "paths.md").write_text(paths_page(), encoding="utf-8")
    texts = pages()
    for path in folder.glob("*.md"):
        if path.name not in texts:
            path.unlink()
    folder.mkdir(exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
