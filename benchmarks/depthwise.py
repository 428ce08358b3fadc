"""What do depthwise convolutions cost on a CPU, as XLA's own and as sums of shifted products?

MobileNetV1 at full width, with random weights, as users write it in Flax: its forward pass,
Grad-CAM and Score-CAM of some channels, as it is and by `jaxcam.depthwise_on_cpu`, in turns; and
depthwise convolutions alone.

    python benchmarks/depthwise.py
"""

import argparse
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import timing
from rich.console import Console
from rich.table import Table

import jaxcam

FEATURES = (64, 128, 128, 256, 256, *[512] * 6, 1024, 1024)
STRIDED = (1, 3, 5, 11)  # blocks whose depthwise convolution halves the sides
LAYER, TARGET = "block11", 7
CONVOLUTIONS = [(112, 32, 3), (56, 128, 3), (14, 512, 3), (14, 512, 5), (7, 1024, 3)]


class Depthwise(nn.Module):
    """A convolution of each channel alone."""

    side: int = 3
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels, sides = x.shape[-1], (self.side, self.side)
        strides = (self.stride, self.stride)
        return nn.Conv(channels, sides, strides, feature_group_count=channels, use_bias=False)(x)


class Block(nn.Module):
    """A depthwise convolution and one of 1x1, each with a ReLU6."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu6(Depthwise(stride=self.stride)(x))
        return nn.relu6(nn.Conv(self.features, (1, 1))(x))


class MobileNet(nn.Module):
    """Howard et al. 2017, https://arxiv.org/abs/1704.04861, without its norms."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.relu6(nn.Conv(32, (3, 3), (2, 2))(x))
        for i, features in enumerate(FEATURES):
            x = Block(features, 2 if i in STRIDED else 1, name=f"block{i}")(x)
        return nn.Dense(1000)(x.mean((1, 2)))


def main() -> None:
    """Prints the table and writes it to `results/`."""
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    rows = [*_of_model(), *map(_of_convolution, CONVOLUTIONS)]
    table = Table("what", "XLA's own ms", "sums ms", "ratio", "lowest", "highest")
    for row in rows:
        ratios = [f"{row[key]:.3g}" for key in ("ratio", "lowest", "highest")]
        table.add_row(row["what"], f"{row['own_ms']:.3g}", f"{row['sums_ms']:.3g}", *ratios)
    Console(width=120).print(table)
    print(timing.save("depthwise", rows))


def _of_model() -> list[dict[str, Any]]:
    image = jax.random.normal(jax.random.key(0), (224, 224, 3))
    variables = jax.jit(MobileNet().init)(jax.random.key(1), image[None])
    score_cam = functools.partial(jaxcam.score_cam, top_k=32)

    def explaining(method: Callable, apply_fn: Callable) -> Callable:
        explain = jaxcam.explainer(apply_fn, LAYER, method)
        return lambda variables, image: explain(variables, image, TARGET).heatmap

    whats = {
        "MobileNetV1, forward": lambda apply_fn: apply_fn,
        "MobileNetV1, Grad-CAM": functools.partial(explaining, jaxcam.grad_cam),
        "MobileNetV1, Score-CAM of 32 channels": functools.partial(explaining, score_cam),
    }
    own = jaxcam.from_linen(MobileNet())
    sums = jaxcam.depthwise_on_cpu(own)
    return [_row(what, make(own), make(sums), variables, image) for what, make in whats.items()]


def _of_convolution(sizes: tuple[int, int, int]) -> dict[str, Any]:
    side, channels, kernel = sizes
    image = jax.random.normal(jax.random.key(0), (side, side, channels))
    module = Depthwise(kernel)
    variables = module.init(jax.random.key(1), image[None])

    def own(variables: Any, image: jax.Array) -> Any:
        return module.apply(variables, image[None])

    what = f"{kernel}x{kernel} on {side}x{side}x{channels}"
    return _row(what, own, jaxcam.depthwise_on_cpu(own), variables, image)


def _row(what: str, own: Callable, sums: Callable, *given: Any) -> dict[str, Any]:
    runs = {name: timing.compiled(f, *given)[0] for name, f in {"own": own, "sums": sums}.items()}
    off = jnp.abs(runs["own"]() - runs["sums"]()).max()
    samples = timing.in_turns(runs, repeats=7)
    taken = {f"{name}_ms": 1e3 * timing.median(each) for name, each in samples.items()}
    ratio = timing.ratio(samples["own"], samples["sums"])
    return {"what": what, "largest_difference": float(off)} | taken | ratio


if __name__ == "__main__":
    main()
