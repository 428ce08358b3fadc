"""Unmodified Haiku functions: every layer found, named by its module, and cut where it runs."""

import functools
from typing import Any

import chex
import jax
import jax.numpy as jnp
import pytest
from cut_law import check_gradient, check_law, filled

import jaxcam
from jaxcam._src.cut import check_apply_fn

pytestmark = pytest.mark.thorough  # what every adapter must keep is in test_laws.py

hk = pytest.importorskip("haiku", reason="dm-haiku is not installed")

IMAGE = jax.random.normal(jax.random.key(0), (4, 3, 2))
BATCH = IMAGE[None]
KEY = jax.random.key(2)


def initialized(transformed, *inputs, **kwargs) -> Any:
    """Random params, and states that are positive as variances are."""
    init = functools.partial(transformed.init, **kwargs)
    with jax.numpy_dtype_promotion("standard"):  # a new moving average divides by its counter
        shapes = jax.eval_shape(init, KEY, *(inputs or (BATCH,)))
    variables = filled(shapes)
    has_state = isinstance(variables, tuple)
    return (variables[0], jax.tree.map(jnp.abs, variables[1])) if has_state else variables


def captured(transformed, *variables, **kwargs):
    """What every module returned, run by run, by its name, as Haiku's own interceptors see it."""
    outputs = {}

    def record(next_fn, args, kwargs, context):
        output = next_fn(*args, **kwargs)
        if context.method_name == "__call__":
            outputs.setdefault(context.module.module_name, []).append(output[0])
        return output

    with hk.intercept_methods(record):
        hk.without_apply_rng(transformed).apply(*variables, BATCH, **kwargs)
    return outputs


def listed(apply_fn, variables, **options):
    return [layer.name for layer in jaxcam.layers(apply_fn, variables, IMAGE, **options)]


def has_tags(fn, *args):
    return "jaxcam_tag" in str(jax.make_jaxpr(fn)(*args))


class Block(hk.Module):
    """A convolution and a nonlinearity, which keep the shape."""

    def __call__(self, x):
        return jnp.tanh(hk.Conv2D(2, 3, name="conv")(x))


def classify(x):
    return hk.Linear(3, name="out")(x.mean(axis=(1, 2)))


def net(x):
    return classify(Block("two")(Block("one")(x)))


NET = hk.transform(net)
NET_LAYERS = ["one/conv", "one", "two/conv", "two", "out"]
NET_PARAMS = initialized(NET)
NET_TRUTH = captured(NET, NET_PARAMS)


class Encoder(hk.Module):
    """Put together in `__init__`, with methods besides `__call__` and what is no layer."""

    def __init__(self, name=None):
        super().__init__(name)
        self.first, self.second = Block("first"), Block("second")

    @property
    def width(self):
        return jnp.float32(2.0)

    def embed(self, x):
        return self._twice(hk.Linear(2, name="mix")(self.first(x)))

    def _twice(self, x):
        return self.width * self.second(x)


def encoded(x):
    encoder = Encoder("encoder")
    assert encoder.params_dict() is not None
    return classify(jnp.sin(encoder.embed(x)))


# Where layers are


@pytest.mark.parametrize(
    ("transformed", "is_pair"),
    [
        (NET, False),
        (hk.without_apply_rng(NET), False),
        (hk.Transformed(NET.init, jax.jit(NET.apply)), False),
        (hk.transform_with_state(net), True),
        (hk.without_apply_rng(hk.transform_with_state(net)), True),
        (hk.with_empty_state(NET), True),
    ],
    ids=["bare", "without rng", "jit", "state", "state without rng", "empty state"],
)
def test_law_of_every_transformation(transformed, is_pair):
    apply_fn = jaxcam.from_haiku(transformed)
    variables = (NET_PARAMS, {}) if is_pair else NET_PARAMS
    assert listed(apply_fn, variables) == NET_LAYERS
    for layer in ("one/conv", "two"):
        check_law(apply_fn, variables, IMAGE, layer, NET_TRUTH[layer][0])


def test_law_at_every_layer():
    assert set(NET_TRUTH) == set(NET_LAYERS)
    for layer in NET_LAYERS:
        check_law(jaxcam.from_haiku(NET), NET_PARAMS, IMAGE, layer, NET_TRUTH[layer][0])


@pytest.mark.parametrize("without_rng", [False, True])
def test_law_of_one_function_of_a_multi_transform(without_rng):
    def several():
        block = Block("block")

        def run(x):
            return classify(block(x))

        return run, {"classify": run, "embed": block}

    multi = hk.multi_transform(several)
    multi = hk.without_apply_rng(multi) if without_rng else multi
    params = initialized(multi)
    apply_fn = jaxcam.from_haiku(hk.Transformed(multi.init, multi.apply["classify"]))
    truth = hk.transform(lambda x: Block("block")(x)).apply(params, None, BATCH)[0]
    check_law(apply_fn, params, IMAGE, "block", truth)
    with pytest.raises(ValueError, match=r"got MultiTransformed; .*multi.apply.classify"):
        jaxcam.from_haiku(multi)


def test_law_in_modules_that_are_recomputed():
    def recomputed(x):
        return classify(hk.remat(Block("two"))(hk.remat(lambda x: Block("one")(x))(x)))

    apply_fn = jaxcam.from_haiku(hk.transform(recomputed))
    assert set(listed(apply_fn, NET_PARAMS)) == set(NET_LAYERS)
    for layer in ("one", "two/conv"):
        check_law(apply_fn, NET_PARAMS, IMAGE, layer, NET_TRUTH[layer][0])


def stacked(x):
    return classify(hk.experimental.layer_stack(3, name="stack")(lambda x: Block("block")(x))(x))


def stacked_by_hand(params, disturbance=0.0, at=-1):
    """The outputs of the block in each step, and the logits."""
    block = hk.transform(lambda x: Block("block")(x))
    outputs, x = [], BATCH
    for i in range(3):
        own = jax.tree.map(lambda p, i=i: p[i], params["stack/block/conv"])
        x = block.apply({"block/conv": own}, None, x)
        x = x + disturbance if i == at else x
        outputs.append(x[0])
    return outputs, hk.transform(classify).apply(params, None, x)[0]


def test_law_in_stacked_layers():
    transformed = hk.transform(stacked)
    params = initialized(transformed)
    apply_fn = jaxcam.from_haiku(transformed)
    runs = {layer.name: layer.runs for layer in jaxcam.layers(apply_fn, params, IMAGE)}
    assert runs == {"block/conv": 3, "block": 3, "out": 1}
    outputs, _ = stacked_by_hand(params)
    for i, truth in enumerate(outputs):
        cut = check_law(apply_fn, params, IMAGE, "block", truth, occurrence=i)
        by_hand = functools.partial(stacked_by_hand, params, at=i)
        check_gradient(*cut, lambda d, by_hand=by_hand: by_hand(d[None])[1])


def test_law_in_a_scan_that_shares_its_parameters():
    def scanned(x):
        block = Block("block")
        x, _ = hk.scan(lambda x, _: (block(x), None), x, None, length=2)
        return classify(x)

    transformed = hk.transform(scanned)
    params = initialized(transformed)
    run = hk.transform(lambda x: Block("block")(x))
    truth = BATCH
    for occurrence in (0, 1):
        truth = run.apply(params, None, truth)
        apply_fn = jaxcam.from_haiku(transformed)
        check_law(apply_fn, params, IMAGE, "block", truth[0], occurrence=occurrence)


def test_law_in_a_module_that_is_called_twice():
    def twice(x):
        block = Block("block")
        return classify(block(jnp.sin(block(x))))

    transformed = hk.transform(twice)
    params = initialized(transformed)
    truth = captured(transformed, params)
    for layer in ("block", "block/conv"):
        for occurrence in (0, 1):
            wanted = truth[layer][occurrence]
            apply_fn = jaxcam.from_haiku(transformed)
            check_law(apply_fn, params, IMAGE, layer, wanted, occurrence=occurrence)


def test_law_in_a_module_put_together_in_init_and_its_methods():
    transformed = hk.transform(encoded)
    params = initialized(transformed)
    apply_fn = jaxcam.from_haiku(transformed)
    names = ["first/conv", "first", "~embed/mix", "second/conv", "second"]
    names = [*(f"encoder/{name}" for name in names), "encoder:embed", "out"]
    assert listed(apply_fn, params) == names
    assert {*listed(apply_fn, params, every=True)} - {*names} == {"encoder:width"}
    truth = captured(transformed, params)
    check_law(apply_fn, params, IMAGE, "encoder/first", truth["encoder/~/first"][0])
    second = truth["encoder/~/second"][0]
    check_law(apply_fn, params, IMAGE, "encoder/second", second)
    check_law(apply_fn, params, IMAGE, "encoder:embed", 2 * second)


def test_a_subclass_that_calls_its_parent_is_one_layer():
    class Doubled(Block):
        def __call__(self, x):
            return 2 * super().__call__(x)

    transformed = hk.transform(lambda x: classify(Doubled("two")(Doubled("one")(x))))
    apply_fn = jaxcam.from_haiku(transformed)
    assert listed(apply_fn, NET_PARAMS) == NET_LAYERS
    assert {x.runs for x in jaxcam.layers(apply_fn, NET_PARAMS, IMAGE)} == {1}
    check_law(apply_fn, NET_PARAMS, IMAGE, "one", 2 * NET_TRUTH["one"][0])


# What the function needs and returns


def normed(x, is_training):
    x = hk.Conv2D(4, 1, name="conv")(x)
    x = hk.BatchNorm(True, True, 0.9, name="norm")(x, is_training)
    x = hk.dropout(hk.next_rng_key(), 0.5, x) if is_training else x
    return classify(jnp.tanh(x))


NORMED = hk.transform_with_state(normed)
NORMED_VARIABLES = NORMED_PARAMS, NORMED_STATE = initialized(NORMED, is_training=True)


def normed_by_hand(disturbance):
    """The function in evaluation, written out, with something added to its convolution."""
    params, state = NORMED_PARAMS, NORMED_STATE
    mean, variance = (state[f"norm/~/{name}_ema"]["average"][0, 0] for name in ("mean", "var"))
    scale, offset = (params["norm"][name][0, 0] for name in ("scale", "offset"))
    x = jnp.einsum("hwc,ck->hwk", IMAGE, params["conv"]["w"][0, 0], precision="highest")
    x = x + params["conv"]["b"][None, None] + disturbance
    x = jnp.tanh((x - mean[None]) / jnp.sqrt(variance + 1e-5)[None] * scale[None] + offset[None])
    return x.mean(axis=(0, 1)) @ params["out"]["w"] + params["out"]["b"]


def test_law_with_moving_averages_in_evaluation():
    apply_fn = jaxcam.from_haiku(NORMED, is_training=False)
    chex.assert_trees_all_close(
        apply_fn(NORMED_VARIABLES, IMAGE), normed_by_hand(jnp.zeros((1, 1, 1))), rtol=1e-5
    )
    assert listed(apply_fn, NORMED_VARIABLES) == ["conv", "norm", "out"]
    assert "norm/var_ema:average" in listed(apply_fn, NORMED_VARIABLES, every=True)
    activations, head = jaxcam.split(apply_fn, "conv")(NORMED_VARIABLES, IMAGE)
    check_law(apply_fn, NORMED_VARIABLES, IMAGE, "conv", activations)
    check_gradient(activations, head, normed_by_hand)


@jax.numpy_dtype_promotion("standard")
def test_law_in_training_with_random_numbers():
    apply_fn = jaxcam.from_haiku(NORMED, rng=KEY, is_training=True)
    wanted, _ = NORMED.apply(*NORMED_VARIABLES, KEY, BATCH, is_training=True)
    activations, head = jaxcam.split(apply_fn, "norm")(NORMED_VARIABLES, IMAGE)
    chex.assert_trees_all_close(head(activations), wanted[0], atol=1e-6)
    check_law(apply_fn, NORMED_VARIABLES, IMAGE, "norm", activations)


def test_channels_first_other_inputs_and_outputs():
    def function(scale, x, is_training):
        assert not is_training
        x = jnp.tanh(hk.Conv2D(4, 3, data_format="NCHW", name="conv")(x))
        return {"logits": hk.Linear(3)(x.mean((2, 3))) * scale, "maps": x}

    transformed = hk.transform(function)
    params = initialized(transformed, 1.0, jnp.moveaxis(BATCH, -1, 1), is_training=False)
    apply_fn = jaxcam.from_haiku(
        transformed,
        channels="first",
        inputs_fn=lambda images, scale: (scale, images),
        output_fn=lambda output: output["logits"],
        is_training=False,
    )
    conv = hk.transform(lambda x: hk.Conv2D(4, 3, data_format="NCHW", name="conv")(x))
    truth = conv.apply(params, None, jnp.moveaxis(BATCH, -1, 1))[0]
    check_law(apply_fn, (params, 2.0), IMAGE, "conv", jnp.moveaxis(truth, 0, -1))
    once, twice = (apply_fn((params, scale), IMAGE) for scale in (1.0, 2.0))
    chex.assert_trees_all_close(2 * once, twice)


@pytest.mark.parametrize(
    ("function", "layer", "truth"),
    [
        (
            lambda x, **mode: hk.nets.ResNet(
                (1, 1, 1, 1), 3, bottleneck=False, channels_per_group=(2, 2, 4, 4)
            )(x, **mode),
            "res_net/block_group_3/block_0",
            "res_net/~/block_group_3/~/block_0",
        ),
        (
            lambda x, **mode: hk.nets.MobileNetV1((1, 2), (2, 4), 3)(x, **mode),
            "mobile_net_v1/mobile_net_v1_block_1",
            "mobile_net_v1/mobile_net_v1_block_1",
        ),
    ],
    ids=["ResNet", "MobileNetV1"],
)
def test_law_in_networks_of_haiku(function, layer, truth):
    transformed = hk.transform_with_state(function)
    variables = initialized(transformed, is_training=True)
    apply_fn = jaxcam.from_haiku(transformed, is_training=False)
    assert not [name for name in listed(apply_fn, variables) if ":" in name]
    wanted = captured(transformed, *variables, is_training=False)[truth][0]
    check_law(apply_fn, variables, IMAGE, layer, wanted)


# The function stays as it is, and what does not fit is refused


def test_the_function_is_not_changed_by_being_cut():
    apply_fn = jaxcam.from_haiku(NET)
    jaxcam.split(apply_fn, "one")(NET_PARAMS, IMAGE)
    assert has_tags(apply_fn, NET_PARAMS, IMAGE)
    assert not has_tags(NET.apply, NET_PARAMS, None, BATCH)


def test_an_interceptor_of_the_caller_still_runs():
    seen = []

    def watch(next_fn, args, kwargs, context):
        seen.append(context.method_name)
        return next_fn(*args, **kwargs)

    with hk.intercept_methods(watch):
        assert listed(jaxcam.from_haiku(NET), NET_PARAMS) == NET_LAYERS
    assert "__call__" in seen


def test_layers_of_shapes_alone():
    shapes = jax.eval_shape(lambda: NORMED_VARIABLES)
    apply_fn = jaxcam.from_haiku(NORMED, is_training=False)
    assert listed(apply_fn, shapes) == ["conv", "norm", "out"]


@pytest.mark.parametrize(
    ("transformed", "variables", "keywords", "message"),
    [
        (NORMED, NORMED_PARAMS, {"is_training": False}, r"is a dict; .*pair \(params, state\)"),
        (NET, (NET_PARAMS, {}), {}, r"is a tuple; wanted .* params of hk.transform$"),
        (NET, [], {}, r"variables is a list; wanted what transformed.init returned"),
        (NET, {"out": NET_PARAMS["out"]}, {}, r"do not fit .*'w' for module 'one/conv'.*init ret"),
        (
            NET,
            {**NET_PARAMS, "out": {"w": jnp.ones((3, 3))}},
            {},
            r"do not fit .*'out/w' with retrieved shape \(3, 3\)",
        ),
        (
            NORMED,
            (NORMED_PARAMS, {}),
            {"is_training": False},
            r"do not fit .*'average' in 'norm/~/mean_ema'",
        ),
        (NORMED, NORMED_VARIABLES, {"is_training": True}, r"norm is in training mode .*rng="),
        (NORMED, NORMED_VARIABLES, {}, r"function\(x, is_training\) .*'is_training'.*from_haiku"),
        (NET, NET_PARAMS, {"train": False}, r"function\(x\) cannot be called .*'train'"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(transformed, variables, keywords, message):
    with pytest.raises(ValueError, match=message) as error:
        jaxcam.from_haiku(transformed, **keywords)(variables, IMAGE)
    assert "\n" not in str(error.value)


def test_random_numbers_without_a_key_are_refused():
    noisy = hk.transform(lambda x: net(hk.dropout(hk.next_rng_key(), 0.5, x)))
    with pytest.raises(ValueError, match=r"draws random numbers; .* or give rng="):
        jaxcam.from_haiku(noisy)(NET_PARAMS, IMAGE)
    with pytest.raises(ValueError, match=r"rng= for a function without one; .*without_apply_rng"):
        jaxcam.from_haiku(hk.without_apply_rng(noisy), rng=KEY)


def test_errors_of_the_function_itself_are_its_own():
    def broken(x):
        raise ValueError("an error of its own")

    with pytest.raises(ValueError, match=r"^an error of its own$"):
        jaxcam.from_haiku(hk.transform(broken))({}, IMAGE)


def test_what_is_no_transformed_function_is_refused():
    with pytest.raises(ValueError, match=r"from_haiku got function; wanted what hk.transform or"):
        jaxcam.from_haiku(net)
    with pytest.raises(ValueError, match=r"apply_fn is Transformed; .*jaxcam.from_haiku"):
        check_apply_fn(NET)
