"""Many devices: the axes of a mesh share the images, and the probes of each image."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from jaxcam._src.chunks import PROBES

IMAGES = "images"


def sharded(explain: Callable[..., Any], mesh: jax.sharding.Mesh) -> Callable[..., Any]:
    """Spreads a function of many images over the devices of a mesh, with the same results.

        mesh = jax.make_mesh((4, 2), ("images", "probes"))
        explain = jaxcam.explainer(apply_fn, layer, jaxcam.score_cam)
        explain = jax.jit(jaxcam.sharded(jax.vmap(explain, in_axes=(None, 0, 0)), mesh))
        heatmaps = explain(variables, images, targets).heatmap

    Along "images" each device explains its part of the images. Along "probes" devices share the
    loops inside a method, whose results they exchange at the end: the masked images of Score-CAM
    and its kin, the ablated channels of Ablation-CAM, the places of Recipro-CAM, the directions of
    exact derivatives. What has no such loop is repeated on each device. `chunk_size` is per device.
    Take derivatives with respect to arguments outside: `jax.grad` of the result, not inside.

    Args:
      explain: `(variables, images [n, ...], targets [n] or None) -> pytree`, whose arrays have n
        entries each: an explainer under `jax.vmap`, or under `jax.lax.map` where one image fills
        a device.
      mesh: with an axis "images", an axis "probes", or both; of one process or of many.

    Returns:
      The same function, to be jitted. Variables are replicated, images and results lie along
      "images"; arrays that lie otherwise are moved.

    Raises:
      ValueError: the mesh has other axes; by the result, where there are not as many targets as
        images, or the devices along "images" do not divide them.

    >>> mesh = jax.make_mesh((1, 1), ("images", "probes"))
    >>> explain = jax.vmap(jaxcam.explainer(apply_fn, "stage3"), in_axes=(None, 0, 0))
    >>> explain = jax.jit(jaxcam.sharded(explain, mesh))
    >>> explain(variables, canvases.images[:2], canvases.labels[:2]).heatmap.shape
    (2, 64, 64)
    """
    if not mesh.axis_names or not {*mesh.axis_names} <= {IMAGES, PROBES}:
        raise ValueError(
            f"the mesh has the axes {mesh.axis_names}; wanted {IMAGES!r}, {PROBES!r} or both: "
            'jax.make_mesh((devices, 1), ("images", "probes"))'
        )
    devices = mesh.shape.get(IMAGES, 1)
    part = jax.P(IMAGES) if IMAGES in mesh.axis_names else jax.P()
    layout = (jax.P(), part, part)
    placed = tuple(jax.NamedSharding(mesh, spec) for spec in layout)
    # Unchecked, since no rule says that what is gathered from all devices is the same on each.
    spread = jax.shard_map(explain, mesh=mesh, in_specs=layout, out_specs=part, check_vma=False)

    def explain_spread(variables: PyTree, images: PyTree, targets: Any = None) -> Any:
        counts = {jnp.shape(x)[:1] for x in jax.tree.leaves((images, targets))}
        if IMAGES in mesh.axis_names and (len(counts) > 1 or () in counts):
            shapes = [list(jnp.shape(x)) for x in jax.tree.leaves((images, targets))]
            raise ValueError(
                f"got images and targets of shapes {shapes}; wanted n images and n targets, for an "
                f"explainer under jax.vmap. For one image use a mesh with the axis {PROBES!r} alone"
            )
        if (n := len(jax.tree.leaves(images)[0])) % devices:
            raise ValueError(
                f"{n} images on {devices} devices; wanted a multiple: pad the images, or make the "
                f"axis {IMAGES!r} of the mesh a divisor of {n}"
            )
        return spread(*jax.device_put((variables, images, targets), placed))

    return explain_spread
