"""What all adapters share: batches, channels first, other inputs, and errors in one line."""

import functools
import operator

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cut_law import check_law
from flax import nnx
from flax.training.train_state import TrainState
from tiers import thorough_but

import jaxcam
from jaxcam._src.cut.traced import traced

IMAGE = jax.random.normal(jax.random.key(0), (6, 5, 3))
KERNEL = jax.random.normal(jax.random.key(1), (3, 4))
DENSE = jax.random.normal(jax.random.key(2), (4, 2))
VARIABLES = {"kernel": KERNEL, "dense": DENSE}
TRUTH = jnp.tanh(IMAGE @ KERNEL)


def of_images(variables, images):
    x = jaxcam.tag(jnp.tanh(images @ variables["kernel"]), "layer")
    return x.mean((1, 2)) @ variables["dense"]


def of_channels_first(variables, images):
    assert images.shape == (1, 3, 6, 5)
    x = jnp.tanh(jnp.einsum("nchw,ck->nkhw", images, variables["kernel"]))
    x = jaxcam.tag(x, "layer")
    tokens = jaxcam.tag(x.reshape(1, 4, 30).mT, "tokens")
    return tokens.mean(1) @ variables["dense"]


def test_a_function_of_a_batch():
    apply_fn = jaxcam.from_function(of_images)
    check_law(apply_fn, VARIABLES, IMAGE, "layer", TRUTH)


def test_channels_first_are_seen_last():
    apply_fn = jaxcam.from_function(of_channels_first, channels="first")
    check_law(apply_fn, VARIABLES, IMAGE, "layer", TRUTH)
    check_law(apply_fn, VARIABLES, IMAGE, "tokens", TRUTH.reshape(30, 4))
    np.testing.assert_allclose(
        apply_fn(VARIABLES, IMAGE), jaxcam.from_function(of_images)(VARIABLES, IMAGE), rtol=1e-6
    )


WIDE = jax.random.normal(jax.random.key(3), (12, 8, 3))
WEIGHTS = {
    "kernel": jax.random.normal(jax.random.key(4), (3, 3, 3, 7)),
    "deep": jax.random.normal(jax.random.key(5), (3, 3, 7, 7)) / 5,
    "dense": jax.random.normal(jax.random.key(6), (7, 4)),
}


def _convolved(x, kernel, strides=(1, 1)):
    return jax.lax.conv_general_dilated(
        x, kernel, strides, "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def _pooled(x):
    ones = (1, 2, 2, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, ones, ones, "SAME")


def _normed(x):
    """Group normalization: of groups of channels."""
    groups = x[..., :6].reshape(*x.shape[:-1], 2, 3)
    normed = groups / jnp.sqrt((groups**2).mean((1, 2, 4), keepdims=True))
    return jnp.concatenate([normed.reshape(*x.shape[:-1], 6), x[..., 6:]], -1)


def _attended(x):
    tokens = x[0].reshape(-1, 7)
    return x + (jax.nn.softmax(tokens @ tokens.T) @ tokens).reshape(x.shape)


def _scanned(x):
    return jax.lax.scan(lambda x, scale: (x * scale + 1, x.mean()), x, jnp.array([0.9, 0.8]))[0]


def _in_patches(x):
    """The numbers of 2 x 4 positions joined, and some of them kept."""
    parts = x.reshape(1, 3, 2, 2, 4, 7).transpose(0, 1, 3, 2, 4, 5)
    return parts.reshape(1, 3, 2, 56)[..., :7]


def _row_by_row(x):
    """A recurrent network, from the top to the bottom."""

    def row(before, x):
        now = jnp.tanh(x + before)
        return now, now

    rows = jax.lax.scan(row, jnp.zeros_like(x[:, 0]), jnp.moveaxis(x, 1, 0))[1]
    return jnp.moveaxis(rows, 0, 1)


@jax.custom_vjp
def _own_derivative(x):
    return jnp.sin(x)


_own_derivative.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))


STEPS = {
    "activation": jax.nn.gelu,
    "pool": _pooled,
    "norm": _normed,
    "attention": _attended,
    "loop": _scanned,
    "tokens and back": lambda x: jnp.tanh(x.reshape(1, 48, 7) @ jnp.eye(7)).reshape(x.shape),
    "barrier": lambda x: jax.lax.optimization_barrier((x.transpose(2, 1, 0, 3), x))[1],
    "crop": lambda x: x[:, 2:, 1:],
    "flips there and back": lambda x: jnp.sin(x[:, ::-1])[:, ::-1],
    "padding": lambda x: jnp.pad(x, [(0, 0), (1, 1), (2, 2), (0, 0)]),
    "reflected border": lambda x: jnp.pad(x, [(0, 0), (2, 2), (1, 1), (0, 0)], mode="reflect"),
    "doubled border": lambda x: jnp.pad(x, [(0, 0), (0, 1), (2, 2), (0, 0)], mode="symmetric"),
    "round border": lambda x: jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="wrap"),
    "border by hand": lambda x: jnp.zeros((1, 8, 10, 7)).at[:, 1:-1, 1:-1].set(x),
    "written": lambda x: x.at[:, 0].set(0.0),
    "spectrum and back": lambda x: jnp.fft.irfft2(jnp.fft.rfft2(x, axes=(1, 2)), axes=(1, 2)),
    "stack": lambda x: jnp.stack([x, 2 * x], 1)[:, 1],
    "unstack": lambda x: sum(jnp.unstack(jnp.stack([x, 2 * x], 3), axis=3)),
    "mapped": jax.vmap(jax.vmap(lambda row: row / (1 + abs(row).max(-1, keepdims=True)))),
    "recurrence": _row_by_row,
    "patches": lambda x: (
        x.reshape(1, 3, 2, 2, 4, 7).transpose(0, 1, 3, 2, 4, 5).reshape(1, 3, 2, 56)[..., :7]
    ),
    "larger": lambda x: jax.image.resize(x, (1, 12, 16, 7), "bilinear"),
    "nearest": lambda x: jax.image.resize(x, (1, 12, 16, 7), "nearest"),
    "repeat": lambda x: x.repeat(2, 1).repeat(2, 2),
    "chosen": lambda x: jnp.take(x, jnp.array([3, 1, 0]), axis=1),
    "branch": lambda x: jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x),
    "own derivative": _own_derivative,
    "join": lambda x: jnp.concatenate([x, x[:, :2]], 1),
    "jit": jax.jit(jax.nn.relu),
    "checkpoint": jax.checkpoint(jnp.tanh),
}
OFTEN = [*STEPS][::3]


def _going_on(variables, images, step=jax.nn.relu, entered=lambda x: x):
    x = _convolved(entered(images), variables["kernel"], (2, 1))
    x = jaxcam.tag(step(x), "layer")
    return jax.nn.gelu(_convolved(x, variables["deep"])).mean((1, 2)) @ variables["dense"]


@pytest.mark.parametrize("name", thorough_but(STEPS, OFTEN.__contains__))
def test_a_model_of_channels_first_may_go_on_with_channels_last(name):
    """As one of Flax does, whose convolutions have no other order."""

    def transposed(variables, images):
        return _going_on(variables, images, STEPS[name], lambda x: jnp.moveaxis(x, 1, -1))

    last = jaxcam.from_function(lambda v, x: _going_on(v, x, STEPS[name]))
    first = jaxcam.from_function(jax.jit(transposed), channels="first")
    found, wanted = (
        jax.jit(jaxcam.explainer(apply_fn, "layer", jaxcam.layer_cam))(WEIGHTS, WIDE, 1)
        for apply_fn in (first, last)
    )
    assert jaxcam.layers(first, WEIGHTS, WIDE)[0].shape[-1] == 7
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=1e-6)
    assert not wanted.flat


def test_a_layer_that_is_turned_around_is_seen_as_the_image_is():
    """As the backward half of a recurrent network, or a mirrored image beside the image."""

    def apply_fn(variables, image):
        mirrored = jaxcam.tag(jnp.tanh(image[::-1, ::-1] * variables), "mirrored")
        return (mirrored * mirrored[:1]).sum((0, 1))

    activations, head = jaxcam.split(apply_fn, "mirrored")(2.0, WIDE)
    chex.assert_trees_all_close(activations, jnp.tanh(WIDE * 2.0))
    chex.assert_trees_all_close(head(activations), apply_fn(2.0, WIDE), rtol=1e-5)


def test_what_a_program_does_not_show_is_not_proven():
    """A scatter may put any axis anywhere."""
    rows, columns, channels = jnp.ogrid[:12, :8, :3]

    def apply_fn(variables, image):
        x = jaxcam.tag(jnp.zeros((3, 12, 8)).at[channels, rows, columns].set(image), "layer")
        return (x * variables).sum((1, 2))

    with pytest.raises(ValueError, match=r"\[3, 12, 8\] .*looks like channels first"):
        jaxcam.explainer(apply_fn, "layer")(2.0, WIDE, 1)


def test_channels_last_that_nothing_proves_are_not_taken_for_first():
    def function(variables, images):
        x = jnp.take(images.ravel(), jnp.arange(images.size)).reshape(1, 3, 12, 8)
        x = jaxcam.tag(jnp.moveaxis(x, 1, -1), "layer")
        return x.mean((1, 2)) @ variables["dense"][:3]

    apply_fn = jaxcam.from_function(function, channels="first")
    with pytest.raises(ValueError, match=r"\[8, 3, 12\] .*channels last that was taken for chann"):
        jaxcam.explainer(apply_fn, "layer")(WEIGHTS, WIDE, 1)


def test_columns_before_rows_that_nothing_proves_are_refused():
    def function(variables, images):
        x = jnp.take(images.ravel(), jnp.arange(images.size)).reshape(1, 8, 12, 3)
        return jaxcam.tag(x, "layer").mean((1, 2)) @ variables["dense"][:3]

    apply_fn = jaxcam.from_function(function)
    with pytest.raises(ValueError, match=r"\[8, 12, 3\] .*looks like columns before rows"):
        jaxcam.explainer(apply_fn, "layer")(WEIGHTS, WIDE, 1)


def test_a_program_without_layers_inside_stays_as_it_is():
    """So that what JAX has compiled of it is found again."""

    def body(x, scale):
        return jnp.sin(x * scale), None

    def apply_fn(variables, image):
        x = jaxcam.tag(image * variables, "layer")
        return jax.lax.scan(body, x, jnp.ones(3))[0].mean((0, 1))

    program, _ = traced(apply_fn, 2.0, WIDE)
    again, _ = traced(apply_fn, 2.0, WIDE)
    (loop,), (same,) = (
        [eqn.params["jaxpr"] for eqn in p.eqns if eqn.primitive.name == "scan"]
        for p in (program, again)
    )
    assert loop.jaxpr is same.jaxpr


def test_layers_of_both_orders_lie_in_one_model():
    """Also in a loop, whose steps hand on what they took."""

    def block(x, kernel):
        x = jaxcam.tag(jnp.tanh(x), "first")
        x = jaxcam.tag(_convolved(jnp.moveaxis(x, 1, -1), kernel), "last")
        return jnp.moveaxis(x, -1, 1), None

    def function(variables, images):
        x = _convolved(jnp.moveaxis(images, 1, -1), variables["kernel"])
        x, _ = jax.lax.scan(block, jnp.moveaxis(x, -1, 1), variables["deep"][None])
        return x.mean((2, 3)) @ variables["dense"]

    apply_fn = jaxcam.from_function(function, channels="first")
    assert [layer.shape for layer in jaxcam.layers(apply_fn, WEIGHTS, WIDE)] == [(12, 8, 7)] * 2
    for layer in ("first", "last"):
        assert jaxcam.explainer(apply_fn, layer)(WEIGHTS, WIDE, 1).cam.shape == (12, 8)


@pytest.mark.parametrize("axes", ["hwk", "whk", "khw", "kwh", "hkw"])
def test_a_layer_lies_as_the_program_shows(axes):
    """Also where height, width and channels are of one size."""
    kernel = jax.random.normal(jax.random.key(8), (3, 3, 3, 8))
    image = WIDE[:8]

    def apply_fn(variables, image, axes=axes):
        x = jnp.tanh(_convolved(image[None], variables["kernel"])[0])
        there = [("hwk").index(axis) for axis in axes]
        x = jaxcam.tag(jax.nn.relu(x).transpose(there), "layer")
        return x.sum([axes.index("h"), axes.index("w")]) ** 2

    plain = jaxcam.explainer(lambda v, x: apply_fn(v, x, "hwk"), "layer", jaxcam.layer_cam)
    wanted = plain({"kernel": kernel}, image, 1)
    found = jaxcam.explainer(apply_fn, "layer", jaxcam.layer_cam)({"kernel": kernel}, image, 1)
    chex.assert_trees_all_close(found, wanted, rtol=1e-5, atol=1e-6)
    mapped = jax.vmap(jaxcam.explainer(apply_fn, "layer", jaxcam.layer_cam), in_axes=(None, 0))
    both = mapped({"kernel": kernel}, jnp.stack([image, 2 * image]))
    assert both.heatmap.shape == (2, 8, 8)


def test_signals_of_channels_first_may_go_on_as_tokens():
    signal = jax.random.normal(jax.random.key(7), (10, 3))

    def function(variables, signal):
        assert signal.shape == (3, 10)
        tokens = jnp.tanh(signal.T @ variables["kernel"])
        tokens = jnp.concatenate([jnp.ones((1, 4)), tokens])  # a class token
        attended = jax.nn.softmax(tokens @ tokens.T) @ tokens
        tokens = jaxcam.tag(tokens + attended, "tokens")
        channels = jaxcam.tag(jnp.tanh(tokens.T), "channels")
        return channels.mean(1) @ variables["dense"]

    apply_fn = jaxcam.from_function(function, batch=False, channels="first")
    assert [layer.shape for layer in jaxcam.layers(apply_fn, VARIABLES, signal)] == [(11, 4)] * 2
    explain = jaxcam.explainer(apply_fn, jaxcam.token_grid(apply_fn, "channels", extra=1))
    assert explain(VARIABLES, signal).cam.shape == (10,)


def test_channels_first_without_a_batch():
    def function(variables, image):
        x = jaxcam.tag(jnp.tanh(jnp.einsum("chw,ck->khw", image, variables["kernel"])), "layer")
        return x.mean((1, 2)) @ variables["dense"]

    apply_fn = jaxcam.from_function(function, batch=False, channels="first")
    check_law(apply_fn, VARIABLES, IMAGE, "layer", TRUTH)


def test_other_inputs_are_arguments():
    def function(variables, meta, images):
        return of_images(variables, images) * meta["scale"]

    apply_fn = jaxcam.from_function(function, inputs_fn=lambda images, meta: (meta, images))
    explain = jaxcam.explainer(apply_fn, "layer")
    many = jax.jit(jax.vmap(explain, in_axes=((None, 0), 0, None)))
    scales, images = jnp.array([2.0, -1.0]), jnp.stack([IMAGE, IMAGE])
    found = many((VARIABLES, {"scale": scales}), images, 0)
    wanted = jaxcam.from_function(of_images)(VARIABLES, IMAGE)
    np.testing.assert_allclose(found.logits, jnp.outer(scales, wanted), rtol=1e-6)
    np.testing.assert_allclose(found.weights[0], -2 * found.weights[1], rtol=1e-6)


def test_one_other_argument_is_no_tuple():
    def function(variables, inputs):
        return of_images(variables, inputs["picture"] + inputs["shift"])

    apply_fn = jaxcam.from_function(
        function, inputs_fn=lambda x, shift: {"picture": x, "shift": shift}
    )
    found = apply_fn((VARIABLES, 1.0), IMAGE)
    np.testing.assert_allclose(
        found, jaxcam.from_function(of_images)(VARIABLES, IMAGE + 1), rtol=1e-6
    )


def test_an_image_of_integers_is_explained_as_floats():
    def apply_fn(variables, image):
        x = jaxcam.tag(image / 255 @ variables["kernel"], "layer")
        return jnp.tanh(x).mean((0, 1)) @ variables["dense"]

    image = np.random.default_rng(0).integers(0, 255, (6, 5, 3), np.uint8)
    explain = jax.jit(jaxcam.explainer(apply_fn, "layer", jaxcam.score_cam))
    chex.assert_trees_all_equal(
        explain(VARIABLES, image), explain(VARIABLES, image.astype(np.float32))
    )


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train: bool = True):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        return nn.Dense(2, name="dense")(nn.Dropout(0.5, deterministic=not train)(x).mean((1, 2)))


MODULE = Net()
STATE = jax.jit(lambda: MODULE.init(jax.random.key(0), IMAGE[None], train=False))()


@pytest.mark.parametrize(
    ("variables", "keywords", "message"),
    [
        (STATE, {}, r"training mode \(.*norm.*\); let it evaluate.*train=False"),
        (STATE["params"], {"train": False}, r"collections \['conv'.*'params': params"),
        ({"params": STATE["params"]}, {"train": False}, r"collections \['params'\].*batch_stats"),
        (STATE, {"training": False}, r"Net.__call__.*'training'.*given to from_linen"),
        ([STATE], {}, r"variables is a list; wanted what module.init returned"),
    ],
)
def test_variables_and_modes_that_do_not_fit_are_refused_in_one_line(variables, keywords, message):
    with pytest.raises(ValueError, match=message) as error:
        jaxcam.from_linen(MODULE, **keywords)(variables, IMAGE)
    assert "\n" not in str(error.value)


def test_a_train_state_is_refused_with_the_fix():
    import optax

    state = TrainState.create(apply_fn=MODULE.apply, params=STATE["params"], tx=optax.sgd(0.1))
    with pytest.raises(ValueError, match=r"variables is a TrainState;.*'params': state.params"):
        jaxcam.from_linen(MODULE, train=False)(state, IMAGE)
    with pytest.raises(ValueError, match=r"apply_fn is Net.apply; .*jaxcam.from_linen\(module"):
        jaxcam.explainer(state.apply_fn, "conv")


def test_a_model_in_place_of_a_function_names_its_adapter():
    model = nnx.Linear(3, 4, rngs=nnx.Rngs(0))
    for wrong, message in [
        (MODULE, r"apply_fn is Net; wanted .*from_linen"),
        (jax.jit(MODULE.apply), r"apply_fn is Net.apply; .*from_linen"),
        (model, r"apply_fn is Linear; .*from_nnx"),
    ]:
        for call in (jaxcam.explainer, jaxcam.split):
            with pytest.raises(ValueError, match=message):
                call(wrong, "layer")
        with pytest.raises(ValueError, match=message):
            jaxcam.layers(wrong, STATE, IMAGE)


def test_arguments_of_from_function_are_checked():
    with pytest.raises(ValueError, match=r"channels= 'frist'.*Did you mean 'first'"):
        jaxcam.from_function(of_images, channels="frist")
    apply_fn = jaxcam.from_function(of_images, inputs_fn=lambda images, _: images)
    with pytest.raises(ValueError, match=r"variables is a dict; with inputs_fn= wanted a pair"):
        apply_fn(VARIABLES, IMAGE)


def test_an_image_of_other_channels_is_named_as_what_does_not_fit():
    module = nn.Conv(2, (3, 3))
    variables = module.init(jax.random.key(0), IMAGE[None])
    with pytest.raises(
        ValueError, match=r"got \(float32\[1, 6, 5, 1\],\), of other channels or another size"
    ):
        jaxcam.from_linen(module)(variables, IMAGE[..., :1])


def test_layers_by_pattern_and_without_what_no_map_can_be_made_of():
    class Weighted(nn.Module):
        def weight(self):
            return self.param("weight", nn.initializers.ones, (3, 4))

        @nn.compact
        def __call__(self, x):
            return {"maps": [jnp.tanh(x @ self.weight())], "mean": x.mean((1, 2))}

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            found = Weighted(name="inner")(x)
            return nn.Dense(2, name="dense")(found["maps"][0].mean((1, 2)) + found["mean"].sum())

    module = Outer()
    variables = module.init(jax.random.key(0), IMAGE[None])
    apply_fn = jaxcam.from_linen(module)

    def listed(**options):
        found = jaxcam.layers(apply_fn, variables, IMAGE, **options)
        return [(layer.name, layer.key, layer.shape) for layer in found]

    weight, maps = ("inner:weight", "", (3, 4)), ("inner", "maps/0", (6, 5, 4))
    mean, dense = ("inner", "mean", (3,)), ("dense", "", (2,))
    assert listed() == [maps, dense]
    assert listed(every=True) == [weight, maps, mean, dense]
    assert listed(matching="i*r") == [maps]
    at = jaxcam.split(apply_fn, "inner", leaf="maps/0")
    assert at(variables, IMAGE)[0].shape == (6, 5, 4)
    with pytest.raises(ValueError, match=r"leaf='means'; choose leaf= from \[0, 1\] or \['maps/0'"):
        jaxcam.split(apply_fn, "inner", leaf="means")(variables, IMAGE)
    assert jaxcam.explainer(apply_fn, at)(variables, IMAGE, 0).heatmap.shape == (6, 5)


def test_the_activation_after_a_layer_has_a_name():
    class Vgg(nn.Module):
        @nn.compact
        def __call__(self, x):
            for _ in range(2):
                x = nn.silu(nn.relu(nn.Conv(4, (3, 3))(x)))
            return nn.Dense(2)(nn.relu(x).mean((1, 2)))

    module = Vgg()
    variables = module.init(jax.random.key(0), IMAGE[None])
    apply_fn = jaxcam.name_calls(jaxcam.from_linen(module), jax.nn.relu, jax.nn.silu)
    found = jaxcam.layers(apply_fn, variables, IMAGE)
    assert [(layer.name, layer.runs) for layer in found] == [
        ("Conv_0", 1), ("Conv_0:relu", 1), ("Conv_0:silu", 1),
        ("Conv_1", 1), ("Conv_1:relu", 2), ("Conv_1:silu", 1), ("Dense_0", 1),
    ]  # fmt: skip
    before, _ = jaxcam.split(apply_fn, "Conv_0")(variables, IMAGE)
    check_law(apply_fn, variables, IMAGE, "Conv_0:relu", jax.nn.relu(before))


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ([jax.nn.gelu], "no call of gelu shows in the model"),
        ([functools.partial(jax.nn.gelu, approximate=False), jax.nn.elu], "no call of gelu or elu"),
        ([], "name_calls got no function"),
        ([operator.methodcaller("relu")], "name_calls got operator.methodcaller.*; wanted"),
    ],
)
def test_calls_that_do_not_show_are_refused(functions, message):
    def function(variables, image):
        return (image @ variables["kernel"]).mean((0, 1)) @ variables["dense"]

    with pytest.raises(ValueError, match=message):
        jaxcam.layers(jaxcam.name_calls(function, *functions), VARIABLES, IMAGE)


def test_calls_of_a_function_without_layers_are_named():
    def function(variables, image):
        x = jax.nn.relu(image @ variables["kernel"])
        return jax.nn.relu(x.mean((0, 1)) @ variables["dense"])

    apply_fn = jaxcam.name_calls(function, jax.nn.relu)
    truth = jax.nn.relu(IMAGE @ KERNEL)
    check_law(apply_fn, VARIABLES, IMAGE, "relu", truth, occurrence=0)


@pytest.mark.parametrize("channels", ["first", "last"])
@pytest.mark.parametrize("batch", [True, False])
@pytest.mark.parametrize("name", [None, "before"])
def test_calls_lie_as_arrays_do_in_the_module(channels, batch, name):
    """Also where no layer of the module is named, and with axes of one."""
    axes = {"first": ("nchw", "nkhw"), "last": ("nhwc", "nhwk")}[channels]
    axes = axes if batch else [letters[1:] for letters in axes]

    def function(variables, images):
        x = jnp.einsum(f"{axes[0]},ck->{axes[1]}", images, variables["kernel"])
        x = jax.nn.silu(x if name is None else jaxcam.tag(x, name))
        return x.mean([axes[1].index(letter) for letter in "hw"]) @ variables["dense"]

    adapted = jaxcam.from_function(function, batch=batch, channels=channels)
    apply_fn = jaxcam.name_calls(adapted, jax.nn.silu)
    layer = "silu" if name is None else "before:silu"
    for image in (IMAGE, IMAGE[:1], IMAGE[:, :1]):
        check_law(apply_fn, VARIABLES, image, layer, jax.nn.silu(image @ KERNEL))


@pytest.mark.parametrize("batch", [True, False])
def test_calls_of_a_plain_function_may_have_a_batch(batch):
    def function(variables, image):
        x = jax.nn.silu((image[None] if batch else image) @ variables["kernel"])
        return (x.mean((1, 2))[0] if batch else x.mean((0, 1))) @ variables["dense"]

    for image in (IMAGE, IMAGE[:1]):
        truth = jax.nn.silu(image @ KERNEL)
        check_law(jaxcam.name_calls(function, jax.nn.silu), VARIABLES, image, "silu", truth)


@pytest.mark.parametrize("channels", ["last", "first"])
def test_law_in_a_function_that_maps_over_its_batch_itself(channels):
    first = channels == "first"

    def of_one(variables, x):
        x = jnp.moveaxis(x, 0, -1) if first else x
        features = jnp.tanh(x @ variables["kernel"])
        features = jnp.moveaxis(features, -1, 0) if first else features
        features = jaxcam.tag(features, "features")
        pooled = features.mean((1, 2) if first else (0, 1))
        return pooled @ variables["dense"]

    apply_fn = jaxcam.from_function(jax.vmap(of_one, (None, 0)), channels=channels)
    check_law(apply_fn, VARIABLES, IMAGE, "features", TRUTH)
