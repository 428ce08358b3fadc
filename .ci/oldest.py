"""Prints pip constraints: the oldest version that pyproject.toml allows of each requirement."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
required = [*project["dependencies"], *project["optional-dependencies"]["test"]]
for requirement in required:
    name, oldest = re.fullmatch(r"([\w-]+)>=([\w.]+)", requirement).groups()
    # A series, such as 2.1, stands for its releases: the first of all need not exist.
    print(f"{name}=={oldest}" if oldest.count(".") == 2 else f"{name}=={oldest}.*")
