"""Methods that mask the image, against plain loops over channels."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import plain
from tiers import rest_is_thorough

import jaxcam


def _tap(score_fn=jaxcam.logit):
    case = plain()
    return jaxcam.tap(case.apply_fn, case.layer, case.variables, case.image, 1, score_fn=score_fn)


@functools.cache
def _weights_by_loop(score_fn):
    tap = _tap(score_fn)
    scores = []
    for k in range(tap.activations.shape[-1]):
        mask = jax.image.resize(tap.activations[..., k], tap.image.shape[:2], "bilinear")
        if mask.max() > mask.min():
            mask = (mask - mask.min()) / (mask.max() - mask.min())
        else:
            mask = jnp.zeros_like(mask)
        scores.append(float(tap.score_image(tap.image * mask[..., None])))
    return np.exp(scores) / np.exp(scores).sum()


@pytest.mark.parametrize("score_fn", [jaxcam.logit, jaxcam.probability])
def test_score_cam_is_the_softmax_of_the_masked_scores(score_fn):
    found = jaxcam.score_cam(_tap(score_fn))
    assert found.shape == (1, 1, 8)
    np.testing.assert_allclose(found[0, 0], _weights_by_loop(score_fn), rtol=1e-4)  # float32 exp


@pytest.mark.parametrize("chunk_size", [1, 3, 8, 100])
def test_score_cam_does_not_depend_on_chunk_size(chunk_size):
    found = jaxcam.score_cam(_tap(), chunk_size=chunk_size)
    # Another batch size is another order of sums in the convolutions.
    np.testing.assert_allclose(found[0, 0], _weights_by_loop(jaxcam.logit), rtol=1e-4)


def test_a_flat_channel_masks_the_whole_image():
    def apply_fn(variables, x):
        flat = jnp.full((*x.shape[:2], 1), 3.0)
        features = jaxcam.tag(jnp.concatenate([x, flat], -1), "layer")
        return features.sum((0, 1)) @ jnp.ones((4, 2)) / 100

    image = jax.random.uniform(jax.random.key(0), (5, 4, 3))
    tap = jaxcam.tap(apply_fn, "layer", None, image, 0)
    weights = jaxcam.score_cam(tap)[0, 0]
    assert np.isfinite(weights).all()
    wanted = tap.score_image(jnp.zeros_like(image)) - tap.score_image(
        image * jaxcam.unit_range(image[..., 0])[..., None]
    )
    np.testing.assert_allclose(jnp.log(weights[3] / weights[0]), wanted, rtol=1e-4)  # float32 log


def test_masks_are_made_inside_the_chunk():
    """No array of all K masks at the size of the image: memory is set by `chunk_size`."""
    channels, side, chunk_size = 64, 48, 4

    def apply_fn(variables, x):
        small = jax.image.resize(x, (3, 3, 1), "linear")
        features = jaxcam.tag(small * jnp.arange(1.0, channels + 1)[None, None], "layer")
        return jnp.sin(features).sum((0, 1)).reshape(4, -1).sum(-1)

    method = functools.partial(jaxcam.score_cam, chunk_size=chunk_size)
    explain = jax.jit(jaxcam.explainer(apply_fn, "layer", method))
    image = jax.random.uniform(jax.random.key(0), (side, side, 1))
    memory = explain.lower(None, image, 0).compile().memory_analysis()
    assert memory is not None
    assert memory.temp_size_in_bytes < channels * side * side * 4 / 2


def test_chunk_size_below_1_is_refused():
    with pytest.raises(ValueError, match=r"chunk_size is 0; .* choose 1 or more"):
        jaxcam.score_cam(_tap(), chunk_size=0)


KEY = jax.random.key(0)
FLAT = jnp.array([0.1, 0.0, 0.1, 0.7])  # 0.1 is no sum of the weights of an interpolation


def _tap_with_flat_channels(passes):
    """Channels 4 to 7 are flat; `passes` gets an entry for each run of the model."""
    mix = jax.random.normal(KEY, (3, 4))
    dense = jax.random.normal(jax.random.key(1), (8, 2))

    def apply_fn(variables, image):
        jax.debug.callback(lambda: passes.append(1))
        channels = jax.nn.relu(image[::2, ::2] @ mix)
        flat = jnp.broadcast_to(FLAT.reshape(1, 1, 4), channels.shape)
        tagged = jaxcam.tag(jnp.concatenate([channels, flat], axis=-1), "layer")
        return tagged.mean((0, 1)) @ dense

    image = jax.random.normal(KEY, (12, 10, 3))
    return jaxcam.tap(apply_fn, "layer", None, image, 1)


def test_flat_channels_have_the_score_of_an_image_times_0():
    tap = _tap_with_flat_channels([])
    scores = [tap.score_image(tap.image * mask) for mask in _masks(tap)[:4]]
    scores += [tap.score_image(0 * tap.image)] * 4
    np.testing.assert_allclose(
        jaxcam.score_cam(tap)[0, 0], jax.nn.softmax(jnp.array(scores)), rtol=1e-5
    )


@pytest.mark.parametrize(
    ("method", "runs"),
    [
        (jaxcam.score_cam, 5),
        (functools.partial(jaxcam.score_cam, top_k=3), 3),
        (functools.partial(jaxcam.score_cam, top_k=6), 5),
        (functools.partial(jaxcam.is_cam, samples=2), 10),
    ],
)
def test_flat_channels_cost_one_pass_for_all(method, runs):
    passes = []
    tap = _tap_with_flat_channels(passes)
    jax.effects_barrier()
    passes.clear()
    jax.block_until_ready(functools.partial(method, chunk_size=1)(tap))
    jax.effects_barrier()
    assert len(passes) == runs


def test_top_k_channels_are_those_that_vary_most():
    tap = _tap_with_flat_channels([])
    spread = np.std(tap.activations, axis=(0, 1))
    kept = np.argsort(-spread)[:3]
    found = jaxcam.score_cam(tap, top_k=3)[0, 0]
    scores = jnp.stack([tap.score_image(tap.image * mask) for mask in _masks(tap)[kept]])
    np.testing.assert_allclose(found[kept], jax.nn.softmax(scores), rtol=1e-5)
    assert np.count_nonzero(found) == 3
    np.testing.assert_allclose(jaxcam.score_cam(tap, top_k=99), jaxcam.score_cam(tap), rtol=1e-6)


def _mean_size_of_gradient(tap):
    return abs(jax.grad(tap.score_activations)(tap.activations)).mean((0, 1))


@pytest.mark.parametrize("rank_fn", rest_is_thorough([jaxcam.grad_cam, _mean_size_of_gradient]))
def test_top_k_channels_are_those_that_rank_highest(rank_fn):
    tap = _tap_with_flat_channels([])
    row = jax.random.normal(jax.random.key(1), (8, 2))[:, 1]  # the gradient, but for h w
    ranks = row if rank_fn is jaxcam.grad_cam else abs(row)
    found = jax.jit(lambda: jaxcam.score_cam(tap, top_k=3, rank_fn=rank_fn))()[0, 0]
    assert {*np.flatnonzero(found)} == {*np.argsort(-ranks)[:3].tolist()}
    everything = jaxcam.score_cam(tap)[0, 0]
    np.testing.assert_allclose(
        found, jnp.where(found > 0, everything, 0) / everything[found > 0].sum(), rtol=1e-5
    )


def test_a_rank_of_anything_but_channels_is_refused():
    with pytest.raises(
        ValueError, match=r"rank_fn returned shape \(6, 5, 8\); wanted one .* 8 chan"
    ):
        jaxcam.score_cam(_tap(), top_k=3, rank_fn=jaxcam.layer_cam)


@pytest.mark.parametrize(
    "method",
    [
        jaxcam.score_cam,
        functools.partial(jaxcam.is_cam, samples=2),
        functools.partial(jaxcam.ss_cam, key=KEY, samples=2),
    ],
)
def test_reduced_precision_is_close_and_reaches_the_model(method):
    """The masked images run in bfloat16, with weights of three digits; the scores in float32."""
    tap, dtypes = _tap(), set()
    plain_score = tap.score_image

    def score_image(image):
        score = plain_score(image)
        dtypes.add((str(image.dtype), str(score.dtype)))
        return score

    found = method(dataclasses.replace(tap, score_image=score_image), dtype=jnp.bfloat16)
    assert dtypes == {("bfloat16", "float32")}
    wanted = method(tap)
    assert found.dtype == wanted.dtype
    np.testing.assert_allclose(found, wanted, rtol=0.05)
    assert not np.array_equal(found, wanted)


def test_at_an_image_of_another_dtype_the_whole_model_runs_in_it():
    seen = {}

    def apply_fn(variables, image):
        seen.update(
            image=image.dtype, dense=variables["dense"].dtype, count=variables["count"].dtype
        )
        return jaxcam.tag(image, "layer").mean((0, 1)) @ variables["dense"]

    variables = {"dense": jnp.ones((3, 2)), "count": jnp.array(3)}
    tap = jaxcam.tap(apply_fn, "layer", variables, jnp.ones((4, 4, 3)), 0)
    assert tap.score_image(tap.image.astype(jnp.bfloat16)).dtype == jnp.float32
    assert seen == {"image": jnp.bfloat16, "dense": jnp.bfloat16, "count": jnp.int32}


def _masks(tap):
    masks = [
        jaxcam.unit_range(jaxcam.upsample(tap.activations[..., k], tap.image.shape[:2]))
        for k in range(tap.activations.shape[-1])
    ]
    return jnp.stack(masks)[..., None]


def test_ss_cam_without_noise_is_score_cam():
    found = jaxcam.ss_cam(_tap(), key=KEY, samples=2, sigma=0.0)
    np.testing.assert_allclose(found, jaxcam.score_cam(_tap()), rtol=1e-4)  # float32 exp


@pytest.mark.parametrize("chunk_size", [3, 100])
def test_ss_cam_is_the_softmax_of_the_mean_over_noise(chunk_size):
    tap, samples = _tap(), 3
    found = jaxcam.ss_cam(tap, key=KEY, samples=samples, sigma=0.5, chunk_size=chunk_size)
    keys = jax.random.split(KEY, samples)
    noise = [0.5 * jax.random.normal(key, (*tap.image.shape[:2], 1)) for key in keys]
    scores = [np.mean([tap.score_image(tap.image * (m + n)) for n in noise]) for m in _masks(tap)]
    powers = np.exp(np.array(scores))
    wanted = powers / powers.sum()
    np.testing.assert_allclose(found[0, 0], wanted, rtol=1e-4)  # float32 exp


@pytest.mark.parametrize("chunk_size", [3, 100])
def test_is_cam_is_the_softmax_of_the_mean_over_strengths(chunk_size):
    tap = _tap()
    found = jaxcam.is_cam(tap, samples=4, chunk_size=chunk_size)
    scores = [
        np.mean([tap.score_image(tap.image * mask * n / 4) for n in (1, 2, 3, 4)])
        for mask in _masks(tap)
    ]
    powers = np.exp(np.array(scores))
    wanted = powers / powers.sum()
    np.testing.assert_allclose(found[0, 0], wanted, rtol=1e-4)  # float32 exp


@pytest.mark.parametrize(("groups", "sizes"), [(4, [2, 2, 2, 2]), (3, [3, 3, 2]), (99, [1] * 8)])
def test_group_cam_adds_what_each_group_reveals(groups, sizes):
    tap = _tap(jaxcam.probability)
    baseline, score = jaxcam.blurred(tap.image), jax.jit(tap.score_image)
    weighted = np.asarray(jaxcam.grad_cam(tap) * tap.activations)
    cam = np.zeros(weighted.shape[:2])
    for part in np.split(weighted, np.cumsum(sizes)[:-1], axis=-1):
        group = np.maximum(part.sum(-1), 0)
        group = np.where(group > np.percentile(group, 70), group, 0)
        mask = jaxcam.unit_range(jaxcam.upsample(jnp.asarray(group), tap.image.shape[:2]))
        revealed = tap.image * mask[..., None] + baseline * (1 - mask[..., None])
        gain = score(revealed) - score(baseline)
        cam += gain * jaxcam.unit_range(group)
    found = jax.jit(lambda: jaxcam.group_cam(tap, groups=groups))()
    # Gains are small differences of probabilities.
    np.testing.assert_allclose(found, np.maximum(cam, 0), atol=2e-6)
    assert abs(cam).max() > 1e-3


def test_a_blur_keeps_what_is_even_and_flattens_what_is_not():
    blurred = jax.jit(jaxcam.blurred)
    even = jnp.full((20, 30, 3), 0.7)
    np.testing.assert_allclose(blurred(even), even, rtol=1e-6)
    noise = jax.random.normal(KEY, (40, 50, 3))
    assert blurred(noise).std() < 0.2 * noise.std()
    spot = jnp.zeros((41, 1)).at[20].set(1.0)
    window = blurred(spot)[:, 0]
    reach = int(0.11 * 41)
    distance = np.arange(-reach, reach + 1) / (0.22 * 41)
    wanted = np.exp(-(distance**2) / 2)
    np.testing.assert_allclose(window[20 - reach : 21 + reach], wanted / wanted.sum(), rtol=1e-5)
    assert (window[: 20 - reach] == 0).all()


@pytest.mark.parametrize(
    ("method", "knob"),
    [
        (functools.partial(jaxcam.ss_cam, key=KEY, samples=0), "samples"),
        (functools.partial(jaxcam.is_cam, samples=0), "samples"),
        (functools.partial(jaxcam.group_cam, groups=0), "groups"),
        (functools.partial(jaxcam.score_cam, top_k=0), "top_k"),
    ],
)
def test_counts_below_1_are_refused(method, knob):
    with pytest.raises(ValueError, match=rf"{knob} is 0; .* choose 1 or more"):
        method(_tap())


@pytest.mark.parametrize("library", ["pytorch_grad_cam", "torchcam", "tf_keras_vis"])
def test_conventions_take_the_knobs_of_score_cam(library):
    convention = getattr(jaxcam.conventions, library)
    model, image = jaxcam.digits_relu(), jaxcam.load_canvases().images[0]
    method = functools.partial(jaxcam.score_cam, top_k=5, dtype=jnp.float16, chunk_size=4)
    explain = jaxcam.explainer(model.apply_fn, "stage3", method, convention=convention)
    weights = jax.jit(explain)(model.variables, image, 3).weights
    assert (weights != 0).sum() == 5
    assert jnp.isfinite(weights).all()


def test_a_dtype_that_is_not_floating_is_refused():
    with pytest.raises(ValueError, match=r"dtype is int32; wanted a floating one"):
        jaxcam.score_cam(_tap(), dtype=jnp.int32)


@pytest.mark.parametrize("side", rest_is_thorough([2, 9, 50, *range(3, 9), 10, 11, 12], first=3))
def test_a_blur_flattens_at_every_size(side):
    image = jax.random.normal(KEY, (side, side, 3))
    found = jaxcam.blurred(image)
    assert found.std() < 0.8 * image.std()
    steep = jnp.zeros((side, 1)).at[0].set(1.0)
    assert jaxcam.blurred(steep).max() < 0.7
    with jax.numpy_dtype_promotion("strict"):
        assert jaxcam.blurred(image.astype(jnp.bfloat16)).dtype == jnp.bfloat16
