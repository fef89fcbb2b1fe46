"""The published numbers, with their sources: ``figures/published.csv``.

figures   the figures and tables that show the number, separated by spaces
dataset   name of the dataset
by        what distinguishes the series: arm, width or preset
series    the arm, or the width ratio, as ``depth`` names it; or a preset
depth     number of hidden layers
mean, sd  test accuracy in percent; sd is empty where none is published, or where the published one cannot be right
source    where the number was published
chosen    how it was chosen: the last epoch, the best on test images, a mean; empty where nothing is known of that
"""

from __future__ import annotations

import pandas as pd

from hebb.core import shipped
from hebb.core.errors import ConfigError

FILE = shipped.path("figures") / "published.csv"


def read(figure: str | None = None) -> pd.DataFrame:
    """Return the published numbers of a figure or table, or all of them."""
    numbers = pd.read_csv(FILE, dtype={"figures": str, "series": str, "chosen": str}, keep_default_na=True)
    if figure is None:
        return numbers
    figures = list(dict.fromkeys(name for names in numbers["figures"] for name in names.split()))
    if figure not in figures:
        raise ConfigError("--published", f"no numbers of '{figure}'", given=figure, choices=figures)
    return numbers[[figure in names.split() for names in numbers["figures"]]].reset_index(drop=True)
