"""The flags of the command that trains one network. Never imports torch."""

from __future__ import annotations

from pathlib import Path

from hebb.cli import arguments, from_best, on_end
from hebb.cli.parsing import Parser, Section, boolean, count, described
from hebb.core import commands

_PURPOSE = "Train one network, block by block, and store the run."

_FIRST = {
    "--protocol": "a named group of changes, before --set",
    "--training-mode": "successive | consecutive | simultaneous",
    "--seed": "of weights, order and dropout (default: 0)",
    "--validation": "hold out 20 %% of the training images",
    "--gpu-id": "GPU, or cpu (default: GPU 0 if there is one)",
    "--model-name": "name of the run (default: the preset's name)",
    "--resume-run": "continue an interrupted run, to the same bits",
    "--evaluate": "measure a stored model on the test images",
}


def parser() -> Parser:
    """Return the parser of the command."""
    example = ("--preset", "2SoftHebbCnnCIFAR", "--dataset-unsup", "CIFAR10_1", "--dataset-sup", "CIFAR10_50")
    description = described(_PURPOSE, commands.line("train", *example), "--dataset-sup")
    flags = Parser(description, prog=commands.name("train"))
    arguments.add_network_flags(flags)
    from_best.add_flag(flags)
    arguments.add_seed_flag(flags)
    flags.section(Section.TRAINING).add_argument(
        "--validation",
        type=boolean,
        nargs="?",
        const=True,
        default=False,
        metavar="BOOL",
        help="hold out 20 %% of the training images and report the accuracy on them (default: false)",
    )
    arguments.add_pack_flag(flags, "train seeds S to S+N-1 together, each in its own run folder NAME-sS;")
    add_model_name_flag(flags)
    arguments.add_run_flags(flags)
    add_storage_flags(flags)
    _add_other_uses(flags)
    flags.put_first(arguments.FIRST | _FIRST)
    return flags


def add_model_name_flag(parser: Parser) -> None:
    """Add the name of a run."""
    parser.section(Section.STORAGE).add_argument(
        "--model-name",
        metavar="NAME",
        help="name under which the run is stored (default: the preset's name; Hard-c64+BP-DIGEST if it is written out)",
    )


def add_storage_flags(parser: Parser) -> None:
    """Add the flags that say what a run keeps."""
    storage = parser.section(Section.STORAGE)
    storage.add_argument(
        "--save",
        type=boolean,
        nargs="?",
        const=True,
        default=True,
        metavar="BOOL",
        help="keep the trained model (default: true)",
    )
    storage.add_argument("--save-model", action="store_true", help="the same as --save true")
    parser.rule_out(
        "--save-model", "--save false", "keeps no model", clash=lambda options: options.save_model and not options.save
    )
    on_end.add_flag(parser)
    storage.add_argument(
        "--checkpoint-every",
        type=count,
        default=1,
        metavar="N",
        help="epochs between two checkpoints of a phase (default: 1)",
    )


def add_run_config_flag(parser: Parser) -> None:
    """Add the flag that repeats a stored run."""
    parser.section(Section.INSTEAD).add_argument(
        "--run-config", type=Path, metavar="FILE", help="repeat the run of a stored config.json"
    )


def add_export_flag(parser: Parser, beside: str = "") -> None:
    """Add the flag that exports the features of an evaluated model; ``beside`` starts its help text."""
    parser.section(Section.INSTEAD).add_argument(
        "--export-features",
        type=Path,
        metavar="FILE",
        help=f"{beside}write the input of the last block, the logits and the labels to a new .npz file",
    )


def _add_other_uses(parser: Parser) -> None:
    """Add the flags that make ``hebb.cli.train`` call another command; the help text lists them."""
    instead = parser.section(Section.INSTEAD)
    add_run_config_flag(parser)
    instead.add_argument(
        "--resume-run", metavar="DIR", help="continue an interrupted run, with the bits of an uninterrupted one"
    )
    instead.add_argument(
        "--evaluate", metavar="MODEL_OR_DIR", help="measure a stored model on the test images of --dataset-sup"
    )
    add_export_flag(parser, "with --evaluate: ")
    parser.require_beside("--export-features", "--evaluate", "names the model")
