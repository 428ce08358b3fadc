"""Metrics against arithmetic by hand, published numbers, and what each promises."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiers import thorough_but

import jaxcam
from jaxcam import metrics
from jaxcam._src.evaluation.measures import MEASURES

KEY = jax.random.key(0)
GRID = (7, 7)
_RNG = np.random.default_rng(0)
IMAGE = jnp.asarray(_RNG.uniform(0.1, 1, (*GRID, 1)), jnp.float32)
HEATMAP = jaxcam.unit_range(_RNG.uniform(size=GRID).astype(np.float32))


def trial(
    score_image=lambda image: jnp.float32(0.5), *, heatmap: Any = HEATMAP, image=IMAGE, **given
):
    """A trial of a model that is nothing but its score, under a method of one map."""
    heatmap = jnp.asarray(heatmap, jnp.float32)
    fields = {
        "image": image,
        "heatmap": heatmap,
        "logits": jnp.arange(4.0),
        "target": 1,
        "score": score_image(image),
        "score_image": score_image,
        "heatmap_of": lambda image: heatmap,
        "heatmap_for": lambda target: heatmap,
        "key": KEY,
    }
    return jaxcam.Trial(**fields | given)


def _number(metric, of):
    return jax.jit(lambda: metric(of))()


def one_hot(place=24):
    return np.eye(49, dtype=np.float32)[place].reshape(GRID)


def test_energy_inside_is_the_share_of_the_sum():
    heatmap = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    inside = jnp.array([[False, True], [False, True]])
    np.testing.assert_allclose(jaxcam.energy_inside(heatmap, inside), 0.6, rtol=1e-6)


def test_energy_inside_of_ones_is_the_share_of_the_area():
    inside = jnp.zeros((4, 5), bool).at[1:3, 2:4].set(True)
    np.testing.assert_allclose(jaxcam.energy_inside(jnp.ones((4, 5)), inside), 0.2, rtol=1e-6)


def test_energy_inside_of_nothing_is_0():
    assert jaxcam.energy_inside(jnp.zeros((2, 2)), jnp.ones((2, 2), bool)) == 0


@pytest.mark.parametrize(
    ("masked", "drop", "increase", "gain"), [(0.2, 0.6, 0, 0), (0.75, 0, 1, 0.5), (0.5, 0, 0, 0)]
)
def test_drop_increase_and_gain(masked, drop, increase, gain):
    found = trial(lambda image: jnp.where((image == IMAGE).all(), 0.5, masked))
    np.testing.assert_allclose(metrics.drop(found), drop, rtol=1e-6)
    assert metrics.increase(found) == increase
    np.testing.assert_allclose(metrics.gain(found), gain, rtol=1e-6)


def test_of_no_score_nothing_is_lost():
    assert metrics.drop(trial(lambda image: jnp.float32(0))) == 0
    assert metrics.gain(trial(lambda image: jnp.float32(1))) == 0


def test_adcc_is_the_published_harmonic_mean():
    np.testing.assert_allclose(metrics.harmonic_mean(1, 0.5, 1), 0.75, rtol=1e-6)
    # A row of the table of means: coherency, complexity, drop and ADCC.
    published = metrics.harmonic_mean(0.9741, 1 - 0.3836, 1 - 0.2003)
    np.testing.assert_allclose(published, 0.7694, atol=5e-5)
    assert metrics.harmonic_mean(0.0, 0.5, 1.0) == 0


def test_adcc_of_a_map_that_stays():
    np.testing.assert_allclose(metrics.coherency(trial()), 1, rtol=1e-6)
    wanted = 3 / (1 + 1 / (1 - float(HEATMAP.mean())) + 1)
    np.testing.assert_allclose(metrics.adcc(trial()), wanted, rtol=1e-5)
    opposite = trial(heatmap_of=lambda image: 1 - HEATMAP)
    np.testing.assert_allclose(metrics.coherency(opposite), 0, atol=1e-6)


def test_a_flat_map_is_kept_and_has_no_coherency():
    flat = trial(heatmap=np.zeros(GRID))
    assert metrics.coherency(flat) == metrics.adcc(flat) == metrics.complexity(flat) == 0
    assert metrics.entropy(flat) == metrics.gini(flat) == metrics.border(flat) == 0
    assert metrics.faithfulness_correlation(flat, samples=5) == 0


def test_entropy_and_gini_of_known_shapes():
    even, ramp = np.ones(GRID), np.arange(1, 50).reshape(GRID)
    np.testing.assert_allclose(metrics.entropy(trial(heatmap=even)), np.log(49), rtol=1e-6)
    np.testing.assert_allclose(metrics.entropy(trial(heatmap=one_hot())), 0, atol=1e-6)
    np.testing.assert_allclose(metrics.gini(trial(heatmap=even)), 0, atol=1e-6)
    np.testing.assert_allclose(metrics.gini(trial(heatmap=one_hot())), 48 / 49, rtol=1e-6)
    np.testing.assert_allclose(metrics.gini(trial(heatmap=ramp)), 48 / 147, rtol=1e-5)


def test_the_border_of_ones_is_its_share_of_the_area():
    found = metrics.border(trial(heatmap=np.ones(GRID)))
    np.testing.assert_allclose(found, 1 - 25 / 49, rtol=1e-6)
    assert metrics.border(trial(heatmap=one_hot())) == 0


@pytest.mark.parametrize("chunk_size", [7, 100])
def test_deletion_and_insertion_of_a_score_that_any_pixel_decides(chunk_size):
    """Gone with the first pixel that is removed; there with the first that enters."""
    whole = trial(lambda image: (image == IMAGE).all().astype(jnp.float32))
    some = trial(lambda image: (image == IMAGE).any().astype(jnp.float32))
    knobs = {"steps": 49, "chunk_size": chunk_size}
    np.testing.assert_allclose(metrics.deletion(whole, **knobs), 1 / 98, rtol=1e-5)
    found = metrics.insertion(some, baseline_fn=jnp.zeros_like, **knobs)
    np.testing.assert_allclose(found, 1 - 1 / 98, rtol=1e-5)


def test_deletion_removes_by_rank():
    total = float(IMAGE.sum())
    found = metrics.deletion_curve(
        trial(lambda image: image.sum()), steps=7, baseline_fn=jnp.zeros_like, chunk_size=3
    )
    order = np.argsort(-np.asarray(HEATMAP), axis=None)
    lost = np.cumsum(np.asarray(IMAGE).reshape(-1)[order])[6::7]
    np.testing.assert_allclose(found, [total, *(total - lost)], rtol=1e-5, atol=1e-5)


def test_of_a_constant_score_both_areas_are_that_score():
    constant = trial(lambda image: jnp.float32(0.3))
    for metric in (metrics.deletion, metrics.insertion, metrics.road_morf, metrics.road_lerf):
        np.testing.assert_allclose(_number(metric, constant), 0.3, rtol=1e-6)
    sensitivity = functools.partial(metrics.sensitivity_n, shares=(0.3,), samples=5)
    lost = metrics.faithfulness_correlation, metrics.infidelity, sensitivity
    for metric in (metrics.road, *lost):
        assert _number(metric, constant) == 0


def test_imputed_pixels_are_the_mean_of_their_neighbours():
    squares = (np.arange(9.0, dtype=np.float32) ** 2).reshape(3, 3, 1)
    for place, wanted in (((1, 1), 22 + 2 / 3), ((0, 0), 7.2)):
        removed = np.zeros((3, 3), bool)
        removed[place] = True
        found = metrics.imputed(jnp.asarray(squares), jnp.asarray(removed))
        np.testing.assert_allclose(found[place], wanted, rtol=1e-5)
        np.testing.assert_array_equal(found[~removed], squares[~removed])


def test_imputation_solves_its_linear_system(x64, rng):
    image, removed = rng.normal(size=(9, 8, 2)), rng.uniform(size=(9, 8)) < 0.7
    found = np.asarray(metrics.imputed(jnp.asarray(image), jnp.asarray(removed), iterations=200))
    for y, x in zip(*np.nonzero(removed), strict=True):
        total, weights = 0, 0
        for i in range(max(y - 1, 0), min(y + 2, 9)):
            for j in range(max(x - 1, 0), min(x + 2, 8)):
                weight = {0: 0, 1: 1, 2: 0.5}[abs(i - y) + abs(j - x)]
                total, weights = total + weight * found[i, j], weights + weight
        np.testing.assert_allclose(found[y, x], total / weights, atol=1e-4)


def test_imputation_reaches_from_one_corner_to_the_other():
    """Whatever is kept: the solver starts at its mean, and has enough steps to go everywhere."""
    rows = np.arange(96, dtype=np.float32)
    image = jnp.asarray((rows[:, None] + rows)[..., None] / 60)
    removed = jnp.ones((96, 96), bool).at[:30, :30].set(False)
    found = np.asarray(metrics.imputed(image, removed))[..., 0]
    padded = np.pad(found, 1)
    near = [
        (1 if abs(i) + abs(j) == 1 else 0.5)
        * np.stack([padded, np.pad(np.ones_like(found), 1)])[:, 1 + i : 97 + i, 1 + j : 97 + j]
        for i in (-1, 0, 1)
        for j in (-1, 0, 1)
        if i or j
    ]
    near = np.sum(near, 0)
    error = np.where(removed, abs(found - near[0] / near[1]), 0)
    assert error.max() < 1e-3
    shifted = metrics.imputed(image + 5, removed)[..., 0]
    np.testing.assert_allclose(shifted, found + 5, atol=1e-2)
    even = metrics.imputed(jnp.full((96, 96, 1), 0.3), removed)
    np.testing.assert_allclose(even, 0.3, atol=1e-3)  # a rounding of the mean spreads as far


def test_pixels_in_the_dark_are_dark():
    """All around them is 0, though the mean of what is kept is not."""
    removed = jnp.zeros((16, 16), bool).at[3:10, 3:10].set(True)
    image = jnp.zeros((16, 16, 1)).at[14:, 14:].set(1)
    for iterations in (None, 400):
        found = metrics.imputed(image, removed, iterations=iterations)
        np.testing.assert_allclose(found, image, atol=1e-6)


def test_road_prefers_the_map_that_follows_the_score():
    image = jnp.zeros((16, 16, 1)).at[4:9, 5:10].set(1)
    right = jnp.asarray(image[..., 0])
    score = lambda x: x[4:9, 5:10].mean().clip(0, 1)  # noqa: E731  # one line says it
    by_right, by_wrong = (
        metrics.road(trial(score, image=image, heatmap=h)) for h in (right, 1 - right)
    )
    assert by_right > 0.2 > -0.2 > by_wrong


@pytest.mark.thorough
@pytest.mark.parametrize(("sign", "wanted"), [(1, 1), (-1, -1)])
def test_correlations_where_the_map_is_the_image(sign, wanted):
    found = trial(lambda image: image.sum(), heatmap=sign * IMAGE[..., 0])
    np.testing.assert_allclose(metrics.faithfulness_correlation(found), wanted, atol=1e-4)
    np.testing.assert_allclose(metrics.sensitivity_n(found, samples=20), wanted, atol=1e-4)


def test_infidelity_is_0_for_the_weights_of_a_linear_score_at_any_scale(rng):
    weights = rng.uniform(size=GRID).astype(np.float32)
    linear = trial(lambda image: (image[..., 0] * weights).sum(), heatmap=3 * weights)
    np.testing.assert_allclose(metrics.infidelity(linear), 0, atol=1e-5)
    other = trial(lambda image: (image[..., 0] * weights).sum(), heatmap=one_hot())
    assert 0.3 < metrics.infidelity(other) <= 1


def test_sensitivity_is_the_relative_change():
    assert metrics.max_sensitivity(trial()) == metrics.average_sensitivity(trial()) == 0
    doubled = trial(heatmap_of=lambda image: 2 * HEATMAP)
    np.testing.assert_allclose(metrics.max_sensitivity(doubled), 1, rtol=1e-6)
    moved = trial(heatmap_of=lambda image: HEATMAP + (image - IMAGE)[..., 0])
    small, large = (metrics.max_sensitivity(moved, radius=r) for r in (0.01, 0.02))
    np.testing.assert_allclose(large, 2 * small, rtol=1e-3)
    assert metrics.average_sensitivity(moved) < metrics.max_sensitivity(moved)


def test_where_the_object_is():
    inside = jnp.zeros(GRID, bool).at[3, 3].set(True).at[3, 4].set(True)
    hit = trial(heatmap=one_hot(24), inside=inside)  # row 3, column 3
    assert metrics.pointing(hit, tolerance=0.0) == metrics.energy(hit) == 1
    assert metrics.overlap(hit) == 0.5
    near = trial(heatmap=one_hot(22), inside=inside)  # two columns to the left
    assert metrics.pointing(near, tolerance=2.0) == 0
    assert metrics.pointing(near, tolerance=2.5) == 1
    assert metrics.energy(near) == metrics.overlap(near) == 0
    nothing = trial(heatmap=np.zeros(GRID), inside=inside)
    assert metrics.pointing(nothing) == metrics.overlap(nothing) == 0
    exact = trial(heatmap=inside.astype(jnp.float32), inside=inside)
    assert metrics.relevance_rank(exact) == metrics.overlap(exact) == 1
    with pytest.raises(ValueError, match=r"evaluate\(\.\.\., inside=mask\)"):
        metrics.energy(trial())


def test_random_logit_compares_with_another_class():
    asked = []

    def heatmap_for(target):
        asked.append(int(target))
        return 1 - HEATMAP

    for seed in range(20):
        found = trial(heatmap_for=heatmap_for, key=jax.random.key(seed))
        np.testing.assert_allclose(metrics.random_logit(found), -1, atol=1e-6)
    assert {*asked} == {0, 2, 3}
    np.testing.assert_allclose(metrics.random_logit(trial()), 1, rtol=1e-6)  # blind to the class
    with pytest.raises(ValueError, match=r"wanted logits \[classes\]"):
        metrics.random_logit(trial(logits=jnp.zeros(1)))


BY_PLACE = {  # they draw pixels, or noise for each
    "average_sensitivity",
    "faithfulness_correlation",
    "infidelity",
    "max_sensitivity",
    "sensitivity_n",
}


@pytest.mark.parametrize("name", sorted({*MEASURES} - BY_PLACE))
def test_a_metric_does_not_know_which_side_is_up(name, rng):
    """The picture and its map turned over, and the score with them: the same number."""
    inside = jnp.zeros(GRID, bool).at[2:5, 1:4].set(True)
    weights = jnp.asarray(rng.uniform(size=(*GRID, 1)), jnp.float32)

    def measured(turn):
        score = lambda image: jax.nn.sigmoid((turn(image) * weights).mean())  # noqa: E731
        return getattr(metrics, name)(
            trial(
                score,
                image=turn(IMAGE),
                heatmap=turn(HEATMAP),
                heatmap_of=lambda image: turn(HEATMAP) * image[..., 0],
                heatmap_for=lambda target: turn(HEATMAP * IMAGE[..., 0]),
                inside=turn(inside),
            )
        )

    plain, turned = measured(lambda x: x), measured(lambda x: x[::-1])
    # ROAD, which ARCC has a part of, adds noise by its place.
    np.testing.assert_allclose(
        plain, turned, atol=1e-3 if "road" in name or name == "arcc" else 1e-5
    )


RANGES = {  # (0, 1) of all others
    "average_sensitivity": (0, np.inf),
    "entropy": (0, np.log(49)),
    "faithfulness_correlation": (-1, 1),
    "max_sensitivity": (0, np.inf),
    "random_logit": (-1, 1),
    "road": (-0.5, 0.5),
    "sensitivity_n": (-1, 1),
}
BY_ORDER = (
    "deletion insertion pointing relevance_rank road road_lerf road_morf tied random_logit".split()
)
BY_SHAPE = (
    "border energy entropy faithfulness_correlation gini infidelity overlap sensitivity_n".split()
)
SLOW = "arcc insertion road road_lerf road_morf".split()
SLOW += "faithfulness_correlation infidelity sensitivity_n".split()
OBJECT = jnp.zeros(GRID, bool).at[2:5, 1:4].set(True)


@functools.cache
def _measured(name: str) -> dict[str, np.ndarray]:
    """Of one picture, the metric of several maps in one program."""
    maps = {
        "random": HEATMAP,
        "squared": HEATMAP**2,
        "halved": HEATMAP / 2,
        "ones": jnp.ones(GRID),
        "zeros": jnp.zeros(GRID),
        "one": jnp.asarray(one_hot()),
    }
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(*GRID, 1)), jnp.float32)

    def measured(heatmap):
        return getattr(metrics, name)(
            trial(
                lambda image: jax.nn.sigmoid(4 * (image * weights).mean()),
                heatmap=heatmap,
                heatmap_of=lambda image: heatmap * image[..., 0],
                heatmap_for=lambda target: IMAGE[..., 0],
                inside=OBJECT,
            )
        )

    found = jax.jit(jax.vmap(measured))(jnp.stack([*maps.values()]))
    return dict(zip(maps, np.asarray(found), strict=True))


@pytest.mark.parametrize("name", thorough_but(MEASURES, lambda name: name not in SLOW))
def test_a_metric_stays_in_its_range(name):
    low, high = RANGES.get(name, (0, 1))
    found = np.stack([*_measured(name).values()])
    assert (found >= low - 1e-6).all()
    assert (found <= high + 1e-6).all()


@pytest.mark.parametrize(
    "name", thorough_but([*BY_ORDER, *BY_SHAPE], lambda name: name not in SLOW)
)
def test_what_a_metric_does_not_know_of_a_map(name):
    """Not its unit, and some not more than the order of its values."""
    found = _measured(name)
    np.testing.assert_allclose(found["halved"], found["random"], atol=2e-6)
    if name not in BY_SHAPE:
        np.testing.assert_allclose(found["squared"], found["random"], atol=2e-6)


def test_what_a_map_of_ones_has_for_free():
    wanted = dict.fromkeys("drop increase gain adcc gini random_logit".split(), 0.0)
    wanted |= {"complexity": 1, "tied": 1, "entropy": np.log(49)}
    wanted |= dict.fromkeys(["energy", "overlap"], 9 / 49) | {"border": 24 / 49}
    for name, number in wanted.items():
        np.testing.assert_allclose(_measured(name)["ones"], number, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("scale", [1e-25, 1e-12, 1e15])
def test_correlations_do_not_know_the_unit_of_the_score(scale, rng):
    weights = rng.uniform(size=GRID).astype(np.float32)
    noisy = weights + rng.uniform(size=GRID).astype(np.float32)
    for metric in (metrics.faithfulness_correlation, metrics.infidelity):
        one, other = (
            _number(metric, trial(lambda x, s=s: (x[..., 0] * weights).sum() * s, heatmap=noisy))
            for s in (np.float32(1), np.float32(scale))
        )
        np.testing.assert_allclose(one, other, rtol=1e-3)
        assert abs(one) > 1e-3


@pytest.mark.parametrize("alike", [metrics.pearson, metrics.spearman, metrics.top_overlap])
def test_agreement_does_not_hide_a_nan_and_wants_one_shape(alike):
    flawed = HEATMAP.at[0, 0].set(jnp.nan)
    assert np.isnan(alike(flawed, HEATMAP))
    assert np.isnan(alike(HEATMAP, jnp.full(GRID, jnp.nan)))
    with pytest.raises(ValueError, match=r"wanted two of one shape"):
        alike(HEATMAP, HEATMAP[0])


def test_correlations_take_whole_numbers_and_have_a_derivative_where_all_is_even():
    whole = jnp.arange(9).reshape(3, 3)
    np.testing.assert_allclose(metrics.pearson(whole, 2 * whole), 1, rtol=1e-6)
    slope = jax.grad(lambda m: metrics.pearson(m, whole))(jnp.ones((3, 3)))
    np.testing.assert_array_equal(slope, 0)


def test_a_masked_score_that_is_nan_is_no_increase():
    broken = trial(lambda image: jnp.where(image.max() < 0.99, jnp.nan, 0.5) * 1.0)
    assert np.isnan(metrics.increase(broken))
    assert np.isnan(metrics.harmonic_mean(0.0, jnp.nan))


def test_pixels_without_an_order():
    np.testing.assert_allclose(metrics.tied(trial(heatmap=one_hot())), 48 / 49, rtol=1e-6)
    assert metrics.tied(trial(heatmap=HEATMAP)) == 0


def test_arcc_is_the_harmonic_mean_with_twice_road():
    right = trial(lambda x: x[1:5, 2:6].mean().clip(0, 1), image=IMAGE)
    shares = (0.2, 0.4, 0.6, 0.8)
    parts = (
        metrics.coherency(right),
        1 - metrics.complexity(right),
        (2 * metrics.road(right, shares=shares)).clip(0, 1),
    )
    wanted = metrics.harmonic_mean(*parts)
    np.testing.assert_allclose(metrics.arcc(right), wanted, rtol=1e-5)
