"""A search in one file, repeated elsewhere.

Without it a colleague could not check a number, or the file of a stranger could run code.
The runs are made once, without Ray; one test repeats a search by the real command.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import small
import stored_runs

from hebb.analysis import agreement
from hebb.analysis.agreement import Agreement, Repeated
from hebb.cli import verbs
from hebb.config import plugins
from hebb.config.registry import RULES
from hebb.core import locks
from hebb.core.errors import ConfigError
from hebb.storage import archive, folders
from hebb.tuning import rerun

TINY = ("dataset_sup.samples=100", "dataset_unsup.samples=100")
EXAMPLE = """
from hebb import Field, HebbianRule, register
from hebb.config.fields import HEBBIAN

def top_two(u, layer, labels):
    import torch
    first, second = u.topk(2, dim=1).indices.split(1, dim=1)
    return torch.zeros_like(u).scatter(1, second, layer.share).scatter(1, first, 1.0)

share = Field(name="share", token="share", kind=float, minimum=0, default=0.5, meaning="of the runner-up")
register(HebbianRule(name="TopTwo", summary="", source="", fields=HEBBIAN, own_fields=(share,), signal=top_two))
"""
WITH_PLUGIN = "TopTwo-c6-k3-share0.2:bn:triangle:max_2_2_0 BP:flatten"


@pytest.fixture(scope="module", autouse=True)
def _forgotten() -> Iterator[None]:
    """Leave no rule of a plugin behind in this process."""
    rules, loaded = dict(RULES._entries), dict(plugins._LOADED)
    yield
    forget(rules, loaded)


def forget(rules: dict[str, Any], loaded: dict[str, Any]) -> None:
    for registered, before in ((RULES._entries, rules), (plugins._LOADED, loaded)):
        registered.clear()
        registered.update(before)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search of two rates, and the run of a plugin."""
    home = tmp_path_factory.mktemp("home")
    stored_runs.sweep(home, "rates", small.config(small.CNN, *TINY), {"b0.layer.lr": [0.05, 0.1]}, [0], leave_out=0)
    plugin = home / "top_two.py"
    plugin.write_text(EXAMPLE)
    words = ("--preset", WITH_PLUGIN, "--dataset", "Digits_1", "--set", *TINY, "--threads", "1", "--device", "cpu")
    assert verbs.main(["train", *words, "--plugin", str(plugin), "--model-name", "mine", "--data-dir", str(home)]) == 0
    return home


@pytest.fixture(scope="module")
def packed(home: Path) -> Path:
    return packed_as(home, "rates", home / "rates.zip")


def packed_as(home: Path, name: str, out: Path, *more: str) -> Path:
    assert verbs.main(["archive", name, "--out", str(out), "--data-dir", str(home), *more]) == 0
    return out


def test_the_same_records_give_the_same_bytes(home: Path, tmp_path: Path) -> None:
    for ending in archive.ENDINGS:
        first, second = (packed_as(home, "rates", tmp_path / f"{i}{ending}").read_bytes() for i in range(2))
        assert first == second
    one, other = (archive.read(tmp_path / f"0{ending}") for ending in archive.ENDINGS[:2])
    assert one.files == other.files
    assert {Path(name).name for name in one.files} >= {
        "search.json",
        "config.json",
        "metrics.jsonl",
        "environment.json",
    }
    assert not any(name.endswith(".pt") for name in one.files)
    assert len(one.runs()) == 2


def test_data_are_named_by_their_own_run(home: Path, tmp_path: Path) -> None:
    """A trial that was killed before it wrote its environment shifts no other's."""
    search = shutil.copytree(folders.Home(home).search("rates"), tmp_path / "rates")
    whole = archive.write(search, tmp_path / "whole.zip")["data"]
    first = next(path for path in sorted((search / "trials").iterdir()) if (path / "config.json").exists())
    config = json.loads((first / "config.json").read_text())
    for role in ("dataset_sup", "dataset_unsup"):
        config[role]["dataset"] = "MNIST"
    killed = search / "trials" / "0-killed"
    killed.mkdir()
    (killed / "config.json").write_text(json.dumps(config))
    assert archive.write(search, tmp_path / "killed.zip")["data"] == whole
    assert {entry["dataset"] for entry in whole} == {"Digits"}


def test_models_are_packed_when_they_are_asked_for(home: Path, tmp_path: Path) -> None:
    path = packed_as(home, "mine", tmp_path / "m.zip", "--with-models")
    assert "run/checkpoint/last.pt" in zipfile.ZipFile(path).namelist()
    assert archive.read(path).runs() == [""]


def test_what_cannot_be_packed_is_named(home: Path, tmp_path: Path) -> None:
    place = ("--data-dir", str(home))
    moved = shutil.copytree(folders.Home(home).network("mine"), tmp_path / "mine")
    edited = tmp_path / "top_two.py"
    edited.write_text(EXAMPLE.replace("1.0", "2.0"))
    config = json.loads((moved / "config.json").read_text())
    config["plugins"][0]["name"] = str(edited)
    (moved / "config.json").write_text(json.dumps(config))
    packed_as(home, str(moved), tmp_path / "kept.zip")  # the run keeps the source that it used
    shutil.rmtree(moved / "plugins")
    with pytest.raises(ConfigError, match=f"^archive, plugin '{edited}': its source has changed since the run"):
        verbs.main(["archive", str(moved), "--out", str(tmp_path / "x.zip"), *place])
    packed_as(home, str(moved), tmp_path / "x.zip", "--plugin", str(home / "top_two.py"))
    with pytest.raises(ConfigError, match=r"^--out: must be a new file"):
        verbs.main(["archive", "rates", "--out", str(tmp_path / "x.zip"), *place])
    for name in ("x.rar", ".zip", "none/x.zip"):
        with pytest.raises(ConfigError, match=r"^--out: must be a file"):
            verbs.main(["archive", "rates", "--out", str(tmp_path / name), *place])
    (moved / "result.json").unlink()
    with pytest.raises(ConfigError, match=r"must name a search or a finished run, and .* is interrupted"):
        verbs.main(["archive", str(moved), "--out", str(tmp_path / "y.zip"), *place])
    search = folders.Home(home).search("rates")
    with (
        locks.held(search / folders.LOCKS / folders.SEARCH),
        pytest.raises(ConfigError, match="is being run by process"),
    ):
        verbs.main(["archive", "rates", "--out", str(tmp_path / "y.zip"), *place])
    assert not (tmp_path / "y.zip").exists()


# -- files of strangers -----------------------------------------------------------------------------------------

Entries = dict[str, bytes]


def entries_of(path: Path) -> Entries:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def as_zip(path: Path, entries: Entries, **attributes: int) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = attributes.get(name.rpartition("/")[2].partition(".")[0], stat.S_IFREG | 0o644) << 16
            file.writestr(info, content, zipfile.ZIP_DEFLATED)


def as_tar(path: Path, entries: Entries, kind: bytes = tarfile.REGTYPE) -> None:
    with tarfile.open(path, "w:gz") as file:
        for name, content in entries.items():
            info = tarfile.TarInfo(name)
            last = name == list(entries)[-1]
            info.type = kind if last else tarfile.REGTYPE
            info.linkname = "/etc/passwd" if kind != tarfile.REGTYPE and last else ""
            info.size = len(content) if info.isreg() else 0
            file.addfile(info, io.BytesIO(content))


def listing(entries: Entries, **changes: Any) -> Entries:
    contents = {**json.loads(entries["archive.json"]), **changes}
    return {**entries, "archive.json": json.dumps(contents).encode()}


def broken_lzma(path: Path, entries: Entries) -> None:
    as_zip(path, entries)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_LZMA) as file:
        file.writestr("search/x", b"text" * 99)
    place = path.read_bytes().index(b"search/x") + len("search/x") + 9  # after the settings of the compressor
    path.write_bytes(path.read_bytes()[:place] + b"\xff" * 9 + path.read_bytes()[place + 9 :])


HOSTILE: dict[str, tuple[Callable[[Path, Entries], object], str]] = {
    "a path above": (lambda p, e: as_zip(p, {**e, "search/../../evil": b""}), "a path that leads elsewhere"),
    "an absolute path": (lambda p, e: as_zip(p, {**e, "/tmp/evil": b""}), "a path that leads elsewhere"),
    "a path of Windows": (
        lambda p, e: as_zip(p, {**e, "search\\..\\evil": b""}),
        "a path that leads elsewhere|not list",
    ),
    "a path above in a tar": (lambda p, e: as_tar(p, {**e, "../evil": b""}), "a path that leads elsewhere"),
    "a link": (
        lambda p, e: as_zip(p, {**e, "search/evil": b"/etc"}, evil=stat.S_IFLNK | 0o777),
        "is a link or a folder",
    ),
    "a link in a tar": (lambda p, e: as_tar(p, {**e, "search/x": b""}, tarfile.SYMTYPE), "is a link or a folder"),
    "a hard link": (lambda p, e: as_tar(p, {**e, "search/x": b""}, tarfile.LNKTYPE), "is a link or a folder"),
    "a device": (lambda p, e: as_tar(p, {**e, "search/x": b""}, tarfile.CHRTYPE), "is a link or a folder"),
    "a bomb": (lambda p, e: as_zip(p, {**e, "search/zeros": bytes(100 << 20)}), "far more than an archive of its size"),
    "a bomb in a tar": (lambda p, e: as_tar(p, {**e, "search/zeros": bytes(100 << 20)}), "far more than an archive"),
    "a bomb in a name": (lambda p, e: as_tar(p, {**e, f"search/{'x' * (70 << 20)}": b""}), "far more than an archive"),
    "a bomb before the list": (lambda p, e: as_zip(p, {"archive.json": b" " * (100 << 20)}), "far more than"),
    "a foreign zip": (lambda p, e: as_zip(p, {"mimetype": b"x"}), "not an archive that hebb wrote"),
    "a foreign tar": (lambda p, e: as_tar(p, {"a.txt": b"x"}), "not an archive that hebb wrote"),
    "a broken file of another compression": (broken_lzma, "'search/x', which hebb has not compressed"),
    "an empty zip": (lambda p, e: as_zip(p, {}), "is empty"),
    "an empty file": (lambda p, e: p.write_bytes(b""), "is neither a zip nor a tar.gz file"),
    "a picture": (lambda p, e: p.write_bytes(b"\x89PNG" * 99), "is neither a zip nor a tar.gz file"),
    "other gzip": (lambda p, e: p.write_bytes(gzip.compress(b"text" * 999)), "is not a whole archive"),
    "a file not listed": (lambda p, e: as_zip(p, {**e, "search/more": b""}), "'search/more', which its archive.json"),
    "a file changed": (
        lambda p, e: as_zip(p, {**e, "search/results.csv": b"x", "search/search.json": b"{}"}),
        "digest",
    ),
    "a file missing": (lambda p, e: as_zip(p, {k: v for k, v in e.items() if "metrics" not in k}), "is missing"),
    "a list of nothing": (lambda p, e: as_zip(p, {**e, "archive.json": b"[]"}), "does not describe an archive"),
    "a list that is no JSON": (lambda p, e: as_zip(p, {**e, "archive.json": b"\xff{"}), "is not text in UTF-8"),
    "a later format": (lambda p, e: as_zip(p, listing(e, format=2)), "has format 2, and this version of hebb reads"),
    "a name that is a path": (lambda p, e: as_zip(p, listing(e, name="../x")), "must be a folder name, got '../x'"),
    "a plugin without source": (
        lambda p, e: as_zip(
            p, listing(e, plugins=[{"name": "os", "sha256": "0" * 64, "place": "plugins/0", "path": "plugins/0/x.py"}])
        ),
        "does not describe a plugin|does not hold the source of plugin 'os'",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_or_damaged_file_is_refused_in_a_line(case: str, packed: Path, tmp_path: Path) -> None:
    make, message = HOSTILE[case]
    path = tmp_path / "x"
    make(path, entries_of(packed))
    with pytest.raises(ConfigError, match=message) as refused:
        verbs.main(["rerun", str(path), "--trust-plugins", "--data-dir", str(tmp_path / "home")])
    assert len(str(refused.value).splitlines()) <= 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x"]


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
@pytest.mark.parametrize("share", [0.02, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_refused(ending: str, share: float, home: Path, tmp_path: Path) -> None:
    path = packed_as(home, "rates", tmp_path / f"x{ending}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ConfigError, match=r"is not a whole archive|is neither a zip nor"):
        archive.read(path)


def with_records(packed: Path, path: Path, name: str, change: Callable[[Any], Any]) -> Path:
    """Write an archive whose digests are right and whose records are not."""
    import hashlib

    entries = entries_of(packed)
    entries[name] = json.dumps(change(json.loads(entries[name]))).encode()
    files = json.loads(entries["archive.json"])["files"]
    files[name] = {"bytes": len(entries[name]), "sha256": hashlib.sha256(entries[name]).hexdigest()}
    as_zip(path, listing(entries, files=files))
    return path


RECORDS: dict[str, Callable[[Any], Any]] = {
    "no object": lambda data: [],
    "no base": lambda data: {**data, "base": None},
    "no options": lambda data: {**data, "options": 3},
    "no seeds": lambda data: {**data, "seeds": 3},
    "no space": lambda data: {**data, "spec": []},
    "a plugin of this machine": lambda data: {
        **data,
        "base": {**data["base"], "plugins": [{"name": "os", "sha256": "0" * 64}]},
    },
    "plugins that are none": lambda data: {**data, "base": {**data["base"], "plugins": 3}},
}


@pytest.mark.parametrize("case", RECORDS)
def test_records_that_are_none_are_refused(case: str, packed: Path, tmp_path: Path) -> None:
    path = with_records(packed, tmp_path / "x.zip", "search/search.json", RECORDS[case])
    with pytest.raises(ConfigError):
        verbs.main(["rerun", str(path), "--data-dir", str(tmp_path / "home")])


# -- repeated ---------------------------------------------------------------------------------------------------


def test_code_runs_only_once_it_is_agreed_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The code leaves a mark when it runs, and no longer lies where it lay."""
    mark, plugin = tmp_path / "ran", tmp_path / "marked.py"
    plugin.write_text(EXAMPLE.replace("TopTwo", "Marked") + f"\nopen({str(mark)!r}, 'a').close()\n")
    before = {name: rule for name, rule in RULES._entries.items() if name != "toptwo"}, {}
    forget(*before)
    words = ("--preset", WITH_PLUGIN.replace("TopTwo", "Marked"), "--dataset", "Digits_1", "--set", *TINY)
    words = (*words, "--threads", "1", "--device", "cpu", "--plugin", str(plugin), "--data-dir", str(tmp_path))
    assert verbs.main(["train", *words, "--model-name", "mine"]) == 0
    path = packed_as(tmp_path, "mine", tmp_path / "mine.tar.gz")
    plugin.unlink()
    mark.unlink()
    forget(*before)
    again = ("rerun", str(path), "--data-dir", str(tmp_path / "b"))
    with pytest.raises(
        ConfigError, match=r"holds code that would run with your rights: plugins/\w+/marked.py \(source"
    ):
        verbs.main([*again])
    assert verbs.main([*again, "--dry-run"]) == 0
    assert not mark.exists()
    assert not (tmp_path / "b").exists()
    capsys.readouterr()
    assert verbs.main([*again, "--trust-plugins"]) == 0
    assert mark.exists()
    assert capsys.readouterr().out.splitlines()[-1].startswith("agree: 1 of 1 configuration to the bit")


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
def test_a_search_is_repeated_and_a_changed_number_is_found(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second archive claims another accuracy: what was repeated is compared with it, and no run is made again."""
    place = ("--data-dir", str(tmp_path), "--workers", "2")
    assert verbs.main(["rerun", str(packed), *place]) == 0
    assert "agree: 2 of 2 configurations to the bit (on the same kind" in capsys.readouterr().out
    record = json.loads((folders.Home(tmp_path).search("rates-rerun") / rerun.RECORD).read_text())
    assert record["agrees"] is True
    assert verbs.main(["rerun", str(packed), *place]) == 0, "it is compared again, without a run"
    with pytest.raises(ConfigError, match="holds a search already"):
        verbs.main(["rerun", str(with_records(packed, tmp_path / "x.zip", "search/search.json", dict)), *place])


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
@pytest.mark.parametrize("rates", [(0.0001, 0.3), (0.3, 0.0001)])
def test_a_search_that_was_extended_is_repeated_as_it_ended(
    rates: tuple[float, float], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a final seed that the search then selects on, and of a winner that lost, there are runs that nobody repeats.

    In one of both orders the second rate wins, and in the other the first one still does.
    """
    first, second = (f"b0.layer.lr={{grid: [{rate}]}}" for rate in rates)
    place = ("--data-dir", str(tmp_path), "--workers", "1")
    words = ("--preset", small.CNN, "--dataset", "Digits_1", "--set", *TINY, "--threads", "1", "--device", "cpu")
    asked = ("--config", "one_seed", "--purpose", "search", "--final-seeds", "2", "--space", first)
    assert verbs.main(["search", *words, *asked, "--folder-name", "more", *place]) == 0
    added = ("--extend", "--seeds", "1", "--space", second)
    assert verbs.main(["search", "--restore", "more", *added, *place]) == 0
    final = list((folders.Home(tmp_path).search("more") / "trials").glob("final-*-s*"))
    assert len(final) in (3, 4)
    path = packed_as(tmp_path, "more", tmp_path / "more.zip")
    capsys.readouterr()
    # other tests of this process have loaded a plugin
    assert verbs.main(["rerun", str(path), "--trust-plugins", *place]) == 0
    said = capsys.readouterr().out
    assert "agree: 3 of 3 configurations to the bit" in said
    row = next(line for line in said.splitlines() if line.startswith("final runs of the winner"))
    assert row.split()[5] == "2"


def repeated(label: str, seed: int, before: float, now: float | None, **machine: str) -> Repeated:
    place = {"step": 1, "phase": 0, "kind": "bp", "blocks": "b0", "epoch": 1}
    rows = [None if acc is None else [{**place, "test_acc": acc}] for acc in (before, now)]
    here = {"machine": {"processor": "A"}, "versions": {"torch": "1"}}
    there = {**here, "machine": {"processor": machine.get("processor", "A")}}
    return Repeated(label, seed, rows[0] or [], rows[1], here, there, "test_acc")


@pytest.mark.parametrize(
    ("processor", "now", "agrees", "expected"),
    [
        ("A", [90.0, 92.0], True, Agreement.BITS),
        ("A", [90.1, 92.0], False, Agreement.SPREAD),
        ("B", [90.1, 92.0], True, Agreement.SPREAD),
        ("B", [90.0, 92.0], True, Agreement.BITS),
        ("B", [92.0, 94.0], False, Agreement.NONE),
        ("B", [90.0, None], False, Agreement.NONE),
        ("B", [90.1], False, Agreement.NONE),
    ],
)
def test_agreement(processor: str, now: list[float | None], agrees: bool, expected: Agreement) -> None:
    """Recorded are 90 and 92, with a deviation of 1.41; one seed has none."""
    runs = [
        repeated("x", seed, before, after, processor=processor)
        for seed, (before, after) in enumerate(zip((90.0, 92.0), now, strict=False))
    ]
    verdict = agreement.of(runs)
    assert verdict.agrees is agrees
    assert verdict.lines[0].agreement == expected
    assert verdict.sentence.startswith("agree: " if agrees else "differ: ")
