"""The metrics by name, which way is better, and what each needs to know."""

from typing import NamedTuple

from jaxcam._src import metrics
from jaxcam._src.metrics.trial import MetricFn

HIGHER, LOWER, NEITHER = 1, -1, 0


class Measure(NamedTuple):
    """A metric as the command line has it.

    Attributes:
      metric: `Trial -> number`, or a curve, whose area is the number.
      better: which way; NEITHER for what describes a map and does not judge it.
      wants_object: whether it asks where the object is.
    """

    metric: MetricFn
    better: int
    wants_object: bool = False


MEASURES = {
    "drop": Measure(metrics.drop, LOWER),
    "increase": Measure(metrics.increase, HIGHER),
    "gain": Measure(metrics.gain, HIGHER),
    "coherency": Measure(metrics.coherency, HIGHER),
    "complexity": Measure(metrics.complexity, LOWER),
    "adcc": Measure(metrics.adcc, HIGHER),
    "arcc": Measure(metrics.arcc, HIGHER),
    "deletion": Measure(metrics.deletion_curve, LOWER),
    "insertion": Measure(metrics.insertion_curve, HIGHER),
    "road": Measure(metrics.road, HIGHER),
    "road_morf": Measure(metrics.road_morf, LOWER),
    "road_lerf": Measure(metrics.road_lerf, HIGHER),
    "faithfulness_correlation": Measure(metrics.faithfulness_correlation, HIGHER),
    "sensitivity_n": Measure(metrics.sensitivity_n, HIGHER),
    "infidelity": Measure(metrics.infidelity, LOWER),
    "max_sensitivity": Measure(metrics.max_sensitivity, LOWER),
    "average_sensitivity": Measure(metrics.average_sensitivity, LOWER),
    "random_logit": Measure(metrics.random_logit, LOWER),
    "energy": Measure(metrics.energy, HIGHER, wants_object=True),
    "pointing": Measure(metrics.pointing, HIGHER, wants_object=True),
    "relevance_rank": Measure(metrics.relevance_rank, HIGHER, wants_object=True),
    "overlap": Measure(metrics.overlap, HIGHER, wants_object=True),
    "entropy": Measure(metrics.entropy, NEITHER),
    "gini": Measure(metrics.gini, NEITHER),
    "border": Measure(metrics.border, NEITHER),
    "tied": Measure(metrics.tied, NEITHER),
}
CHEAP = "drop increase gain coherency complexity adcc deletion insertion tied".split()
ON_OBJECTS = ["energy", "pointing"]
