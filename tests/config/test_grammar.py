"""The preset strings: what they mean, that text and spec carry the same, and what bad text is answered.

Without it a token could set the wrong field, and the network would train all the same.
"""

from __future__ import annotations

import re

import pytest
import random_specs
from hypothesis import given
from hypothesis import strategies as st
from random_specs import DEFAULTS, SMALL

from hebb.config import catalog, grammar
from hebb.config.registry import ACTIVATIONS, RULES
from hebb.config.specs import BlockSpec, NetworkSpec
from hebb.core.errors import ConfigError

PRESETS = {name: model.network for name, model in catalog.load().models.items()}


def parse(text: str) -> BlockSpec:
    """Read one block with the shipped defaults."""
    return grammar.parse_block(text, DEFAULTS, "b0")


def recased(text: str, upper: list[bool]) -> str:
    """Change the case of the first letters of a word."""
    head = zip(text, upper, strict=False)
    return "".join(c.upper() if up else c.lower() for c, up in head) + text[len(upper) :]


# -- meaning ------------------------------------------------------------------------------------------------


def test_every_piece_of_a_network() -> None:
    """One network, field by field."""
    text = "Soft-c96-k5-p2-t1-lr0.08:bn:triangle_0.7:max_4_2_1 BP:flatten:drop_0.5"
    first, last = grammar.parse_network(text, DEFAULTS).blocks
    layer = first.layer
    assert (layer.method, layer.arch, layer.out_channels) == ("Soft", "CNN", 96)
    assert (layer.kernel_size, layer.padding, layer.t_invert, layer.lr) == (5, 2, 1, 0.08)
    assert (layer.stride, layer.dilation, layer.groups, layer.power_lr, layer.radius) == (1, 1, 1, 0.75, 25)
    assert first.operations == ("batchnorm2d",)
    assert first.activation is not None
    assert (first.activation.name, first.activation.parameter) == ("triangle", 0.7)
    assert first.pool is not None
    assert (first.pool.kind, first.pool.kernel_size, first.pool.stride, first.pool.padding) == ("max", 4, 2, 1)
    assert (last.layer.method, last.layer.arch, last.layer.out_channels) == ("BP", "MLP", 0)
    assert (last.operations, last.dropout, last.pool, last.activation) == (("flatten",), 0.5, None, None)


@pytest.mark.parametrize(
    ("token", "field", "want"),
    [
        *(("c7", "out_channels", 7), ("k3", "kernel_size", 3), ("p2", "padding", 2), ("s2", "stride", 2)),
        *(("d2", "dilation", 2), ("g4", "groups", 4), ("b1", "add_bias", True), ("lr0.5", "lr", 0.5)),
        *(("lp0.25", "power_lr", 0.25), ("lb3", "lebesgue_p", 3), ("t12", "t_invert", 12), ("r35", "radius", 35)),
        *(("v0", "adaptive", False), ("e1", "pre_triangle", True), ("lr1e-3", "lr", 0.001), ("lr2E+1", "lr", 20)),
        *(("lr1.5e2", "lr", 150), ("t.5", "t_invert", 0.5), ("t2.", "t_invert", 2), ("r1e0", "radius", 1)),
        ("lr1e-3-b1", "add_bias", True),
    ],
)
def test_token(token: str, field: str, want: object) -> None:
    """Tokens as the published grammar has them, with exponents."""
    text = f"Soft-{token}" if token[0] == "k" else f"Soft-k1-{token}"
    assert getattr(parse(text).layer, field) == want


@pytest.mark.parametrize(
    ("text", "field", "want"),
    [("BP-ls0.01", "lr_sup", 0.01), ("HardKrotov-a0.4", "delta", 0.4), ("HardKrotov-rank7", "ranking_param", 7)],
)
def test_token_of_some_methods(text: str, field: str, want: object) -> None:
    assert getattr(parse(text).layer, field) == want


def test_parts() -> None:
    block = parse("Soft-k1:normnorm:maxnorm:batchnorm1d:flatten:bn:attdrop_0.3:drop_1e-1:bn_after:repu_1.5:avg_3_1_1")
    assert block.operations == ("batchnorm2d", "flatten", "batchnorm1d", "maxnorm", "normnorm")
    assert (block.att_dropout, block.dropout, block.batch_norm) == (0.3, 0.1, True)
    assert parse("Soft-c3:bn").operations == ("batchnorm1d",)
    assert parse("Soft-k1:padding_mode=zeros:lr_decay=exp:speed=2e-1").layer.padding_mode == "zeros"
    assert parse("Soft-k1:lr_decay=exp:speed=2e-1").layer.speed == 0.2


@pytest.mark.parametrize("method", RULES.names())
def test_method_in_any_case(method: str) -> None:
    rule = RULES.get(method, "test")
    tail = "-k3" if "CNN" in rule.archs else "-c3"
    for written in (method.lower(), method.upper(), method.swapcase(), method):
        assert parse(written + tail).layer.method == method
        assert grammar.is_inline(written + tail)


def test_defaults_are_not_written() -> None:
    text = "softkrotov-c96-k5-p2-s1-d1-b0-t1-lr0.08-lp0.5-e0:avg_4_2_1:triangle_0.7:bn"
    layer, *parts = grammar.format_block(parse(text), DEFAULTS).split(":")
    assert layer.split("-")[0] == "SoftKrotov"
    assert sorted(layer.split("-")[1:]) == sorted(["c96", "k5", "p2", "t1", "lr0.08", "lp0.5"])
    assert sorted(parts) == sorted(["bn", "triangle_0.7", "avg_4_2_1"])


# -- round trip ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_round_trip_of_presets(name: str) -> None:
    text = grammar.format_network(PRESETS[name], DEFAULTS)
    again = grammar.parse_network(text, DEFAULTS, name)
    assert again == PRESETS[name]
    assert grammar.format_network(again, DEFAULTS) == text


@SMALL
@given(random_specs.networks)
def test_round_trip_of_random_networks(network: NetworkSpec) -> None:
    text = grammar.format_network(network, DEFAULTS)
    again = grammar.parse_network(text, DEFAULTS, network.name)
    assert again == network
    assert grammar.format_network(again, DEFAULTS) == text
    assert grammar.is_inline(text)


@SMALL
@given(random_specs.blocks(), st.data())
def test_order_and_case_do_not_matter(block: BlockSpec, data: st.DataObject) -> None:
    """Parts in any order, tokens in any order, defaults written or not: one spec, one canonical text."""
    canonical = grammar.format_block(block, DEFAULTS)
    layer, *parts = canonical.split(":")
    method = block.layer.method
    tokens = re.split(r"(?<!\de)-", layer)[1:]
    entries = block.layer.rule.fields_on(block.layer.arch)
    written = {re.match("[a-z]+", token)[0] for token in tokens}  # type: ignore[index]
    silent = [e for n, e in entries.items() if e.token and e.token not in written and n != "out_channels"]
    for entry in data.draw(st.lists(st.sampled_from(silent), unique=True)) if silent else []:
        held = getattr(block.layer, entry.name)
        tokens.append(f"{entry.token}{int(held) if entry.kind is bool else held!r}")
    cased = recased(method, data.draw(st.lists(st.booleans(), min_size=len(method), max_size=len(method))))
    shuffled = ["-".join([cased, *data.draw(st.permutations(tokens))]), *data.draw(st.permutations(parts))]
    assert parse(":".join(shuffled)) == block
    assert grammar.format_block(parse(":".join(shuffled)), DEFAULTS) == canonical


# -- refusals -----------------------------------------------------------------------------------------------

BAD = [
    ("Sof-c96", "unknown method 'Sof'", "'Soft'"),
    ("-c96", "unknown method ''"),
    ("Soft-c96-kk5", "unknown token 'kk5'", "'k5'"),
    ("Soft-c96-K5", "unknown token 'K5'", "'k5'"),
    ("Soft-c96-q3", "unknown token 'q3'", " lr "),
    ("Soft-c", "out_channels must be a whole number >= 1, got '"),
    ("Soft-c96-k-p2", "kernel_size must be a whole number >= 1, got '"),
    ("Soft-c96-c32", "'c' is given twice"),
    ("Soft-c96-lr0.1-lr1e-1", "'lr' is given twice"),
    ("Hard-c96-k5-t2", "'t'", "t_invert", "Hard"),
    ("BP-c10-lr0.1", "'lr'", "BP"),
    ("Soft-c96-a2", "'a'", "delta", "Soft"),
    ("Soft-c96-k3-m0", "'m'", "mask_thsd", "no effect"),
    ("Soft-c96-p2", "'p'", "padding", "MLP"),
    ("Soft-c96-", "ends in '-'"),
    ("Soft-", "ends in '-'"),
    ("Soft--c96", "an empty token"),
    ("Soft-c-5", "out_channels must be a whole number >= 1, got '-5'"),
    ("Soft-c8-k3-lr-1", "lr must be a number >= 0, got '-1'"),
    ("Soft-c0", "out_channels must be a whole number >= 1, got 0"),
    ("Soft-c1.5", "out_channels", "whole number", "1.5"),
    ("Soft-c1e999", "out_channels", "whole number"),
    ("Soft-c9-lr1e999", "lr must be a number >= 0 and <= 1e+30, got 1e999"),
    ("Soft-c9-t0", "t_invert must be a number > 0, got 0"),
    ("Soft-c9-lb0.5", "lebesgue_p must be a number >= 1, got 0.5"),
    ("Soft-c9-v2", "adaptive must be 0 or 1, got '2'"),
    ("Soft-c9-lrx", "unknown token 'lrx'"),
    ("Soft-c9-lr1.2.3", "lr1.2.3"),
    ("Soft-c9-lr1e", "lr1e"),
    ("HardKrotov-c9-rank1", "ranking_param must be a whole number >= 2, got 1"),
    ("SupervisedSoftKrotov-c9-k3", "SupervisedSoftKrotov", "no CNN form"),
    ("Soft-k3:bn:bn", "'bn' is given twice"),
    ("Soft-k3:bn:batchnorm2d", "'bn'", "'batchnorm2d'"),
    ("Soft-c3:bn:batchnorm1d", "'bn'", "'batchnorm1d'"),
    ("Soft-c3:flatten:flatten", "'flatten' is given twice"),
    ("Soft-k3:relu:tanh", "second activation 'tanh'"),
    ("Soft-k3:max_2_2_0:avg_2_2_0", "second pool 'avg_2_2_0'"),
    ("Soft-k3:drop_0.1:drop_0.2", "second dropout 'drop_0.2'"),
    ("Soft-k3:bn_after:bn_after", "second batch norm 'bn_after'"),
    ("bn_BP:flatten", "unknown method 'bn_BP' (did you mean 'BP:bn'?)", "behind colons"),
    ("Soft-k3:bn_flatten", "unknown part 'bn_flatten' (did you mean 'bn:flatten'?)", "behind colons"),
    ("Soft-k3:flaten", "unknown part 'flaten'", "'flatten'"),
    ("Soft-k3:triangel_0.7", "unknown part 'triangel_0.7'", "triangle"),
    ("Soft-k3:maks_2_2_0", "unknown part 'maks_2_2_0'", "'max_k_s_p'"),
    ("Soft-k3:", "an empty part"),
    ("Soft-k3::relu", "an empty part"),
    *((f"Soft-k3:drop{p}", f"drop{p}", "probability") for p in ("_1", "_-0.1", "_x", "_", "_nan", "_0.1_5")),
    *((f"Soft-k3:{p}", p, "three whole numbers") for p in ("max_2_2", "max_2_2_0_1", "avg_2_x_0", "max_2_-2_0")),
    *((f"Soft-k3:{p}", p, "must be a whole number >= 1, got 0") for p in ("max_0_1_0", "max_2_0_0")),
    ("Soft-k3:max_2_2_\u00b2", "three whole numbers"),
    ("Soft-k3:max_2_2_2", "max_2_2_2", "half the kernel"),
    ("Soft-k3:relu_2", "relu takes no parameter"),
    *((f"Soft-k3:triangle_{p}", f"triangle_{p}", "power") for p in ("0", "-1", "x", "", "nan", "inf", "5_2")),
    ("Soft-c5:soft_activation_fn=rel", "soft_activation_fn", "'rel'", "'relu'"),
    ("Soft-c5:sped=3", "'sped'", "'speed'"),
    ("Soft-c5-lr0.1:lr=0.1", "'lr' is given twice"),
    ("Soft-c5:speed=1:speed=2", "'speed' is given twice"),
    ("Soft-c5:speed=", "speed must be a number > 0, got ''"),
    ("Soft-c5-b1:soft_activation_fn=tanh", "bias", "tanh", "exp and relu"),
]


@pytest.mark.parametrize(("text", "parts"), [(text, parts) for text, *parts in BAD], ids=[row[0] for row in BAD])
def test_bad_block(text: str, parts: list[str]) -> None:
    """The message names the place, what was given, and the nearest legal choice, in three lines at most."""
    with pytest.raises(ConfigError) as caught:
        grammar.parse_network(f"Soft-c3-k1 {text}", DEFAULTS)
    message = str(caught.value)
    assert message.startswith(f"b1 '{text.split(':')[0]}")
    for part in parts:
        assert part in message
    assert len(message.splitlines()) <= 3


def test_legal_choices_are_listed() -> None:
    with pytest.raises(ConfigError, match="legal: ") as caught:
        parse("Nothing-c3")
    assert str(caught.value).splitlines()[1].split()[1:] == RULES.names()
    with pytest.raises(ConfigError) as caught:
        parse("Soft-c3:nothing")
    assert {"bn", "flatten", "max_k_s_p", *ACTIVATIONS.names()} <= set(str(caught.value).splitlines()[1].split())
    with pytest.raises(ConfigError) as caught:
        parse("Hard-c3-t1")
    assert {"lr", "lp", "lb", "r", "v"} <= set(str(caught.value).splitlines()[1].split())


def test_empty_network() -> None:
    with pytest.raises(ConfigError, match="no block"):
        grammar.parse_network("", DEFAULTS, "nothing")
