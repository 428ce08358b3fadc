"""One tiny network per framework, for the laws that every adapter and method must keep."""

import contextlib
import functools
import importlib.util
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

import jaxcam
from jaxcam._src.base import ApplyFn

CLASSES = 5
# By a gradient, exact derivatives, masks, a path, a search, and without a score.
ONE_OF_EACH = [
    "grad_cam",
    "grad_cam_plus_plus",
    "score_cam",
    "integrated_grad_cam",
    "opti_cam",
    "eigen_cam",
]


class Case(NamedTuple):
    """A model, an image for it, and the last layer before its global average pool."""

    apply_fn: ApplyFn
    variables: Any
    image: jax.Array
    layer: str


def image(seed: int = 0, size: tuple[int, ...] = (12, 10)) -> jax.Array:
    """A random picture, signal or volume of 3 channels."""
    return jax.random.normal(jax.random.key(seed), (*size, 3))


@functools.cache
def plain(spatial: int = 2) -> Case:
    """A plain function of as many spatial axes as asked for, which tags its own layers."""
    keys = iter(jax.random.split(jax.random.key(1), 3))
    window = (3,) * spatial
    variables = {
        "conv1": jax.random.normal(next(keys), (*window, 3, 6)) / 4,
        "conv2": jax.random.normal(next(keys), (*window, 6, 8)) / 4,
        "dense": jax.random.normal(next(keys), (8, CLASSES)),
    }
    axes = "DHW"[-spatial:]

    def conv(x, kernel, strides):
        numbers = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
        return jax.lax.conv_general_dilated(x, kernel, strides, "SAME", dimension_numbers=numbers)

    def apply_fn(variables, image):
        x = jax.nn.relu(conv(image[None], variables["conv1"], (2,) * spatial))
        x = jaxcam.tag(x[0], "block1")
        x = jaxcam.tag(jax.nn.relu(conv(x[None], variables["conv2"], (1,) * spatial)[0]), "block2")
        return x.mean(axis=tuple(range(spatial))) @ variables["dense"]

    return Case(apply_fn, variables, image(size=(12, 10, 8)[:spatial]), "block2")


class LinenBlock(nn.Module):
    features: int

    @nn.compact
    def __call__(self, x, *, train):
        y = nn.Conv(self.features, (3, 3), name="conv1")(x)
        y = nn.relu(nn.BatchNorm(not train, name="norm")(y))
        y = nn.Conv(self.features, (3, 3), name="conv2")(y)
        return nn.relu(y + nn.Conv(self.features, (1, 1), name="shortcut")(x))


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        x = nn.relu(nn.Conv(6, (3, 3), (2, 2), name="stem")(x))
        x = LinenBlock(8, name="block")(x, train=train)
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.Dense(CLASSES, name="classifier")(x.mean(axis=(1, 2)))


@functools.cache
def linen() -> Case:
    """A residual network in Flax linen."""
    module = LinenNet()
    init = jax.jit(functools.partial(module.init, train=False))  # eagerly it takes long
    variables = init(jax.random.key(2), jnp.zeros((1, 12, 10, 3)))
    return Case(jaxcam.from_linen(module, train=False), variables, image(), "block")


class NnxBlock(nnx.Module):
    def __init__(self, features_in, features, rngs):
        self.conv1 = nnx.Conv(features_in, features, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(features, rngs=rngs)
        self.conv2 = nnx.Conv(features, features, (3, 3), rngs=rngs)
        self.shortcut = nnx.Conv(features_in, features, (1, 1), rngs=rngs)

    def __call__(self, x):
        y = nnx.relu(self.norm(self.conv1(x)))
        return nnx.relu(self.conv2(y) + self.shortcut(x))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.stem = nnx.Conv(3, 6, (3, 3), (2, 2), rngs=rngs)
        self.blocks = nnx.List([NnxBlock(6, 8, rngs)])
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.classifier = nnx.Linear(8, CLASSES, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.stem(x))
        for block in self.blocks:
            x = block(x)
        return self.classifier(self.dropout(x).mean(axis=(1, 2)))


@functools.cache
def nnx_net() -> Case:
    """The same in Flax NNX, in evaluation mode."""
    model = NnxNet(nnx.Rngs(3))
    model.eval()
    graphdef, variables = nnx.split(model)
    return Case(jaxcam.from_nnx(graphdef), variables, image(), "blocks/0")


@functools.cache
def haiku() -> Case:
    """A network of Haiku itself, with moving averages of one picture."""
    import haiku as hk

    def net(x, is_training):
        return hk.nets.MobileNetV1((1,), (8,), CLASSES)(x, is_training)

    transformed = hk.transform_with_state(net)
    init = jax.jit(functools.partial(transformed.init, is_training=True))
    with jax.numpy_dtype_promotion("standard"):  # a moving average divides by its counter
        variables = init(jax.random.key(4), image(2)[None])
    apply_fn = jaxcam.from_haiku(transformed, is_training=False)
    return Case(apply_fn, variables, image(), "mobile_net_v1/mobile_net_v1_block")


@functools.cache
def keras_net() -> Case:
    """The same in Keras 3."""
    import keras
    from keras.layers import BatchNormalization, Conv2D, Dense, Dropout, GlobalAveragePooling2D

    keras.utils.set_random_seed(4)

    def apply_fn(variables, image):
        with jax_defaults():
            return strict_fn(variables, image)

    with jax_defaults():
        images = keras.Input((12, 10, 3))
        x = Conv2D(6, 3, 2, "same", activation="relu", name="stem")(images)
        y = BatchNormalization(name="norm")(Conv2D(8, 3, padding="same", name="conv1")(x))
        y = Conv2D(8, 3, padding="same", name="conv2")(keras.ops.relu(y))
        x = keras.layers.ReLU(name="block")(y + Conv2D(8, 1, name="shortcut")(x))
        x = GlobalAveragePooling2D(name="pool")(Dropout(0.5, name="dropout")(x))
        model = keras.Model(images, Dense(CLASSES, name="classifier")(x))
        strict_fn, variables = jaxcam.from_keras(model)
    return Case(apply_fn, variables, image(), "block")


@contextlib.contextmanager
def jax_defaults():
    """The defaults of JAX that readers and Keras have, in place of the strict ones of tests."""
    promotion = jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard")
    with promotion[0], promotion[1], jax.default_prng_impl("threefry2x32"):
        yield


CASES = {"plain": plain, "linen": linen, "nnx": nnx_net}
if importlib.util.find_spec("keras"):
    CASES["keras"] = keras_net
if importlib.util.find_spec("haiku"):
    CASES["haiku"] = haiku

if importlib.util.find_spec("equinox"):
    import equinox as eqx

    class EquinoxBlock(eqx.Module):
        conv1: eqx.nn.Conv2d
        norm: eqx.nn.BatchNorm
        conv2: eqx.nn.Conv2d
        shortcut: eqx.nn.Conv2d

        def __init__(self, features_in, features, key):
            keys = jax.random.split(key, 3)
            self.conv1 = eqx.nn.Conv2d(features_in, features, 3, padding=1, key=keys[0])
            self.norm = eqx.nn.BatchNorm(features, "batch", mode="ema")
            self.conv2 = eqx.nn.Conv2d(features, features, 3, padding=1, key=keys[1])
            self.shortcut = eqx.nn.Conv2d(features_in, features, 1, key=keys[2])

        def __call__(self, x, state):
            y, state = self.norm(self.conv1(x), state)
            return jax.nn.relu(self.conv2(jax.nn.relu(y)) + self.shortcut(x)), state

    class EquinoxNet(eqx.Module):
        stem: eqx.nn.Conv2d
        block: EquinoxBlock
        dropout: eqx.nn.Dropout
        classifier: eqx.nn.Linear

        def __init__(self, key):
            keys = jax.random.split(key, 3)
            padding = ((0, 1), (0, 1))  # "SAME" of an even size in steps of 2
            self.stem = eqx.nn.Conv2d(3, 6, 3, 2, padding, key=keys[0])
            self.block = EquinoxBlock(6, 8, keys[1])
            self.dropout = eqx.nn.Dropout(0.5)
            self.classifier = eqx.nn.Linear(8, CLASSES, key=keys[2])

        def __call__(self, x, state):
            x, state = self.block(jax.nn.relu(self.stem(x)), state)
            return self.classifier(self.dropout(x).mean(axis=(1, 2))), state

    def equinox_model() -> tuple[EquinoxNet, eqx.nn.State]:
        """The same in Equinox, with statistics as after some training."""
        model, state = eqx.nn.make_with_state(EquinoxNet)(jax.random.key(4))
        statistics = jnp.linspace(-0.5, 0.5, 8), jnp.linspace(0.5, 2.0, 8)
        norm: Any = model.block.norm
        return model, state.set(norm.ema_state_index, statistics)

    @functools.cache
    def equinox() -> Case:
        """The residual network in Equinox."""
        return Case(*jaxcam.from_equinox(*equinox_model()), image(), "block")

    CASES["equinox"] = equinox
