"""What a model said of its images, in columns with an entry for each."""

from collections.abc import Mapping, Sequence
from typing import Any

_DEFAULTS = {
    "error": None,
    "prediction": -1,
    "prediction_name": None,
    "prediction_probability": None,
    "target": -1,
    "target_name": None,
    "target_probability": None,
    "flat": None,
    "top_names": (),
    "top_probabilities": (),
}


def filled(found: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
    """The columns that the page shows; a default where an image or an older run has no entry."""
    count = len(found["target"])
    return {
        name: [default if x is None else x for x in found.get(name, [None] * count)]
        for name, default in _DEFAULTS.items()
    }


def of_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """What an index would say of an image of `explain`."""
    top, target = record["top"], record["target"]
    of_target = [one["probability"] for one in top if one["class"] == target["class"]]
    return {
        "prediction": top[0]["class"],
        "prediction_name": top[0]["name"],
        "prediction_probability": top[0]["probability"],
        "target": target["class"],
        "target_name": target["name"],
        "target_probability": of_target[0] if of_target else None,
        "flat": record["flat"],
        "top_names": [one["name"] for one in top],
        "top_probabilities": [one["probability"] for one in top if one["probability"] is not None],
    }
