"""What is refused at the door, with what to do: images, layers and scores that fit no map."""

import inspect
import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from jaxcam._src.base import ApplyFn, Convention, Head, HeadFn, ModelWarning, ScoreFn, SplitFn
from jaxcam._src.cut import has_others, maker_of
from jaxcam._src.cut.programs import NOT_THE_USER
from jaxcam._src.names import brief, named
from jaxcam._src.scores import wants_logits


def check_explained_by(method: Any, score_fn: Any, fuse: Any, convention: Any) -> None:
    """Refuses what is no method, no score, no way to fuse (None is one) or no convention."""
    functions = [("method", method, "jaxcam.grad_cam"), ("score_fn", score_fn, "jaxcam.logit")]
    functions += [] if fuse is None else [("fuse", fuse, "jaxcam.fuse_max")]
    for name, value, such in functions:
        if not callable(value):
            raise ValueError(f"{name} is {brief(value)}; wanted a function, such as {such}")
    missing = [name for name, knob in _knobs(method).items() if knob.default is knob.empty]
    if missing:
        called = getattr(method, "__name__", "the method")
        given = ", ".join(f"{name}=..." for name in missing)
        such = ", where key= is such as jax.random.key(0)" if "key" in missing else ""
        raise ValueError(
            f"{called} has no {' and no '.join(missing)}; bind it: "
            f"functools.partial({called}, {given}){such}"
        )
    if not isinstance(convention, Convention):
        raise ValueError(f"convention is {brief(convention)}; wanted one of jaxcam.conventions")


def _knobs(method: Any, *, follow_wrapped: bool = False) -> dict[str, inspect.Parameter]:
    """What a function takes by name alone; nothing where Python cannot tell."""
    try:
        parameters = inspect.signature(method, follow_wrapped=follow_wrapped).parameters.items()
    except (TypeError, ValueError):
        return {}
    return {name: p for name, p in parameters if p.kind is p.KEYWORD_ONLY}


def wants(function: Any, name: str) -> bool:
    """Whether a function cannot do without an argument of this name, given by name alone."""
    knob = _knobs(function, follow_wrapped=True).get(name)  # of what jax.jit wraps, too
    return knob is not None and knob.default is knob.empty


def checked_image(image: Any) -> Array:
    """The image as an array of floats."""
    if not hasattr(image, "shape") and not isinstance(image, list):
        raise ValueError(
            f"got an image of type {type(image).__name__}; wanted one array [*spatial, C], such as "
            "numpy.asarray(picture), after the variables: (variables, image). What else a model "
            "takes goes with the variables: jaxcam.from_function says how"
        )
    image = jnp.asarray(image)
    if jnp.issubdtype(image.dtype, jnp.integer):
        image = image.astype(jnp.float32)  # of the same values, for a model that scales them itself
    if not jnp.issubdtype(image.dtype, jnp.floating) or image.ndim < 2 or image.size == 0:
        raise ValueError(
            f"got an image {image.dtype}{list(image.shape)}; wanted one floating-point image "
            "[*spatial, C], scaled as the model expects"
        )
    if image.ndim == 3 and _looks_channels_first(image.shape):
        raise ValueError(
            f"got an image {list(image.shape)}, which looks like channels first; wanted channels "
            'last, [H, W, C]: give jnp.moveaxis(image, 0, -1), and say channels="first" to the '
            "adapter or to jaxcam.from_function"
        )
    return image


def _looks_channels_first(shape: tuple[int, ...]) -> bool:
    """A picture's number of channels in front of a picture's sides."""
    short, long = sorted(shape[1:])
    return shape[0] in (1, 3, 4) and 8 <= short <= long <= 4 * short


def check_layer_of(apply_fn: ApplyFn, layer: Any) -> None:
    """Refuses what is no layer, or cut out of another model, whose output would be explained."""
    if not (isinstance(layer, str) or callable(layer)) or maker_of(layer):
        raise ValueError(
            f"layer is {brief(layer)}; wanted its name, as jaxcam.layers lists them, or what "
            "jaxcam.split returns"
        )
    of = getattr(layer, "apply_fn", apply_fn)
    if of is not apply_fn:
        raise ValueError(
            "the layer was cut out of another apply_fn than is explained; give both the same one, "
            "made once: layer = jaxcam.split(apply_fn, name) or jaxcam.token_grid(apply_fn, name)"
        )


def check_positions(head: HeadFn, activations: Array, image: Array, layer: str | SplitFn) -> None:
    """Refuses a layer whose axes are not the image's positions and channels, or warns of it."""
    _check_rank(activations, image, layer)
    if isinstance(head, Head):
        _check_seen(head, image, layer)
        _check_tokens(head, activations, image, layer)
        _warn_of_weights(head, activations, layer)
    if not (isinstance(head, Head) and (head.axes_proven or head.positionless)):
        _check_order(activations, image, layer)


def _check_rank(activations: Array, image: Array, layer: str | SplitFn) -> None:
    """Refuses a layer without as many axes as the image has."""
    came = f"{named(layer)} returns {list(activations.shape)} for"
    if activations.ndim == image.ndim + 1 and len(activations) == 1:
        raise ValueError(
            f"{came} one image {list(image.shape)}, with a batch axis of its own; name it without: "
            "jaxcam.tag(x[0], name)[None]"
        )
    if activations.ndim != image.ndim:
        tokens = f"Of tokens give {_as_tokens(layer)} as the layer; else choose"
        raise ValueError(
            f"{came} an image {list(image.shape)}; wanted as many spatial axes in both, and "
            "channels last. "
            f"{tokens if activations.ndim == 2 < image.ndim else 'Choose'} a layer before the "
            "positions are pooled or flattened; for a batch of images use jax.vmap"
        )


def _check_seen(head: Head, image: Array, layer: str | SplitFn) -> None:
    """Refuses a layer that sees another input than the image, or a part of it alone."""
    if not head.sees_image:
        raise ValueError(
            f"what {named(layer)} returns does not depend on the image that is explained, but on "
            "another input of the model; choose another layer or occurrence=, or make that input "
            "the image"
        )
    if head.cropped:
        axis, start, stop = head.cropped
        raise ValueError(
            f"{named(layer)} sees the image {list(image.shape)} from {start} to {stop} along axis "
            f"{axis} alone, and its map would be stretched over all; cut the image before it is "
            "given to apply_fn, and not inside"
        )


def _check_tokens(head: Head, activations: Array, image: Array, layer: str | SplitFn) -> None:
    """Refuses a layer of whose axes one holds positions of several, or others beside them."""
    returns = f"{named(layer)} returns {list(activations.shape)}"
    check_ordered(head, returns)
    if head.tokens and len(head.tokens) > 1:
        raise ValueError(
            f"{returns}, where one axis holds rows and columns together, as the tokens of "
            "attention heads and the windows of attention in windows do; choose a layer with an "
            "axis for each, or one of tokens [tokens, K] for jaxcam.token_grid"
        )
    if head.tokens and has_others(head.tokens, len(activations), len(image)):
        raise ValueError(
            f"{returns}, {head.tokens[0][1]} positions and others, such as a class token; give "
            f"{_as_tokens(layer)} as the layer"
        )


def check_ordered(head: Head, returns: str) -> None:
    """Refuses a layer of positions that lie otherwise than in the image."""
    if head.disordered:
        raise ValueError(
            f"{returns}, whose positions the program does not keep row by row: they lie window by "
            "window, say, or others are between them, or some are left out. Choose a layer before "
            "that or after they are in order again; if they are, give grid= to jaxcam.token_grid"
        )


def _warn_of_weights(head: Head, activations: Array, layer: str | SplitFn) -> None:
    """Warns of a layer in which weights made an axis where positions are wanted."""
    if head.positionless:
        _warn(
            f"{named(layer)} returns {list(activations.shape)}, and the program shows that weights "
            "made an axis where positions are wanted, as a dense layer over all times does: its "
            "map is right only if these lie as the image's do, as of an interpolation; else choose "
            "a layer before"
        )


def _check_order(activations: Array, image: Array, layer: str | SplitFn) -> None:
    """Refuses a layer that looks as if its axes were in another order."""
    size, shape = image.shape[:-1], activations.shape
    if len(size) == 1 or in_proportion(shape[:-1], size):
        return
    came = (
        f"{named(layer)} returns {list(shape)} for an image {list(image.shape)}, which looks like"
    )
    if in_proportion(shape[1:], size):
        raise ValueError(
            f'{came} channels first; wanted channels last: say channels="first" to the adapter or '
            "to jaxcam.from_function, or name it with "
            "jnp.moveaxis(jaxcam.tag(jnp.moveaxis(x, 0, -1), name), -1, 0)"
        )
    if in_proportion((shape[-1], *shape[:-2]), size):
        raise ValueError(
            f"{came} channels last that was taken for channels first; give apply_fn images with "
            'channels last, turned around inside, and leave out channels="first"'
        )
    if in_proportion(shape[-2::-1], size):
        raise ValueError(
            f"{came} columns before rows; wanted positions in the order of the image: name it with "
            "jaxcam.tag(x.swapaxes(0, 1), name).swapaxes(0, 1)"
        )


def in_proportion(shape: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether a layer's axes may be those of the image: shrunk alike, up to a pixel."""
    scale = sum(shape) / sum(size)
    return all(abs(n - scale * whole) <= 1 for n, whole in zip(shape, size, strict=True))


def check_ending(head: HeadFn, score_fn: ScoreFn) -> None:
    """Warns of probabilities, whose gradient saturates."""
    if isinstance(head, Head) and head.ending and wants_logits(score_fn):
        ends = f"ends in a {head.ending}"
        way = "give jaxcam.to_logits(apply_fn), the same model without it"
        if head.ending == "blend":
            ends = "returns what it makes of probabilities"
            way = "let it return logits (in adapters by output_fn=)"
        _warn(
            f"the model {ends}, so that it returns no logits, which the score wants; {way}, or a "
            "score_fn of your own"
        )


def _as_tokens(layer: str | SplitFn) -> str:
    return f"jaxcam.token_grid(apply_fn, {repr(layer) if isinstance(layer, str) else 'layer'})"


def _warn(message: str) -> None:
    """Warns at the line of the user's that led here."""
    frame, level = inspect.currentframe(), 1
    while frame and frame.f_code.co_filename.startswith(NOT_THE_USER):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, ModelWarning, stacklevel=level)


def checked_score(score: Any) -> Array:
    """The score; refuses what is no floating-point scalar."""
    is_array = isinstance(score, jax.Array)
    if not is_array or score.shape or not jnp.issubdtype(score.dtype, jnp.floating):
        raise ValueError(
            f"score_fn returned {brief(score)}; wanted a scalar of floats for one image and one "
            "target; for many targets use jax.vmap over target"
        )
    return score
