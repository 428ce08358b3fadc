"""Models that end in a softmax or a sigmoid: found out, said, and undone exactly."""

import functools
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cases import image, plain
from tiers import rest_is_thorough

import jaxcam


def _moved(x):
    """A softmax with a batch axis, another dtype, and numbers that only move behind it."""
    return jax.nn.softmax(x[None].astype(jnp.float32), axis=-1)[0].reshape(1, -1).squeeze(0)


def _by_hand(x):
    return jnp.exp(x) / jnp.exp(x).sum()


def _shifted(x):
    e = jnp.exp(x - jax.lax.stop_gradient(x.max()))
    return e / e.sum()


@jax.custom_jvp
def _custom(x):
    return jax.nn.softmax(x)


_custom.defjvp(lambda x, t: jax.jvp(jax.nn.softmax, x, t))

SOFTMAXES = {
    "jax.nn": jax.nn.softmax,
    "exp of log-softmax": lambda z: jnp.exp(jax.nn.log_softmax(z)),
    "moved": _moved,
    "by hand": _by_hand,
    "shifted": _shifted,
    "in a jit": jax.jit(jax.nn.softmax),
    "in two": jax.jit(jax.jit(_moved)),
    "custom_jvp": _custom,
}


def _ending_in(squash, lead=1.0):
    return lambda variables, x: squash(plain().apply_fn(variables, x) * lead)


@pytest.mark.parametrize("lead", [1.0, 60.0])
@pytest.mark.parametrize("name", rest_is_thorough(SOFTMAXES, first=3))
def test_the_logits_before_a_softmax_are_explained_as_such(name, lead):
    case = plain()
    model, wanted = _ending_in(SOFTMAXES[name], lead), _ending_in(lambda z: z, lead)
    for apply_fn in (model, jax.jit(model)):
        logits_fn = jaxcam.to_logits(apply_fn)
        np.testing.assert_allclose(
            logits_fn(case.variables, case.image), wanted(case.variables, case.image), rtol=1e-6
        )
        found, exact = (
            jax.jit(jaxcam.explainer(f, "block2"))(case.variables, case.image).weights
            for f in (logits_fn, wanted)
        )
        np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_a_softmax_in_half_precision_is_found_too(dtype):
    case = plain()
    model = _ending_in(lambda z: jax.nn.softmax(z.astype(dtype)).astype(jnp.float32))
    found = jaxcam.to_logits(model)(case.variables, case.image)
    wanted = case.apply_fn(case.variables, case.image).astype(dtype)
    np.testing.assert_array_equal(found, wanted)


def test_the_layers_and_the_model_stay():
    class Network(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.remat(nn.Conv)(4, (3, 3), name="conv")(x)
            return nn.softmax(nn.Dense(5, name="dense")(x.mean((1, 2))))

    apply_fn = jaxcam.from_linen(Network())
    variables = Network().init(jax.random.key(0), image()[None])
    before = apply_fn(variables, image())
    logits_fn = jaxcam.to_logits(apply_fn)
    assert jaxcam.layers(logits_fn, variables, image()) == jaxcam.layers(
        apply_fn, variables, image()
    )
    np.testing.assert_allclose(jax.nn.softmax(logits_fn(variables, image())), before, rtol=1e-6)
    np.testing.assert_array_equal(apply_fn(variables, image()), before)


def test_what_prints_its_probabilities_prints_them_still(capsys):
    def model(variables, x):
        probabilities = jax.nn.softmax(plain().apply_fn(variables, x)[None])[0]
        jax.debug.print("{}", probabilities.sum())
        return probabilities

    case = plain()
    found = jaxcam.to_logits(model)(case.variables, case.image)
    jax.effects_barrier()
    assert round(float(capsys.readouterr().out), 5) == 1
    np.testing.assert_allclose(found, case.apply_fn(case.variables, case.image), rtol=1e-6)


def test_logits_of_another_dtype_than_the_probabilities_are_listed_as_they_are():
    def model(variables, x):
        power = jnp.exp(plain().apply_fn(variables, x)[None])
        total = power.sum(-1, keepdims=True)
        return jaxcam.tag((power.astype(jnp.bfloat16) / total.astype(jnp.bfloat16))[0], "ending")

    case, logits_fn = plain(), jaxcam.to_logits(model)
    layers = {x.name: x for x in jaxcam.layers(logits_fn, case.variables, case.image, every=True)}
    assert layers["ending"].dtype == jnp.float32
    found, head = jax.jit(lambda *given: _both(jaxcam.split(logits_fn, "ending")(*given)))(
        case.variables, case.image
    )
    np.testing.assert_array_equal(found, case.apply_fn(case.variables, case.image))
    np.testing.assert_array_equal(head, found)


def test_what_wraps_a_model_without_its_ending_is_another_model():
    case = plain()
    logits_fn = jaxcam.to_logits(_ending_in(jax.nn.softmax))

    @functools.wraps(logits_fn)
    def scaled(variables, x):
        return logits_fn(variables, 2 * x) + 1

    _, head = _both(jaxcam.split(scaled, "block2")(case.variables, case.image))
    np.testing.assert_allclose(head, scaled(case.variables, case.image), rtol=1e-5)
    whole = jax.vmap(logits_fn, (None, 0))
    found = jaxcam.layers(whole, case.variables, case.image[None], every=True)
    assert found[0].shape[0] == 1


def _both(split):
    activations, head = split
    return activations, head(activations)


@pytest.mark.parametrize("named", [False, True])
def test_a_model_is_traced_once_whatever_is_made_of_its_program(named):
    case, traces = plain(), []

    def model(variables, image):
        traces.append(1)
        return jax.nn.softmax(case.apply_fn(variables, image))

    changed = jaxcam.to_logits(model)
    changed = jaxcam.name_calls(changed, jax.nn.relu) if named else changed
    jax.eval_shape(jaxcam.explainer(changed, "block2"), case.variables, case.image)
    assert len(traces) == 1


SIGMOIDS = {
    "jax.nn": jax.nn.sigmoid,
    "by hand": lambda z: 1 / (1 + jnp.exp(-z)),
    "by hand, the other way": lambda z: 1.0 / (jnp.exp(-z) + 1.0),
}


@pytest.mark.parametrize("name", SIGMOIDS)
def test_the_logits_before_a_sigmoid(name):
    case = plain()
    logits_fn = jaxcam.to_logits(_ending_in(SIGMOIDS[name], 60.0))
    wanted = _ending_in(lambda z: z, 60.0)(case.variables, case.image)
    np.testing.assert_allclose(logits_fn(case.variables, case.image), wanted, rtol=1e-6)


def _with_a_sink(x):
    e = jnp.exp(x)
    return e / (1 + e.sum())


def _another_shift(x):
    return jnp.exp(x - jnp.log(jnp.exp(x - x.max()).sum()))


def _another_sum(x):
    return jnp.exp(x - jnp.log(jnp.exp(2 * x).sum()))


def _another_inverse(x):
    return 1 / (2 + jnp.exp(-x))


def _another_sign(x):
    return 1 / (1 + jnp.exp(x))


@pytest.mark.parametrize(
    "squash",
    [
        lambda z: z,
        jax.nn.log_softmax,
        _with_a_sink,
        _another_sum,
        _another_inverse,
        _another_sign,
        _another_shift,
        jnp.tanh,
        lambda z: jnp.exp(z - 1),
        lambda z: jax.nn.sigmoid(z) * z,
        lambda z: jnp.clip(z, 0, 1),
        lambda z: jax.nn.softmax(z) @ jnp.ones((z.size, 2), z.dtype),
    ],
)
def test_what_ends_otherwise_is_refused_and_no_word_is_said(squash):
    case = plain()
    with pytest.raises(ValueError, match=r"no softmax and no sigmoid at its end"):
        jaxcam.to_logits(_ending_in(squash))(case.variables, case.image)
    jaxcam.explainer(_ending_in(squash), "block2")(case.variables, case.image)


@pytest.mark.parametrize(
    "squash",
    rest_is_thorough([jax.nn.softmax, *SIGMOIDS.values(), *SOFTMAXES.values()], first=3),
)
@pytest.mark.parametrize("score_fn", [jaxcam.logit, functools.partial(jaxcam.finer, references=2)])
def test_a_score_of_logits_warns_of_probabilities(squash, score_fn):
    case = plain()
    explain = jaxcam.explainer(jax.jit(_ending_in(squash)), "block2", score_fn=score_fn)
    for explain_fn in (explain, jax.jit(explain)):
        with pytest.warns(UserWarning, match=r"ends in a (softmax|sigmoid).*jaxcam\.to_logits"):
            explain_fn(case.variables, case.image)


def test_the_warning_names_the_line_of_the_user(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import jax, jaxcam\n"
        "bundled = jaxcam.digits_relu()\n"
        "probabilities = lambda v, image: jax.nn.softmax(bundled.apply_fn(v, image))\n"
        "explain = jax.jit(jaxcam.explainer(probabilities, 'stage3'))\n"
        "explain(bundled.variables, jaxcam.load_canvases().images[0])\n"
    )
    ran = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    assert f"{script}:5: ModelWarning: the model ends in a softmax" in ran.stderr


def _normed_again(z):
    """Again and again, which must not take twice as long each time."""
    p = jax.nn.softmax(z)
    for _ in range(40):
        p = p / p.sum()
    return p


def test_an_ensemble_of_which_a_layer_sees_one_is_a_blend():
    def apply_fn(variables, image):
        one = jaxcam.tag(jnp.tanh(image @ variables), "one").mean((0, 1))
        other = jnp.sin(image @ variables).mean((0, 1))
        return 0.5 * (jax.nn.softmax(one) + jax.nn.softmax(other))

    case = plain()
    with pytest.warns(UserWarning, match=r"returns what it makes of probabilities"):
        jaxcam.explainer(apply_fn, "one")(jnp.ones((3, 4)), case.image, 0)


BLENDS = {
    "normed again": _normed_again,
    "clipped": lambda z: jnp.clip(jax.nn.softmax(z), 1e-7, 1.0),
    "its own and the other": lambda z: jnp.stack([1 - jax.nn.sigmoid(z[0]), jax.nn.sigmoid(z[0])]),
    "the mean of several": lambda z: jax.nn.softmax(jnp.stack([z, 2 * z])).mean(0),
    "half of two": lambda z: 0.5 * (jax.nn.softmax(z) + jax.nn.softmax(2 * z)),
    "of some classes": lambda z: jnp.where(jnp.arange(z.size) < 2, jax.nn.softmax(z), 0.0),
    "in another order": lambda z: jnp.take(jax.nn.softmax(z), jnp.arange(z.size)[::-1]),
    "the largest of a map": lambda z: jax.nn.sigmoid(jnp.stack([z, 2 * z])).max(0),
    "twice as much": lambda z: jax.nn.softmax(z) * 2,
    "smoothed": lambda z: 0.9 * jax.nn.softmax(z) + 0.01,
    "one for each group": lambda z: jax.nn.softmax(jnp.stack([z, 2 * z])).reshape(-1),
    "the two largest": lambda z: jax.lax.dynamic_slice(jax.nn.softmax(z), (z.argmax(),), (2,)),
}


@pytest.mark.parametrize("name", BLENDS)
def test_of_what_is_made_of_probabilities_a_score_of_logits_warns(name):
    case = plain()
    blended = _ending_in(BLENDS[name])
    with pytest.raises(ValueError, match=r"no softmax and no sigmoid at its end.*output_fn="):
        jaxcam.to_logits(blended)(case.variables, case.image)
    with pytest.warns(UserWarning, match=r"returns what it makes of probabilities.*output_fn="):
        jaxcam.explainer(blended, "block2")(case.variables, case.image, 0)


def test_a_score_of_ones_own_may_take_probabilities():
    case = plain()
    explain = jaxcam.explainer(
        _ending_in(jax.nn.softmax), "block2", score_fn=lambda p, target: p[target]
    )
    assert np.isfinite(explain(case.variables, case.image, 1).heatmap).all()


def _less_the_best_other(z):
    """Each logit less the largest of the others: another number for each class."""
    others = jnp.where(jnp.eye(len(z), dtype=bool), -jnp.inf, z[None])
    return z - others.max(1)


def test_a_subtraction_that_is_not_shared_stays():
    image = jax.random.normal(jax.random.key(1), (4, 4, 3))
    variables = jax.random.normal(jax.random.key(0), (3, 6))

    def before(variables, x):
        return _less_the_best_other(jaxcam.tag(x @ variables, "layer").mean((0, 1)))

    def network(variables, x):
        powers = jnp.exp(before(variables, x))
        return powers / powers.sum()

    found = jaxcam.to_logits(network)(variables, image)
    np.testing.assert_array_equal(found, before(variables, image))
