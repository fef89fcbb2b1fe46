"""Inject one-line defects, one at a time; the tests must catch every one.

    python tests/mutation.py [WORD...]        only the defects whose description contains a word

Works on a copy of the project. Prints one line per defect and exits with 1 if one survives. The tests near a defect run first,
so one that is caught costs seconds; one that survives those runs the tests of all other floors too.
``test_mutation.py`` checks that every quoted line is still there.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
NEAR = {
    "analysis": ("analysis", "cli/test_analysis_commands.py"),
    "config": ("config/test_shapes_plan.py", "config/test_overrides.py", "training/test_training.py"),
    "data": ("data",),
    "energy": ("energy", "training/test_settling.py"),
    "kernels": ("kernels", "nn/test_network.py", "rules/test_krotov.py"),
    "nn": ("nn", "rules/test_rules.py", "test_golden.py", "rules/test_lpl.py", "training/test_training.py"),
    "rules": ("rules", "test_golden.py", "nn/test_layers.py", "training/test_early_stop.py"),
    "spiking": ("spiking",),
    "training": ("training",),
    "tuning": ("tuning/test_search_trials.py", "tuning/test_html_report.py"),
}
"""Folders and files of tests, by the floor of the defect, quickest first."""


@dataclass(frozen=True)
class Defect:
    """A replacement of ``old``, which occurs once in ``file``, by ``new``.

    Attributes:
        seen_by: tests on pretended GPUs that see it (a file of ``tests/devices`` and, after a blank, part of a name);
            empty: the tests of its floor do.
    """

    what: str
    file: str
    old: str
    new: str
    seen_by: str = ""

    @property
    def floor(self) -> str:
        """The folder of the package that the file is in."""
        return Path(self.file).parts[1]


ON_DEVICES = (
    Defect(
        "a weight of images stays on the host",
        "hebb/analysis/interpolate.py",
        "t.view(-1, 1, 1, 1).to(a)",
        "t.view(-1, 1, 1, 1).to(a.dtype)",
        "test_defects.py interpolated",
    ),
    Defect(
        "noise on images is drawn on the host and stays there",
        "hebb/analysis/robust.py",
        "torch.randn(x.shape, generator=generator).to(x.device)",
        "torch.randn(x.shape, generator=generator)",
        "test_commands.py robust-ep",
    ),
    Defect(
        "an attack waits for a mask",
        "hebb/analysis/robust.py",
        "        attacked[places] = moved\n",
        "        attacked[places] = moved[moved.isfinite().flatten(1).all(dim=1)]\n",
        "test_defects.py attack",
    ),
    Defect(
        "a stored network goes to the first GPU",
        "hebb/probing/stored.py",
        "device = model.device_of(config, device_index)",
        "device = model.device_of(config)",
        "test_commands.py measured and mlp",
    ),
    Defect(
        "an analysis looks on the first GPU",
        "hebb/analysis/subject.py",
        "stored.restore(config, path, index)",
        "stored.restore(config, path)",
        "test_commands.py filters-mlp",
    ),
    Defect(
        "the frozen classifier measures from the host",
        "hebb/training/post_hoc.py",
        "    network.to(device)\n",
        "",
        "test_commands.py that_of_the_cpu and gradient",
    ),
    Defect(
        "batches are sent by copies that wait",
        "hebb/core/machine.py",
        "x = x.pin_memory()",
        "x = x.clone()",
        "test_places.py features_on_the_host",
    ),
    Defect(
        "an order is sent by each update",
        "hebb/nn/local_loss.py",
        "if self.drawn is not None and len(view)",
        "if False and len(view)",
        "test_graphs.py are_the_loop and shuffle",
    ),
    Defect(
        "one-hot labels are compared on the host",
        "hebb/energy/network.py",
        "torch.arange(len(self.layers[-1].weight), device=labels.device)",
        "torch.arange(len(self.layers[-1].weight))",
        "test_runs.py cpu and EP",
    ),
    Defect(
        "Adam of settling networks counts on the host",
        "hebb/energy/adam.py",
        'state["step"] = torch.zeros((), device=parameter.device)',
        'state["step"] = torch.zeros(())',
        "test_graphs.py loop and PC",
    ),
    Defect(
        "Adam of settling networks reads its rate",
        "hebb/energy/adam.py",
        "factor = second.sqrt_().div_(first)",
        "factor = torch.full_like(first, float(second.sqrt_().div_(first)))",
        "test_costs.py waits_for_nothing and PC",
    ),
    Defect(
        "a moment starts at the gradient",
        "hebb/energy/adam.py",
        "torch.expm1(counts[0] * math.log(beta)).neg_()",
        "torch.ones_like(counts[0])",
        "test_runs.py cpu and PC",
    ),
    Defect(
        "every update asks whether its loss is finite",
        "hebb/training/engine.py",
        "self.finite += mean_loss.isfinite()",
        "self.finite += int(mean_loss.isfinite().all())",
        "test_costs.py waits_for_nothing and FA",
    ),
    Defect(
        "right answers are counted on the host",
        "hebb/training/engine.py",
        "self.hits = torch.zeros(members, dtype=torch.int64, device=device)",
        "self.hits = torch.zeros(members, dtype=torch.int64)",
        "test_runs.py cpu and FA",
    ),
    Defect(
        "a graph of a joint phase forgets its weights",
        "hebb/training/engine.py",
        "            layer.weight = weight.copy_(layer.weight)\n",
        "            pass\n",
        "test_graphs.py loop and gradient",
    ),
    Defect(
        "a graph repeats an optimiser's first numbers",
        "hebb/training/graphs.py",
        "if _settings(self._optimiser) != held:",
        "if False:",
        "test_graphs.py numbers",
    ),
    Defect(
        "a graph does not know its generators",
        "hebb/training/graphs.py",
        "            graph.register_generator_state(generator)\n",
        "            pass\n",
        "test_graphs.py loop and dropout",
    ),
    Defect(
        "an optimiser does not agree to be recorded",
        "hebb/training/graphs.py",
        '        group["capturable"] = True\n',
        '        group["capturable"] = False\n',
        "test_graphs.py loop and bp",
    ),
    Defect(
        "the order of an epoch stays on the host",
        "hebb/training/graphs.py",
        "dtype=torch.int64, device=self._device)\n        self._place",
        "dtype=torch.int64)\n        self._place",
        "test_graphs.py loop and FA",
    ),
    Defect(
        "orders of a pack stay on the host",
        "hebb/training/pack.py",
        "machine.upload(orders, images.device).split",
        "orders.split",
        "test_defects.py pack_is_its_members",
    ),
    Defect(
        "a mask is drawn by a generator of the host",
        "hebb/nn/noise.py",
        "self._device = torch.Generator(device=device)",
        "self._device = torch.Generator()",
        "test_graphs.py loop and dropout",
    ),
    Defect(
        "the partners of a batch are drawn on the host and sent by a copy that waits",
        "hebb/nn/local_loss.py",
        "return machine.upload(self.draw(len(view)), view.device)",
        "return self.draw(len(view)).to(view.device)",
        "test_costs.py waits_for_nothing and SCFF",
    ),
    Defect(
        "a residual adds zeros of the host",
        "hebb/nn/blocks.py",
        "return F.pad(x, (0, 0) * (x.dim() - 2) + (0, missing)) if missing else x",
        "return torch.cat([x, torch.zeros(len(x), missing, *x.shape[2:])], dim=1) if missing else x",
        "test_runs.py cpu and residual",
    ),
    Defect(
        "a length of zero is looked for",
        "hebb/rules/sphere.py",
        "return rows / length.where(length > 0, 1.0)",
        "return rows / length.where(length > 0, 1.0) if not length.all() else rows / length",
        "test_costs.py waits_for_nothing and SPHeRe",
    ),
    Defect(
        "the statistics of frozen blocks wait for their count",
        "hebb/training/engine.py",
        "norm.momentum = 1 / count  #",
        "norm.momentum = None  #",
        "test_costs.py waits_for_nothing and frozen",
    ),
    Defect(
        "a pack looks at its losses",
        "hebb/training/pack.py",
        "                self._write_back(weights)\n",
        "                self._write_back(weights if losses.isfinite().any().item() else {})\n",
        "test_costs.py four_members and blockwise",
    ),
    Defect(
        "a Hebbian pack asks after every update whether it is finite",
        "hebb/training/pack.py",
        "if (update + 1) % engine.CHECK_EVERY == 0:\n                    self._check(epochs)\n",
        "if True:\n                    self._check(epochs)\n",
        "test_costs.py four_members and consecutive",
    ),
    Defect(
        "every update asks whether all blocks are finite",
        "hebb/training/engine.py",
        "if update % CHECK_EVERY == 0:",
        "if True:",
        "test_costs.py waits_for_nothing and simultaneous",
    ),
    Defect(
        "a crop counts its rows on the host",
        "hebb/data/augmentation.py",
        "torch.arange(height, device=x.device)",
        "torch.arange(height)",
        "test_sources.py variation",
    ),
    Defect(
        "free memory forgets what torch keeps",
        "hebb/core/machine.py",
        "return int(torch.cuda.mem_get_info(device)[0]) + kept",
        "return int(torch.cuda.mem_get_info(device)[0])",
        "test_places.py allocator",
    ),
    Defect(
        "a GPU is not the user's",
        "hebb/tuning/ray_session.py",
        "    return names[index]\n",
        "    return str(index)\n",
        "test_defects.py gpu_of_the_user",
    ),
    Defect(
        "TF32 is torch's default",
        "hebb/nn/numerics.py",
        'return "tf32" if tf32 else "ieee"',
        'return "tf32"',
        "test_places.py tf32",
    ),
    Defect(
        "shared blocks are those of the first GPU",
        "hebb/training/shared_blocks.py",
        "own = machine.gpu_name(gpu) if",
        "own = machine.gpu_name(0) if",
        "test_places.py shared_blocks",
    ),
)
"""Defects of runs on a GPU, which the tests on pretended GPUs must see. They cannot see what only a kernel does: a type
that CUDA lacks, a race, an atomic sum, the memory that an operation takes."""

DEFECTS = (
    *ON_DEVICES,
    Defect("a replay counts no updates", "hebb/training/graphs.py", "then + count * added for then", "then for then"),
    Defect(
        "a graph outlives the rates of its optimiser",
        "hebb/training/graphs.py",
        "if settings != self._held_for:",
        "if self._held_for is None:",
    ),
    Defect(
        "a graph is used for either sign of the nudge",
        "hebb/training/graphs.py",
        "all(word == words[0] for word in words)",
        "True",
    ),
    Defect(
        "replays take the rates of the first epoch",
        "hebb/training/graphs.py",
        "self._scheduled(i, first + k)",
        "self._scheduled(i, k)",
    ),
    Defect(
        "replays leave out the last batch",
        "hebb/training/graphs.py",
        "            if len(rest):",
        "            if False:",
    ),
    Defect(
        "replays write to other sums",
        "hebb/training/engine.py",
        "Sums(device) if graphs is None else graphs.kept(lambda: Sums(device)).reset()",
        "Sums(device)",
    ),
    Defect(
        "a rate on the device is divided",
        "hebb/nn/hebb_layer.py",
        "factor = size.reciprocal() * eta if on_device and",
        "factor = eta / size if on_device and",
    ),
    Defect(
        "the early stop writes elsewhere",
        "hebb/training/early_stop.py",
        "torch.minimum(self._least, self._last, out=self._least)",
        "self._least = torch.minimum(self._least, self._last)",
    ),
    Defect(
        "an interval is one-sided",
        "hebb/analysis/replicates.py",
        "stats.t.ppf(0.975, n - 1)",
        "stats.t.ppf(0.95, n - 1)",
    ),
    Defect(
        "an interval leaves the range",
        "hebb/analysis/replicates.py",
        "return (max(low, least), min(high, most)) if",
        "return (low, high) if",
    ),
    Defect(
        "a configuration that lacks seeds is best",
        "hebb/tuning/results.py",
        'order.sort_values("n", ascending=False, kind="stable", ignore_index=True)',
        "order.reset_index(drop=True)",
    ),
    Defect(
        "a stopped run counts as unfinished",
        "hebb/analysis/fates.py",
        "return ended(journal, name) or begun",
        "return begun",
    ),
    Defect("a difference has the wrong sign", "hebb/analysis/compare.py", "means[0] - means[1]", "means[1] - means[0]"),
    Defect("temperature is its inverse", "hebb/analysis/temperature.py", "else 1 / beta", "else beta"),
    Defect("width is of the classifier", "hebb/analysis/depth.py", "second / first:g", "first / second:g"),
    Defect(
        "radii are those of the last phase", "hebb/analysis/temperature.py", "sum(last.values())", "max(last.values())"
    ),
    Defect(
        "runs without a result count",
        "hebb/analysis/runs.py",
        "if state == folders.FolderState.FINISHED:",
        "if choice is not None:",
    ),
    Defect(
        "the rate neuron is pushed from the past",
        "hebb/spiking/rate_neuron.py",
        "hebbian - pull * (z",
        "hebbian + pull * (z",
    ),
    Defect(
        "the spiking rule seeks change",
        "hebb/spiking/plasticity.py",
        "(variance + self.spec.xi) - self._pull",
        "(variance + self.spec.xi) + self._pull",
    ),
    Defect(
        "inhibition rests at half its target",
        "hebb/spiking/plasticity.py",
        "x_post - 2 * self.spec.target",
        "x_post - self.spec.target",
    ),
    Defect(
        "a spike leaves the threshold alone",
        "hebb/spiking/membrane.py",
        "self.offset.masked_fill_(fired, spec.jump)",
        "self.offset.masked_fill_(fired, 0)",
    ),
    Defect("dropout of one half does not rescale", "hebb/nn/noise.py", "* np.uint8(2)", "* np.uint8(1)"),
    Defect(
        "all members of a pack see one order",
        "hebb/training/pack.py",
        "generator=at.order()) for at",
        "generator=epochs[0].order()) for at",
    ),
    Defect(
        "every member of a pack goes on with the first one's moments",
        "hebb/training/pack.py",
        "return value[place] if isinstance",
        "return value[0] if isinstance",
    ),
    Defect("the decay term is dropped", "hebb/nn/hebb_layer.py", "self.weight, value=-1)", "self.weight, value=0)"),
    Defect(
        "winner and losers swap signs",
        "hebb/rules/soft.py",
        "return gap.softmax(dim=1).copysign_(gap)",
        "return gap.softmax(dim=1).copysign_(gap).neg_()",
    ),
    Defect(
        "the temperature is ignored",
        "hebb/rules/soft.py",
        "return (u if layer.t_invert == 1 else u * layer.t_invert).softmax(dim=1)",
        "return u.softmax(dim=1)",
    ),
    Defect("the radius is not compared with 1", "hebb/rules/rates.py", "(radius - 1).abs_()", "radius.abs()"),
    Defect(
        "one normaliser for all groups",
        "hebb/nn/hebb_layer.py",
        "groups.amax(dim=1, keepdim=True)",
        "groups.amax()",
    ),
    Defect(
        "dilation is lost in the update",
        "hebb/kernels/convolution.py",
        '"dilation": self.dilation, "groups"',
        '"dilation": 1, "groups"',
    ),
    Defect(
        "the effective weight loses its sign",
        "hebb/nn/hebb_layer.py",
        "self.weight.sign() * self.weight.abs()",
        "self.weight.abs()",
    ),
    Defect(
        "the block above sees the new weights",
        "hebb/nn/blocks.py",
        "again = self.layer.rule.answers_updated and not last",
        "again = not last",
    ),
    Defect(
        "the seed does not reach the order",
        "hebb/training/epoch.py",
        'seeds.generator(self.seed, "order"',
        'seeds.generator(0, "order"',
    ),
    Defect(
        "every epoch has the same order",
        "hebb/training/epoch.py",
        '"order", self.phase_index, 0, self.epoch)',
        '"order", self.phase_index, 0, 0)',
    ),
    Defect(
        "dropout is not seeded by epoch",
        "hebb/training/epoch.py",
        '"dropout", self.phase_index, i, self.epoch)',
        '"dropout", self.phase_index, i, id(self))',
    ),
    Defect(
        "frozen blocks are trained",
        "hebb/training/engine.py",
        "parameter.requires_grad_(i in phase.blocks)",
        "parameter.requires_grad_(True)",
    ),
    Defect(
        "frozen blocks keep statistics of 0 and 1",
        "hebb/config/plan.py",
        "    if not normalised:",
        "    if normalised:",
    ),
    Defect(
        "momentum stays cumulative", "hebb/training/engine.py", "        norm.momentum = momentum\n", "        pass\n"
    ),
    Defect(
        "validation images are trained on", "hebb/data/images.py", "return order[~held].sort()", "return order.sort()"
    ),
    Defect(
        "validation images are varied",
        "hebb/data/images.py",
        "val=finished(take(pool, held))",
        "val=finished(take(pool, held), augment)",
    ),
    Defect("every image gets the same crop", "hebb/data/augmentation.py", "(2, count, 1)", "(2, 1, 1)"),
    Defect("STL-10 lies on its side", "hebb/data/stores.py", "columns.transpose(2, 3)", "columns"),
    Defect(
        "small variances are blown up", "hebb/data/whitening.py", "s.clamp(min=0) + kind.smoothing", "s.clamp(min=1e-4)"
    ),
    Defect(
        "the test set is open under validation",
        "hebb/training/evaluation.py",
        "open_test = data.val is None or final",
        "open_test = True",
    ),
    Defect(
        "the loss is divided by the batch size",
        "hebb/training/engine.py",
        "self._loss.add(mean_loss, images)",
        "self._loss.add(mean_loss, 1)",
    ),
    Defect(
        "the root of what is not positive is not 0",
        "hebb/kernels/numba_loops.py",
        "result if v >= _LEAST else _NONE",
        "result if v >= _LEAST else _ONE",
    ),
    Defect(
        "a large batch forgets the last numbers of its dropout",
        "hebb/kernels/loops.py",
        "items=-(-x.numel() // 8)",
        "items=x.numel() // 8",
    ),
    Defect(
        "a short batch of a classifier learns from old images too",
        "hebb/kernels/linear_readout.py",
        "    slopes[:] = _NONE",
        "    slopes[:images] = _NONE",
    ),
    Defect(
        "two threads learn a block of a classifier each",
        "hebb/kernels/linear_readout.py",
        "if add(taken, step * blocks + k, 1):",
        "if add(taken, step * blocks + k, 1) > 1:",
    ),
    Defect(
        "threads of a classifier wait for the first of them to begin",
        "hebb/kernels/linear_readout.py",
        "if step == 0 and not add(taken, len(taken) - 1, 1):",
        "if step == 0 and number == 0 and not add(taken, len(taken) - 1, 1):",
    ),
    Defect(
        "a batch of a classifier is judged before its last block has answered",
        "hebb/kernels/linear_readout.py",
        "if add(ended, step, 1) == blocks - 1 and",
        "if add(ended, step, 1) >= blocks - 2 and",
    ),
    Defect(
        "the loops of a classifier weigh squares as the difference of rounded numbers",
        "hebb/training/readout_epoch.py",
        "keep_square, 1 - keep_square",
        "keep_square, np.float32(1) - np.float32(keep_square)",
    ),
    Defect(
        "a thread of torch forgets the last rows of its share",
        "hebb/kernels/numba_loops.py",
        "min(rows, (number + 1) * some)",
        "min(rows, (number + 1) * some - (number > 0))",
    ),
    Defect(
        "a loop over the weights takes the decay of another row",
        "hebb/kernels/numba_loops.py",
        "factors[row, 0] if given",
        "factors[0, 0] if given",
    ),
    Defect(
        "a tile too few at an odd edge",
        "hebb/kernels/winograd.py",
        "(height - 1) // 2",
        "(height - 2) // 2",
    ),
    Defect(
        "only the last part of a batch changes the filters",
        "hebb/kernels/winograd.py",
        "total.add_(products)",
        "products",
    ),
    Defect(
        "the gradient of the input by filters that are not turned",
        "hebb/kernels/winograd.py",
        "weight.flip(2, 3).transpose",
        "weight.transpose",
    ),
    Defect(
        "zeros around images that are to be mirrored at their edges",
        "hebb/kernels/channels_last.py",
        'if self.padding_mode != "zeros" and padding:',
        "if False:",
    ),
    Defect(
        "the patches of a batch are those of the batch before",
        "hebb/kernels/convolution.py",
        "            if batch is x:\n",
        "            if batch is not x:\n",
    ),
    Defect(
        "a step takes the radii for their squares",
        "hebb/kernels/loops.py",
        "squares.sqrt_()",
        "squares",
    ),
    Defect(
        "threads forget the last part of a loop",
        "hebb/kernels/own_threads.py",
        "return [parts[-1], *parts[:-1]]",
        "return [parts[0], *parts[:-1]]",
    ),
    Defect(
        "the loser of a large soft competition wins as well",
        "hebb/kernels/numba_loops.py",
        "-y if signed and some[i] < top else y",
        "-y if signed and some[i] > top else y",
    ),
    Defect(
        "a softmax counts the losers",
        "hebb/kernels/numba_loops.py",
        "added[i] += _NONE if y < _NONE else y",
        "added[i] += abs(y)",
    ),
    Defect(
        "a row of negative numbers has its least on top",
        "hebb/kernels/numba_loops.py",
        "            if order < 0:",
        "            if order < -(2**31):",
    ),
    Defect(
        "a competition in one pass takes pixels beyond its block",
        "hebb/kernels/numba_loops.py",
        "some = min(it.out_columns - column, stop - place)",
        "some = it.out_columns - column",
    ),
    Defect(
        "the answers of a competition in one pass lie in another place",
        "hebb/kernels/numba_loops.py",
        "it.u + _WORD * start * neurons",
        "it.u + _WORD * first * neurons",
    ),
    Defect(
        "MKL keeps the one thread of a share",
        "hebb/kernels/numba_loops.py",
        "_set_mkl_threads(before)",
        "_set_mkl_threads(np.int32(1))",
    ),
    Defect(
        "a patch is copied with what lies behind the images",
        "hebb/kernels/competition.py",
        "if x.shape[3] * x.shape[1] < _COPIED or not",
        "if not",
    ),
    Defect(
        "the neurons of a competition in one pass have won nothing",
        "hebb/nn/hebb_layer.py",
        "self.gate_mass.add_(competed.mass)",
        "self.gate_mass.add_(0 * competed.mass)",
    ),
    Defect(
        "a rule's softmax has another temperature",
        "hebb/rules/soft.py",
        "return Softmax(layer.t_invert, signed)",
        "return Softmax(1.0, signed)",
    ),
    Defect(
        "what a softmax counted is taken for the sums of a changed answer",
        "hebb/kernels/loops.py",
        "and same and whole._version == version else None",
        "and same and whole._version >= version else None",
    ),
    Defect(
        "what a softmax counted is taken for the sums of a part of it",
        "hebb/kernels/loops.py",
        "same = rows.shape == whole.shape and rows.is_contiguous()",
        "same = rows.shape[1:] == whole.shape[1:]",
    ),
    Defect(
        "a loop reads what a transform holds",
        "hebb/kernels/private_torch.py",
        "transformed = torch._C._functorch.peek_interpreter_stack() is not None",
        "transformed = torch._C._functorch.is_functorch_wrapped_tensor(x)",
    ),
    Defect(
        "a step of states has the slope of another function",
        "hebb/kernels/numba_loops.py",
        "push[i] * (r - r * r)",
        "push[i] * (_ONE - r * r)",
    ),
    Defect(
        "the errors of the output stay behind when states step",
        "hebb/kernels/numba_loops.py",
        "        for i in range(rate.size, state.size):\n",
        "        for i in range(rate.size, rate.size):\n",
    ),
    Defect(
        "predictive coding starts without the error of its clamped output",
        "hebb/energy/coding.py",
        "torch.sub(output, z[-1], out=errors[-1])",
        "errors[-1].zero_()",
    ),
    Defect(
        "runs of several configurations are averaged",
        "hebb/analysis/groups.py",
        "if configuration(run.config) != configuration(first.config):",
        "if run.preset != first.preset:",
    ),
    Defect(
        "several tests are judged one by one",
        "hebb/tuning/verdict.py",
        'if not second["p_holm"] >= LEVEL:',
        'if not second["p"] >= LEVEL:',
    ),
    Defect(
        "a saturated neuron wins in place of the largest",
        "hebb/rules/soft.py",
        "u.argmax(dim=1, keepdim=True), True)",
        "s.argmax(dim=1, keepdim=True), True)",
    ),
    Defect(
        "a record takes seeds of another network",
        "hebb/analysis/more_seeds.py",
        "if path.exists() and groups.configuration(",
        "if not path.exists() and groups.configuration(",
    ),
    Defect(
        "the gradient of a flattened map is not brought back by pixels",
        "hebb/kernels/channels_last.py",
        "grads[0].reshape(b, c, h * w).transpose(1, 2).contiguous()",
        "grads[0].reshape(b, h * w, c).contiguous()",
    ),
    Defect(
        "the optimiser is not restored",
        "hebb/training/run.py",
        "        if optimiser is not None and self.state.optimiser is not None:\n",
        "        if False:\n",
    ),
    Defect("the classifier's rate never halves", "hebb/rules/rates.py", "return 0.5 ** sum(", "return 1.0 ** sum("),
    Defect(
        "a checkpoint is loaded partly",
        "hebb/nn/model.py",
        "own[name].shape != stored[name].shape:\n            raise",
        "own[name].shape != stored[name].shape:\n            continue\n            raise",
    ),
    Defect(
        "the neuron of rank k + 1 is punished", "hebb/rules/ranking.py", "rows.shape[1] - k", "rows.shape[1] - k - 1"
    ),
    Defect(
        "the punished learn",
        "hebb/rules/ranking.py",
        "torch.sub(won, y, alpha=delta, out=y)",
        "torch.add(won, y, alpha=delta, out=y)",
    ),
    Defect(
        "a filter shares the layer's maximum",
        "hebb/nn/hebb_layer.py",
        "if kind == Normaliser.LAYER:",
        "if True:",
    ),
    Defect(
        "equal is progress",
        "hebb/training/early_stop.py",
        "(self._last < self._least).any()",
        "(self._last <= self._least).any()",
    ),
    Defect(
        "patience is forgotten by a continued run",
        "hebb/training/run.py",
        "        if watch is not None and self.state.watch is not None:\n",
        "        if False:\n",
    ),
    Defect("Sanger's neurons do not see each other", "hebb/rules/oja.py", ".tril()", ".triu().tril()"),
    Defect("the cosine never restarts", "hebb/rules/rates.py", "    while epoch >= length:\n", "    while False:\n"),
    Defect(
        "the floor is reached at once", "hebb/rules/rates.py", "layer.lr_fall * epochs", "layer.lr_fall * epochs * 1000"
    ),
    Defect("the variance has no floor", "hebb/rules/lpl.py", "(z.var(dim=0) + FLOOR)", "(z.var(dim=0) + 1e-8)"),
    Defect(
        "a neuron's own variance is decorrelated",
        "hebb/rules/lpl.py",
        "(samples - 1)).fill_diagonal_(0)",
        "(samples - 1))",
    ),
    Defect("gradients cross blocks", "hebb/nn/blocks.py", "_with_residual(out.detach(), x", "_with_residual(out, x"),
    Defect(
        "both views are one",
        "hebb/data/images.py",
        "torch.cat([self.view(x, varied) for _ in range(views)])",
        "self.view(x, varied).repeat(views, 1, 1, 1)",
    ),
    Defect(
        "biases decay",
        "hebb/training/optimiser.py",
        '({**group, "weight_decay": 0.0}, [p for p in parameters if p.dim() == 1])',
        "(group, [p for p in parameters if p.dim() == 1])",
    ),
    Defect("the warm-up starts at the full rate", "hebb/rules/rates.py", "* epoch / max(layer.warmup - 1, 1)", ""),
    Defect(
        "every image has the same colours",
        "hebb/data/views.py",
        "factors = FACTOR[0] + (FACTOR[1] - FACTOR[0]) * uniform(count, 3)",
        "factors = FACTOR[0] + (FACTOR[1] - FACTOR[0]) * uniform(1, 3)",
    ),
    Defect("the lateral weights act once", "hebb/energy/corinfomax.py", "else 2 * gamma", "else gamma"),
    Defect(
        "the output does not leak", "hebb/energy/corinfomax.py", "                leak += 1\n", "                pass\n"
    ),
    Defect(
        "errors of the free state keep their sign",
        "hebb/energy/corinfomax.py",
        "                errors[count:].neg_()\n                layer.weight",
        "                layer.weight",
    ),
    Defect(
        "the nudge has half its strength", "hebb/energy/ep.py", "nudge = target * (2 * beta)", "nudge = target * beta"
    ),
    Defect("the decay of similarity forgets its sign", "hebb/energy/csm.py", "2 * abs(span)", "2 * span"),
    Defect(
        "the moments of Adam correct epsilon",
        "hebb/energy/adam.py",
        "_EPSILON / math.sqrt(1 - _BETAS[1] ** count)",
        "_EPSILON",
    ),
    Defect("the third phase is not counted", "hebb/energy/network.py", "span = 2 * beta", "span = beta"),
    Defect(
        "every batch is nudged alike",
        "hebb/training/settling.py",
        "(labels, x), sign, factor",
        "(labels, x), 1, factor",
    ),
    Defect(
        "a dead output goes on", "hebb/training/settling.py", "if several and updates > 1", "if False and updates > 1"
    ),
    Defect(
        "BP blocks train one by one",
        "hebb/config/plan.py",
        "kind == PhaseKind.BACKPROP and not config.bp_blockwise",
        "False",
    ),
)


def passes(copy: Path, tests: tuple[str, ...]) -> bool:
    """Run tests in the copy, but for those that start Ray or take minutes."""
    marked = "devices" if tests[0].startswith("devices") else "not ray and not survival and not slow"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-m", marked, *tests],
        cwd=copy / "tests",
        capture_output=True,
        timeout=1800,
        check=False,
    )
    if done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        raise SystemExit(f"there is no such test: {' '.join(tests)}")
    return done.returncode == 0


def survives(defect: Defect, copy: Path) -> bool:
    """Apply the defect to the copy, run the tests near it, then all others, and put the file back."""
    path = copy / defect.file
    text = path.read_text()
    if text.count(defect.old) != 1:
        raise SystemExit(f"'{defect.what}': its line occurs {text.count(defect.old)} times in {defect.file}")
    path.write_text(text.replace(defect.old, defect.new))
    if defect.seen_by:
        file, _, part = defect.seen_by.partition(" ")
        near, others = (f"devices/{file}", "-k", part), ("devices",)
    else:
        near = NEAR[defect.floor]
        others = tuple(sorted({name for names in NEAR.values() for name in names} - set(near)))
    try:
        return passes(copy, near) and passes(copy, others)
    finally:
        path.write_text(text)


def main(words: list[str]) -> int:
    """Try every defect."""
    defects = [d for d in DEFECTS if not words or any(word in d.what for word in words)]
    survivors = 0
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "project"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".venv", ".git", "hebb_data", "__pycache__"))
        for defect in defects:
            alive = survives(defect, copy)
            survivors += alive
            print(f"{'SURVIVED' if alive else 'caught  '}  {defect.what} ({defect.file})", flush=True)
    print(f"{len(defects) - survivors} of {len(defects)} defects were caught")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
