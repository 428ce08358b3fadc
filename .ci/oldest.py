"""Prints pip constraints: the oldest version that pyproject.toml allows of each requirement."""

import itertools
import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
named = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
oldest_of = dict(
    re.fullmatch(r"([\w-]+)>=([\w.]+)", each).groups() for each in named if ">=" in each
)
for name, oldest in oldest_of.items():
    # A series, such as 2.1, stands for its releases: the first of all need not exist.
    print(f"{name}=={oldest}" if oldest.count(".") == 2 else f"{name}=={oldest}.*")
