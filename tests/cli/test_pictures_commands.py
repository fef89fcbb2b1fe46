"""The verbs that look into stored networks, on small Digits runs; every CSV against a direct computation.

Without it a CSV could hold other numbers than the picture beside it.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import small
import stored_runs
import torch
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE
from torch.nn import functional as F

from hebb.analysis import pixels, receptive, runs
from hebb.cli.analysis import command
from hebb.config import catalog, serialise
from hebb.config.data_spec import DataSpec
from hebb.core import seeds
from hebb.core.errors import ConfigError
from hebb.data import images
from hebb.nn import model
from hebb.nn.model import Network
from hebb.storage import checkpoints, folders
from hebb.tuning import report_filters
from hebb.tuning.search import Trial

RUNS = {"soft": small.DEEP, "bp": small.BP, "mlp": small.MLP, "settles": "2CorInfoMaxDigits"}


RATES = (0.05, 0.1)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A parent folder with the runs."""
    home = tmp_path_factory.mktemp("home")
    for name, network in RUNS.items():
        mode = catalog.load().network(network).preferred_mode or "successive"
        stored_runs.single(home, name, small.config(network, mode=mode, device="cpu"))
    stored_runs.single(home, "again", small.config(small.DEEP, seed=1, device="cpu"))
    for rate in RATES:
        stored_runs.single(home, f"rate{rate}", small.config(small.MLP, f"b0.layer.lr={rate}", device="cpu"))
    return home


def run(home: Path, tmp_path: Path, *arguments: str) -> pd.DataFrame:
    """Run a verb and return the CSV it wrote beside the figure."""
    verb = arguments[0]
    assert command.main([*arguments, "--data-dir", str(home), "--out", str(tmp_path), "--overwrite"]) == 0
    for kind, magic in (("png", b"\x89PNG"), ("svg", b"<?xml")):
        assert (tmp_path / f"{verb}.{kind}").read_bytes().startswith(magic)
    return pd.read_csv(tmp_path / f"{verb}.csv")


def loaded(home: Path, name: str) -> Network:
    """The stored network, read without the analyses."""
    folder = folders.Home(home).network(name)
    data = folders.read_json(folder / folders.CONFIG)
    data.pop("phases", None)
    network = model.build(serialise.run_from_json(data, name))
    network.load_state_dict(checkpoints.load(folder / folders.CHECKPOINT)["model"])
    return network.eval()


def digits() -> tuple[torch.Tensor, np.ndarray]:
    """The test images (359, 1, 8, 8) in [0, 1], and their labels: every fifth of scikit-learn's."""
    bunch = load_digits()
    x = np.round(bunch.images * (255 / 16)).astype(np.uint8).astype(np.float32) / 255
    chosen = np.arange(len(x)) % 5 == 4
    return torch.from_numpy(x[chosen]).unsqueeze(1), bunch.target[chosen]


def stored_accuracy(home: Path, name: str) -> float:
    return folders.read_json(folders.Home(home).network(name) / folders.RESULT)["metrics"]["test_acc"]


def test_filters(home: Path, tmp_path: Path) -> None:
    weight = checkpoints.load(folders.Home(home).network("soft") / folders.CHECKPOINT)["model"]["blocks.0.layer.weight"]
    rows = weight.flatten(1).double().numpy()
    by_deviation = run(home, tmp_path, "filters", "soft", "--most", "5", "--order", "deviation")
    assert list(by_deviation["neuron"]) == sorted(range(8), key=lambda i: -rows[i].std())[:5]
    frame = run(home, tmp_path, "filters", "soft", "--most", "5")
    block = loaded(home, "soft")[0]
    with torch.no_grad():
        winners = block.pre_activation(digits()[0]).argmax(dim=1).flatten()
        distance = (block.hebb.radius() - 1).abs()
    share = 100 * np.bincount(winners, minlength=8) / len(winners)
    near = [float(d) < block.hebb.r1_threshold for d in distance]
    keys = [(share[i] == 0, not near[i], -share[i] if near[i] else 0, float(distance[i])) for i in range(8)]
    order = sorted(range(8), key=lambda i: keys[i])[:5]
    assert list(frame["neuron"]) == order
    np.testing.assert_allclose(frame["share"], share[order], rtol=1e-5)
    np.testing.assert_allclose(pixels.of(frame).reshape(5, -1), rows[order], rtol=1e-6)
    deeper = run(home, tmp_path, "filters", "soft", "--block", "b1")
    assert pixels.of(deeper).shape == (12, 1, 8, 8)  # 3 of the kernel, 1 of the pool, 2 x 2 of the kernel above
    dense = run(home, tmp_path, "filters", "mlp", "--order", "index")
    assert pixels.of(dense).shape == (30, 1, 8, 8)


def test_the_report_shows_the_filters_of_a_stored_model(home: Path, tmp_path: Path) -> None:
    """In the order of the figure, with the scale of the weights, and the radius and the wins of each."""
    folder = folders.Home(home).network("soft")
    trial = Trial(name="soft-s0", label="soft", choice={}, config=runs.read_run(folder).config, folder=folder)
    shown = report_filters.of_configuration([trial], folders.Home(home))
    assert shown is not None
    frame = run(home, tmp_path, "filters", "soft")
    assert [tile.title.split()[1] for tile in shown.tiles] == [f"{neuron}:" for neuron in frame["neuron"]]
    assert [f"{radius:.3f}" in tile.title for tile, radius in zip(shown.tiles, frame["radius"], strict=True)] == [
        True
    ] * 8
    assert [tile.silent for tile in shown.tiles] == [share == 0 for share in frame["share"]]
    reach = np.percentile(np.abs(pixels.of(frame)), 99.5)
    assert shown.scale == (f"−{reach:.2g}", f"{reach:.2g}")
    assert (shown.total, shown.picture) == (8, "")


def test_best_images(home: Path, tmp_path: Path) -> None:
    """The written answer is that of the written image, by the layer's formula behind its batch norm."""
    arguments = ("fields", "soft", "--neurons", "3", "--steps", "40", "--step", "0.05", "--signed")
    frame = run(home, tmp_path, *arguments)
    block = loaded(home, "soft")[0]
    norm = block.before[0]
    x = torch.from_numpy(pixels.of(frame))
    assert x.shape == (3, 1, 3, 3)
    seen = (x - norm.running_mean.view(1, -1, 1, 1)) / (norm.running_var.view(1, -1, 1, 1) + norm.eps).sqrt()
    u = (seen * block.weight[frame["neuron"].tolist()]).sum(dim=(1, 2, 3))
    np.testing.assert_allclose(frame["answer"], u, rtol=1e-4)
    np.testing.assert_allclose(x.flatten(1).norm(dim=1), 1, rtol=1e-5)
    pd.testing.assert_frame_equal(run(home, tmp_path, *arguments), frame)  # the same seed, the same bits
    assert pixels.of(run(home, tmp_path, "fields", "soft", "--block", "2", "--steps", "3")).shape == (10, 1, 8, 8)


@pytest.mark.parametrize("show", [(), ("--show", "patches", "--patches", "2")])
@pytest.mark.parametrize(("asked", "note"), [("3", ""), ("8", ""), ("99", "--neurons 99: b0 has 8, and all of them")])
def test_fewer_neurons_than_asked_for_are_named(
    home: Path, tmp_path: Path, show: tuple[str, ...], asked: str, note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first block has 8 neurons."""
    frame = run(home, tmp_path, "fields", "soft", "--neurons", asked, "--steps", "2", "--images", "20", *show)
    assert frame["neuron"].nunique() == min(int(asked), 8)
    printed = capsys.readouterr().out.splitlines()
    assert [line.partition(" are shown")[0] for line in printed if line.startswith("--neurons")] == [note] * bool(note)
    title = "all 8 neurons" if int(asked) >= 8 else "3 random neurons of 8"
    words = re.findall(r"<!-- (.*?) -->", (tmp_path / "fields.svg").read_text())
    assert any(title in word for word in words)


def test_a_report_of_a_single_run_is_refused_by_name(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        command.main(["report", "soft", "--data-dir", str(home), "--out", str(tmp_path)])
    first, second = str(raised.value).splitlines()
    assert first == "report: soft is a single run, and report needs a search"
    assert second.endswith("analysis curves soft draws a run")
    assert list(tmp_path.iterdir()) == []


def test_best_patches(home: Path, tmp_path: Path) -> None:
    frame = run(
        home, tmp_path, "fields", "soft", "--show", "patches", "--block", "1", "--neurons", "2", "--patches", "3"
    )
    network = loaded(home, "soft")
    x, _ = digits()
    with torch.no_grad():
        u = network[1].pre_activation(network[0](x))
    specs, shapes = [b.spec for b in network.blocks], [b.shapes for b in network.blocks]
    assert len(frame) == 6
    for neuron, mine in frame.groupby("neuron"):
        best = u[:, neuron].flatten(1).amax(dim=1)
        order = np.argsort(-best.numpy(), kind="stable")[:3]
        np.testing.assert_allclose(mine["answer"], best[order], rtol=1e-5)
        assert list(mine["image"]) == list(order)
        for line in mine.to_dict("records"):
            row, column = divmod(int(u[line["image"], neuron].argmax()), u.shape[3])
            box = receptive.box(specs, shapes, 1, row, column)
            assert (line["top"], line["left"], line["bottom"], line["right"]) == (
                box.top,
                box.left,
                box.bottom,
                box.right,
            )


def test_maps_of_layers(home: Path, tmp_path: Path) -> None:
    frame = run(home, tmp_path, "embed", "soft", "--blocks", "input", "1", "--images", "100", "--perplexity", "10")
    x, labels = digits()
    network = loaded(home, "soft")
    with torch.no_grad():
        outputs = {"input": x[:100].flatten(1), "b1": network(x[:250], stop=2)[:100].flatten(1)}
    for layer, features in outputs.items():
        few = PCA(min(100, *features.shape), random_state=0).fit_transform(features.double().numpy())
        points = TSNE(perplexity=10, init="pca", learning_rate="auto", random_state=0).fit_transform(few)
        drawn = frame[frame["layer"] == layer]
        np.testing.assert_allclose(drawn[["x", "y"]], points, rtol=1e-3, atol=1e-3 * float(np.abs(points).max()))
        assert list(drawn["label"]) == list(labels[:100])


def test_maps_of_a_network_that_settles(home: Path, tmp_path: Path) -> None:
    """Its hidden states, which are the free phase's."""
    from hebb.analysis import runs, subject

    frame = run(home, tmp_path, "embed", "settles", "--blocks", "0", "--images", "60", "--perplexity", "5")
    assert list(frame["label"]) == list(digits()[1][:60])
    studied = subject.load(runs.read_run(folders.Home(home).network("settles")), folders.Home(home))
    layers, _ = studied.features([0], 60)
    network = loaded(home, "settles")
    with torch.no_grad():
        expected = network.energy.predict(digits()[0][:60].flatten(1))[0]
    np.testing.assert_allclose(layers["b0"], expected, rtol=1e-5, atol=1e-6)


def test_robustness(home: Path, tmp_path: Path) -> None:
    """No attack is the stored accuracy; noise by hand; one arm of two seeds beside one of one."""
    strengths = ("--noise", "0", "0.2", "--l2", "0", "0.3", "--linf", "0.05", "0", "--steps", "4", "--images", "359")
    frame = run(home, tmp_path, "robust", "soft", "again", "bp", *strengths)
    single = pd.read_csv(tmp_path / "robust.runs.csv")
    assert set(frame["n"]) == {1, 2}
    for name in ("soft", "again", "bp"):
        mine = single[single["run"] == name]
        np.testing.assert_allclose(mine[mine["strength"] == 0]["accuracy"], stored_accuracy(home, name))
        x, labels = digits()
        hits, generator = 0, seeds.generator(0, "attack noise")
        for part, own in zip(x.split(250), torch.from_numpy(labels).split(250), strict=True):
            torch.randn(part.shape, generator=generator)  # that of strength 0
            noisy = (part + 0.2 * torch.randn(part.shape, generator=generator)).clamp(0, 1)
            with torch.no_grad():
                hits += int((loaded(home, name)(noisy).argmax(dim=1) == own).sum())
        measured = mine[(mine["kind"] == "noise") & (mine["strength"] == 0.2)]["accuracy"].item()
        assert measured == pytest.approx(
            100 * hits / len(x), rel=1e-12
        )  # pandas 2 reads its own CSV to the last digit but one
    attacked = frame[(frame["kind"] != "noise") & (frame["strength"] > 0)]
    clean = frame[(frame["kind"] != "noise") & (frame["strength"] == 0)]
    assert bool((attacked["mean"].to_numpy() < clean["mean"].to_numpy()).all())
    pair = single[(single["kind"] == "l2") & (single["strength"] == 0.3) & single["run"].isin(["soft", "again"])]
    both = frame[(frame["kind"] == "l2") & (frame["strength"] == 0.3) & (frame["n"] == 2)]
    assert both["mean"].item() == pytest.approx(pair["accuracy"].mean())
    assert both["sd"].item() == pytest.approx(pair["accuracy"].std(ddof=1))


def test_configurations_of_one_network_are_arms_of_their_own(home: Path, tmp_path: Path) -> None:
    """Two rates of seed 0 are no replicates; the same run twice is refused before anything is attacked."""
    names = [f"rate{rate}" for rate in RATES]
    frame = run(home, tmp_path, "robust", *names, "--kinds", "noise", "--noise", "0", "--images", "359")
    assert list(frame["n"]) == [1, 1]
    assert [str(rate) in arm for rate, arm in zip(RATES, frame["arm"], strict=True)] == [True, True]
    for name, mean in zip(names, frame["mean"], strict=True):
        assert mean == pytest.approx(stored_accuracy(home, name))
    copied = folders.Home(home).network("twice")
    shutil.copytree(folders.Home(home).network("soft"), copied)
    with pytest.raises(ConfigError, match="soft and twice are one configuration with the same seed"):
        run(home, tmp_path, "robust", "soft", "twice")
    shutil.rmtree(copied)


def test_between_classes(home: Path, tmp_path: Path) -> None:
    frame = run(home, tmp_path, "interpolate", "mlp", "--classes", "3", "8", "--points", "5", "--steps", "10")
    train = images.load(DataSpec(dataset="Digits", samples=200), home, 0, torch.device("cpu")).train
    means = [train.images[train.labels == label].double().mean(dim=0) / 255 for label in (3, 8)]
    shown = torch.from_numpy(pixels.of(frame))
    for row in (0, 5):
        np.testing.assert_allclose(shown[row], means[0], atol=1e-6)
        np.testing.assert_allclose(shown[row + 4], means[1], atol=1e-6)
    with torch.no_grad():
        p = F.softmax(loaded(home, "mlp")(shown), dim=1)
    np.testing.assert_allclose(frame[[f"p{c}" for c in range(10)]], p, rtol=1e-3, atol=1e-5)
    assert list(frame["answer"]) == p.argmax(dim=1).tolist()
    own = run(home, tmp_path, "interpolate", "mlp", "--prototypes", "neurons", "--classes", "0", "1", "--points", "3")
    assert pixels.of(own)[[0, 2]].min() == 0
    assert pixels.of(own)[[0, 2]].max() == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("filters", "soft", "bp"), "must be one run, got 2: bp soft"),
        (("filters", "soft", "--block", "7"), "no b7"),
        (("filters", "soft", "--view", "wieghts"), "did you mean 'weights'"),
        (("filters", "soft", "--order", "radios"), "did you mean 'radius'"),
        (("fields", "soft", "--show", "patchs"), "did you mean 'patches'"),
        (("fields", "settles"), "settles as a whole"),
        (("robust", "settles"), "so its logits have no gradient"),
        (("robust", "soft", "--kinds", "l3"), "did you mean"),
        (("robust", "soft", "--loss", "marge"), "did you mean 'margin'"),
        (("interpolate", "soft", "--classes", "0", "10"), "must be labels from 0 to 9, got 10"),
        (("interpolate", "soft", "--classes", "3", "3"), "must be two different labels, got 3 twice"),
        (("interpolate", "soft", "--prototypes", "means"), "did you mean 'mean'"),
        (("interpolate", "soft", "--prototypes", "neurons"), "mean works for every network"),
        (("embed", "soft", "--images", "20"), "too few"),
        (("embed", "soft", "--method", "t-sne"), "did you mean 'tsne'"),
        (("filters", "soft", "--most", "0"), "must be a whole number >= 1, got '0'"),
    ],
)
def test_what_is_refused(home: Path, tmp_path: Path, arguments: tuple[str, ...], says: str) -> None:
    with pytest.raises(ConfigError) as raised:
        run(home, tmp_path / "out", *arguments)
    assert says in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_run_that_kept_no_model(home: Path, tmp_path: Path) -> None:
    shutil.copytree(folders.Home(home).network("soft"), tmp_path / "bare")
    (tmp_path / "bare" / folders.CHECKPOINT).unlink()
    with pytest.raises(ConfigError, match=r"has no stored model[\s\S]*--run-config[\s\S]*again trains it again"):
        command.main(["filters", str(tmp_path / "bare"), "--data-dir", str(home), "--out", str(tmp_path)])


def test_noise_of_a_network_that_settles(home: Path, tmp_path: Path) -> None:
    frame = run(home, tmp_path, "robust", "settles", "--kinds", "noise", "--noise", "0", "--images", "359")
    assert frame["mean"].item() == pytest.approx(stored_accuracy(home, "settles"))
