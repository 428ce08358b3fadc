"""The records that pass from stage to stage, and the types of what is passed as a function."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.export
import numpy as np
from jaxtyping import Array, ArrayLike, Float, PRNGKeyArray, UInt32

from jaxcam._src import shown

# Shapes: image [*spatial, C], activations [*spatial, K], logits [classes]; spatial is H, W for a
# picture, T for a signal, D, H, W for a volume.
ApplyFn: TypeAlias = Callable[[Any, Array], Any]  # (variables, image) -> logits
HeadFn: TypeAlias = Callable[[Array], Any]  # activations -> logits
SplitFn: TypeAlias = Callable[[Any, Array], tuple[Array, HeadFn]]
ScoreFn: TypeAlias = Callable[[Any, Any], Array]  # (logits, target) -> scalar
Key: TypeAlias = PRNGKeyArray | UInt32[Array, "words"]  # of jax.random, of either kind
FuseFn: TypeAlias = Callable[..., Array]  # heatmaps [layers, *spatial] -> [*spatial]


class ModelWarning(UserWarning):
    """A model is used in a way that gives numbers without the meaning that they seem to have."""


@dataclasses.dataclass(frozen=True)
class Layer:
    """A place where a model can be cut.

    Attributes:
      name: what `split` and `explainer` take.
      shape: of the layer's output, without the batch axis.
      dtype: of the layer's output.
      runs: how often the layer runs for one image. Above 1, or where a name is listed twice
        because the shape differs, `split` asks for an `occurrence`.
      leaf: which array this is of a layer that returns several.
      key: where such a layer's value holds the array, such as "1/mean".
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    runs: int
    leaf: int = 0
    key: str = ""

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return shown.table(vars(self))


@dataclasses.dataclass(frozen=True)
class Head:
    """What follows a layer, `activations -> logits`, and what its program shows.

    Attributes:
      run: the function.
      ending: "softmax" or "sigmoid" that the model ends in, "blend" of what such return; else None.
      sees_image: whether the activations depend on the image that the model was given.
      axes_proven: whether the program shows that the axes of the activations are the image's.
      tokens: which axes of the image the one of tokens is joined of, as in `Joined`, where shown.
      before: how many others, such as a class token, come before those tokens.
      positionless: whether weights made an axis where positions are wanted.
      disordered: whether an axis holds positions in another order than the image, or some of them.
      cropped: `(axis, start, stop)` of the image, in pixels, if the activations see no more.
    """

    run: "HeadFn"
    ending: str | None
    sees_image: bool
    axes_proven: bool
    tokens: tuple[tuple[int, int], ...] | None = None
    before: int = 0
    positionless: bool = False
    disordered: bool = False
    cropped: tuple[int, int, int] | None = None

    def __call__(self, activations: Array) -> Any:
        return self.run(activations)


class Derivatives(NamedTuple):
    """Derivatives of a scalar function along each coordinate alone, each shaped as the point.

    Attributes:
      first: the gradient.
      second: the diagonal of the Hessian.
      third: the diagonal of the third derivative.
    """

    first: Array
    second: Array
    third: Array


DerivativesFn: TypeAlias = Callable[[Callable[[Array], Array], Array], Derivatives]
FormFn: TypeAlias = Callable[[Derivatives], Derivatives]  # of a score S -> of Y, a function of S


@dataclasses.dataclass(frozen=True)
class Attention:
    """The attention weights of several layers, and what the score makes of them.

    Attributes:
      weights: by name, in the order of execution, each `[heads, queries, keys]`.
      score: what is added to the weights, in this order, -> the score; or the sum of the scores
        of several blocks, each of which sees what is added to its own weights alone.
      apart: the names of the first two that follow each other though the later does not depend on
        the earlier, such as heads that run side by side; None where each depends on the last.
    """

    weights: Mapping[str, Array]
    score: Callable[[Sequence[Array]], Array]
    apart: tuple[str, str] | None = None


@dataclasses.dataclass(frozen=True)
class Tap:
    """All that a method may look at: one image, one target, one layer.

    A tap holds functions and lives inside one trace; it is no pytree.

    Attributes:
      activations: output of the layer, `[*spatial, K]`.
      score_activations: the score as a function of the activations.
      image: `[*spatial, C]`, as the model takes it.
      score_image: the score as a function of the image. For an image of another dtype its
        variables are cast to that dtype, and its logits back to their own.
      logits: what the model returns for the image.
      target: what is explained, as the score function takes it.
      score: what the score function makes of the two, a scalar.
      at_image: the tap of another image: same layer, score and target.
      at_score: the tap of another score: same image, layer and target.
      attention: `(layers=None, blocks=())` -> the model's attention weights: those found in its
        program, or of the names in `layers`. With `blocks`, names of layers that return tokens,
        the last weights before each, and the score of what the model makes of its tokens.
    """

    activations: Float[Array, "*spatial K"]
    score_activations: Callable[[Array], Array]
    image: Float[Array, "*size C"]
    score_image: Callable[[Array], Array]
    logits: Any
    target: Any
    score: Float[Array, ""]
    at_image: "Callable[[Array], Tap]"
    at_score: "Callable[[ScoreFn], Tap]"
    attention: Callable[..., Attention]

    @property
    def spatial_axes(self) -> tuple[int, ...]:
        """The axes of the activations that are positions: all but the last."""
        return tuple(range(self.activations.ndim - 1))


# Weights [1, ..., 1, K] or [*spatial, K]; or the map itself, [*spatial], of a method without any.
WeightsFn: TypeAlias = Callable[[Tap], Array]


@dataclasses.dataclass(frozen=True)
class Convention:
    """How one library goes from weights to a heatmap, and what it computes in a way of its own.

    Attributes:
      combine_fn: weights and activations -> cam `[*spatial]`.
      layer_fn: cam and the image's `*size` -> the heatmap of one layer, of that size or of the
        layer's.
      fuse_fn: the heatmaps of several layers, stacked if they are of one size, -> one heatmap.
      finish_fn: heatmap -> heatmap, at the end, whether layers were fused or not.
      variants: methods, scores and fusions of jaxcam -> those of the library in their place.
    """

    combine_fn: Callable[[Array, Array], Array]
    layer_fn: Callable[[Array, tuple[int, ...]], Array]
    fuse_fn: Callable[[Any], Array]
    finish_fn: Callable[[Array], Array]
    variants: Mapping[Callable[..., Array], Callable[..., Array]]

    def variant(self, function: Callable[..., Array]) -> Callable[..., Array]:
        """The library's own way of a method, a score or a fusion, bound to the same knobs."""
        if isinstance(function, functools.partial):
            own = self.variant(function.func)
            return functools.partial(own, *function.args, **function.keywords)
        own = (own for known, own in self.variants.items() if known is function)
        return next(own, function)  # by identity: a method need not be hashable


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Explanation:
    """Why a model gave a score. A pytree; `vmap` puts its axes in front of every shape.

    For several layers `cam`, `weights` and `flat` are tuples, one entry a layer.

    Attributes:
      heatmap: `[*spatial]` at the size of the image, in [0, 1]; all 0 where the map is flat.
      cam: `[*spatial]` at the size of the layer, before it is moved to [0, 1]; at least 0, if the
        method gave weights.
      weights: `[1, ..., 1, K]`, or `[*spatial, K]` for an elementwise method, or the map itself
        for a method without weights.
      logits: what the model returned, `[classes]`.
      target: what was explained.
      flat: 0 where the map has a range; else why it is flat, which `jaxcam.why_flat` says in words.
    """

    heatmap: Array
    cam: Any
    weights: Any
    logits: Any
    target: Any
    flat: Any = 0

    def _repr_html_(self) -> str:
        """What a notebook shows: the heatmap, and the numbers beside it."""
        rows = {name: shown.numbers(getattr(self, name)) for name in ("target", "flat")}
        for name in ("heatmap", "cam", "weights", "logits"):
            rows[f"{name}, shape"] = shown.shape(getattr(self, name))
        return "".join(shown.picture(self.heatmap)) + shown.table(rows)


jax.export.register_pytree_node_serialization(
    Explanation,
    serialized_name="jaxcam.Explanation",
    serialize_auxdata=lambda _: b"",  # all that it holds is data
    deserialize_auxdata=lambda _: (),
)


@dataclasses.dataclass(frozen=True)
class Model:
    """A model as the command line takes it: what the factory of `--model` returns.

    Attributes:
      apply_fn: `(variables, image [H, W, C]) -> logits [classes]`.
      variables: what `apply_fn` takes first.
      preprocess: an RGB `PIL.Image.Image` of any size -> image `[H, W, C]`, always one shape.
        `jaxcam run` and `evaluate` call it from several threads at once.
      class_names: one name per logit.
      display: image `[H, W, C]` -> picture `[H, W, C]` in [0, 1] to lay the heatmap over.
        None stretches the image from its smallest to its largest value.
    """

    apply_fn: ApplyFn
    variables: Any
    preprocess: Callable[[Any], ArrayLike]
    class_names: Sequence[str]
    display: Callable[[np.ndarray], ArrayLike] | None = None
