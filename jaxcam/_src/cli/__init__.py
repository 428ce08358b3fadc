"""The command line: files in, files out."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from jaxcam import __version__
from jaxcam._src.cli import (
    audit,
    batches,
    choices,
    evaluate,
    explain,
    layers,
    lists,
    report,
    run,
    streams,
)
from jaxcam._src.cli.choices import AGAIN, METHODS
from jaxcam._src.compiling import keep_programs
from jaxcam._src.files import UsageError
from jaxcam._src.names import printable

__all__ = ["METHODS", "main"]

_LAYER = (
    "a name that `jaxcam layers` lists, of tokens too (default: the last with positions)" + AGAIN
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
      The exit code: 0, 1 where images were skipped, 2 for bad input and for output that cannot be
      written, 130 after an interrupt.
    """
    with streams.any_terminal():
        options = _parser().parse_args(arguments)
        if reason := keep_programs():
            streams.complain(f"warning: {reason}")
        try:
            code = options.command(options)
            if sys.stdout:  # there is none where the shell closed it
                sys.stdout.flush()
        except UsageError as error:
            streams.complain(error)
            return 2
        except KeyboardInterrupt:
            streams.complain("interrupted")
            return 130
        except OSError as error:
            return _not_written(error)
        return code or 0


def _not_written(error: OSError) -> int:
    """Says what could not be written; nothing, where the reader of the output went away."""
    streams.give_up_output()
    if not isinstance(error, BrokenPipeError):
        streams.complain(f"cannot write {error.filename or 'the output'}: {error.strerror}")
    return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {printable(message)}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="jaxcam", description="Class activation maps for JAX and Flax.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="five methods on bundled networks and on photographs")
    demo.add_argument("--out", type=Path, default=Path("jaxcam-demo"), help="folder to write to")
    demo.set_defaults(command=lists.demo)

    listing = commands.add_parser("layers", help="where a model can be cut")
    listing.set_defaults(command=layers.run)
    listing.add_argument("--matching", default="*", help='names such as "blocks/*/conv?"')
    listing.add_argument(
        "--all", "--every", action="store_true", help="also what no map can be made of"
    )
    price = "what exact Grad-CAM++ costs at each, about a second for a layer of a deep network"
    listing.add_argument("--cost", action="store_true", help=price)

    every = commands.add_parser("methods", help="what each method computes, costs and is not for")
    every.add_argument("name", nargs="?", metavar="NAME", help="of a method, to say all of it")
    every.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    every.set_defaults(command=lists.list_methods)

    explaining, checking = _add_explain(commands), _add_audit(commands)
    running, judging = _add_run(commands), _add_evaluate(commands)
    _add_report(commands)
    factory = "a function without arguments that returns a jaxcam.Model (default: %(default)s)"
    for command in (listing, explaining, running, judging, checking):
        command.add_argument("--model", default="jaxcam:digits_relu", help=factory)
    return parser


def _add_explain(commands: Any) -> argparse.ArgumentParser:
    explaining = commands.add_parser("explain", help="explain a model's answers for images")
    explaining.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    _add_maps(explaining)
    explaining.set_defaults(command=explain.run)
    return explaining


def _add_run(commands: Any) -> argparse.ArgumentParser:
    running = commands.add_parser("run", help="explain a folder; goes on where it stopped")
    where = "a folder, a .csv with the columns image and target, or a list with a path on each line"
    batches.add_options(running, where)
    _add_maps(running)
    running.set_defaults(command=run.run)
    return running


def _add_evaluate(commands: Any) -> argparse.ArgumentParser:
    judging = commands.add_parser("evaluate", help="judge maps by metrics: which one to trust?")
    where = (
        "as for run; the .csv may also have the columns xmin, ymin, xmax, ymax of a box, or mask, "
        "the path of a picture that is white on the object"
    )
    batches.add_options(judging, where)
    boxes = "a .csv with the columns image, xmin, ymin, xmax, ymax; one row for each box"
    judging.add_argument("--boxes", type=Path, help=boxes)
    maps = f"a method, or all (default: {', '.join(evaluate.OFTEN)}; floors are there too)"
    _add_choices(judging, maps, "jaxcam-evaluation")
    explained = f"what is explained (default: logit){AGAIN}"
    judging.add_argument("--score", action="append", help=explained)
    by = "the score by which maps are judged (default: %(default)s)"
    judging.add_argument("--judge", default="probability", help=by)
    numbers = f"a metric, or all (default: the cheap ones){AGAIN}"
    judging.add_argument("--metric", action="append", default=[], help=numbers)
    judging.set_defaults(command=evaluate.run)
    return judging


def _add_report(commands: Any) -> None:
    reporting = commands.add_parser("report", help="a page of what runs found, side by side")
    folders = "a folder that run, explain or evaluate wrote, all over the same images"
    reporting.add_argument("runs", nargs="+", type=Path, metavar="RUN", help=folders)
    where = (
        "the folder of the images, where they have moved; or a list of them, whose column target "
        "tells which answers are wrong"
    )
    reporting.add_argument("--images", type=Path, help=where)
    seen = "whose preprocess shows photographs as it sees them (default: the run's, if of jaxcam)"
    reporting.add_argument("--model", help=f"a function that returns a jaxcam.Model, {seen}")
    page = "page to write (default: %(default)s)"
    reporting.add_argument("--out", type=Path, default=Path("jaxcam-report.html"), help=page)
    reporting.set_defaults(command=report.run)


def _add_maps(command: argparse.ArgumentParser) -> None:
    maps = "as `jaxcam methods` lists, or all (default: grad_cam)"
    _add_choices(command, maps, "jaxcam-out")
    command.add_argument("--occurrence", type=int, help="which run of a layer that runs often")
    choices.add_score(command)


def _add_choices(command: argparse.ArgumentParser, methods: str, out: str) -> None:
    command.add_argument("--layer", action="append", help=_LAYER)
    command.add_argument("--method", action="append", default=[], help=f"{methods}{AGAIN}")
    choices.add_how(command)
    choices.add_fuse(command)
    _add_target(command, out)


def _add_target(command: argparse.ArgumentParser, out: str) -> None:
    command.add_argument("--target", help="class name or index (default: the top class)")
    command.add_argument("--out", type=Path, default=Path(out), help="folder to write to")


def _add_audit(commands: Any) -> argparse.ArgumentParser:
    checking = commands.add_parser("audit", help="does the closed form of Grad-CAM++ hold here?")
    checking.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="file or folder")
    checking.add_argument("--layer", action="append", help=_LAYER)
    choices.add_score(checking)
    size = checking.add_mutually_exclusive_group()
    some = "look at so many activations of an image (default: all, or 1000 where all take minutes)"
    size.add_argument("--samples", type=int, metavar="N", help=some)
    size.add_argument("--exact", action="store_true", help="look at all, however long it takes")
    _add_target(checking, "jaxcam-audit")
    checking.set_defaults(command=audit.run)
    return checking
