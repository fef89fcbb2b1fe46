"""What TensorBoard is given, read back by its own reader and by the code behind its HParams tab.

Without it curves and HParams could be missing from the viewer while every file is written.
"""

from __future__ import annotations

import contextlib
import io
import json
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sized
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import small
import stored_runs
import torch
from PIL import Image
from tensorboard.backend.event_processing import data_provider, plugin_event_multiplexer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.context import RequestContext
from tensorboard.plugins import base_plugin
from tensorboard.plugins.hparams import api_pb2, backend_context, list_session_groups

from hebb.probing import neuron_order
from hebb.storage import board, folders, records, tiles
from hebb.tuning import hparams

RATES = [0.05, 0.1]


@pytest.fixture(scope="module")
def searches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the printed command shows of two searches of two runs each, with the HParams that a worker writes."""
    home = tmp_path_factory.mktemp("home")
    base = small.config(small.DEEP, "dataset_sup.samples=60", "dataset_unsup.samples=60", "dataset_unsup.epochs=2")
    for name, path in (("rates", "b0.layer.lr"), ("steps", "b1.layer.lr")):
        folder = stored_runs.sweep(home, name, base, {path: RATES}, [3])
        for trial, rate in zip(sorted(folder.glob("trials/*")), _rates(folder, path), strict=True):
            for _ in range(2):  # a run that is continued writes nothing again
                hparams.write_run(trial, board.link(trial, {path: rate}, 3), {path: rate}, 3)
                hparams.end_run(trial)
        board.renew(folder)
    return board.of_search(folder)


def _rates(folder: Path, path: str) -> list[float]:
    from hebb.analysis import runs

    return [float(run.value(path)) for run in runs.read([folder]).runs]  # type: ignore[arg-type]


def events(folder: Path) -> EventAccumulator:
    return EventAccumulator(str(folder), size_guidance={"histograms": 0, "images": 0}).Reload()


def test_the_hparams_tab_lists_the_runs_of_all_searches(searches: Path) -> None:
    """Search, seed, values of both spaces and the last accuracy of every run, as the tab asks for them."""
    found = plugin_event_multiplexer.EventMultiplexer().AddRunsFromDirectory(str(searches)).Reload()
    provider = data_provider.MultiplexerDataProvider(found, str(searches))
    context = backend_context.Context(base_plugin.TBContext(logdir=str(searches), data_provider=provider))
    request = RequestContext()
    values = context.hparams_metadata(request, "")
    experiment = context.experiment_from_metadata(request, "", True, values, [])
    assert {info.name for info in experiment.hparam_infos} == {"search", "seed", "b0.layer.lr", "b1.layer.lr"}
    assert experiment.metric_infos[0].name.tag == "accuracy/test"  # next to the values
    wanted = api_pb2.ListSessionGroupsRequest(
        start_index=0, slice_size=10, allowed_statuses=[api_pb2.STATUS_SUCCESS], col_params=[]
    )
    groups = list_session_groups.Handler(request, context, "", wanted).run().session_groups
    assert len(groups) == 4
    seen = set()
    for group in groups:
        chosen = {name: value.string_value or value.number_value for name, value in group.hparams.items()}
        (session,) = group.sessions
        (last,) = (m.value for m in session.metric_values if m.name.tag == "accuracy/test")
        search, label = session.name.split("/")
        assert group.name == f"{search} {label}"
        assert label == f"lr={chosen.get('b0.layer.lr') or chosen['b1.layer.lr']} seed=3"
        rows = folders.read_rows(searches / session.name / "metrics.jsonl")
        assert last == pytest.approx(rows[-1]["test_acc"], rel=1e-6)
        assert chosen["seed"] == 3
        seen.add((chosen["search"], chosen.get("b0.layer.lr"), chosen.get("b1.layer.lr")))
    assert seen == {("rates", rate, None) for rate in RATES} | {("steps", None, rate) for rate in RATES}


@pytest.mark.slow
@pytest.mark.parametrize("loader", ["fast", "plain"])
def test_the_real_server_follows_the_links(searches: Path, loader: str, tmp_path: Path) -> None:
    """Every run under its label, once, with the accuracies as the first group, whichever of its loaders reads."""
    with socket.create_server(("localhost", 0)) as free:
        port = free.getsockname()[1]
    command = ["-m", "tensorboard.main", "--logdir", str(searches), "--port", str(port)]
    log = (tmp_path / "log").open("w")
    server = subprocess.Popen(
        [sys.executable, *command, f"--load_fast={'true' if loader == 'fast' else 'false'}"], stdout=log, stderr=log
    )
    try:
        expected = sorted(f"{name}/lr={rate} seed=3" for name in ("rates", "steps") for rate in RATES)
        assert sorted(_answer(server, f"http://localhost:{port}/data/runs", expected)) == expected
        tags = _answer(server, f"http://localhost:{port}/data/plugin/scalars/tags", {})
        for run in expected:
            assert min(tags[run]) == "accuracy/test"
        question = {"experimentName": "", "allowedStatuses": ["STATUS_SUCCESS"], "startIndex": 0, "sliceSize": 9}
        asked = urllib.request.Request(
            f"http://localhost:{port}/data/plugin/hparams/session_groups",
            json.dumps(question).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(asked, timeout=30) as reply:
            groups = json.load(reply)["sessionGroups"]
        assert sorted(group["name"] for group in groups) == [run.replace("/", " ") for run in expected]
        assert {group["hparams"]["seed"] for group in groups} == {3.0}
    finally:
        server.terminate()
        server.wait(30)
        log.close()


def _answer(server: subprocess.Popen[bytes], address: str, expected: Sized) -> Any:
    """Ask until the server has read everything."""
    until = time.monotonic() + 90
    while time.monotonic() < until and server.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=10) as reply:
            answer = json.load(reply)
            if answer and len(answer) >= len(expected):
                return answer
        time.sleep(0.5)
    raise AssertionError(f"TensorBoard gives no answer at {address}")


def test_radii_of_every_hebbian_block_at_reported_epochs(tmp_path: Path) -> None:
    """Number, sum, least and largest of the histogram are those of |w| of the stored network."""
    made = small.config(
        small.DEEP,
        "dataset_sup.samples=60",
        "dataset_unsup.samples=60",
        "dataset_unsup.epochs=3",
        "dataset_unsup.print_freq=2",
    )
    result = small.run(made, tmp_path / "run")
    found = events(tmp_path / "run")
    assert sorted(found.Tags()["histograms"]) == ["weights/b0 radii", "weights/b1 radii"]
    for block, neurons, first in (("b0", 8, 0), ("b1", 12, 9)):
        stored = found.Histograms(f"weights/{block} radii")
        assert [event.step for event in stored] == [first + 3, first + 6, first + 9]  # epochs 1, 2, 3 of 3 updates
        radii = result.network[int(block[1])].weight.flatten(1).norm(dim=1).double()
        last = stored[-1].histogram_value
        assert last.num == neurons == len(radii)
        assert (last.min, last.max) == pytest.approx((radii.min().item(), radii.max().item()), rel=1e-5)
        assert last.sum == pytest.approx(radii.sum().item(), rel=1e-5)
        inside = np.searchsorted(last.bucket_limit, radii.numpy() * (1 - 1e-6))
        counts = np.bincount(inside, minlength=len(last.bucket))
        assert counts.tolist() == list(last.bucket)


def test_filters_are_an_image_after_every_phase(tmp_path: Path) -> None:
    """Radius nearest 1 first, by the share of the wins where the neurons converged; one scale for all."""
    made = small.config(small.DEEP, "dataset_sup.samples=60", "dataset_unsup.samples=60")
    result = small.run(made, tmp_path / "run")
    images = events(tmp_path / "run").Images("weights/b0 filters")
    assert [image.step for image in images] == [3, 6, 9]
    weight = result.network[0].weight
    grid = records.filter_grid(weight, neuron_order.of_block(result.network[0]))
    shown = torch.tensor(np.asarray(Image.open(io.BytesIO(images[-1].encoded_image_string)))).permute(2, 0, 1)
    assert shown.shape == grid.shape
    nearest = int((weight.flatten(1).norm(dim=1) - 1).abs().argmin())
    end = tiles.reach(weight)
    first = tiles.tiled(tiles.coloured(weight[[nearest]], end))[:, :-1, :-1]
    factor = round(480 / (3 * 4 + 1))  # three tiles of 3 pixels in a row
    assert (shown[:, ::factor, ::factor][:, :4, :4] / 255 - first[:, :4, :4]).abs().max() <= 1 / 255


def test_weights_have_the_colours_of_their_scale() -> None:
    ends = torch.tensor([-2.0, -1.0, 0.0, 1.0, 2.0]).view(5, 1, 1, 1)
    blue, pale, middle, _, brown = tiles.coloured(ends, 1.0).flatten(1)
    assert torch.equal(blue, pale), "what is beyond the end has the colour of the end"
    assert blue.argmax() == 2
    assert brown.argmax() == 0
    assert middle.tolist() == pytest.approx([0.97] * 3)
    three = torch.tensor([-1.0, 0.0, 0.5]).view(1, 3, 1, 1)
    assert tiles.coloured(three, 1.0).flatten().tolist() == [0.0, 0.5, 0.75]
