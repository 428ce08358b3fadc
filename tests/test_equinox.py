"""Unmodified Equinox modules: every layer found by its path in the pytree, and cut there."""

import functools
from typing import Any

import cases
import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cut_law import TARGET, check_gradient, check_law, filled

import jaxcam

pytestmark = pytest.mark.thorough  # what every adapter must keep is in test_laws.py

eqx = pytest.importorskip("equinox", reason="the adapter of Equinox needs Equinox")

IMAGE = jax.random.normal(jax.random.key(0), (4, 3, 2))
CHANNELS_FIRST = jnp.moveaxis(IMAGE, -1, 0)
KEY = jax.random.key(1)


def made(cls, *args):
    """A module with random numbers, or a module and its state; what they would draw is slow."""
    shapes, rest = eqx.partition(
        eqx.filter_eval_shape(cls, *args), lambda x: isinstance(x, jax.ShapeDtypeStruct)
    )
    return eqx.combine(filled(shapes), rest)


def last(x):
    return jnp.moveaxis(x, 0, -1)


def listed(*args, **kwargs):
    apply_fn, variables = jaxcam.from_equinox(*args, **kwargs)
    return [layer.name for layer in jaxcam.layers(apply_fn, variables, IMAGE)]


def check_layer(model, layer, truth, **choice):
    return check_law(*jaxcam.from_equinox(model), IMAGE, layer, truth, **choice)


def has_tags(fn, *args):
    return "jaxcam_tag" in str(jax.make_jaxpr(fn)(*args))


class Block(eqx.Module):
    """A kernel and a nonlinearity: the shape of the input is kept."""

    conv: Any

    def __init__(self, key=KEY):
        self.conv = eqx.nn.Conv2d(2, 2, 3, padding=1, use_bias=False, key=key)

    def __call__(self, x):
        return jnp.tanh(self.conv(x))


class Classifier(eqx.Module):
    """A pool and a dense layer."""

    dense: Any

    def __init__(self, key=KEY):
        self.dense = eqx.nn.Linear(2, 3, key=key)

    def __call__(self, x):
        return self.dense(x.mean(axis=(1, 2)))


class Net(eqx.Module):
    """Layers in a list, in a dictionary, in a sequence and below one another."""

    listed: Any
    named: Any
    sequence: Any
    out: Any
    unused: Any = eqx.field(static=True, default=len)

    def __init__(self):
        self.listed = [Block(), Block()]
        self.named = {"block": Block(), "function": jnp.sin}
        relu = eqx.nn.Lambda(jax.nn.relu)
        # Its layers are called with a key, which blocks do not take.
        self.sequence = eqx.nn.Sequential([Block().conv, relu, Block().conv])
        self.out = Classifier()

    def embed(self, x):
        for block in self.listed:
            x = block(x)
        return self.sequence(self.named["function"](self.named["block"](x)))

    def __call__(self, x):
        return self.out(self.embed(x))

    def doubled(self, x, *, factor=2.0):
        return factor * self(x)


NET = made(Net)
BLOCKS = ["listed/0", "listed/1", "named/block"]
SEQUENCE = [f"sequence/layers/{i}" for i in range(3)]
NET_LAYERS = [
    *(name for block in BLOCKS for name in (f"{block}/conv", block)),
    *SEQUENCE,
    "sequence",
    "out/dense",
    "out",
]


def convolved(kernel, x):
    return jax.lax.conv(x[None], kernel, (1, 1), "SAME")[0]


def net_outputs(model, disturbance: Any = 0.0, at=""):
    """What the layers of the network return, by path, and its logits: by hand."""
    outputs, x = {}, CHANNELS_FIRST
    for name, block in zip(BLOCKS, [*model.listed, model.named["block"]], strict=True):
        x = outputs[f"{name}/conv"] = convolved(block.conv.weight, x)
        x = outputs[name] = jnp.tanh(x) + (disturbance if name == at else 0.0)
    first, _, second = model.sequence.layers
    convolutions = [functools.partial(convolved, c.weight) for c in (first, second)]
    x = jnp.sin(x)
    for name, f in zip(SEQUENCE, [convolutions[0], jax.nn.relu, convolutions[1]], strict=True):
        x = outputs[name] = f(x) + (disturbance if name == at else 0.0)
    dense = model.out.dense
    logits = dense.weight @ x.mean(axis=(1, 2)) + dense.bias
    return {name: last(x) for name, x in outputs.items()}, logits


OUTPUTS, LOGITS = net_outputs(NET)


# Where layers are


def test_every_layer_is_listed_by_its_path_in_order():
    assert listed(NET) == NET_LAYERS


@pytest.mark.parametrize("layer", ["listed/1/conv", "listed/1", "named/block", SEQUENCE[1]])
def test_law_in_lists_dictionaries_and_sequences(layer):
    activations, head = check_layer(NET, layer, OUTPUTS[layer])
    chex.assert_trees_all_close(head(activations), LOGITS, atol=1e-6)
    if not layer.endswith("conv"):
        disturbed = functools.partial(net_outputs, NET, at=layer)
        check_gradient(activations, head, lambda d: disturbed(jnp.moveaxis(d, -1, 0))[1])


class Calling(eqx.Module):
    """A network that calls its block, perhaps through a function."""

    block: Any
    out: Any
    call: Any = eqx.field(static=True)

    def __init__(self, call=lambda block, x: block(x), block=None):
        self.block = block or Block()
        self.out = Classifier()
        self.call = call

    def __call__(self, x):
        return self.out(self.call(self.block, x))


class Caller(eqx.Module):
    """Calls what it holds and has no state of its own."""

    held: Any

    def __call__(self, x):
        return jnp.sin(self.held(x))


def test_a_subclass_that_calls_its_parent_is_one_layer():
    class Doubled(Block):
        def __call__(self, x):
            return 2 * super().__call__(x)

    model = made(lambda: Calling(block=Doubled()))
    layers = jaxcam.layers(*jaxcam.from_equinox(model), IMAGE)
    assert [(x.name, x.runs) for x in layers[:2]] == [("block/conv", 1), ("block", 1)]
    check_layer(model, "block", last(model.block(CHANNELS_FIRST)))


def test_modules_that_are_equal_keep_their_own_names():
    class Twins(eqx.Module):
        first: Any
        second: Any
        out: Any

        def __init__(self):
            block = Block()
            self.first, self.second, self.out = block, block, Classifier()

        def __call__(self, x):
            return self.out(self.second(self.first(x)))

    model = made(Twins)
    first = model.first(CHANNELS_FIRST)
    check_layer(model, "first", last(first))
    check_layer(model, "second", last(model.second(first)))


@pytest.mark.parametrize("whole", [False, True], ids=["weights", "layers"])
def test_law_in_shared_layers(whole):
    class Sharing(eqx.Module):
        shared: Any
        out: Any

        def __init__(self):
            def where(blocks):
                return blocks[1] if whole else blocks[1].conv.weight

            def get(blocks):
                return blocks[0] if whole else blocks[0].conv.weight

            self.shared = eqx.nn.Shared((Block(), Block()), where, get)
            self.out = Classifier()

        def __call__(self, x):
            first, second = self.shared()
            return self.out(second(first(x)))

    model = made(Sharing)
    block = model.shared()[0]
    truth = [last(block(CHANNELS_FIRST)), last(block(block(CHANNELS_FIRST)))]
    for run in range(2):
        name, choice = (0, {"occurrence": run}) if whole else (run, {})
        check_layer(model, f"shared/pytree/{name}", truth[run], **choice)
    assert "shared" not in listed(model)


# Transformations inside the model

TRANSFORMATIONS = {
    "checkpoint": eqx.filter_checkpoint,
    "jit": eqx.filter_jit,
    "jit of checkpoint": lambda f: eqx.filter_jit(eqx.filter_checkpoint(f)),
}


@pytest.mark.parametrize("transform", TRANSFORMATIONS)
def test_law_in_transformed_calls_that_ran_before(transform):
    call = TRANSFORMATIONS[transform](lambda block, x: block(x))
    model = made(Calling, call)
    model(CHANNELS_FIRST)
    eqx.filter_jit(model)(CHANNELS_FIRST)
    for layer, block in [("block", model.block), ("block/conv", model.block.conv)]:
        check_layer(model, layer, last(block(CHANNELS_FIRST)))
    assert not has_tags(lambda x: model(x), CHANNELS_FIRST)


@pytest.mark.parametrize(
    ("transform", "name"),
    [
        (eqx.filter_jit, "block"),
        (lambda f: eqx.filter_jit(eqx.filter_checkpoint(f)), "block/_fun"),
        (eqx.filter_checkpoint, "block/_fun"),
        (eqx.Partial, "block/func"),
    ],
    ids=["jit", "jit of checkpoint", "checkpoint", "partial"],
)
def test_law_in_transformed_modules_that_are_stored(transform, name):
    block = made(Block)
    model = Calling(block=transform(Caller(block)))
    inner = last(block(CHANNELS_FIRST))
    outer = jnp.sin(inner)
    check_layer(model, f"{name}/held", inner)
    check_layer(model, "block", outer)
    check_layer(eqx.filter_jit(model), "block", outer)


def test_law_in_methods_that_are_decorated():
    class Decorated(Block):
        @eqx.filter_jit
        @eqx.filter_checkpoint
        def __call__(self, x):
            return jnp.tanh(self.conv(x))

    class Outer(eqx.Module):
        first: Any
        second: Any
        out: Any

        def __init__(self):
            self.first, self.second, self.out = Decorated(), Decorated(), Classifier()

        @eqx.filter_jit
        def __call__(self, x):
            return self.out(self.second(self.first(x)))

    model = made(Outer)
    model(CHANNELS_FIRST)
    assert listed(model)[:4] == ["first/conv", "first", "second/conv", "second"]
    first = model.first(CHANNELS_FIRST)
    check_layer(model, "first", last(first))
    check_layer(model, "second/conv", last(model.second.conv(first)))


class Looped(eqx.Module):
    """Three blocks with their own parameters, in one loop."""

    blocks: Any
    out: Any

    def __init__(self):
        self.blocks = eqx.filter_vmap(Block)(jax.random.split(KEY, 3))
        self.out = Classifier()

    def __call__(self, x):
        arrays, static = eqx.partition(self.blocks, eqx.is_array)
        x, _ = jax.lax.scan(lambda x, own: (eqx.combine(own, static)(x), None), x, arrays)
        return self.out(x)


class Ensemble(Looped):
    """Three blocks with their own parameters, side by side."""

    def __call__(self, x):
        axes = {"in_axes": (eqx.if_array(0), None), "out_axes": 1}
        return self.out(eqx.filter_vmap(lambda f, x: f(x), **axes)(self.blocks, x).prod(axis=1))


def block_of(model, i):
    return jax.tree.map(lambda x: x[i] if eqx.is_array(x) else x, model.blocks)


def test_law_in_scanned_modules_with_stacked_parameters():
    model = made(Looped)
    layers = jaxcam.layers(*jaxcam.from_equinox(model), IMAGE)
    assert [(x.name, x.runs) for x in layers[:2]] == [("blocks/conv", 3), ("blocks", 3)]
    x = CHANNELS_FIRST
    for i in range(3):
        x = block_of(model, i)(x)
        check_layer(model, "blocks", last(x), occurrence=i)


def test_law_in_vmapped_modules_with_stacked_parameters():
    model = made(Ensemble)
    truth = jnp.stack([last(block_of(model, i)(CHANNELS_FIRST)) for i in range(3)])
    check_layer(model, "blocks", truth)


@pytest.mark.parametrize("columns_first", [False, True])
def test_law_in_a_norm_per_position(columns_first):
    """The positions come in the order of the picture, whichever of them is mapped first."""

    class Normed(Calling):
        def __call__(self, x):
            outer = 2 if columns_first else 1
            inner = jax.vmap(self.block, 1, 1)
            return self.out(jax.vmap(inner, outer, outer)(x))

    model = made(lambda: Normed(block=eqx.nn.LayerNorm(2)))
    truth = jax.vmap(jax.vmap(model.block))(IMAGE)
    check_layer(model, "block", truth)


def test_law_in_a_transformer_and_its_tokens_as_a_grid():
    class Transformer(eqx.Module):
        embed: Any
        norm: Any
        attention: Any
        out: Any

        def __init__(self):
            self.embed = eqx.nn.Conv2d(2, 4, 2, 2, key=KEY)
            self.norm = eqx.nn.LayerNorm(4)
            self.attention = eqx.nn.MultiheadAttention(2, 4, key=KEY)
            self.out = eqx.nn.Linear(4, 3, key=KEY)

        def __call__(self, x):
            x = self.embed(x).reshape(4, -1).T
            y = jax.vmap(self.norm)(x)
            return self.out((x + self.attention(y, y, y)).mean(axis=0))

    model = made(Transformer)
    image = jax.random.normal(KEY, (4, 6, 2))
    apply_fn, variables = jaxcam.from_equinox(model)
    embedded = last(model.embed(jnp.moveaxis(image, -1, 0)))
    normed = jax.vmap(model.norm)(embedded.reshape(6, 4))
    check_law(apply_fn, variables, image, "embed", embedded)
    check_law(
        apply_fn,
        variables,
        image,
        "attention/value_proj",
        normed @ model.attention.value_proj.weight.T,
    )
    grid = jaxcam.token_grid(apply_fn, "norm")
    explanation = jax.jit(jaxcam.explainer(apply_fn, grid))(variables, image, TARGET)
    assert explanation.cam.shape == (2, 3)
    assert np.abs(explanation.weights).max() > 1e-4


# State, modes and keys


class Normed(eqx.Module):
    """With statistics and dropout."""

    block: Any
    norm: Any
    dropout: Any
    out: Any

    def __init__(self, mode="batch"):
        self.block = Block()
        self.norm = eqx.nn.BatchNorm(2, "batch", mode=mode)
        self.dropout = eqx.nn.Dropout(0.5)
        self.out = Classifier()

    def __call__(self, x, state):
        x, state = self.norm(self.block(x), state)
        return self.out(self.dropout(x)), state


def trained_a_little(model, state):
    """Two batches in training mode, which move the statistics."""
    axes = {"in_axes": (0, None), "out_axes": (0, None), "axis_name": "batch"}
    dropless = eqx.tree_at(lambda m: m.dropout.inference, model, True)
    for factor in (1.0, 2.0):
        batch = jnp.stack([CHANNELS_FIRST, factor + CHANNELS_FIRST])
        _, state = jax.vmap(dropless, **axes)(batch, state)
    return state


@pytest.mark.parametrize("mode", ["batch", "ema"])
def test_law_with_statistics_after_training(mode):
    model, state = eqx.nn.make_with_state(Normed)(mode)
    state = trained_a_little(model, state)
    values = jax.tree.map(jnp.copy, state)
    index = {"batch": model.norm.batch_state_index, "ema": model.norm.ema_state_index}[mode]
    mean, variance = state.get(index)
    if mode == "batch":
        debiased = 1 - 0.99**2
        mean, variance = mean / debiased, variance / debiased
    x = last(model.block(CHANNELS_FIRST))
    truth = (x - mean[None, None]) / jnp.sqrt(variance + 1e-5)[None, None]
    apply_fn, variables = jaxcam.from_equinox(model, state)
    assert np.abs(mean).max() > 0.01
    check_law(apply_fn, variables, IMAGE, "block", x)
    for layer in ("norm", "dropout"):
        activations, head = check_law(apply_fn, variables, IMAGE, layer, truth)
    logits, _ = eqx.nn.inference_mode(model)(CHANNELS_FIRST, state)
    chex.assert_trees_all_close(head(activations), logits, atol=1e-6)
    chex.assert_trees_all_equal(state, values)


def test_stateful_layers_in_a_sequence_that_takes_its_state_by_name():
    class Counting(eqx.nn.StatefulLayer):
        index: Any

        def __init__(self):
            self.index = eqx.nn.StateIndex(jnp.array(2.0))

        def __call__(self, x, state, *, key=None):
            count = state.get(self.index)
            return x * count, state.set(self.index, count + 1)

    class Sequence(eqx.Module):
        layers: Any
        out: Any

        def __init__(self):
            counting = Counting()
            self.layers = eqx.nn.Sequential([counting, eqx.nn.Lambda(jnp.sin), counting])
            self.out = Classifier()

        def __call__(self, x, *, state, scale):
            x, state = self.layers(x, state)
            return self.out(x) * scale, {"more": x}, state

    model, state = eqx.nn.make_with_state(Sequence)()
    apply_fn, variables = jaxcam.from_equinox(
        model, state, scale=3.0, output_fn=lambda output: output[0]
    )
    first = 2 * IMAGE
    check_law(apply_fn, variables, IMAGE, "layers/layers/0", first)
    check_law(apply_fn, variables, IMAGE, "layers/layers/2", 2 * jnp.sin(first))
    logits = model(CHANNELS_FIRST, state=state, scale=3.0)[0]
    chex.assert_trees_all_close(apply_fn(variables, IMAGE), logits, atol=1e-6)


class Noisy(eqx.Module):
    """Takes a key, which inference mode has no use for."""

    block: Any
    dropout: Any
    out: Any

    def __init__(self):
        self.block, self.dropout, self.out = Block(), eqx.nn.Dropout(0.5), Classifier()

    def __call__(self, x, *, key):
        return self.out(self.dropout(self.block(x), key=key))


@pytest.mark.parametrize("training", [False, True])
def test_law_with_a_key_and_dropout(training):
    model = made(Noisy)
    apply_fn, variables = jaxcam.from_equinox(model, training=training, key=KEY)
    truth = model.block(CHANNELS_FIRST)
    check_law(apply_fn, variables, IMAGE, "block", last(truth))
    truth = model.dropout(truth, key=KEY, inference=not training)
    check_law(apply_fn, variables, IMAGE, "dropout", last(truth))
    assert (truth == 0).any() == training


# What the module takes and returns


@pytest.mark.parametrize("method", ["doubled", Net.doubled])
@pytest.mark.parametrize("kwargs", [{}, {"factor": 3.0}])
def test_another_method_is_called_by_name_and_by_function(method, kwargs):
    apply_fn, variables = jaxcam.from_equinox(NET, method=method, **kwargs)
    activations, head = check_law(apply_fn, variables, IMAGE, "listed/1", OUTPUTS["listed/1"])
    wanted = kwargs.get("factor", 2.0) * LOGITS
    chex.assert_trees_all_close(head(activations), wanted, atol=1e-6)


def test_other_inputs_and_logits_among_what_the_model_returns():
    class Packed(eqx.Module):
        net: Any

        def __call__(self, scale, x, name):
            return {name: scale * self.net(x), "image": x}

    apply_fn, variables = jaxcam.from_equinox(
        Packed(NET),
        inputs_fn=lambda image, scale: (scale, image),
        output_fn=lambda output: output["logits"],
        name="logits",
    )
    chex.assert_trees_all_close(apply_fn((variables, 2.0), IMAGE), 2 * LOGITS, atol=1e-6)
    check_law(apply_fn, (variables, 2.0), IMAGE, "net/listed/0", OUTPUTS["listed/0"])


def test_a_module_with_channels_last():
    class Last(Calling):
        def __call__(self, x):
            return self.out(jnp.moveaxis(self.block(x), -1, 0))

    model = made(lambda: Last(block=Caller(jnp.cos)))
    apply_fn, variables = jaxcam.from_equinox(model, channels="last")
    check_law(apply_fn, variables, IMAGE, "block", jnp.sin(jnp.cos(IMAGE)))


def test_a_layer_that_returns_several_arrays_has_leaves():
    class Found(eqx.Module):
        left: Any
        right: Any

    class Fork(eqx.Module):
        block: Any

        def __call__(self, x):
            return Found(self.block(x), jnp.sin(x))

    class Forked(Calling):
        def __call__(self, x):
            found = self.block(x)
            return self.out(found.left + found.right)

    model = made(lambda: Forked(block=Fork(Block())))
    check_layer(model, "block", jnp.sin(IMAGE), leaf="right")


# The module, and its arrays


def test_layers_are_still_instances_of_their_classes_while_cut():
    class Looking(Net):
        def __call__(self, x):
            assert all(isinstance(block, Block) for block in self.listed)
            assert type(self.listed[0]).__name__ == "Block"
            return super().__call__(x)

    check_layer(made(Looking), "listed/0", OUTPUTS["listed/0"])


def test_no_class_hears_of_its_tagged_subclass():
    heard = []

    class Listing(Block):
        def __init_subclass__(cls, **kwargs):
            heard.append(cls)

    model = made(lambda: Calling(block=Listing()))
    check_layer(model, "block", last(model.block(CHANNELS_FIRST)))
    assert heard == []


def test_the_users_model_keeps_its_classes_and_values():
    model = made(Noisy)
    structure, values = (
        jax.tree.structure(model),
        jax.tree.map(jnp.copy, eqx.filter(model, eqx.is_array)),
    )
    apply_fn, variables = jaxcam.from_equinox(model, key=KEY)
    jaxcam.explainer(apply_fn, "block")(variables, IMAGE, TARGET)
    assert has_tags(apply_fn, variables, IMAGE)
    assert jax.tree.structure(model) == structure
    assert type(model.block) is Block
    assert model.dropout.inference is False
    chex.assert_trees_all_equal(eqx.filter(model, eqx.is_array), values)
    assert not has_tags(lambda x: model(x, key=KEY), CHANNELS_FIRST)


def test_one_apply_function_serves_other_weights():
    apply_fn, variables = jaxcam.from_equinox(NET)
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(variables))
    halves = jax.tree.map(lambda x: x / 2 if eqx.is_array(x) else x, NET)
    for weights in (jaxcam.from_equinox(halves)[1], eqx.filter((halves, None), eqx.is_array)):
        truth = net_outputs(halves)[0]["listed/1"]
        check_law(apply_fn, weights, IMAGE, "listed/1", truth)


def test_one_trace_serves_all_images_and_weights_under_jit_and_vmap():
    apply_fn, variables = jaxcam.from_equinox(NET)
    split_fn = jaxcam.split(apply_fn, "listed/0")

    @jax.jit
    @jax.vmap
    def parts(variables, image):
        activations, head = split_fn(variables, image)
        return activations, head(activations)

    stacked = jax.tree.map(lambda x: jnp.stack([x / 2, x]), variables)
    activations, logits = parts(stacked, jnp.stack([IMAGE, IMAGE]))
    chex.assert_trees_all_close(activations[1], OUTPUTS["listed/0"], atol=1e-6)
    chex.assert_trees_all_close(logits[1], LOGITS, atol=1e-6)


def test_the_map_is_differentiated_in_the_variables_and_in_the_module():
    def total(apply_fn, variables):
        return jaxcam.explainer(apply_fn, "listed/1")(variables, IMAGE, TARGET).cam.sum()

    apply_fn, variables = jaxcam.from_equinox(NET)
    of_variables = jax.jit(jax.grad(lambda v: total(apply_fn, v)))(variables)
    of_module = eqx.filter_jit(eqx.filter_grad(lambda m: total(*jaxcam.from_equinox(m))))(NET)
    chex.assert_trees_all_close(of_variables[0], eqx.filter(of_module, eqx.is_array), rtol=1e-5)
    assert np.abs(of_module.listed[0].conv.weight).max() > 1e-4


def test_layers_of_shapes_alone():
    model = eqx.filter_eval_shape(Net)
    image = jax.ShapeDtypeStruct(IMAGE.shape, IMAGE.dtype)
    listing = jaxcam.layers(*jaxcam.from_equinox(model), image)
    assert [layer.name for layer in listing] == NET_LAYERS


def test_the_same_weights_give_the_same_map_as_in_linen():
    linen = cases.linen()
    params = linen.variables["params"]
    stats = linen.variables["batch_stats"]["block"]["norm"]
    block = params["block"]

    def conv(weights):
        return weights["kernel"].transpose(3, 2, 0, 1), weights["bias"][:, None, None]

    def where(model):
        convs = [model.stem, model.block.conv1, model.block.conv2, model.block.shortcut]
        norms = [model.block.norm.weight, model.block.norm.bias]
        dense = [model.classifier.weight, model.classifier.bias]
        return [*(x for c in convs for x in (c.weight, c.bias)), *norms, *dense]

    convs = [params["stem"], *(block[name] for name in ("conv1", "conv2", "shortcut"))]
    copied = [*(x for c in convs for x in conv(c)), block["norm"]["scale"], block["norm"]["bias"]]
    classifier = params["classifier"]
    model, state = cases.equinox_model()
    model = eqx.tree_at(where, model, [*copied, classifier["kernel"].T, classifier["bias"]])
    state = state.set(model.block.norm.ema_state_index, (stats["mean"], stats["var"]))
    apply_fn, variables = jaxcam.from_equinox(model, state)
    got, wanted = (
        jax.jit(jaxcam.explainer(f, "block"))(v, linen.image, 1)
        for f, v in [(apply_fn, variables), (linen.apply_fn, linen.variables)]
    )
    chex.assert_trees_all_close(got.logits, wanted.logits, rtol=1e-5)
    # Loose: dividing by the map's range magnifies rounding.
    np.testing.assert_allclose(got.heatmap, wanted.heatmap, atol=1e-5)


# What is refused


class Silent(eqx.Module):
    """Cannot be called."""

    block: Any


class Fixed(eqx.Module):
    """Its mode is part of its structure."""

    inference: bool = eqx.field(static=True, default=False)

    def __call__(self, x):
        return x.mean(axis=(1, 2))


STATEFUL = eqx.nn.make_with_state(Normed)()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((nn.Dense(3),), r"got Dense; wanted an equinox.Module.*from_linen"),
        ((Net,), r"wanted an equinox.Module"),
        ((jnp.sin,), r"wanted an equinox.Module.*jaxcam.tag"),
        ((STATEFUL,), r"got tuple; wanted an equinox.Module, and its state beside it"),
        ((Silent(None),), r"Silent, which has no __call__; give method="),
        ((Fixed(),), r"inference_mode cannot change Fixed.*training=True"),
        (STATEFUL[:1], r"Normed with no state; wanted from_equinox\(model, state\) after"),
        ((STATEFUL[0], STATEFUL), r"Normed with tuple as its state; wanted"),
        ((NET, 3), r"Net with int as its state; wanted"),
    ],
)
def test_anything_but_a_module_and_its_state_is_refused_with_the_fix(given, message):
    with pytest.raises(ValueError, match=message) as error:
        jaxcam.from_equinox(*given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("given", "kind"),
    [(STATEFUL[0], "Normed"), (STATEFUL, "tuple"), (None, "NoneType"), ((None, None), "tuple")],
)
def test_variables_that_do_not_fit_are_refused_with_the_fix(given, kind):
    apply_fn, _ = jaxcam.from_equinox(*STATEFUL)
    with pytest.raises(ValueError, match=rf"variables is a {kind} that does not fit.*eqx\.filter"):
        apply_fn(given, IMAGE)


def test_a_missing_key_and_an_unknown_layer_are_named():
    apply_fn, variables = jaxcam.from_equinox(made(Noisy))
    with pytest.raises(ValueError, match=r"missing a required.* argument: 'key'.*from_equinox"):
        apply_fn(variables, IMAGE)
    apply_fn, variables = jaxcam.from_equinox(NET)
    with pytest.raises(ValueError, match=r"Did you mean 'listed/1'"):
        jaxcam.split(apply_fn, "listed.1")(variables, IMAGE)


class _OfBatches(eqx.Module):
    net: Any

    def __call__(self, x):
        return jax.vmap(self.net)(x)


class _Mapped(eqx.Module):
    """Which maps its layers over the batch one by one."""

    conv: Any
    dense: Any

    def __call__(self, x):
        return jax.vmap(self.dense)(jnp.tanh(jax.vmap(self.conv)(x)).mean((2, 3)))


class _Single(_Mapped):
    def __call__(self, x):
        return self.dense(jnp.tanh(self.conv(x)).mean((1, 2)))


@pytest.mark.parametrize("kind", [_OfBatches, _Mapped])
def test_a_module_may_take_a_batch(kind):
    parts = eqx.nn.Conv2d(2, 5, 3, key=KEY), eqx.nn.Linear(5, 3, key=KEY)
    single = _Single(*parts)
    model, layer = (
        (_OfBatches(single), "net/conv") if kind is _OfBatches else (kind(*parts), "conv")
    )
    maps = []
    for module, name, batch in ((single, "conv", False), (model, layer, True)):
        apply_fn, variables = jaxcam.from_equinox(module, batch=batch)
        maps.append(jaxcam.explainer(apply_fn, name, jaxcam.layer_cam)(variables, IMAGE, 1))
    chex.assert_trees_all_close(*maps, rtol=1e-5, atol=1e-6)
