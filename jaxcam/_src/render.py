"""Pictures: a heatmap over its image, and panels of several. NumPy in, NumPy or a file out."""

from collections.abc import Mapping, Sequence
from typing import IO, Any

import numpy as np
from jaxtyping import ArrayLike, UInt8

from jaxcam._src.base import Explanation
from jaxcam._src.extras import extra
from jaxcam._src.names import printable

COLORMAP = "turbo"
_PANEL_INCHES = 1.7
_LATIN = 255  # the last character that the font surely has
_LINE, _LINES = 26, 3  # letters and lines that fit below a panel


def overlay(image: Any, heatmap: Any, *, alpha: float = 0.5) -> UInt8[np.ndarray, "H W 3"]:
    """Lays a heatmap in colour over an image.

    Args:
      image: `[H, W, 3]`, `[H, W, 1]` or `[H, W]`, floats in [0, 1] or uint8.
      heatmap: `[H, W]` in [0, 1].
      alpha: opacity of the heatmap, in [0, 1].

    Returns:
      The picture, `[H, W, 3]` uint8.

    Raises:
      ValueError: a type, a shape, a range or `alpha` is none of these.

    >>> explanation = jaxcam.explainer(apply_fn, "stage3")(variables, image)
    >>> jaxcam.overlay(image, explanation.heatmap).shape
    (64, 64, 3)
    """
    for name, value in {"image": image, "heatmap": heatmap}.items():
        if isinstance(value, Explanation):
            raise ValueError(
                f"the {name} is an Explanation; wanted overlay(image, explanation.heatmap)"
            )
    picture, values = rgb(np.asarray(image)), np.asarray(heatmap, np.float32)
    if values.shape != picture.shape[:2]:
        raise ValueError(
            f"heatmap {list(values.shape)} does not fit image {list(picture.shape)}; wanted "
            f"{list(picture.shape[:2])}: one image, and its heatmap at the same size"
        )
    _check_range("heatmap", values)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is {alpha}; wanted an opacity in [0, 1]")
    steps, colours = np.arange(256) / 255, colours_of(COLORMAP)
    coloured = np.stack([np.interp(values, steps, channel) for channel in colours.T], -1)
    return np.round((1 - alpha) * 255 * picture + alpha * coloured).astype(np.uint8)


def colours_of(name: str) -> UInt8[np.ndarray, "256 3"]:
    """The colours of a map from 0 to 1, between which is interpolated, here and in a report."""
    with extra("cli"):
        from matplotlib import colormaps

    return np.round(255 * colormaps[name](np.arange(256))[:, :3]).astype(np.uint8)


def save_panels(
    rows: Sequence[Sequence[np.ndarray]],
    titles: Sequence[str],
    file: IO[bytes],
    *,
    captions: Sequence[str],
    boxes: Sequence[tuple[int, int, int, int]] = (),
) -> None:
    """Writes a figure with one row of pictures per image.

    Args:
      rows: pictures `[H, W, 3]` or `[H, W]`, as many in each row as there are titles.
      titles: of the columns.
      file: to write the figure to, as PNG.
      captions: one per row, written into its first picture.
      boxes: none or one per row, `(top, left, bottom, right)` in pixels, outlined in each picture.
    """
    size = (_PANEL_INCHES * len(titles), _PANEL_INCHES * (len(rows) + 0.25))
    figure, axes = _grid(len(rows), len(titles), size)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(printable(title, _LATIN), fontsize=8, parse_math=False)
    for row, pictures, caption in zip(axes, rows, captions, strict=True):
        _write_into(row[0], caption)
        for axis, picture in zip(row, pictures, strict=True):
            axis.imshow(picture, cmap="gray", vmin=0)
    for row, box in zip(axes, boxes, strict=False):
        for axis in row:
            _outline(axis, *box)
    figure.savefig(file, format="png")


def save_gallery(pictures: Mapping[str, np.ndarray], file: IO[bytes], *, columns: int = 6) -> None:
    """Writes a figure of pictures, each below its name, from left to right and down.

    Args:
      pictures: `[H, W, 3]` or `[H, W]`, by name.
      file: to write the figure to, as PNG.
      columns: how many pictures are beside each other.
    """
    rows = -(-len(pictures) // columns)
    size = (_PANEL_INCHES * columns, (_PANEL_INCHES + 0.2) * rows)
    figure, axes = _grid(rows, columns, size)
    for axis, (name, picture) in zip(axes.flat, pictures.items(), strict=False):
        axis.set_title(printable(name, _LATIN), fontsize=8, parse_math=False)
        axis.imshow(picture, cmap="gray", vmin=0)
    figure.savefig(file, format="png")


def _grid(rows: int, columns: int, size: tuple[float, float]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=150, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat:
        axis.set_axis_off()
    return figure, axes


def _write_into(axis: Any, caption: str) -> None:
    """Writes white letters with a dark rim into the upper left corner of a picture."""
    from matplotlib.patheffects import withStroke

    axis.text(
        0.03, 0.97, _lines(caption), color="white", fontsize=8, verticalalignment="top",
        transform=axis.transAxes, parse_math=False,
        path_effects=[withStroke(linewidth=2, foreground="black")],
    )  # fmt: skip


def _outline(axis: Any, top: int, left: int, bottom: int, right: int) -> None:
    from matplotlib.patches import Rectangle

    corner = (left - 0.5, top - 0.5)  # imshow centres pixels on whole numbers
    axis.add_patch(Rectangle(corner, right - left, bottom - top, fill=False, color="white"))


def save_audit(
    rows: Sequence[tuple[str, np.ndarray, Mapping[str, ArrayLike]]],
    alphas: Sequence[tuple[ArrayLike, ArrayLike]],
    file: IO[bytes],
) -> None:
    """Writes a figure with one row per audit: the image, every map, and a histogram of alpha.

    Args:
      rows: `(label, picture [H, W, 3] or [H, W, 1], maps [h, w] in [0, 1] by name)`. Those with
        fewer maps have some of the others', and leave their places empty.
      alphas: `(closed form, exact)` for each row, arrays of any one shape.
      file: to write the figure to, as PNG.
    """
    from matplotlib.figure import Figure

    names = [*max((maps for *_, maps in rows), key=len)]
    size = (_PANEL_INCHES * (len(names) + 3), (_PANEL_INCHES + 0.25) * len(rows))
    figure = Figure(figsize=size, dpi=110, layout="constrained")
    widths = [1] * (len(names) + 1) + [2]
    axes = figure.subplots(len(rows), len(names) + 2, squeeze=False, width_ratios=widths)
    for axis, title in zip(axes[0], ["image", *names, "alpha"], strict=True):
        axis.set_title(title, fontsize=8)
    for row, (label, picture, maps), (closed, exact) in zip(axes, rows, alphas, strict=True):
        row[0].imshow(rgb(picture))
        row[0].set_xlabel(_lines(label), fontsize=7, parse_math=False, loc="left")
        for axis, name in zip(row[1:-1], names, strict=True):
            if name in maps:
                axis.imshow(np.asarray(maps[name]), cmap=COLORMAP, vmin=0, vmax=1)
            else:
                axis.set_axis_off()
        for axis in row[:-1]:
            axis.set_xticks([])
            axis.set_yticks([])
        # Poles would stretch the axis until nothing is seen of the rest.
        bins = np.linspace(-0.5, 1.5, 81)
        for values, name in ((closed, "closed form"), (exact, "exact")):
            clipped = np.clip(np.ravel(np.asarray(values)), bins[0], bins[-1])
            row[-1].hist(clipped, bins, histtype="step", label=name)
        row[-1].set_yscale("log")
        row[-1].tick_params(which="both", labelsize=6)
    axes[0, -1].legend(fontsize=6)
    figure.savefig(file, format="png")


def _lines(label: str) -> str:
    """A label below a narrow picture: escaped what the font may lack, broken what is long."""
    shown = printable(label, _LATIN)
    if len(shown) > _LINES * _LINE:
        half = _LINES * _LINE // 2
        shown = f"{shown[: half - 3]}...{shown[-half:]}"
    return "\n".join(shown[i : i + _LINE] for i in range(0, len(shown), _LINE))


def rgb(image: np.ndarray) -> np.ndarray:
    """A picture as `[H, W, 3]` in [0, 1]; shapes and errors as for `overlay`."""
    picture = image / 255 if image.dtype == np.uint8 else image.astype(np.float32)
    _check_range("image", picture)
    picture = picture if picture.ndim == 3 else picture[..., None]
    if picture.ndim != 3 or picture.shape[-1] not in (1, 3):
        raise ValueError(
            f"got an image of shape {list(image.shape)}; wanted [H, W, 3], [H, W, 1] or [H, W]"
        )
    return np.broadcast_to(picture, (*picture.shape[:2], 3))


def _check_range(name: str, values: np.ndarray) -> None:
    if np.isnan(values).any():
        raise ValueError(
            f"{name} holds NaN; of a heatmap, look whether its target is a class, and all that the "
            "network computes finite"
        )
    if values.min() < 0 or values.max() > 1:
        raise ValueError(
            f"{name} spans [{values.min():.3g}, {values.max():.3g}]; wanted values in [0, 1] "
            "(jaxcam.unit_range stretches an array to that)"
        )
