"""Metrics are, number by number, those of five libraries, and where not, the fault is shown.

The golden files were written by the libraries themselves: see golden/make_metrics_torch.py and
make_metrics_tensorflow.py. `jax.random` is made to draw what the libraries were given.
"""

import contextlib
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import judged
import networks
import numpy as np
import pytest
from small_networks import GOLDEN, apply_fn_of
from tiers import thorough_but

import jaxcam
from jaxcam import metrics
from jaxcam._src.metrics import correlation, removal

OURS = {  # of theirs
    "torchcam/drop": "drop",
    "torchcam/increase": "increase",
    "torchcam/deletion": "deletion",
    "torchcam/insertion": "insertion from zeros",
    "pytorch_grad_cam/drop_in_confidence": "drop times score",
    "pytorch_grad_cam/increase": "increase",
    "pytorch_grad_cam/complexity": "complexity",
    "pytorch_grad_cam/coherency": "coherency",
    "pytorch_grad_cam/morf": "road_morf less score",
    "pytorch_grad_cam/lerf": "road_lerf less score",
    "pytorch_grad_cam/road": "road",
    "pytorch_grad_cam/arcc": "arcc",
    "pytorch_grad_cam/imputed": "imputed",
    "captum/infidelity": "infidelity times mean square",
    "captum/max_sensitivity": "max_sensitivity",
    "quantus/gini": "gini",
    "quantus/entropy": "entropy",
    "quantus/pointing": "pointing",
    "quantus/energy": "energy",
    "quantus/relevance_rank": "relevance_rank",
    "quantus/flipping": "deletion_curve of grey",
    "quantus/faithfulness_correlation": "faithfulness_correlation of grey",
    "quantus/max_sensitivity": "max_sensitivity",
    "quantus/average_sensitivity": "average_sensitivity",
    "quantus/random_logit": "random_logit",
    "quantus/imputed": "imputed",
    "xplique/drop": "drop",
    "xplique/increase": "increase",
    "xplique/gain": "gain",
    "xplique/deletion": "deletion",
    "xplique/insertion": "insertion from zeros",
    "xplique/entropy": "entropy",
    "xplique/gini": "gini",
    "xplique/stability": "average_sensitivity times norm",
}
# Differences of scores or maps, whose rounding is magnified, and what a solver stops at.
LOOSE = "arcc faithfulness infidelity imputed road sensitivity".split()
SHARES = [  # of the pixels that are not below a percentile
    1 - math.ceil(q / 100 * (judged.PIXELS - 1)) / judged.PIXELS for q in judged.PERCENTILES
]


@functools.cache
def _golden() -> dict[str, np.ndarray]:
    found = {}
    for framework in ("torch", "tensorflow"):
        with np.load(GOLDEN / f"metrics_{framework}.npz") as file:
            found |= file
    return found


@contextlib.contextmanager
def _draws(tables, other=None):
    """Keys are counted, and of each comes what the libraries were given for that sample."""

    def lots(key, shape, dtype):  # with a key that was not split, of ties, of which there are none
        order = tables["orders"][key if jnp.issubdtype(key.dtype, jnp.integer) else 0]
        return order.astype(dtype).reshape(shape)

    fixed = {
        "split": lambda key, num=2: jnp.arange(num),
        "normal": lambda key, shape, dtype: tables["normal"][key][..., : shape[-1]],
        "uniform": lambda key, shape, dtype, low, high: high * tables["uniform"][key],
        "bits": lots,
        "randint": lambda *_: other,
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, draw in fixed.items():
            patch.setattr(jax.random, name, draw)
        yield


def _probabilities(weights, image):
    colours = jnp.broadcast_to(image, (*image.shape[:-1], 3))
    return jax.nn.softmax(apply_fn_of(judged.NETWORK)(weights, colours))


def _trial(weights, image, heatmap, target, inside):
    def score(image, target):
        return _probabilities(weights, image)[target]

    def gradients(image, target):
        return abs(jax.grad(score)(image, target)).sum(-1)

    return jaxcam.Trial(
        image=image,
        heatmap=heatmap,
        logits=_probabilities(weights, image),
        target=target,
        score=score(image, target),
        score_image=lambda image: score(image, target),
        heatmap_of=lambda image: gradients(image, target),
        heatmap_for=lambda target: gradients(image, target),
        key=jax.random.key(0),
        inside=inside,
    )


def _scored_by(trial, score_image, **changed):
    changed = dataclasses.replace(trial, score_image=score_image, **changed)
    return dataclasses.replace(changed, score=score_image(changed.image))


def _masked_and_removed(trial, weights):
    logits = functools.partial(apply_fn_of(judged.NETWORK), weights)
    found = {
        name: getattr(metrics, name)(trial)
        for name in "drop increase gain complexity coherency entropy gini energy".split()
    }
    signed = jaxcam.unit_range(abs(1.5 * trial.heatmap - 0.5))
    nothing = jnp.zeros_like(trial.inside)
    return found | {
        "logits": logits(trial.image),
        "logits of the masked image": logits(trial.masked),
        "ranks of sparse": removal.ranks(jax.nn.relu(trial.heatmap - 0.6), trial.key),
        "drop times score": found["drop"] * trial.score,
        "drop of sizes": metrics.drop(dataclasses.replace(trial, heatmap=signed)),
        "pointing": metrics.pointing(trial, tolerance=0.0),
        "pointing at nothing": metrics.pointing(dataclasses.replace(trial, inside=nothing)),
        "relevance_rank": metrics.relevance_rank(trial),
        "deletion": metrics.deletion(trial, steps=judged.STEPS),
        "insertion from zeros": metrics.insertion(
            trial, steps=judged.STEPS, baseline_fn=jnp.zeros_like
        ),
    }


def _sampled(trial, _):
    explained = dataclasses.replace(trial, heatmap=trial.heatmap_of(trial.image))
    grey = _scored_by(trial, trial.score_image, image=trial.image[..., :1])
    sensitivity = {"radius": judged.RADIUS, "samples": judged.SAMPLES}
    subsets = {"share": judged.SUBSET_PIXELS / judged.PIXELS, "samples": judged.SAMPLES}
    average = metrics.average_sensitivity(explained, **sensitivity)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(correlation, "pearson", metrics.spearman)
        by_ranks = metrics.faithfulness_correlation(trial, **subsets)
    return {
        "infidelity": metrics.infidelity(trial, scale=judged.SCALE, samples=judged.SAMPLES),
        "max_sensitivity": metrics.max_sensitivity(explained, **sensitivity),
        "average_sensitivity": average,
        "average_sensitivity times norm": average * jnp.linalg.norm(explained.heatmap),
        "random_logit": metrics.random_logit(explained),
        "faithfulness_correlation of grey": metrics.faithfulness_correlation(grey, **subsets),
        "faithfulness_correlation by ranks": by_ranks,
        "deletion_curve of grey": metrics.deletion_curve(grey, steps=judged.STEPS)[1:],
        "errors carried over": _errors(grey, jnp.less_equal),
        "errors one by one": _errors(grey, jnp.equal),
    }


def _errors(trial, is_gone):
    """Infidelity, neither fitted nor divided, where the squares of a grid are removed in turn."""
    side = judged.BLOCK
    grid = np.arange(judged.PIXELS // side**2).reshape(judged.HEIGHT // side, -1)
    squares = np.kron(grid, np.ones((side, side), int))[..., None]

    def error(at):
        gone = jnp.where(is_gone(squares, at), trial.image, 0)
        lost = trial.score - trial.score_image(trial.image - gone)
        return ((gone[..., 0] * trial.heatmap).sum() - lost) ** 2

    return jax.vmap(error)(jnp.arange(grid.size)).mean()


def _imputed(trial, weights):
    probabilities = functools.partial(_probabilities, weights)
    grey = trial.image[..., :1]
    top = probabilities(grey).argmax()
    is_right = lambda x: (probabilities(x).argmax() == top).astype(x.dtype)  # noqa: E731  # one line
    right = _scored_by(trial, is_right, image=grey)
    percent = [int(judged.PIXELS * p / 100) / judged.PIXELS for p in judged.PERCENTILES]
    road, morf = metrics.road(trial, shares=SHARES), metrics.road_morf(trial, shares=SHARES)
    return {
        "road": road,
        "road_morf less score": morf - trial.score,
        "road_lerf less score": 2 * road + morf - trial.score,
        "arcc": metrics.arcc(trial, shares=SHARES),
        "accuracies of grey": removal._imputed_scores(
            right, most_first=True, shares=percent, chunk_size=4
        ),
    }


def _of_each_image(measure, **changed) -> dict[str, np.ndarray]:
    """What `measure(trial, weights)` finds in one program."""

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, None, 0, 0, 0, 0, 0))
    def numbers(weights, tables, image, heatmap, target, inside, other):
        with _draws(tables, other):
            return measure(_trial(weights, image, heatmap, target, inside), weights)

    weights = networks.weights(judged.NETWORK)
    tables = {name: getattr(judged, name)() for name in ("normal", "uniform", "orders")} | changed
    each = judged.images(), judged.heatmaps(), judged.TARGETS, judged.inside(), judged.others()
    found = numbers(*jax.tree.map(jnp.asarray, (weights, tables)), *map(jnp.asarray, each))
    return {name: np.asarray(values) for name, values in found.items()}


@functools.cache
def _road() -> dict[str, np.ndarray]:
    return _of_each_image(_imputed, normal=np.zeros_like(judged.normal()))


@functools.cache
def _numbers() -> dict[str, np.ndarray]:
    found = _of_each_image(lambda *given: _masked_and_removed(*given) | _sampled(*given))
    image, gone = jnp.asarray(judged.images()[0]), judged.removed()
    found["imputed"] = np.asarray(metrics.imputed(image, jnp.asarray(gone)))[gone]
    squares = _golden()["captum/infidelity_of_nothing"]
    return found | {"infidelity times mean square": found["infidelity"] * squares}


def _is_quick(name):  # the others compile solvers
    return "road" not in OURS[name] and OURS[name] != "arcc"


@pytest.mark.parametrize("name", thorough_but(OURS, _is_quick))
def test_numbers_are_those_of_the_library(name):
    numbers, wanted = _numbers() if _is_quick(name) else _road(), _golden()[name]
    found, largest = numbers[OURS[name]], abs(wanted).max()
    tolerance = 1e-5 if any(loose in OURS[name] for loose in LOOSE) else 1e-6
    np.testing.assert_allclose(found / largest, wanted / largest, rtol=0, atol=tolerance)
    assert np.ptp(wanted) > 1e-3 * largest


def test_torchcam_takes_a_model_s_logits_for_scores():
    y, o = (_numbers()[f"logits{which}"][0] for which in ("", " of the masked image"))
    wanted = _golden()["torchcam/drop_of_logits"]
    np.testing.assert_allclose(np.maximum(y - o, 0) / y, wanted, rtol=1e-5, atol=1e-6)
    assert wanted.min() < 0  # and above 1: no share of anything
    assert wanted.max() > 1


def test_pytorch_grad_cam_removes_what_is_tied_with_a_percentile():
    """Of a map that is 0 at three pixels of five it removes all, or those three."""
    heatmap, asked = judged.sparse()[0], 1 - np.array(judged.PERCENTILES) / 100
    kept = [
        [(m < np.percentile(m, q)).mean() for q in judged.PERCENTILES]
        for m in (heatmap, 1 - heatmap)
    ]
    np.testing.assert_allclose(_golden()["pytorch_grad_cam/removed"], 1 - np.array(kept), rtol=1e-6)
    assert kept[0][:2] == [0, 0]  # asked for 80 % and 60 %
    assert 1 - kept[1][-1] > 0.5  # asked for 20 %
    place = _numbers()["ranks of sparse"][0]
    shares = [(place < round(s * place.size)).mean() for s in asked]
    np.testing.assert_allclose(shares, asked, atol=0.5 / place.size)


def test_quantus_has_an_area_without_its_first_score_and_of_no_width():
    curves = _numbers()["deletion_curve of grey"]
    areas = curves.sum(1) - (curves[:, 0] + curves[:, -1]) / 2
    np.testing.assert_allclose(_golden()["quantus/flipping_area"], areas, rtol=1e-6)
    assert areas.max() > 1  # of probabilities


def test_quantus_counts_what_misses_nothing_as_a_hit():
    np.testing.assert_array_equal(_golden()["quantus/pointing_at_nothing"], 1)
    np.testing.assert_array_equal(_numbers()["pointing at nothing"], 0)


def test_quantus_keeps_squares_removed_that_infidelity_removes_one_by_one():
    found, first = _numbers(), _golden()["quantus/infidelity_1"]
    np.testing.assert_allclose(first, found["errors carried over"], rtol=1e-5)
    np.testing.assert_array_equal(first, _golden()["quantus/infidelity_3"])  # samples are copies
    assert (first > 1.1 * found["errors one by one"]).all()


def test_quantus_compares_one_step_s_sum_with_all_steps_loss_across_images():
    """Of a sum of pixels and the image as its map: ours is 1, since subsets lose their sums."""
    values = judged.grey().reshape(3, -1)
    steps = -np.sort(-values.astype(float), 1).reshape(3, judged.STEPS, -1).sum(2)
    wanted = [
        np.corrcoef(lost, said)[0, 1]
        for lost, said in zip(steps.cumsum(1).T[:9], steps.T, strict=False)
    ]
    found = _golden()["quantus/sensitivity_n_of_a_sum"]
    np.testing.assert_allclose(found, wanted, atol=1e-5)  # its sums are in float32
    assert found.min() < 0.95


@pytest.mark.thorough
def test_quantus_reports_road_of_the_first_batch_and_of_no_colours():
    accuracies, golden = _road()["accuracies of grey"], _golden()
    np.testing.assert_allclose(golden["quantus/road_in_batches_of_3"], accuracies.mean(0))
    np.testing.assert_array_equal(golden["quantus/road_in_batches_of_1"], accuracies[0])
    assert (accuracies[0] != accuracies.mean(0)).any()
    assert golden["quantus/road_of_colours_raises"]


def test_quantus_averages_the_model_as_it_is_into_the_randomised_ones():
    similar, found = (_golden()[f"quantus/{n}"] for n in ("randomised", "randomised_average"))
    np.testing.assert_allclose(similar[0], 1, rtol=1e-6)
    np.testing.assert_allclose(found, similar.mean(0), rtol=1e-6)
    assert (found > similar[1:].mean(0) + 0.05).all()


def test_quantus_divides_the_caller_s_maps():
    np.testing.assert_allclose(_golden()["quantus/sum_of_maps_afterwards"], 1, rtol=1e-5)
    assert judged.heatmaps().sum((1, 2)).min() > 40


def test_quantus_weighs_by_the_area_of_the_other_images():
    """Here twenty pixels, as a share of all colours of the one image behind the first two."""
    wanted = _numbers()["energy"] * 20 / (3 * judged.PIXELS)
    np.testing.assert_allclose(_golden()["quantus/localisation_weighted"], wanted, rtol=1e-5)


def test_xplique_correlates_ranks():
    found, wanted = _numbers(), _golden()["xplique/fidelity"]
    np.testing.assert_allclose(found["faithfulness_correlation by ranks"], wanted, atol=1e-6)


def test_xplique_masks_by_the_size_of_a_signed_map():
    found, wanted = _numbers(), _golden()["xplique/drop_of_signed"]
    np.testing.assert_allclose(found["drop of sizes"], wanted, atol=1e-6)
    assert abs(found["drop"] - wanted).max() > 0.03


def test_xplique_randomises_no_layer_of_three_and_else_draws_no_negative_weight():
    np.testing.assert_allclose(_golden()["xplique/randomised"], 1, rtol=1e-6)
    low, high = _golden()["xplique/randomised_range"]
    assert 0 <= low < high < 1
