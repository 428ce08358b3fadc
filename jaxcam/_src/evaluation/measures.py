"""The metrics by name, which way is better, and what each wants."""

from typing import NamedTuple

from jaxcam._src import metrics
from jaxcam._src.metrics.trial import MetricFn


class Measure(NamedTuple):
    """A metric as the command line has it.

    Attributes:
      metric: `Trial -> number`, or a curve, whose area is the number.
      higher_is_better: None for what describes a map and does not judge it.
      wants_object: whether it asks where the object is.
      wants_probability: whether it means something only of a score in [0, 1].
    """

    metric: MetricFn
    higher_is_better: bool | None
    wants_object: bool = False
    wants_probability: bool = False


MEASURES = {
    "drop": Measure(metrics.drop, False, wants_probability=True),
    "increase": Measure(metrics.increase, True),
    "gain": Measure(metrics.gain, True, wants_probability=True),
    "coherency": Measure(metrics.coherency, True),
    "complexity": Measure(metrics.complexity, False),
    "adcc": Measure(metrics.adcc, True, wants_probability=True),
    "arcc": Measure(metrics.arcc, True, wants_probability=True),
    "deletion": Measure(metrics.deletion_curve, False),
    "insertion": Measure(metrics.insertion_curve, True),
    "road": Measure(metrics.road, True),
    "road_morf": Measure(metrics.road_morf, False),
    "road_lerf": Measure(metrics.road_lerf, True),
    "faithfulness_correlation": Measure(metrics.faithfulness_correlation, True),
    "sensitivity_n": Measure(metrics.sensitivity_n, True),
    "infidelity": Measure(metrics.infidelity, False),
    "max_sensitivity": Measure(metrics.max_sensitivity, False),
    "average_sensitivity": Measure(metrics.average_sensitivity, False),
    "random_logit": Measure(metrics.random_logit, False),
    "energy": Measure(metrics.energy, True, wants_object=True),
    "pointing": Measure(metrics.pointing, True, wants_object=True),
    "relevance_rank": Measure(metrics.relevance_rank, True, wants_object=True),
    "overlap": Measure(metrics.overlap, True, wants_object=True),
    "entropy": Measure(metrics.entropy, None),
    "gini": Measure(metrics.gini, None),
    "border": Measure(metrics.border, None),
    "tied": Measure(metrics.tied, None),
}
CHEAP = "drop increase gain coherency complexity adcc deletion insertion tied".split()
ON_OBJECTS = ["energy", "pointing"]
