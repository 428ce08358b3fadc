"""With a convention a heatmap is, number by number, that of the library: golden files of five.

They were written by the libraries themselves: see golden/make_torch.py and make_tensorflow.py.
"""

import functools
import re

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
from small_networks import GOLDEN, apply_fn_of
from tiers import thorough_but

import jaxcam

KEY = jax.random.key(0)
FUSIONS = {"layer_cam": jaxcam.fuse_layer_cam, "refine_cam": jaxcam.fuse_refine_cam}
KNOBS = {  # the noise of the golden files is next to none
    "smooth_grad_cam_plus_plus": {"key": KEY, "sigma": 0.0},
    "ss_cam": {"key": KEY, "sigma": 0.0, "samples": 2},
}
# Behind SiLU the closed form has poles, and near them float32 rounding is magnified.
LOOSE = {"tf_keras_vis/dense/layer2/grad_cam_plus_plus": 3e-5}


OFTEN = [
    ("pytorch_grad_cam", "pooled", "both"),
    ("torchcam", "dense", "both"),
    ("captum", "pooled", "layer2"),
    ("tf_keras_vis", "dense", "layer2"),
    ("xplique", "pooled", "layer2"),
]


@functools.cache
def _golden(library: str, network: str) -> dict[str, np.ndarray]:
    with np.load(GOLDEN / f"{library}_{network}.npz") as file:
        return dict(file)


def _places():
    """One layer, or both fused, of one network, under one library: one compilation."""
    for library in ("pytorch_grad_cam", "torchcam", "captum", "tf_keras_vis", "xplique"):
        for network in networks.NETWORKS:
            places = {entry.split("/")[0] for entry in _golden(library, network) if "/" in entry}
            yield from ((library, network, place) for place in sorted(places))


def _explain(library: str, network: str, entry: str, sign: int = 1):
    """What explains an image as the golden entry was made."""
    place, name = entry.split("/")
    score_fn, fuse = jaxcam.logit, FUSIONS.get(name) if place == "both" else None
    method = getattr(jaxcam, name, jaxcam.grad_cam)
    if name == "finer":
        method, score_fn = jaxcam.grad_cam, jaxcam.finer
    if name == "shapley_cam":
        score_fn = jaxcam.rest
    if library == "pytorch_grad_cam" and name == "layer_cam":
        fuse = None  # its LayerCAM has the mean, as all its methods
    convention = getattr(jaxcam.conventions, library)
    if sign < 0:
        own = convention.variant(method)
        method = lambda tap: -own(tap)  # noqa: E731  # one line says it
    return jaxcam.explainer(
        apply_fn_of(network),
        networks.LAYERS if place == "both" else place,
        functools.partial(method, **KNOBS[name]) if name in KNOBS else method,
        score_fn=score_fn,
        fuse=fuse,
        convention=convention,
    )


@pytest.mark.parametrize(
    ("library", "network", "place"), thorough_but(_places(), {*OFTEN}.__contains__)
)
def test_heatmaps_are_those_of_the_library(library, network, place):
    golden = _golden(library, network)
    entries = [entry for entry in golden if entry.startswith(f"{place}/")]
    signed = [(entry, sign) for entry in entries for sign in (1, -1)]  # of Eigen-CAM below
    explains = {
        key: _explain(library, network, *key) for key in signed if key[1] > 0 or "eigen" in key[0]
    }

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0, 0))
    def heatmaps(weights, image, target):
        found = [explain(weights, image, target) for explain in explains.values()]
        return found[0].logits, [explanation.heatmap for explanation in found]

    weights = jax.tree.map(jnp.asarray, networks.weights(network))
    images, targets = jnp.asarray(networks.images()), jnp.array(networks.TARGETS)
    logits, found = heatmaps(weights, images, targets)
    found = dict(zip(explains, found, strict=True))
    np.testing.assert_allclose(logits, golden["logits"], rtol=1e-5, atol=1e-5)
    for entry in entries:
        _check(
            f"{library}/{network}/{entry}", golden[entry], found[entry, 1], found.get((entry, -1))
        )


def _check(name: str, wanted: np.ndarray, heatmap: jax.Array, negated: jax.Array | None) -> None:
    assert heatmap.shape == wanted.shape, name
    if negated is not None:  # the sign is an accident of the library's linear algebra
        is_closer = abs(heatmap - wanted).max((1, 2)) < abs(negated - wanted).max((1, 2))
        heatmap = jnp.where(is_closer[:, None, None], heatmap, negated)
    tolerance, largest = LOOSE.get(name, 1e-5), abs(wanted).max()
    np.testing.assert_allclose(
        heatmap / largest, wanted / largest, rtol=0, atol=tolerance, err_msg=name
    )
    assert np.ptp(wanted / largest) > 100 * tolerance, name


def test_guided_backpropagation_is_that_of_captum():
    weights = jax.tree.map(jnp.asarray, networks.weights("pooled"))

    def guided(image, target):
        tap = jaxcam.tap(apply_fn_of("pooled"), "layer2", weights, image, target)
        return jaxcam.guided_gradient(tap)

    found = jax.vmap(guided)(jnp.asarray(networks.images()), jnp.array(networks.TARGETS))
    wanted = _golden("captum", "pooled")["guided_gradient"]
    np.testing.assert_allclose(found / abs(wanted).max(), wanted / abs(wanted).max(), atol=1e-5)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.npz")), ids=lambda path: path.stem)
def test_golden_files_are_small_and_say_what_made_them(path):
    assert path.stat().st_size < 50_000
    with np.load(path) as file:
        assert re.search(r"\d\.\d", str(file["versions"]))
