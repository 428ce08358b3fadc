"""Conventions of other libraries: with one of these a heatmap is, number by number, theirs.

They are to reproduce published maps and to compare, not to improve on the default `paper`. What
they do is reproduced as it is, faults included; the notebook 08_other_libraries names the
departures.
"""

from jaxcam._src.conventions.captum import captum
from jaxcam._src.conventions.paper import paper
from jaxcam._src.conventions.pytorch_grad_cam import pytorch_grad_cam
from jaxcam._src.conventions.tf_keras_vis import tf_keras_vis
from jaxcam._src.conventions.torchcam import torchcam
from jaxcam._src.conventions.xplique import xplique

__all__ = ["captum", "paper", "pytorch_grad_cam", "tf_keras_vis", "torchcam", "xplique"]
