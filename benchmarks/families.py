"""Networks of Keras, linen, NNX, Equinox, Equimo, Haiku and Hugging Face, with random weights."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jaxcam

SIDE = 96


class Case(NamedTuple):
    """A model as jaxcam sees it, and as its framework runs it: `forward_fn(variables, image)`.

    That returns `ending_fn` of the logits.
    """

    apply_fn: Callable[..., Any]
    variables: Any
    image: jax.Array
    layer: Any
    forward_fn: Callable[..., Any]
    ending_fn: Callable[[jax.Array], jax.Array] = lambda logits: logits


def _image(side: int = SIDE) -> jax.Array:
    return jax.random.uniform(jax.random.key(0), (side, side, 3))


def _keras(name: str, layer: str) -> Case:
    import keras

    keras.utils.set_random_seed(0)
    model = getattr(keras.applications, name)(weights=None, input_shape=(SIDE, SIDE, 3))
    apply_fn, variables = jaxcam.from_keras(model, logits=True)

    def forward_fn(variables, image):
        given = variables["trainable"], variables["non_trainable"]
        probabilities, _ = model.stateless_call(*given, image[None], training=False)
        return jnp.log(probabilities[0])

    return Case(apply_fn, variables, _image(), layer, forward_fn, jax.nn.log_softmax)


def _haiku(name: str, layer: str) -> Case:
    import haiku as hk

    def network(x, is_training):
        return getattr(hk.nets, name)(num_classes=10)(x, is_training)

    transformed = hk.transform_with_state(network)
    init = jax.jit(functools.partial(transformed.init, is_training=True))
    step = jax.jit(functools.partial(transformed.apply, is_training=True))
    images = jax.random.uniform(jax.random.key(0), (4, *_image().shape))
    params, state = init(jax.random.key(1), images)
    params = _shaken(params)
    # One step, for the statistics of the batch: a new state has none, and divides by almost 0.
    variables = params, step(params, state, None, images)[1]

    def forward_fn(variables, image):
        return transformed.apply(*variables, None, image[None], is_training=False)[0][0]

    apply_fn = jaxcam.from_haiku(transformed, is_training=False)
    return Case(apply_fn, variables, _image(), layer, forward_fn)


def _hugging_face(name: str, layer: str, *, tokens: bool, **settings: Any) -> Case:
    import transformers

    config = getattr(transformers, f"{name}Config")(num_labels=10, **settings)
    maker = getattr(transformers, f"Flax{name}ForImageClassification")
    model = maker(config, (1, SIDE, SIDE, 3), seed=0)
    variables = model.params if "params" in model.params else {"params": model.params}
    apply_fn = jaxcam.from_linen(model.module, output_fn=lambda output: output.logits)
    at = jaxcam.token_grid(apply_fn, layer) if tokens else layer

    def forward_fn(variables, image):
        return model.module.apply(variables, image[None]).logits[0]

    return Case(apply_fn, variables, _image(), at, forward_fn)


def _linen() -> Case:
    from residual import LinenNet

    module = LinenNet()
    variables = module.init(jax.random.key(0), _image()[None])
    apply_fn = jaxcam.from_linen(module)
    return Case(apply_fn, variables, _image(), "block7", lambda v, x: module.apply(v, x[None])[0])


def _nnx() -> Case:
    from flax import nnx
    from residual import NNXNet

    graphdef, state = nnx.split(NNXNet(nnx.Rngs(0)))

    def forward_fn(state, image):
        return nnx.merge(graphdef, state)(image[None])[0]

    return Case(jaxcam.from_nnx(graphdef), state, _image(), "blocks/layers/7", forward_fn)


def _equinox() -> Case:
    from residual import EquinoxNet

    return _of_equinox(EquinoxNet(jax.random.key(0)), "blocks/7")


def _equimo(name: str, layer: str, *, tokens: bool = False, **settings: Any) -> Case:
    import equimo.models
    import equinox as eqx

    network = getattr(equimo.models, name)(num_classes=10, key=jax.random.key(0), **settings)
    arrays, static = eqx.partition(network, eqx.is_inexact_array)
    network = eqx.combine(_shaken(arrays), static)
    return _of_equinox(network, layer, tokens=tokens, key=jax.random.key(2))


def _shaken(weights: Any) -> Any:
    """Random, in place of the zeros and ones that heads and scales begin with."""
    leaves, structure = jax.tree.flatten(weights)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    given = zip(leaves, keys, strict=True)
    return structure.unflatten(
        [x + 0.03 * jax.random.normal(key, x.shape, x.dtype) for x, key in given]
    )


def _of_equinox(network: Any, layer: str, *, tokens: bool = False, **keywords: Any) -> Case:
    import equinox as eqx

    apply_fn, variables = jaxcam.from_equinox(network, **keywords)
    static = eqx.partition(eqx.nn.inference_mode(network), eqx.is_array)[1]

    def forward_fn(variables, image):
        return eqx.combine(variables[0], static)(jnp.moveaxis(image, -1, 0), **keywords)

    at = jaxcam.token_grid(apply_fn, layer) if tokens else layer
    return Case(apply_fn, variables, _image(), at, forward_fn)


_VIT = {"hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "image_size": SIDE}
MODELS: dict[str, tuple[str, Callable[[], Case]]] = {
    "Keras MobileNetV2": ("keras", lambda: _keras("MobileNetV2", "out_relu")),
    "Keras ResNet50": ("keras", lambda: _keras("ResNet50", "conv5_block3_out")),
    "Keras EfficientNetB0": ("keras", lambda: _keras("EfficientNetB0", "top_activation")),
    "Keras DenseNet121": ("keras", lambda: _keras("DenseNet121", "relu")),
    "linen ResNet": ("flax", _linen),
    "NNX ResNet": ("flax", _nnx),
    "Equinox ResNet": ("equinox", _equinox),
    "Equimo ConvNeXt": ("equimo", lambda: _equimo("convnext_t", "blocks/3")),
    "Equimo MobileNetV3": ("equimo", lambda: _equimo("mobilenetv3_small", "layers/9")),
    "Equimo ViT": (
        "equimo",
        lambda: _equimo(
            "vit_tiny_patch16_224",
            "blocks/0/blocks/10",
            tokens=True,
            img_size=SIDE,
            global_pool="token",
        ),
    ),
    "Haiku ResNet18": ("haiku", lambda: _haiku("ResNet18", "res_net18/block_group_3/block_1")),
    "Haiku MobileNetV1": (
        "haiku",
        lambda: _haiku("MobileNetV1", "mobile_net_v1/mobile_net_v1_block_12"),
    ),
    "Hugging Face ResNet": (
        "transformers",
        lambda: _hugging_face("ResNet", "resnet/encoder/stages/3", tokens=False),
    ),
    "Hugging Face ViT": (
        "transformers",
        lambda: _hugging_face("ViT", "vit/encoder/layer/10", tokens=True, **_VIT),
    ),
}
