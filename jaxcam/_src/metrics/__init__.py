"""Metrics: `Trial -> number`, one formula a function. Bind knobs with `functools.partial`.

Decided for all of them:

- score: by default the probability of the target, of the class that was explained; no metric picks
  a class again.
- removed pixels: zeros, which is the mean colour of the usual preprocessing, in deletion and
  correlations; the blurred image in insertion; what the neighbours say in ROAD. `baseline_fn` is
  another choice.
- order: by rank, so that counts are exact; equal values in a random order of the key.
- flat maps: kept, as 0 everywhere. A correlation of a flat map and another is 0, of two flat
  maps 1.
- what is not finite: `evaluator` gives NaN for every number of a map that is NaN.
- floors: read each number beside that of `uniform`, `random_cam`, `centred_gaussian`, `edge_map`.
"""

from jaxcam._src.metrics.agreement import largest_difference, pearson, spearman, top_overlap
from jaxcam._src.metrics.correlation import faithfulness_correlation, infidelity, sensitivity_n
from jaxcam._src.metrics.dataset import (
    box_overlaps,
    boxes_above,
    max_box_accuracy,
    pixel_average_precision,
)
from jaxcam._src.metrics.faithfulness import (
    adcc,
    arcc,
    coherency,
    complexity,
    drop,
    gain,
    harmonic_mean,
    increase,
)
from jaxcam._src.metrics.grids import cell_shares, draw_grids, mosaic
from jaxcam._src.metrics.localization import (
    energy,
    energy_inside,
    overlap,
    pointing,
    relevance_rank,
)
from jaxcam._src.metrics.removal import (
    deletion,
    deletion_curve,
    imputed,
    insertion,
    insertion_curve,
    road,
    road_lerf,
    road_morf,
)
from jaxcam._src.metrics.sanity import random_logit
from jaxcam._src.metrics.shape import border, entropy, gini, tied
from jaxcam._src.metrics.stability import average_sensitivity, max_sensitivity

__all__ = [
    "adcc",
    "arcc",
    "average_sensitivity",
    "border",
    "box_overlaps",
    "boxes_above",
    "cell_shares",
    "coherency",
    "complexity",
    "deletion",
    "deletion_curve",
    "draw_grids",
    "drop",
    "energy",
    "energy_inside",
    "entropy",
    "faithfulness_correlation",
    "gain",
    "gini",
    "harmonic_mean",
    "imputed",
    "increase",
    "infidelity",
    "insertion",
    "insertion_curve",
    "largest_difference",
    "max_box_accuracy",
    "max_sensitivity",
    "mosaic",
    "overlap",
    "pearson",
    "pixel_average_precision",
    "pointing",
    "random_logit",
    "relevance_rank",
    "road",
    "road_lerf",
    "road_morf",
    "sensitivity_n",
    "spearman",
    "tied",
    "top_overlap",
]
