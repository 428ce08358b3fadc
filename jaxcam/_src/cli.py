"""The command line: files in, files out."""

import argparse
import functools
import json
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from jaxcam._src import files, methods
from jaxcam._src.audit import report as audit_report
from jaxcam._src.audit.verdict import verdict
from jaxcam._src.base import Explanation, Model
from jaxcam._src.cut import layers, split
from jaxcam._src.demo import report
from jaxcam._src.derivatives import closed_form
from jaxcam._src.explain import explainer
from jaxcam._src.files import UsageError
from jaxcam._src.maps import unit_range
from jaxcam._src.names import no_such
from jaxcam._src.render import overlay, rgb
from jaxcam._src.weights.curvature import grad_cam_plus_plus

METHODS: dict[str, Callable[..., Any]] = methods.METHODS | {
    "grad_cam_plus_plus_closed": functools.partial(grad_cam_plus_plus, derivatives_fn=closed_form)
}
_IN_DEMO = ("cam", "grad_cam", "grad_cam_plus_plus", "layer_cam", "score_cam")
_TOP = 5
_console = Console(stderr=True)  # for progress; results go to stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command. Returns the exit code: 0, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        options.command(options)
    except UsageError as error:
        print(f"jaxcam: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("jaxcam: interrupted", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="jaxcam", description="Class activation maps for JAX and Flax.")
    parser.add_argument("--version", action="version", version=version("jaxcam-xai"))
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="five methods on the bundled networks and images")
    demo.add_argument("--out", type=Path, default=Path("jaxcam-demo"), help="folder to write to")
    demo.set_defaults(command=_demo)

    listing = commands.add_parser("layers", help="where a model can be cut")
    listing.set_defaults(command=_layers)

    every = commands.add_parser("methods", help="what each method computes, costs and is not for")
    every.add_argument("--markdown", action="store_true", help="print the table of the README")
    every.set_defaults(command=_methods)

    explain, checking = _add_explain(commands), _add_audit(commands)
    factory = "a function without arguments that returns a jaxcam.Model (default: %(default)s)"
    for command in (listing, explain, checking):
        command.add_argument("--model", default="jaxcam:digits_relu", help=factory)
    return parser


def _add_explain(commands: Any) -> argparse.ArgumentParser:
    explain = commands.add_parser("explain", help="explain a model's answers for images")
    explain.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    explain.add_argument("--layer", required=True, help="a name that `jaxcam layers` lists")
    explain.add_argument("--occurrence", type=int, help="which run of a layer that runs often")
    explain.add_argument("--method", default="grad_cam", help="a name that `jaxcam methods` lists")
    explain.add_argument("--seed", type=int, default=0, help="of methods with random numbers")
    explain.add_argument("--target", help="class name or index (default: the top class)")
    explain.add_argument("--out", type=Path, default=Path("jaxcam-out"), help="folder to write to")
    explain.set_defaults(command=_explain)
    return explain


def _add_audit(commands: Any) -> argparse.ArgumentParser:
    checking = commands.add_parser("audit", help="does the closed form of Grad-CAM++ hold here?")
    checking.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="file or folder")
    checking.add_argument("--layer", required=True, action="append", help="once for each layer")
    checking.add_argument("--target", help="class name or index (default: the top class)")
    checking.add_argument("--out", type=Path, default=Path("jaxcam-audit"), help="folder for files")
    checking.set_defaults(command=_audit)
    return checking


# Commands ----------------------------------------------------------------------------------------


def _demo(options: argparse.Namespace) -> None:
    shown = {name: METHODS[name] for name in _IN_DEMO}
    folder = files.writable_folder(options.out)
    with _console.status("explaining"):
        energy = report.run(shown, folder)
    table = Table(title="Share of the heatmap inside the digit's box, mean over the canvases")
    for heading in ("method", *energy[report.FLOOR]):
        table.add_column(heading)
    for name, shares in energy.items():
        table.add_row(name, *(f"{share:.3f}" for share in shares.values()))
    Console().print(table)
    print(f"figure: {folder / 'figure.png'}\nnumbers: {folder / 'energy.json'}")


def _methods(options: argparse.Namespace) -> None:
    if options.markdown:
        print(methods.markdown())
        return
    table = Table(*("method", "paper", "weights", "cost", "avoid"))
    for d in map(methods.describe, methods.METHODS):
        table.add_row(d.name, d.link or d.title, d.weights, d.cost, d.avoid)
    Console().print(table)


def _layers(options: argparse.Namespace) -> None:
    model = files.load_model(options.model)
    with files.one_line(f"model {options.model!r}"):
        found = layers(model.apply_fn, model.variables, _blank(model))
    width = max((len(layer.name) for layer in found), default=0)
    for layer in found:
        runs = f"  {layer.runs} times" if layer.runs > 1 else ""
        leaf = f"  leaf {layer.leaf}" if layer.leaf else ""
        print(f"{layer.name:{width}}  {layer.dtype}{list(layer.shape)}{runs}{leaf}")


def _explain(options: argparse.Namespace) -> None:
    if options.method not in METHODS:
        raise UsageError(no_such("method", options.method, METHODS))
    model = files.load_model(options.model)
    names = model.class_names
    target = None if options.target is None else files.find_class(options.target, names)
    split_fn = split(model.apply_fn, options.layer, occurrence=options.occurrence)
    method = methods.seeded(METHODS[options.method], options.seed)
    explain = jax.jit(explainer(model.apply_fn, split_fn, method))
    _try_shapes(explain, model)
    files.check_images(options.images)
    folder = files.writable_folder(options.out)
    records = []
    bar = track(options.images, "explaining", console=_console)
    for path in bar if _console.is_terminal else options.images:
        image = _preprocessed(model, path)
        explanation = jax.device_get(explain(model.variables, image, target))
        records.append(_write(folder, path, image, explanation, model))
    kept = ("model", "layer", "occurrence", "method", "seed")
    settings = {name: getattr(options, name) for name in kept}
    with files.whole_file(folder / "explanations.json") as file:
        file.write(json.dumps({**settings, "images": records}, indent=1).encode())
    print(f"numbers: {folder / 'explanations.json'}")


def _audit(options: argparse.Namespace) -> None:
    model = files.load_model(options.model)
    names = model.class_names
    target = None if options.target is None else files.find_class(options.target, names)
    auditors = audit_report.auditors(model, options.layer)
    proved = {layer: _try_shapes(run, model).structure for layer, run in auditors.items()}
    paths = files.find_images(options.images)
    images = [_preprocessed(model, path) for path in paths]
    pictures = [_displayed(model, path, i) for path, i in zip(paths, images, strict=True)]
    folder = files.writable_folder(options.out)
    found = {}
    for layer, run in auditors.items():
        bar = track(images, f"auditing {layer} ({proved[layer]})", console=_console)
        found[layer] = [
            jax.device_get(run(model.variables, image, target))
            for image in (bar if _console.is_terminal else images)
        ]
        for path, each in zip(paths, found[layer], strict=True):
            if not all(np.isfinite(x).all() for x in jax.tree.leaves(each)):
                raise UsageError(
                    f"the audit of {path} is not finite; look at what the model makes of it"
                )
        print(f"{layer}: {proved[layer]}")
        for table in audit_report.tables(layer, found[layer]):
            Console().print(table)
        print(verdict(audit_report.stacked(found[layer])), flush=True)
    settings = {"model": options.model, "target": options.target}
    audit_report.write(found, [str(path) for path in paths], pictures, settings, folder)
    print(f"figure: {folder / 'audit.png'}\nnumbers: {folder / 'audit.json'}")


def _preprocessed(model: Model, path: Path) -> np.ndarray:
    picture = files.open_image(path)
    with files.one_line(f"preprocess of {path}"):
        return np.asarray(model.preprocess(picture))


def _displayed(model: Model, path: Path, image: np.ndarray) -> np.ndarray:
    with files.one_line(f"display of {path}"):
        return rgb(np.asarray((model.display or unit_range)(image)))


def _blank(model: Model) -> jax.ShapeDtypeStruct:
    image = np.asarray(model.preprocess(Image.new("RGB", (256, 256))))
    return jax.ShapeDtypeStruct(image.shape, image.dtype)


def _try_shapes(explain: Callable[..., Any], model: Model) -> Any:
    """What `explain` returns, without its numbers."""
    with files.one_line("cannot explain"):
        shapes = jax.eval_shape(explain, model.variables, _blank(model))
    logits = shapes.logits
    if logits.shape != (len(model.class_names),):
        raise UsageError(
            f"the model returns logits {list(logits.shape)} and has {len(model.class_names)} "
            "class names; give one name per logit"
        )
    return shapes


def _write(
    folder: Path, path: Path, image: np.ndarray, explanation: Explanation, model: Model
) -> dict[str, Any]:
    """Writes the overlay and the raw map of one image, and returns what there is to say of it."""
    if not np.isfinite(explanation.heatmap).all():
        raise UsageError(f"the map of {path} is not finite; look at what the model makes of it")
    shown = _displayed(model, path, image)
    with files.one_line(f"display of {path}"):
        picture = overlay(shown, explanation.heatmap)
    overlay_path, cam_path = folder / f"{path.stem}_overlay.png", folder / f"{path.stem}_cam.npy"
    with files.whole_file(overlay_path) as file:
        Image.fromarray(picture).save(file, "PNG")
    with files.whole_file(cam_path) as file:
        np.save(file, np.asarray(explanation.cam, np.float32))  # NumPy cannot read bfloat16
    probabilities = np.asarray(jax.nn.softmax(explanation.logits))
    top = [
        {"class": int(c), "name": model.class_names[c], "probability": float(probabilities[c])}
        for c in np.argsort(-probabilities)[:_TOP]
    ]
    target = model.class_names[int(explanation.target)]
    answers = ", ".join(f"{answer['name']} {answer['probability']:.1%}" for answer in top)
    print(f"{path}: {answers}; explained: {target}; {overlay_path}, {cam_path}")
    return {
        "image": str(path),
        "target": {"class": int(explanation.target), "name": target},
        "top": top,
        "overlay": overlay_path.name,
        "cam": cam_path.name,
        "cam_shape": list(explanation.cam.shape),
        "cam_max": float(explanation.cam.max()),
    }
