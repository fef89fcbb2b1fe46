"""A ``RunConfig`` from the parts that a user names: preset, data, mode, protocols and changes. Never imports torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from hebb.config import overrides, plan, plugins
from hebb.config.catalog import Catalog
from hebb.config.data_spec import DataSpec
from hebb.config.specs import MODES_DEFAULT, NetworkSpec, RunConfig
from hebb.core.errors import ConfigError


def run_config(
    catalog: Catalog,
    network: NetworkSpec,
    data: tuple[DataSpec, DataSpec],
    *,
    mode: str | None = None,
    protocols: Iterable[str] = (),
    changes: Mapping[str, object] | None = None,
    names: Mapping[str, str] | None = None,
    **fields: Any,
) -> RunConfig:
    """Return the run that its parts describe, with the plugins it needs.

    Args:
        catalog: presets and protocols.
        network: the network.
        data: datasets of the supervised and the unsupervised phases.
        mode: training mode; None takes the one that the network prefers.
        protocols: named groups of changes, applied before ``changes``.
        changes: values by override path.
        names: what the user calls ``mode``, ``protocol`` and ``changes``, for errors.
        fields: further fields of ``RunConfig``.
    """
    names = {"mode": "mode", "protocol": "protocol", "changes": "overrides", **(names or {})}
    mode = (network.preferred_mode or MODES_DEFAULT) if mode is None else mode
    if mode not in plan.MODES:
        raise ConfigError(names["mode"], f"unknown mode '{mode}'", given=mode, choices=plan.MODES)
    config = RunConfig(network=network, mode=mode, dataset_sup=data[0], dataset_unsup=data[1], **fields)
    group = catalog.protocol(protocols, names["protocol"])
    config = overrides.apply(config, group, catalog, where=f"{names['protocol']},")
    config = overrides.apply(config, changes or {}, catalog, where=names["changes"])
    return replace(config, plugins=plugins.of_run(config))
