"""Unmodified Flax NNX modules: every layer found under each of its paths, and cut there."""

import functools
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cut_law import TARGET, check_gradient, check_law, filled
from flax import nnx

import jaxcam

IMAGE = jax.random.normal(jax.random.key(0), (4, 3, 2))
BATCH = IMAGE[None]


def split_of(cls, *args, **kwargs):
    """A module's graph and state, in evaluation and with random numbers in its state."""
    model = nnx.eval_shape(lambda: cls(*args, rngs=nnx.Rngs(0), **kwargs))
    model.eval()
    graphdef, state = nnx.split(model)
    return graphdef, filled(state)


def listed(graphdef, variables, **kwargs):
    apply_fn = jaxcam.from_nnx(graphdef, **kwargs)
    return [layer.name for layer in jaxcam.layers(apply_fn, variables, IMAGE)]


def has_tags(fn, *args):
    return "jaxcam_tag" in str(jax.make_jaxpr(fn)(*args))


class Block(nnx.Module):
    """A kernel and a nonlinearity, without biases: the shape of its input is kept."""

    def __init__(self, rngs):
        self.conv = nnx.Conv(2, 2, (3, 3), use_bias=False, rngs=rngs)

    def __call__(self, x):
        return jnp.tanh(self.conv(x))


class Classifier(nnx.Module):
    """A pool and a dense layer."""

    def __init__(self, rngs):
        self.dense = nnx.Linear(2, 3, rngs=rngs)

    def __call__(self, x):
        return self.dense(x.mean(axis=(1, 2)))


class Net(nnx.Module):
    """Layers in a list, in a dictionary, in a sequence and below one another."""

    def __init__(self, rngs):
        self.listed = nnx.List([Block(rngs), Block(rngs)])
        self.named = nnx.Dict({"block": Block(rngs)})
        self.sequence = nnx.Sequential(Block(rngs), nnx.relu, Block(rngs))
        self.out = Classifier(rngs)

    def embed(self, x):
        for block in self.listed:
            x = block(x)
        return self.sequence(self.named["block"](x))

    def __call__(self, x):
        return self.out(self.embed(x))

    def doubled(self, x, *, factor=2.0):
        return factor * self(x)


NET = split_of(Net)
BLOCKS = ["listed/0", "listed/1", "named/block", "sequence/layers/0", "sequence/layers/2"]
NET_LAYERS = [
    *(name for block in BLOCKS for name in (f"{block}/conv", block)),
    "sequence",
    "out/dense",
    "out",
]


def net_outputs(state, disturbance=0.0, at=""):
    """What the blocks of the network return, by path, and its logits: by hand."""
    outputs, x = {}, BATCH
    for name in BLOCKS:
        kernel = functools.reduce(
            lambda s, k: s[int(k) if k.isdigit() else k], name.split("/"), state
        )
        kernel = kernel["conv"]["kernel"][...]
        numbers = ("NHWC", "HWIO", "NHWC")
        x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
        outputs[f"{name}/conv"] = x[0]
        x = jnp.tanh(x) + (disturbance if name == at else 0.0)
        outputs[name] = x[0]
        x = nnx.relu(x) if name == "sequence/layers/0" else x
    dense = state["out"]["dense"]
    return outputs, (x.mean(axis=(1, 2)) @ dense["kernel"][...])[0] + dense["bias"][...]


# Where layers are


def test_every_layer_is_listed_by_its_path_in_order():
    assert listed(*NET) == NET_LAYERS


@pytest.mark.parametrize("layer", [*BLOCKS, "listed/1/conv"])
def test_law_in_lists_dictionaries_and_sequences(layer):
    graphdef, state = NET
    outputs, logits = net_outputs(state)
    apply_fn = jaxcam.from_nnx(graphdef)
    activations, head = check_law(apply_fn, state, IMAGE, layer, outputs[layer])
    chex.assert_trees_all_close(head(activations), logits, atol=1e-6)
    if not layer.endswith("conv"):
        disturbed = functools.partial(net_outputs, state, at=layer)
        check_gradient(activations, head, lambda d: disturbed(d[None])[1])


class Twins(nnx.Module):
    """A block with two names for one layer of its own."""

    def __init__(self, rngs):
        self.c = nnx.Linear(2, 2, rngs=rngs)
        self.d = self.c

    def __call__(self, x):
        return jnp.sin(self.c(x))


class Shared(nnx.Module):
    """One block under three names, and a layer of it under a name of its own."""

    def __init__(self, rngs):
        self.a = Twins(rngs)
        self.z = self.a
        self.listed = nnx.List([self.a])
        self.inner = self.a.d
        self.out = Classifier(rngs)

    def __call__(self, x):
        return self.out(self.z(x))


BLOCK_ALIASES = ("a", "z", "listed/0")
LAYER_ALIASES = ("inner", *(f"{block}/{layer}" for block in BLOCK_ALIASES for layer in "cd"))


@pytest.mark.parametrize("alias", [*BLOCK_ALIASES, *LAYER_ALIASES])
def test_law_under_every_alias_of_a_shared_module(alias):
    graphdef, state = split_of(Shared)
    inner = state["a"]["c"]
    truth = IMAGE @ inner["kernel"][...] + inner["bias"][...][None, None]
    truth = jnp.sin(truth) if alias in BLOCK_ALIASES else truth
    check_law(jaxcam.from_nnx(graphdef), state, IMAGE, alias, truth)


def test_all_aliases_are_listed_once():
    assert sorted(listed(*split_of(Shared))) == sorted(
        [*BLOCK_ALIASES, *LAYER_ALIASES, "out", "out/dense"]
    )


@pytest.mark.parametrize("occurrence", [0, 1, -1])
def test_law_in_a_shared_module_that_runs_twice(occurrence):
    class Twice(Shared):
        def __call__(self, x):
            return self.out(self.z(self.a(x)))

    graphdef, state = split_of(Twice)
    apply_fn = jaxcam.from_nnx(graphdef)
    block = nnx.merge(graphdef, state).a
    truth = [block(BATCH)[0], block(block(BATCH))[0]]
    for alias in ("a", "z"):
        check_law(apply_fn, state, IMAGE, alias, truth[occurrence], occurrence=occurrence)
    with pytest.raises(ValueError, match="'z' runs 2 times"):
        jaxcam.split(apply_fn, "z")(state, IMAGE)


def test_law_in_a_module_that_its_layers_refer_back_to():
    class Child(nnx.Module):
        def __init__(self, parent, rngs):
            self.linear = nnx.Linear(2, 2, rngs=rngs)
            self.parent = parent

        def __call__(self, x):
            return jnp.sin(self.linear(x)) * self.parent.scale

    class Parent(nnx.Module):
        def __init__(self, rngs):
            self.scale = 2.0
            self.child = Child(self, rngs)
            self.out = Classifier(rngs)

        def __call__(self, x):
            return self.out(self.child(x))

    graphdef, state = nnx.split(Parent(nnx.Rngs(0)))
    assert listed(graphdef, state) == ["child/linear", "child", "out/dense", "out"]
    truth = nnx.merge(graphdef, state).child(BATCH)[0]
    check_law(jaxcam.from_nnx(graphdef), state, IMAGE, "child", truth)


class Normed(nnx.Module):
    """With statistics and dropout."""

    def __init__(self, rngs):
        self.linear = nnx.Linear(2, 2, rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.out = Classifier(rngs)

    def __call__(self, x):
        return self.out(self.dropout(self.norm(self.linear(x))))


def trained_a_little(model):
    """Two steps of gradient descent in training mode, which also move the statistics."""
    model.train()
    for factor in (1.0, 2.0):
        gradient = nnx.grad(lambda m, f=factor: (m(f * BATCH)[:, TARGET] ** 2).sum())(model)
        params = nnx.state(model, nnx.Param)
        nnx.update(model, jax.tree.map(lambda p, g: p - 0.1 * g, params, gradient))


def test_law_with_statistics_after_training_updates():
    model = Normed(nnx.Rngs(0))
    trained_a_little(model)
    model.eval()
    graphdef, state = nnx.split(model)
    assert isinstance(state, nnx.State)
    norm = {name: value[...][None, None] for name, value in state["norm"].items()}
    assert np.abs(norm["mean"]).max() > 0.01
    apply_fn = jaxcam.from_nnx(graphdef)
    linear = model.linear(BATCH)[0]
    check_law(apply_fn, state, IMAGE, "linear", linear)
    truth = (linear - norm["mean"]) / jnp.sqrt(norm["var"] + 1e-5) * norm["scale"] + norm["bias"]
    activations, head = check_law(apply_fn, state, IMAGE, "norm", truth)
    chex.assert_trees_all_close(head(activations), model(BATCH)[0], atol=1e-6)


def test_one_apply_function_serves_new_states():
    graphdef, state = NET
    apply_fn = jaxcam.from_nnx(graphdef)
    other = jax.tree.map(lambda x: x / 2, state)
    for variables, same in [(state, state), (other, other), (nnx.to_pure_dict(other), other)]:
        outputs, _ = net_outputs(same)
        check_law(apply_fn, variables, IMAGE, "listed/1", outputs["listed/1"])


# Transformations inside the model


class Calling(nnx.Module):
    """A network that calls its block through a transformation."""

    def __init__(self, call, rngs):
        self.block = Block(rngs)
        self.out = Classifier(rngs)
        self.call = call

    def __call__(self, x):
        return self.out(self.call(self.block, x))


TRANSFORMATIONS = {
    "remat": nnx.remat,
    "jit": nnx.jit,
    "jit of remat": lambda f: nnx.jit(nnx.remat(f)),
}


@pytest.mark.parametrize("transform", TRANSFORMATIONS)
@pytest.mark.parametrize("layer", ["block", "block/conv"])
def test_law_in_transformed_calls_that_ran_before(transform, layer):
    call = TRANSFORMATIONS[transform](lambda block, x: block(x))
    graphdef, state = split_of(Calling, call)
    model = nnx.merge(graphdef, state)
    model(BATCH)
    nnx.jit(type(model).__call__)(model, BATCH)
    truth = {"block": model.block(BATCH)[0], "block/conv": model.block.conv(BATCH)[0]}
    apply_fn = jaxcam.from_nnx(graphdef)
    check_law(apply_fn, state, IMAGE, layer, truth[layer])
    assert not has_tags(lambda state: nnx.merge(graphdef, state)(BATCH), state)


def transformed_call(transform):
    """As decorating `__call__` in the body of the class, which type checkers dislike."""

    def change(cls):
        cls.__call__ = transform(cls.__call__)
        return cls

    return change


def test_law_in_methods_that_are_decorated():
    @transformed_call(nnx.jit)
    class Decorated(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(2, 2, (3, 3), rngs=rngs)

        def __call__(self, x):
            return jnp.tanh(self.conv(x))

    @transformed_call(nnx.remat)
    class Outer(nnx.Module):
        def __init__(self, rngs):
            self.first = Decorated(rngs)
            self.second = Decorated(rngs)
            self.out = Classifier(rngs)

        def __call__(self, x):
            return self.out(self.second(self.first(x)))

    graphdef, state = split_of(Outer)
    model = nnx.merge(graphdef, state)
    jax.jit(lambda state: nnx.merge(graphdef, state)(BATCH))(state)
    assert listed(graphdef, state)[:4] == ["first/conv", "first", "second/conv", "second"]
    first = model.first(BATCH)
    apply_fn = jaxcam.from_nnx(graphdef)
    check_law(apply_fn, state, IMAGE, "first", first[0])
    check_law(apply_fn, state, IMAGE, "second/conv", model.second.conv(first)[0])


class Looped(nnx.Module):
    """Three blocks with their own parameters, in one loop."""

    def __init__(self, rngs):
        @nnx.split_rngs(splits=3)
        @nnx.vmap(in_axes=0, out_axes=0)
        def stack(rngs):
            return Block(rngs)

        self.blocks = stack(rngs)
        self.out = Classifier(rngs)

    def __call__(self, x):
        @nnx.scan(in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
        def steps(block, x):
            return block(x)

        return self.out(steps(self.blocks, x))


class Ensemble(Looped):
    """Three blocks with their own parameters, side by side."""

    def __call__(self, x):
        members = nnx.vmap(lambda block, x: block(x), in_axes=(0, None), out_axes=1)
        return self.out(members(self.blocks, x).prod(axis=1))


def test_law_in_scanned_modules_with_stacked_parameters():
    graphdef, state = split_of(Looped)
    apply_fn = jaxcam.from_nnx(graphdef)
    listing = {x.name: x.runs for x in jaxcam.layers(apply_fn, state, IMAGE)}
    assert (listing["blocks"], listing["blocks/conv"]) == (3, 3)
    x = BATCH
    for i in range(3):
        own = jax.tree.map(lambda p, i=i: p[i], state["blocks"])
        x = nnx.merge(split_of(Block)[0], own)(x)
        check_law(apply_fn, state, IMAGE, "blocks", x[0], occurrence=i)


def test_law_in_vmapped_modules_with_stacked_parameters():
    graphdef, state = split_of(Ensemble)
    block = split_of(Block)[0]
    truth = jax.vmap(lambda own: nnx.merge(block, own)(BATCH)[0])(state["blocks"])
    check_law(jaxcam.from_nnx(graphdef), state, IMAGE, "blocks", truth)


# What the module takes and returns


@pytest.mark.parametrize("method", ["doubled", Net.doubled])
@pytest.mark.parametrize("kwargs", [{}, {"factor": 3.0}])
def test_another_method_is_called_by_name_and_by_function(method, kwargs):
    graphdef, state = NET
    apply_fn = jaxcam.from_nnx(graphdef, method=method, **kwargs)
    outputs, logits = net_outputs(state)
    activations, head = check_law(apply_fn, state, IMAGE, "listed/1", outputs["listed/1"])
    wanted = kwargs.get("factor", 2.0) * logits
    chex.assert_trees_all_close(head(activations), wanted, atol=1e-6)


def test_logits_are_taken_out_of_what_the_model_returns():
    class Packed(nnx.Module):
        def __init__(self, rngs):
            self.net = Net(rngs)

        def __call__(self, x, name):
            return {name: self.net(x), "image": x}

    graphdef, state = split_of(Packed)
    outputs, _ = net_outputs(state["net"])
    apply_fn = jaxcam.from_nnx(graphdef, output_fn=lambda output: output["logits"], name="logits")
    assert apply_fn(state, IMAGE).shape == (3,)
    check_law(apply_fn, state, IMAGE, "net/listed/0", outputs["listed/0"])


def test_a_layer_that_returns_several_arrays_has_leaves():
    class Fork(nnx.Module):
        def __init__(self, rngs):
            self.block = Block(rngs)

        def __call__(self, x):
            return self.block(x), x.sum(), jnp.sin(x)

    class Forked(nnx.Module):
        def __init__(self, rngs):
            self.fork = Fork(rngs)
            self.out = Classifier(rngs)

        def __call__(self, x):
            left, scale, right = self.fork(x)
            return self.out(left + scale * right)

    graphdef, state = split_of(Forked)
    apply_fn = jaxcam.from_nnx(graphdef)
    check_law(apply_fn, state, IMAGE, "fork", IMAGE.sum(), leaf=1)
    check_law(apply_fn, state, IMAGE, "fork", jnp.sin(IMAGE), leaf=2)


# Kinds of modules, and what happens to them


def test_law_in_modules_that_are_no_pytrees():
    class Plain(Block, pytree=False):
        pass

    class PlainNet(nnx.Module, pytree=False):
        def __init__(self, rngs):
            self.blocks = [Plain(rngs), Plain(rngs)]
            self.out = Classifier(rngs)

        def __call__(self, x):
            for block in self.blocks:
                x = block(x)
            return self.out(x)

    model = PlainNet(nnx.Rngs(0))
    graphdef, state = nnx.split(model)
    truth = model.blocks[0](BATCH)[0]
    check_law(jaxcam.from_nnx(graphdef), state, IMAGE, "blocks/0", truth)


def test_law_in_modules_of_the_bridge_and_in_records_of_modules():
    class Bridged(nnx.bridge.Module):
        def __init__(self, rngs):
            self.block = Block(rngs)

        def __call__(self, x):
            return self.block(x)

    class Pair(NamedTuple):
        one: Any
        other: Any

    class Records(nnx.Module):
        def __init__(self, rngs):
            self.blocks = nnx.data(Pair(Bridged(rngs), Block(rngs)))
            self.out = Classifier(rngs)

        def __call__(self, x):
            return self.out(self.blocks.other(self.blocks.one(x)))

    model = Records(nnx.Rngs(0))
    graphdef, state = nnx.split(model)
    between = model.blocks.one(BATCH)
    apply_fn = jaxcam.from_nnx(graphdef)
    names = {layer.name for layer in jaxcam.layers(apply_fn, state, IMAGE)}
    one, other = sorted(name for name in names if name.count("/") == 1 and "blocks" in name)
    check_law(apply_fn, state, IMAGE, one, between[0])
    check_law(apply_fn, state, IMAGE, other, model.blocks.other(between)[0])


def test_the_users_model_keeps_its_classes_and_values():
    model = Net(nnx.Rngs(0))
    model.eval()
    classes = [type(module) for _, module in nnx.iter_graph(model)]
    values = jax.tree.map(jnp.copy, nnx.split(model)[1])
    before = model(BATCH)
    graphdef, state = nnx.split(model)
    apply_fn = jaxcam.from_nnx(graphdef)
    explain = jaxcam.explainer(apply_fn, "listed/1")
    for _ in range(2):
        explain(state, IMAGE, TARGET)
    assert has_tags(apply_fn, state, IMAGE)
    assert [type(module) for _, module in nnx.iter_graph(model)] == classes
    assert nnx.split(model)[0] == graphdef
    chex.assert_trees_all_equal(nnx.split(model)[1], values)
    chex.assert_trees_all_equal(model(BATCH), before)
    assert not has_tags(lambda state: nnx.merge(graphdef, state)(BATCH), state)


def test_layers_are_still_instances_of_their_classes_while_cut():
    class Looking(Net):
        def __call__(self, x):
            assert all(isinstance(block, Block) for block in self.listed)
            assert type(self.listed[0]).__name__ == "Block"
            return super().__call__(x)

    graphdef, state = split_of(Looking)
    check_law(
        jaxcam.from_nnx(graphdef), state, IMAGE, "listed/0", net_outputs(state)[0]["listed/0"]
    )


def test_one_trace_serves_all_images_under_jit_and_vmap():
    graphdef, state = NET
    split_fn = jaxcam.split(jaxcam.from_nnx(graphdef), "listed/0")
    images = jnp.stack([IMAGE, IMAGE])

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(None, 0))
    def parts(state, image):
        activations, head = split_fn(state, image)
        return activations, head(activations)

    activations, logits = parts(state, images)
    outputs, wanted = net_outputs(state)
    chex.assert_trees_all_close(activations[1], outputs["listed/0"], atol=1e-6)
    chex.assert_trees_all_close(logits[1], wanted, atol=1e-6)


@pytest.mark.parametrize(
    "given", [Net(nnx.Rngs(0)), Net, NET, nn.Dense(3)], ids=["module", "class", "pair", "linen"]
)
def test_anything_but_a_graphdef_is_refused_with_the_fix(given):
    with pytest.raises(
        ValueError, match=r"wanted the graphdef of `graphdef, variables = nnx.split"
    ):
        jaxcam.from_nnx(given)


def test_an_unknown_layer_is_refused_with_the_nearest_path():
    graphdef, state = NET
    with pytest.raises(ValueError, match=r"Did you mean 'listed/1'"):
        jaxcam.split(jaxcam.from_nnx(graphdef), "listed.1")(state, IMAGE)


def test_layers_of_shapes_alone():
    graphdef, state = NET
    image = jax.ShapeDtypeStruct(IMAGE.shape, IMAGE.dtype)
    shapes = jax.eval_shape(lambda: state)
    listing = jaxcam.layers(jaxcam.from_nnx(graphdef), shapes, image)
    assert [layer.name for layer in listing] == NET_LAYERS


@pytest.mark.parametrize("layer", ["norm", "dropout"])
def test_training_mode_is_refused(layer):
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.norm = nnx.BatchNorm(3, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

        def __call__(self, x):
            return self.dropout(self.norm(x)).mean((1, 2))

    model = Net(nnx.Rngs(0))
    model.eval()
    getattr(model, layer).train()
    apply_fn = jaxcam.from_nnx(nnx.split(model)[0])
    with pytest.raises(ValueError, match=rf"layer '{layer}' is in training mode .* model\.eval"):
        apply_fn(nnx.split(model)[1], jnp.ones((4, 4, 3)))


def test_the_states_of_a_split_by_kind_are_taken_as_a_tuple():
    model = nnx.Sequential(nnx.Linear(3, 2, rngs=nnx.Rngs(0)), lambda x: x.mean((1, 2)))
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    image = jnp.ones((4, 5, 3))
    apply_fn = jaxcam.from_nnx(graphdef)
    check_law(apply_fn, (params, rest), image, "layers/0", model.layers[0](image))
    with pytest.raises(ValueError, match=r"the module itself; wanted the state"):
        apply_fn(model, image)


class _Linen(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(jnp.tanh(nn.Conv(2, (3, 3), name="conv")(x)).mean((1, 2)))


class _WithLinen(nnx.Module):
    """One of NNX, whose parts are of linen."""

    def __init__(self, rngs):
        self.stem = nnx.Conv(2, 2, (3, 3), rngs=rngs)
        self.body = nnx.bridge.ToNNX(_Linen(), rngs=rngs)

    def __call__(self, x):
        return self.body(self.stem(x))


@pytest.mark.parametrize("inside", [False, True])
def test_layers_of_linen_modules_follow_the_path_to_them(inside):
    rngs = nnx.Rngs(0)
    model = _WithLinen(rngs) if inside else nnx.bridge.ToNNX(_Linen(), rngs=rngs)
    nnx.bridge.lazy_init(model, BATCH)
    graphdef, variables = nnx.split(model)
    path = "body/" if inside else ""
    assert {f"{path}conv", f"{path}Dense_0"} <= {*listed(graphdef, variables)}
    apply_fn = jaxcam.from_nnx(graphdef)
    activations, head = jaxcam.split(apply_fn, f"{path}conv")(variables, IMAGE)
    assert activations.shape == IMAGE.shape
    chex.assert_trees_all_close(head(activations), model(BATCH)[0], rtol=1e-5)
