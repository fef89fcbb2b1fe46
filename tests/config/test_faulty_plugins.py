"""A plugin with an error in it: the message names plugin, line, function, what it must do and what it did.

A line of a table is a fault: what the code does, and what the message must say. Without it an author reads that
something should not have happened, and neither where nor why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from conftest import Command

from hebb.config import plan, plugins
from hebb.config.registry import ACTIVATIONS, DATASETS, RULES
from hebb.core import user_code
from hebb.core.errors import ConfigError
from hebb.training import pack

NETWORK = "TopTwo-c6-k3:bn:triangle:max_2_2_0 BP:flatten"
IMAGES = ("dataset_sup.samples=60", "dataset_unsup.samples=60")
DIGITS = ("--dataset", "Digits_1")
SMALL = ("--set", *IMAGES, "--threads", "1", "--device", "cpu", "--model-name", "faulty")

HEADER = """
import torch
from hebb import Field, HebbianRule, LocalRule, SettlingRule, register
from hebb.config.fields import HEBBIAN, LOCAL
from hebb.config.plan import mode
from hebb.config.registry import ACTIVATIONS, DATASETS, Activation, Dataset
from hebb.energy.ep import EP
from hebb.energy.methods import RULES
from hebb.energy.network import EnergyNetwork, TwoPhase
"""


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    """Forget the plugins of a test."""
    tables = [(table, dict(table)) for table in (RULES._entries, ACTIVATIONS._entries, DATASETS._entries)]
    tables += [(table, dict(table)) for table in (plugins._LOADED, plan.MODES, user_code._SOURCES)]  # type: ignore[list-item]
    yield
    for table, entries in tables:
        table.clear()
        table.update(entries)  # type: ignore[arg-type]


def line_of(text: str, word: str) -> int:
    return next(i for i, line in enumerate(text.splitlines(), 1) if word in line)


def fails(inside: Command, tmp_path: Path, text: str, network: str, says: str, *flags: str, kept: bool = True) -> str:
    """Run a network with the plugin; its message has at most three lines and names the file and line of ``# here``."""
    (tmp_path / "mine.py").write_text(text)
    own = "--dataset" in flags  # and it has 20 images
    few = [word.replace("samples=60", "samples=20") if own else word for word in SMALL]
    data = () if own else DIGITS
    done = inside("multi_layer.py", "--plugin", "mine.py", "--preset", network, *data, *few, *flags)
    assert done.returncode == 2, done.stdout + done.stderr
    assert len(done.stderr.splitlines()) <= 3, done.stderr
    assert says in done.stderr
    assert f"{tmp_path / 'mine.py'}, line {line_of(text, '# here')}: " in done.stderr, done.stderr
    if not kept:
        return ""
    (path,) = re.findall(r"traceback: (.*)", done.stderr)
    trace = Path(path).read_text()
    assert "mine.py" in trace
    assert str(Path(plugins.__file__).parent.parent) not in trace.partition("Traceback")[2].partition("mine.py")[0]
    return path


# -- states -----------------------------------------------------------------------------------------------------

STATE = (
    HEADER
    + """
from hebb.config.rule import State

def one(shape, layer):
    return torch.ones(shape)

def signal(u, layer, labels, state):
    return u

def advance(u, layer, state):
    return state

{code}
rule = HebbianRule(
    name="Kept", summary="a test", source="here", fields=HEBBIAN, signal=signal, state=({states},), advance=advance
)
register(rule)
"""
)
STATES = [
    ("def start(shape): pass  # here", 'State(name="mass", start=start)', "start of the state 'mass' of Kept"),
    ("def start(shape, layer): return 1  # here", 'State(name="mass", start=start)', "must return a tensor, got int"),
]


@pytest.mark.parametrize(("code", "states", "says"), STATES)
def test_a_faulty_state_is_named(inside: Command, tmp_path: Path, code: str, states: str, says: str) -> None:
    text = STATE.format(code=code, states=states)
    (tmp_path / "mine.py").write_text(text)
    done = inside("multi_layer.py", "--plugin", "mine.py", "--preset", "Kept-c6-k3 BP:flatten", *DIGITS, *SMALL)
    assert done.returncode == 2, done
    assert says in done.stderr
    assert f"mine.py, line {line_of(text, '# here')}: " in done.stderr


@pytest.mark.parametrize("name", ["rule", "training", "a.b", ""])
def test_a_state_that_cannot_be_called_so_is_refused(inside: Command, tmp_path: Path, name: str) -> None:
    text = STATE.format(code="", states=f"State(name={name!r}, start=one)")
    (tmp_path / "mine.py").write_text(text)
    done = inside("multi_layer.py", "--plugin", "mine.py", "--preset", "Kept-c6-k3 BP:flatten", *DIGITS, *SMALL)
    assert (done.returncode, "state of Kept" in done.stderr, f"got '{name}'" in done.stderr) == (2, True, True), done


# -- Hebbian rules ----------------------------------------------------------------------------------------------

MUST = "signal of TopTwo must return (M, C) like u"
SIGNALS = [
    ("returns nothing", "pass", MUST + ", got None; u is (360, 6) here"),
    ("returns a number", "return 1.0", MUST + ", got float 1.0"),
    ("returns an array", "return u.numpy()", MUST + ", got an object of type ndarray"),
    ("returns a list", "return [u]", MUST + ", got an object of type list"),
    ("returns columns as rows", "return u.T", MUST + ", got (6, 360); u is (360, 6) here"),
    ("returns a column", "return u[:, :1]", MUST + ", got (360, 1)"),
    ("returns a vector", "return u.flatten()", MUST + ", got (2160,)"),
    ("returns truth values", "return u > 0", MUST + " in float32, got bool"),
    ("returns whole numbers", "return (u > 0).long()", MUST + " in float32, got int64"),
    ("returns a sparse tensor", "return u.to_sparse()", MUST + ", a dense tensor, got a sparse one"),
    ("returns double precision", "return u.double()", MUST + " in float32, got float64"),
    ("returns NaN", "return u / 0 * 0", "signal of TopTwo must return finite numbers, got NaN or infinity"),
    ("returns infinity", "return u.abs() / 0", "signal of TopTwo must return finite numbers, got NaN or infinity"),
    ("writes to its input", "return u.relu_()", "must leave u as it is, and writes to it: work on u.clone()"),
    ("writes to the labels", "labels.fill_(0); return u", "must leave labels as it is, and writes to it"),
    ("returns another device", "return u.to('meta')", "must return a tensor on cpu, got one on meta"),
]
RAISES = [
    ("a name that is not there", "return foo(u)", "raised NameError: name 'foo' is not defined"),
    ("shapes that do not fit", "return u @ u", "raised RuntimeError: "),
    ("labels of images for rows", "return u * labels[:, None]", "raised RuntimeError: "),
    ("labels out of range", "return u.scatter(1, labels[:6, None] + 99, 1.0)", "raised RuntimeError: "),
    ("a field that it has not", "return u * layer.share", "raised AttributeError: "),
    ("an index out of range", "return u[:, 99]", "raised IndexError: "),
    ("an assertion", "assert u.dim() == 4", "raised AssertionError"),
    ("an exit without a word", "raise SystemExit", "raised SystemExit"),
    ("an exit that says done", "raise SystemExit(0)", "raised SystemExit: 0"),
    ("a package that is not there", "import nothing_of_the_kind", "raised ModuleNotFoundError: No module named"),
    ("a file that is not there", "open('nowhere')", "raised FileNotFoundError: "),
    ("an error without a text", "raise ValueError", "raised ValueError"),
    ("an error of many lines", "raise ValueError('a\\nb\\nc')", "raised ValueError: a b c"),
    ("an error of a helper", "return help(u)", "raised ZeroDivisionError: "),
]
RULE = (
    HEADER
    + """
def signal(u, layer, labels):{mark}
    {body}
{more}
register(HebbianRule(name="TopTwo", summary="", source="", fields=HEBBIAN, signal=signal{others}))
"""
)


def rule(body: str = "return u", mark: str = "", more: str = "", others: str = "") -> str:
    return RULE.format(body=body, mark=mark, more=more, others=others)


@pytest.mark.parametrize(("what", "body", "says"), SIGNALS, ids=[what for what, *_ in SIGNALS])
def test_a_signal_that_returns_something_else(inside: Command, tmp_path: Path, what: str, body: str, says: str) -> None:
    path = fails(inside, tmp_path, rule(body, mark="  # here"), NETWORK, says)
    assert Path(path).parent.name == "faulty", "the run folder keeps it"


@pytest.mark.parametrize(("what", "body", "says"), RAISES, ids=[what for what, *_ in RAISES])
def test_a_signal_that_raises(inside: Command, tmp_path: Path, what: str, body: str, says: str) -> None:
    helper = "def help(u):\n    return 1 / 0" + ("  # here" if "helper" in what else "")
    text = rule(body if "helper" in what else f"{body}  # here", more=helper)
    fails(inside, tmp_path, text, NETWORK, f": signal of TopTwo {says}")


OTHERS = [
    ("decay", "y, u, weight, layer", "pass", "decay of TopTwo must return (C, N) like weight, got None"),
    ("decay", "y, u, weight, layer", "return y", "decay of TopTwo must return (C, N) like weight, got (360, 6)"),
    ("decay", "y, u, weight, layer", "return weight.zero_()", "decay of TopTwo must leave weight as it is"),
    ("initialise", "shape, layer, generator", "pass", "initialise of TopTwo must return weights of shape (6, 1, 3, 3)"),
    ("initialise", "shape, layer, generator", "return torch.ones(())", "of shape (6, 1, 3, 3), got ()"),
    ("initialise", "shape, layer, generator", "return torch.ones(shape) / 0", "must return finite weights"),
    ("softmax", "layer", "return 2.0", "softmax of TopTwo must return a Softmax or None, got float 2.0"),
]


@pytest.mark.parametrize(("name", "arguments", "body", "says"), OTHERS)
def test_the_other_functions_of_a_hebbian_rule(
    inside: Command, tmp_path: Path, name: str, arguments: str, body: str, says: str
) -> None:
    more = f"def other({arguments}):  # here\n    {body}\n"
    fails(inside, tmp_path, rule(more=more, others=f", {name}=other"), NETWORK, says)


def test_a_bias_step_of_another_shape(inside: Command, tmp_path: Path) -> None:
    more = "def step(y, bias, layer):  # here\n    return y\n"
    text = rule(more=more, others=", bias_step=step")
    text = text.replace("fields=HEBBIAN", "fields=(*HEBBIAN, 't_invert', 'add_bias')")
    says = "bias_step of TopTwo must return (C,) like bias, got ("
    fails(inside, tmp_path, text, NETWORK.replace("k3", "k3-b1"), says)


# -- rules with a loss of their own -----------------------------------------------------------------------------

LOSSES = [
    ("pass", "loss of Mine must return a dict of terms by name, got None"),
    ("return views[0].sum()", "must return a dict of terms by name, got ()"),
    ("return {}", "must return a dict of terms by name, got dict {}"),
    ("return {'pull': 1.0}", "must return a number for the term 'pull', a tensor (), got float 1.0"),
    ("return {'pull': views[0]}", "must return a number for the term 'pull', a tensor (), got ("),
    ("return {'pull': views[0].detach().sum()}", "must depend on the views, got terms without a gradient"),
    ("return {'pull': views[0].sum() / 0}", "must return finite numbers, got NaN or infinity"),
]
LOSS = """
def loss(views, layer, context):  # here
    {}
register(LocalRule(name="Mine", summary="", source="", fields=LOCAL, loss=loss,
                   defaults={{"CNN": {{"warmup": 0}}}}))
"""


@pytest.mark.parametrize(("body", "says"), LOSSES)
def test_a_loss_that_returns_something_else(inside: Command, tmp_path: Path, body: str, says: str) -> None:
    fails(inside, tmp_path, HEADER + LOSS.format(body), "Mine-c6-k3:relu:max_2_2_0 BP:flatten", says)


# -- activations, modes, datasets, settling networks ------------------------------------------------------------

ACTIVATION = "ACTIVATIONS.register(Activation(name='bump', formula='', function=bump{}))\n"
ENTRIES = [
    (
        "def bump(u):  # here\n    pass\n" + ACTIVATION.format(""),
        "function of bump must return (B, C, ...) like u, got None",
    ),
    ("def bump(u):  # here\n    return u > 0\n" + ACTIVATION.format(""), "like u in float32, got bool"),
    ("def bump(u):\n    return foo  # here\n" + ACTIVATION.format(""), "function of bump raised NameError"),
    (
        "def bump(u): return u\ndef mid(u):  # here\n    return u.mean()\n" + ACTIVATION.format(", centre=mid"),
        "centre of bump must return (B, C, ...) like u, got ()",
    ),
]


@pytest.mark.parametrize(("text", "says"), ENTRIES)
def test_an_activation(inside: Command, tmp_path: Path, text: str, says: str) -> None:
    fails(inside, tmp_path, HEADER + text, "Hard-c6-k3:bn:bump:max_2_2_0 BP:flatten", says)


MODES = [
    ("pass", "  # here", "mode 'twice' must return a list of Phase, at least one, got None"),
    ("return []", "  # here", "mode 'twice' must return a list of Phase, at least one, got []"),
    ("return config.nothing  # here", "", "mode 'twice' raised AttributeError"),
]


@pytest.mark.parametrize(("body", "mark", "says"), MODES)
@pytest.mark.parametrize("flags", [("--dry-run",), ()])
def test_a_mode(inside: Command, tmp_path: Path, body: str, mark: str, says: str, flags: tuple[str, ...]) -> None:
    text = HEADER + f"@mode{mark}\ndef twice(config):\n    {body}\n"
    fails(inside, tmp_path, text, "Hard-c6-k3 BP:flatten", says, "--training-mode", "twice", *flags)
    assert not (tmp_path / "home").exists()


DATA = """
import numpy as np
def load(folder, train):{}
    {}
DATASETS.register(Dataset(name="Mine", channels=1, height=8, width=8, classes=2, train=20, test=20, load=load,
                          summary=""))
"""
DATASET_FAULTS = [
    ("pass", True, "load of Mine must return arrays (images, labels), got NoneType"),
    ("return np.zeros((20, 8, 8), np.uint8)", True, "load of Mine must return arrays (images, labels), got ndarray"),
    ("return [[0]], [1]", True, "load of Mine must return arrays (images, labels), got (list, list)"),
    ("return np.zeros((20, 8, 8)), np.zeros(20)", True, ": images must be uint8, got float64"),
    ("return np.zeros((20, 9, 8), np.uint8), np.zeros(20, int)", True, "images must be (N, 1, 8, 8) with N labels"),
    ("return np.zeros((20, 8, 8), np.uint8), np.full(20, 7)", True, "labels must be 0 to 1, got 7 to 7"),
    ("return np.load('nowhere.npy')", False, "load of Mine raised FileNotFoundError"),
]


@pytest.mark.parametrize(("body", "returns", "says"), DATASET_FAULTS)
def test_a_dataset(inside: Command, tmp_path: Path, body: str, returns: bool, says: str) -> None:
    marks = ("  # here", "") if returns else ("", "  # here")
    text = HEADER + DATA.format(marks[0], body + marks[1])
    (tmp_path / "mine.json").write_text(json.dumps({"dataset": {"Mine": {"default": {"epochs": 1}}}}))
    flags = ("--preset-file", "mine.json", "--dataset", "Mine")
    fails(inside, tmp_path, text, "Hard-c6-k3 BP:flatten", says, *flags, kept="load of Mine" in says)


SETTLING = """
class Net({base}):
    {body}
def network():{mark}
    return {returned}
def tensors(fan_in, width, first, last):{tensors_mark}
    return {tensors}
EP_ = RULES.get("EP", "")
register(SettlingRule(name="Mine", archs=("MLP",), summary="", source="", fields=("lr",), settings=EP_.settings,
                      network=network, tensors=tensors))
"""
STORED = "{'weight': ((width, fan_in), 0.1), 'bias': ((width,), 0.0)}"


def settling(
    base: str = "EP", body: str = "pass", mark: str = "", returned: str = "Net", tensors: str = STORED, stored: str = ""
) -> str:
    return HEADER + SETTLING.format(
        base=base, body=body, mark=mark, returned=returned, tensors=tensors, tensors_mark=stored
    )


HERE = "  # here"
SETTLING_FAULTS = [
    (settling(returned="None", mark=HERE), "network of Mine must return a subclass of EnergyNetwork, got None"),
    (settling(base="EnergyNetwork", mark=HERE), "must return a class with learn and predict, which Net lacks"),
    (settling(base="TwoPhase", mark=HERE), "must return a class with prepare and relax and change, which Net lacks"),
    (settling(tensors="None", stored=HERE), "tensors of Mine must return a dict of (shape, bound) by name, got None"),
    (settling(tensors="{'weight': (3,)}", stored=HERE), "must return a dict of (shape, bound) by name"),
    (settling(tensors="{}", stored=HERE), "must return a weight of shape (16, 64), got None"),
    (settling(tensors="{'wait': ((1,), 0.1)}", stored=HERE), "must name weight, bias, feedback, lateral, got 'wait'"),
    (settling(body="def predict(self, x):  # here\n        pass"), "predict of Mine must return a list of (N, n_l)"),
    (
        settling(body="def predict(self, x):  # here\n        return [x]"),
        "predict of Mine must return a list of (N, n_l)",
    ),
    (settling(body="def change(self, *args):\n        foo  # here"), "Net.change raised NameError"),
    (
        settling(body="def optimiser(self):  # here\n        return 7"),
        "optimiser of Mine must return a torch optimiser",
    ),
]


@pytest.mark.parametrize(("text", "says"), SETTLING_FAULTS)
def test_a_settling_network(inside: Command, tmp_path: Path, text: str, says: str) -> None:
    fails(inside, tmp_path, text, "Mine-c16:flatten Mine", says)


# -- functions that cannot be called, and files that cannot be loaded ---------------------------------------------

LOADED = [
    (
        rule().replace("(u, layer, labels):", "(u, layer):  # here"),
        "signal of TopTwo must take (u, layer, labels), takes",
    ),
    (
        rule().replace("signal=signal", "signal=None"),
        "signal of TopTwo: must be a function of (u, layer, labels), got None",
    ),
    (rule().replace("signal=signal", "signal='soft'"), "must be a function of (u, layer, labels), got 'soft'"),
    (rule(more="def d(y, u): pass  # here\n", others=", decay=d"), "decay of TopTwo must take (y, u, weight, layer)"),
    (HEADER + "def bump():  # here\n    pass\n" + ACTIVATION.format(""), "function of bump must take (u)"),
    (HEADER + "def bump(u):  # here\n    pass\n" + ACTIVATION.format(", parameter='g'"), "must take (u, parameter)"),
    (HEADER + "@mode  # here\ndef twice():\n    pass\n", "mode 'twice' must take (config)"),
    (HEADER + "@mode  # here\ndef successive(config):\n    pass\n", "mode 'successive': is registered twice"),
    (rule() + "register(RULES.get('TopTwo', ''))  # here\n", "method 'TopTwo': is registered twice"),
    (rule() + "foo  # here\n", "cannot be loaded: NameError: name 'foo' is not defined"),
    (rule() + "x = (  # here\n", "cannot be loaded: SyntaxError: '(' was never closed"),
    (rule() + "import nothing_of_the_kind  # here\n", "cannot be loaded: ModuleNotFoundError"),
    (rule() + "raise SystemExit(0)  # here\n", "cannot be loaded: SystemExit: 0"),
    (
        rule().replace("fields=HEBBIAN", "fields=(*HEBBIAN, 'add_bias')"),
        "the field add_bias needs a bias_step, got none",
    ),
]


@pytest.mark.parametrize(("text", "says"), LOADED)
def test_a_plugin_that_cannot_be_loaded(inside: Command, tmp_path: Path, text: str, says: str) -> None:
    """A dry run says so, and the flag is named as the user wrote it."""
    (tmp_path / "mine.py").write_text(text)
    done = inside("multi_layer.py", "--plugin", "mine.py", "--preset", NETWORK, "--dry-run")
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("error: --plugin mine.py")
    assert says in done.stderr
    assert len(done.stderr.splitlines()) <= 3
    if "# here" in text:
        assert f"line {line_of(text, '# here')}" in done.stderr


# -- packs, compiled steps, a machine in trouble ------------------------------------------------------------------


@pytest.mark.parametrize("body", ["pass", "return u.relu_()", "return u / 0 * 0", "return foo"])
def test_a_pack_says_the_same(inside: Command, tmp_path: Path, body: str) -> None:
    raises = "foo" in body
    text = rule(body + ("  # here" if raises else ""), mark="" if raises else "  # here")
    fails(inside, tmp_path, text, NETWORK, "signal of TopTwo", "--pack-seeds", "2")


def test_every_member_of_a_failed_pack_keeps_the_traceback_and_is_trained_again(
    inside: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rule fails in the first epoch and not in the rehearsal; the same command runs once it is mended."""
    monkeypatch.setattr(pack.Pack, "rehearse", lambda self, phases: None)
    (tmp_path / "mine.py").write_text(rule("import os; assert not os.path.exists('block'), 'late'; return u"))
    (tmp_path / "block").touch()
    flags = ("--plugin", "mine.py", "--preset", NETWORK, *DIGITS, *SMALL, "--pack-seeds", "2")
    assert inside("multi_layer.py", *flags).returncode == 2
    members = [tmp_path / "home" / "hebb" / "result" / "network" / f"faulty-s{seed}" for seed in (0, 1)]
    assert ["late" in (member / "traceback.txt").read_text() for member in members] == [True, True]
    (tmp_path / "block").unlink()
    done = inside("multi_layer.py", *flags)
    assert done.returncode == 0, done.stderr
    assert [(m / "result.json").exists() and not (m / "traceback.txt").exists() for m in members] == [True, True]


def test_a_compiled_step_says_the_same(inside: Command, tmp_path: Path) -> None:
    fails(inside, tmp_path, rule("return u.relu_()", mark="  # here"), NETWORK, "must leave u as it is", "--compile")


@pytest.mark.parametrize("error", ["MemoryError()", "OSError(28, 'No space left on device')", "ConnectionError('x')"])
def test_trouble_of_the_machine_is_no_fault_of_the_plugin(inside: Command, tmp_path: Path, error: str) -> None:
    (tmp_path / "mine.py").write_text(rule(f"raise {error}"))
    done = inside("multi_layer.py", "--plugin", "mine.py", "--preset", NETWORK, *DIGITS, *SMALL)
    assert done.returncode == 1
    assert "signal of TopTwo" not in done.stderr


def test_a_run_that_failed_is_resumed_without_its_traceback(inside: Command, tmp_path: Path) -> None:
    """The file tells of the last attempt."""
    (tmp_path / "mine.py").write_text(rule("import os; assert not os.path.exists('block'); return u"))
    (tmp_path / "block").touch()
    flags = ("--plugin", "mine.py", "--preset", NETWORK, *DIGITS, *SMALL)
    assert inside("multi_layer.py", *flags).returncode == 2
    folder = tmp_path / "home" / "hebb" / "result" / "network" / "faulty"
    assert (folder / "traceback.txt").exists()
    (tmp_path / "block").unlink()
    done = inside("multi_layer.py", "--resume-run", "faulty")
    assert done.returncode == 0, done.stderr
    assert not (folder / "traceback.txt").exists()


# -- a search ----------------------------------------------------------------------------------------------------


@pytest.mark.ray
@pytest.mark.slow
def test_a_search_keeps_the_traceback_and_does_not_try_again(command: Command, tmp_path: Path) -> None:
    """The one trial whose rule fails is told apart from a mishap: no retry, the other one is finished."""
    body = "assert layer.lr < 0.15, 'too fast'; return u.relu()  # here"
    text = rule(body)
    (tmp_path / "mine.py").write_text(text)
    (tmp_path / "rates.yaml").write_text("seeds: [0]\nspace:\n  b0.layer.lr: {grid: [0.1, 0.2]}\n")
    flags = ("--dataset", "Digits_1", "--set", *IMAGES, "--threads", "1", "--device", "cpu")
    done = command(
        *("ray_search.py", "--plugin", "mine.py", "--preset", NETWORK, *flags),
        *("--config", "rates.yaml", "--folder-name", "s"),
    )
    assert done.returncode == 1, done.stdout + done.stderr
    says = f"plugin {tmp_path / 'mine.py'}, line {line_of(text, '# here')}: signal of TopTwo raised AssertionError"
    assert says in done.stdout
    folder = tmp_path / "home" / "hebb" / "search" / "s"
    (trace,) = folder.glob("trials/*/traceback.txt")
    assert f"traceback: {trace}" in done.stdout
    assert "too fast" in trace.read_text()
    assert "assert layer.lr < 0.15" in trace.read_text()
    (failed,) = (
        e for e in map(json.loads, (folder / "journal.jsonl").read_text().splitlines()) if e["event"] == "failed"
    )
    assert failed["again"] is False
    modified = trace.stat().st_mtime_ns
    assert command("ray_search.py", "--restore", "s").returncode == 1
    assert trace.stat().st_mtime_ns == modified, "it is not run again"
    again = command("ray_search.py", "--restore", "s", "--retry-failed")
    assert again.returncode == 1, again.stdout + again.stderr
    assert trace.stat().st_mtime_ns > modified, "it is run again where that is asked for"


# -- what a plugin does to the process while it is loaded -------------------------------------------------------------

OK = rule()
LOADS = [
    ("torch.set_default_device('meta')\n" + OK, "sets torch's default device to meta for everything"),
    ("torch.set_default_dtype(torch.float64)\n" + OK, "sets torch's default dtype to torch.float64"),
    ("torch.set_grad_enabled(False)\n" + OK, "sets torch's gradients to off for everything"),
    ("import beside\n" + OK, "No module named 'beside'\nseveral files are a package"),
    ("from . import beside\n" + OK, "with no known parent package\nseveral files are a package"),
    ("register(HebbianRule)\n", "must be"),
    ("ACTIVATIONS.register(Activation)\n", "activation: must be an entry with a name, got the class Activation"),
    ("ACTIVATIONS.register(object())\n", "activation: must be an entry with a name, got an object of object"),
]


@pytest.mark.parametrize(("text", "says"), LOADS)
def test_a_plugin_that_changes_the_process(text: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "beside.py").touch()
    (tmp_path / "mine.py").write_text(HEADER + text)
    try:
        with pytest.raises(ConfigError) as error:
            plugins.load([str(tmp_path / "mine.py")])
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)
    assert says in str(error.value)
    assert str(error.value).count("--plugin") == 1
    assert len(str(error.value).splitlines()) <= 3


def test_a_plugin_that_changes_the_working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Relative paths keep the meaning that they had when the user typed them."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(HEADER + "import os\nos.chdir('/')\n" + OK)
    plugins.load(["mine.py"])
    assert Path.cwd() == tmp_path


@pytest.mark.parametrize("text", ["sys.stdout.close()", "sys.stderr.close()", "os.close(1)", "sys.stdout = None"])
def test_a_plugin_that_closes_the_output(text: str, tmp_path: Path, forked: Command) -> None:
    """The message is printed, and is no traceback."""
    (tmp_path / "mine.py").write_text(f"{HEADER}import os, sys\n{text}\n{OK}")
    done = forked(
        "multi_layer.py", "--plugin", "mine.py", "--preset", "BP:flatten", "--dataset", "Digits_1", "--dry-run"
    )
    stream = "stderr" if "stderr" in text else "stdout"
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: --plugin mine.py: closes or redirects sys.{stream}, ")
    assert "Traceback" not in done.stderr
