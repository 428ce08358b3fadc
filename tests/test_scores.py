"""Scores against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcam

LOGITS = np.array([1.5, -2.0, 0.25, 3.0])
SOFTMAX = [jaxcam.probability, jaxcam.log_probability, jaxcam.log_odds]


def _softmax():
    return np.exp(LOGITS) / np.exp(LOGITS).sum()


def _lead(target):
    return LOGITS[target] - np.delete(LOGITS, target).max()


@pytest.mark.parametrize("target", range(4))
def test_scores_match_their_formulas(x64, target):
    logits = jnp.asarray(LOGITS)
    assert jaxcam.logit(logits, target) == LOGITS[target]
    np.testing.assert_allclose(jaxcam.probability(logits, target), _softmax()[target], rtol=1e-12)
    np.testing.assert_allclose(
        jaxcam.log_probability(logits, target), np.log(_softmax()[target]), rtol=1e-12
    )
    np.testing.assert_allclose(jaxcam.margin(logits, target), _lead(target), rtol=1e-12)
    odds = np.exp(LOGITS[target]) / np.exp(np.delete(LOGITS, target)).sum()
    np.testing.assert_allclose(jaxcam.log_odds(logits, target), np.log(odds), rtol=1e-12)


@pytest.mark.parametrize("score_fn", [jaxcam.logit, *SOFTMAX, jaxcam.margin])
@pytest.mark.parametrize("target", [-1, 4])
def test_a_traced_target_out_of_range_is_nan(score_fn, target):
    score = jax.jit(score_fn)(jnp.asarray(LOGITS, jnp.float32), target)
    assert np.isnan(score)


def test_only_the_logit_sees_a_constant_added_to_all():
    logits = jnp.asarray(LOGITS, jnp.float32)
    for score_fn in (*SOFTMAX, jaxcam.margin):
        np.testing.assert_allclose(score_fn(logits, 2), score_fn(logits + 4, 2), rtol=1e-5)
    assert jaxcam.logit(logits + 4, 2) == jaxcam.logit(logits, 2) + 4


def test_logits_of_a_batch_are_refused():
    with pytest.raises(
        ValueError, match=r"returned \(1, 4\); wanted logits \[classes\].*output_fn="
    ):
        jaxcam.logit(jnp.ones((1, 4)), 0)


def test_margin_of_one_class_is_refused():
    with pytest.raises(ValueError, match=r"one logit; use jaxcam\.logit"):
        jaxcam.margin(jnp.ones(1), 0)


def test_margin_does_not_hide_a_nan():
    assert np.isnan(jaxcam.margin(jnp.zeros(5000).at[3].set(jnp.nan), 1))


@pytest.mark.parametrize(
    ("target", "shown"), [(1.0, "1.0"), (True, "True"), (np.ones((64, 64)), r"float64\[64, 64\]")]
)
def test_a_target_that_is_no_index_is_refused(target, shown):
    with pytest.raises(ValueError, match=rf"target is {shown}; wanted the index of a class"):
        jaxcam.logit(jnp.ones(4), target)


@pytest.mark.parametrize("transform", [lambda f: f, jax.jit])
def test_several_targets_at_once_are_refused(transform):
    with pytest.raises(ValueError, match=r"shape \[2\]; .* for several targets use jax.vmap"):
        transform(jaxcam.logit)(jnp.ones(4), jnp.array([1, 2]))


def test_derivatives_of_a_confident_log_probability_keep_their_digits(x64):
    """At a probability of 1 - 1e-5, where those of a float32 `log_softmax` lose some."""
    logits, direction = jnp.array([12.0, 0.1, -0.3]), jnp.array([1.0, -2.0, 0.5])

    def slope(dtype):
        def along(t):
            return jaxcam.log_probability((logits + t * direction).astype(dtype), 0)

        return jax.jvp(along, (0.0,), (1.0,))[1]

    np.testing.assert_allclose(slope(jnp.float32), slope(jnp.float64), rtol=2e-6)


@pytest.mark.parametrize("target", [0, 1])
def test_log_odds_of_large_logits_are_exact_and_have_a_slope(target):
    """Where the softmax is 0 or 1 in float32, and `exp` of a logit is not finite."""
    logits = jnp.array([500.0, -500.0, -499.0])
    wanted = [500.0 + 499 - np.log1p(np.exp(-1)), -1000.0][target]
    np.testing.assert_allclose(jaxcam.log_odds(logits, target), wanted, rtol=1e-6)
    share = 1 / (1 + np.exp(1))
    slopes = [[1, -share, share - 1], [-1, 1, 0]][target]
    np.testing.assert_allclose(jax.grad(jaxcam.log_odds)(logits, target), slopes, rtol=1e-6)
    shifted = jaxcam.log_odds(jnp.array([1.5, 0.25]) + 2.0**18, 0)
    assert shifted == 1.25  # exactly, of two classes


def test_log_odds_are_those_of_the_probability_under_jit_and_vmap():
    logits = 3 * jax.random.normal(jax.random.key(0), (5, 4))
    odds = jax.jit(jax.vmap(jaxcam.log_odds))(logits, jnp.arange(5) % 4)
    chance = jnp.stack([jaxcam.probability(row, i % 4) for i, row in enumerate(logits)])
    np.testing.assert_allclose(jax.nn.sigmoid(odds), chance, rtol=1e-5)  # float32 exp


def test_log_odds_of_half_precision_accumulate_in_float32():
    logits = jnp.zeros(5000, jnp.bfloat16)
    found = jaxcam.log_odds(logits, 3)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, -np.log(4999), rtol=1e-6)
    assert np.isnan(jaxcam.log_odds(logits.at[7].set(jnp.nan), 3))


def test_finer_compares_with_the_nearest_logits():
    logits = jnp.array([1.0, 5.0, 4.0, 7.5, -3.0])
    # Nearest to 5 are 4, 7.5 and 1.
    wanted = 5 - 0.6 * (4 + 7.5 + 1) / 3
    np.testing.assert_allclose(jaxcam.finer(logits, 1), wanted, rtol=1e-6)
    np.testing.assert_allclose(jaxcam.finer(logits, 1, gamma=0.0), 5, rtol=1e-6)
    np.testing.assert_allclose(jaxcam.finer(logits, 1, gamma=1.0, references=1), 1, rtol=1e-6)
    everything = jaxcam.finer(logits, 1, references=99)
    np.testing.assert_allclose(everything, 5 - 0.6 * 9.5 / 4, rtol=1e-6)
    slopes = jax.grad(jaxcam.finer)(logits, 1)
    np.testing.assert_allclose(slopes, [-0.2, 1, -0.2, -0.2, 0], rtol=1e-6)


def test_rest_is_the_logit_and_the_log_probability():
    logits = jnp.array([1.0, 5.0, 4.0])
    wanted = 4 + jax.nn.log_softmax(logits)[2]
    np.testing.assert_allclose(jaxcam.rest(logits, 2), wanted, rtol=1e-6)


def test_finer_of_one_class_or_no_reference_is_refused():
    with pytest.raises(ValueError, match=r"finer compares classes, and there is one logit"):
        jaxcam.finer(jnp.ones(1), 0)
    with pytest.raises(ValueError, match=r"references is 0; .* choose 1 or more"):
        jaxcam.finer(jnp.ones(3), 0, references=0)


@pytest.mark.parametrize("wrong", [4, -1, np.int64(4), np.uint8(200), jnp.asarray(4)])
def test_a_target_that_is_no_class_is_refused_where_it_is_known(wrong):
    others = [jaxcam.margin, jaxcam.finer, jaxcam.rest, jaxcam.label_probability]
    for score_fn in (jaxcam.logit, *SOFTMAX, *others):
        with pytest.raises(ValueError, match=r"no class; the model has classes 0 to 3"):
            score_fn(jnp.asarray(LOGITS, jnp.float32), wrong)


@pytest.mark.parametrize("target", [0, 1, np.int8(1), jnp.asarray(0)])
def test_binary_scores_match_their_formulas(x64, target):
    logits = jnp.asarray([0.7])
    signed = 0.7 if target == 1 else -0.7
    assert jaxcam.binary_logit(logits, target) == signed
    chance = 1 / (1 + np.exp(-signed))
    np.testing.assert_allclose(jaxcam.binary_probability(logits, target), chance, rtol=1e-12)
    found = jaxcam.binary_log_probability(logits, target)
    np.testing.assert_allclose(found, np.log(chance), rtol=1e-12)


def test_scores_of_labels_match_their_formulas(x64):
    chance = 1 / (1 + np.exp(-LOGITS[1]))
    logits = jnp.asarray(LOGITS)
    np.testing.assert_allclose(jaxcam.label_probability(logits, 1), chance, rtol=1e-12)
    found = jaxcam.label_log_probability(logits, 1)
    np.testing.assert_allclose(found, np.log(chance), rtol=1e-12)


@pytest.mark.parametrize("size", [0, 2])
def test_a_binary_score_wants_one_logit(size):
    with pytest.raises(ValueError, match=r"wanted the one logit.*jaxcam.label_probability"):
        jaxcam.binary_logit(jnp.zeros(size), 1)


@pytest.mark.parametrize("target", [2, -1])
def test_a_binary_target_is_0_or_1(target):
    with pytest.raises(ValueError, match=r"no class; the model has classes 0 to 1"):
        jaxcam.binary_probability(jnp.zeros(1), target)
    assert np.isnan(jax.jit(jaxcam.binary_probability)(jnp.zeros(1), target))


@pytest.mark.parametrize("score_fn", [*SOFTMAX, jaxcam.margin, jaxcam.finer, jaxcam.rest])
def test_a_score_that_compares_classes_refuses_one_logit_and_names_the_binary_ones(score_fn):
    with pytest.raises(ValueError, match=r"there is one logit.*jaxcam.binary_logit"):
        score_fn(jnp.zeros(1), 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint32])
def test_the_index_may_be_of_any_integer_dtype(dtype):
    logits = jnp.arange(1000.0)
    for target in (dtype(7), jnp.asarray(7, dtype)):
        assert float(jaxcam.logit(logits, target)) == 7
        assert float(jax.jit(jaxcam.logit)(logits, target)) == 7
