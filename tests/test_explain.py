"""The whole path: what it returns for one and several layers, and what it refuses."""

import functools
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import CLASSES, image, plain

import jaxcam


def _explain(layer: Any = "block2", method=jaxcam.grad_cam, image=None, target=1, **kwargs):
    case = plain()
    explain = jaxcam.explainer(case.apply_fn, layer, method, **kwargs)
    return explain(case.variables, case.image if image is None else image, target)


def test_the_path_is_split_weigh_combine_upsample_scale():
    case = plain()
    activations, head = jaxcam.split(case.apply_fn, "block2")(case.variables, case.image)
    weights = jax.grad(lambda a: head(a)[1])(activations).mean((0, 1), keepdims=True)
    cam = np.maximum((weights * activations).sum(-1), 0)
    large = np.asarray(jax.image.resize(cam, (12, 10), "bilinear"))
    explanation = _explain()
    np.testing.assert_allclose(explanation.weights, weights, rtol=1e-6)
    np.testing.assert_allclose(explanation.cam, cam, rtol=1e-5, atol=1e-6)
    wanted = (large - large.min()) / (large.max() - large.min())
    np.testing.assert_allclose(explanation.heatmap, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(explanation.logits, head(activations), rtol=1e-6)
    assert explanation.target == 1


def test_several_layers_are_fused():
    layers = ["block1", "block2"]
    parts = [_explain(layer, jaxcam.layer_cam) for layer in layers]
    fused = _explain(layers, jaxcam.layer_cam)
    wanted = jaxcam.unit_range(jnp.maximum(parts[0].heatmap, parts[1].heatmap))
    np.testing.assert_allclose(fused.heatmap, wanted, atol=1e-6)
    assert [cam.shape for cam in fused.cam] == [part.cam.shape for part in parts]
    assert [w.shape for w in fused.weights] == [part.weights.shape for part in parts]


def test_fuse_sees_the_heatmaps_in_the_order_of_the_layers():
    parts = [_explain(layer) for layer in ("block1", "block2")]
    shallow = _explain(("block1", "block2"), fuse=lambda heatmaps: heatmaps[0])
    np.testing.assert_allclose(shallow.heatmap, parts[0].heatmap, atol=1e-6)


def test_a_split_stands_in_for_a_name():
    case = plain()
    split_fn = jaxcam.split(case.apply_fn, "block2", occurrence=-1)
    np.testing.assert_array_equal(_explain(split_fn).cam, _explain().cam)


def test_a_method_of_the_users_own_fits_in():
    def strongest(tap):
        scores = tap.activations.max((0, 1), keepdims=True)
        return jnp.where(scores == scores.max(), 1.0, 0.0)

    explanation = _explain(method=strongest)
    assert explanation.weights.sum() == 1


def test_any_scalar_of_any_output_can_be_the_score():
    case = plain()

    def both(variables, x):
        logits = case.apply_fn(variables, x)
        return {"logits": logits, "norm": jnp.sum(logits**2)}

    def distance(outputs, embedding):
        return -jnp.sum((outputs["logits"] - embedding) ** 2)

    explain = jaxcam.explainer(both, "block2", score_fn=distance)
    explanation = explain(case.variables, case.image, jnp.ones(CLASSES))
    assert explanation.heatmap.shape == (12, 10)
    assert explanation.logits["norm"].shape == ()


def test_the_target_reaches_the_score_as_it_is():
    case = plain()

    def named(logits, target):
        return logits[{"cat": 0, "dog": 1}[target]]

    explain = jaxcam.explainer(case.apply_fn, "block2", score_fn=named)
    explanation = explain(case.variables, case.image, "dog")
    np.testing.assert_array_equal(explanation.weights, _explain().weights)


def test_the_score_sets_what_is_explained():
    by_logit = _explain().weights
    by_probability = _explain(score_fn=jaxcam.probability).weights
    assert not np.allclose(by_logit / by_probability, (by_logit / by_probability)[0, 0, 0])


def test_all_targets_at_once():
    case = plain()
    explain = jaxcam.explainer(case.apply_fn, "block2")
    explanations = jax.jit(jax.vmap(explain, in_axes=(None, None, 0)))(
        case.variables, case.image, jnp.arange(CLASSES)
    )
    for target in range(CLASSES):
        wanted = _explain(target=target).cam
        np.testing.assert_allclose(explanations.cam[target], wanted, rtol=1e-5, atol=1e-6)


def test_a_method_may_be_an_object_without_a_hash():
    class Method:
        __hash__ = None  # pyright: ignore[reportAssignmentType]  # what `==` alone does

        def __call__(self, tap):
            return jaxcam.grad_cam(tap)

    np.testing.assert_array_equal(_explain(method=Method()).cam, _explain().cam)


def test_all_targets_share_the_forward_pass():
    case = plain()
    explain = jaxcam.explainer(case.apply_fn, "block2")

    def flops(f, *targets):
        cost = jax.jit(f).lower(case.variables, case.image, *targets).compile().cost_analysis()
        assert cost is not None
        return cost["flops"]

    forward, once = flops(case.apply_fn), flops(explain, jnp.array(0))
    every = flops(jax.vmap(explain, in_axes=(None, None, 0)), jnp.arange(CLASSES))
    assert every < once * CLASSES - 0.8 * forward * (CLASSES - 1)


def test_a_target_out_of_range_inside_a_trace_shows_as_nan():
    case = plain()
    explain = jax.jit(jaxcam.explainer(case.apply_fn, "block2"))
    assert np.isnan(explain(case.variables, case.image, CLASSES).heatmap).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image": np.zeros((12, 10, 3), bool)}, r"image bool\[12, 10, 3\]; wanted one floating"),
        (
            {"image": {"pixels": np.zeros((12, 10, 3))}},
            r"image of type dict; .*\(variables, image\)",
        ),
        ({"image": np.zeros(12, np.float32)}, r"float32\[12\]; wanted one floating-point image"),
        ({"target": CLASSES}, r"target 5 is no class; the model has classes 0 to 4"),
        ({"target": -1}, r"target -1 is no class"),
        ({"layer": "blok2"}, r"no layer 'blok2'\. Did you mean 'block2' or 'block1'\?"),
        ({"layer": []}, r"empty sequence of layers"),
        ({"layer": ["block1", "block2"], "fuse": lambda maps: maps}, r"\(2, 12, 10\); wanted"),
        ({"score_fn": lambda logits, target: logits}, r"float32\[5\]; wanted a scalar"),
        (
            {"score_fn": lambda logits, target: logits.argmax()},
            r"int32.*; wanted a scalar of floats",
        ),
        ({"method": lambda tap: jnp.ones(8)}, r"weights of shape \(8,\); wanted \(1, 1, 8\)"),
    ],
)
def test_bad_input_is_refused_with_the_fix(arguments, message):
    with pytest.raises(ValueError, match=message):
        _explain(**arguments)


def test_a_layer_behind_the_pool_is_refused():
    def apply_fn(variables, x):
        return jaxcam.tag(x.mean((0, 1)), "pooled")

    with pytest.raises(ValueError, match=r"\[3\] for an image \[12, 10, 3\]; .* before"):
        jaxcam.explainer(apply_fn, "pooled")(None, plain().image)


def test_no_target_for_an_output_without_a_top_class_is_refused():
    def apply_fn(variables, x):
        return jaxcam.tag(x, "layer").mean((0, 1))[None]

    with pytest.raises(
        ValueError, match=r"^of the image float\d+\[.*returned \(1, 3\); wanted logits"
    ):
        jaxcam.explainer(apply_fn, "layer")(None, plain().image)


def test_the_tap_at_another_score_is_that_of_the_score():
    case = plain()
    given = (case.apply_fn, "block2", case.variables, case.image, 1)
    found = jaxcam.tap(*given).at_score(jaxcam.probability)
    wanted = jaxcam.tap(*given, score_fn=jaxcam.probability)
    for at in ("activations", "score", "target"):
        np.testing.assert_array_equal(getattr(found, at), getattr(wanted, at))
    for of, other in ((found, wanted), (wanted, found)):
        again = of.at_image(case.image * 2).at_score(jaxcam.logit)
        np.testing.assert_allclose(
            again.score, other.at_score(jaxcam.logit).score_image(case.image * 2)
        )


def test_what_is_no_layer_and_no_method_is_refused():
    # Without the checks of the signatures, which only tests have.
    tap, explainer = inspect.unwrap(jaxcam.tap), inspect.unwrap(jaxcam.explainer)
    case = plain()
    for layer, shown in (
        (3, "3"),
        (case.image, r"float\d+\[12, 10, 3\]"),
        ({"a": [case.image]}, "{"),
    ):
        with pytest.raises(ValueError, match=rf"^layer is {shown}.*; wanted its name, .{{,80}}$"):
            tap(case.apply_fn, layer, case.variables, case.image)
    with pytest.raises(ValueError, match=r"fuse is 'max'; wanted a function"):
        explainer(case.apply_fn, ["block1", "block2"], fuse="max")
    with pytest.raises(ValueError, match=r"method is 'grad_cam'; wanted a function"):
        explainer(case.apply_fn, "block2", "grad_cam")
    with pytest.raises(ValueError, match=r"convention is 'torchcam'; .* jaxcam\.conventions"):
        explainer(case.apply_fn, "block2", convention="torchcam")


def _one_output(variables, x):
    return plain().apply_fn(variables, x)[:1]


@pytest.mark.parametrize("target", [1, np.int64(1), jnp.asarray(1), 58, "old"])
def test_the_score_alone_knows_what_a_target_is(target):
    """One output, and a score whose targets are no classes of it."""
    case = plain()
    explain = jaxcam.explainer(
        _one_output, "block2", score_fn=lambda z, t: jnp.where(t == 1, z[0], -z[0])
    )
    explanation = explain(case.variables, case.image, target)
    assert np.isfinite(explanation.heatmap).all()
    assert explanation.target is target


def test_a_binary_network_is_explained_for_and_against():
    case = plain()
    explain = jaxcam.explainer(
        _one_output, "block2", jaxcam.counterfactual_grad_cam, score_fn=jaxcam.binary_logit
    )
    against = explain(case.variables, case.image, 0)
    logit = _one_output(case.variables, case.image)[0]
    wanted = jaxcam.explainer(_one_output, "block2")(case.variables, case.image, 0)
    np.testing.assert_allclose(against.weights, wanted.weights, rtol=1e-6)
    assert explain(case.variables, case.image).target == int(logit > 0)
    flipped = {**case.variables, "dense": -case.variables["dense"]}
    assert explain(flipped, case.image).target == int(logit <= 0)


def test_the_softmax_of_one_logit_is_refused_and_no_flat_map():
    case = plain()
    explain = jaxcam.explainer(_one_output, "block2", score_fn=jaxcam.probability)
    with pytest.raises(ValueError, match=r"one logit.*jaxcam\.binary_probability"):
        explain(case.variables, case.image)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_an_image_with_channels_first_is_refused(channels):
    with pytest.raises(ValueError, match=r"channels first; .*moveaxis\(image, 0, -1\)"):
        _explain(image=np.zeros((channels, 32, 24), np.float32))


@pytest.mark.parametrize("shape", [(128, 2, 2), (64, 8, 6), (5, 16, 12)])
def test_a_layer_with_channels_first_is_refused(shape):
    def apply_fn(variables, image):
        layer = jaxcam.tag(jnp.full(shape, image.mean()), "layer")
        return layer.mean((1, 2))

    explain = jaxcam.explainer(apply_fn, "layer")
    with pytest.raises(ValueError, match=r"'layer' returns .* channels first; .*moveaxis"):
        explain({}, jnp.ones((32, 24, 3)))


@pytest.mark.parametrize("shape", [(2, 2, 128), (8, 6, 64), (16, 24, 5), (4, 3, 4), (63, 47, 9)])
def test_a_layer_with_channels_last_is_taken(shape):
    def apply_fn(variables, image):
        layer = jaxcam.tag(jnp.full(shape, image.mean()), "layer")
        return layer.mean((0, 1))

    found = jax.eval_shape(jaxcam.explainer(apply_fn, "layer"), {}, jnp.ones((32, 24, 3)))
    assert found.cam.shape == shape[:-1]


def test_a_tag_with_a_batch_axis_is_refused_with_the_line_that_mends_it():
    def apply_fn(variables, image):
        return jaxcam.tag(image[None], "layer").mean((0, 1, 2))

    with pytest.raises(ValueError, match=r"tag\(x\[0\], name\)\[None\]"):
        jaxcam.explainer(apply_fn, "layer")({}, jnp.ones((8, 8, 3)))


@pytest.mark.parametrize("size", [(1, 100, 12), (4, 4, 5), (3, 40, 3)])
def test_a_narrow_picture_is_taken(size):
    explain = jaxcam.explainer(lambda _, x: jaxcam.tag(x, "x").mean((0, 1)), "x")
    found = jax.eval_shape(explain, {}, jnp.ones(size))
    assert found.heatmap.shape == size[:-1]


def _siamese(other):
    """The same layer for two images of unlike sizes."""

    def apply_fn(variables, image):
        towers = (plain().apply_fn(variables, x) for x in (image, other))
        return jnp.stack([jnp.vdot(*towers)])

    return apply_fn


def test_each_image_of_a_siamese_network_is_explained_at_its_own_size():
    case, other = plain(), image(seed=5, size=(20, 8))
    for given, beside in ((case.image, other), (other, case.image)):
        siamese = _siamese(beside)
        first = jaxcam.split(siamese, "block2", occurrence=0)
        found = jax.jit(jaxcam.explainer(siamese, first))(case.variables, given)
        assert found.heatmap.shape == given.shape[:2]
        second = jaxcam.split(siamese, "block2", occurrence=1)
        with pytest.raises(ValueError, match=r"does not depend on the image.*make that input the"):
            jaxcam.explainer(siamese, second)(case.variables, given)


def _linear(variables, x):
    activations = jaxcam.tag(jax.nn.relu(x @ variables["mix"] + variables["bias"]), "layer")
    return activations.mean((0, 1)) @ variables["dense"]


FLAT = {
    "no gradient": ({"dense": jnp.zeros((2, 2))}, "all weights are 0"),
    "dead": ({"bias": jnp.full((1, 1, 2), -9.0)}, "all activations of the layer are 0"),
    "negative": ({"dense": -jnp.ones((2, 2))}, "nowhere positive"),
    "constant": ({"mix": jnp.zeros((3, 2)), "bias": jnp.ones((1, 1, 2))}, "one value everywhere"),
}


@pytest.mark.parametrize("name", [*FLAT, None])
def test_a_flat_map_says_why(name):
    changed, reason = FLAT[name] if name else ({}, None)
    sound = {"mix": jnp.ones((3, 2)), "bias": jnp.zeros((1, 1, 2)), "dense": jnp.ones((2, 2))}
    explain = jax.jit(jaxcam.explainer(_linear, "layer"))
    found = explain(sound | changed, image(), 0)
    said = jaxcam.why_flat(found)
    assert (said is None) == (name is None)
    assert name is None or str(reason) in str(said)
    assert (found.heatmap.max() == 0) == bool(name)
    several = jaxcam.explainer(_linear, ["layer", "layer"])(sound | changed, image(), 0)
    assert jaxcam.why_flat(several) == said


def test_nothing_on_the_way_to_a_sound_map_is_nan():
    with jax.debug_nans(True):
        assert _explain().heatmap.max() == 1


def test_a_knob_without_a_default_is_asked_for():
    def noisy(tap, *, key, samples=2):
        raise AssertionError(f"called with {key} and {samples}")

    @functools.wraps(noisy)
    def with_key(tap):
        return jaxcam.grad_cam(tap)

    unbound: dict[str, Any] = {"noisy": noisy, "the method": functools.partial(noisy, samples=3)}
    for name, method in unbound.items():
        with pytest.raises(ValueError, match=rf"{name} has no key; bind it: functools.partial\("):
            jaxcam.explainer(plain().apply_fn, "block2", method)
    assert _explain(method=with_key).heatmap.max() == 1


@pytest.mark.parametrize("score_fn", [jaxcam.logit, jaxcam.log_probability])
def test_the_score_of_a_tap_is_that_of_its_activations_and_its_image(score_fn):
    case = plain()
    tap = jaxcam.tap(case.apply_fn, "block2", case.variables, case.image, 1, score_fn=score_fn)
    np.testing.assert_allclose(tap.score, tap.score_activations(tap.activations), rtol=1e-6)
    np.testing.assert_allclose(tap.score, tap.score_image(tap.image), rtol=1e-6)
