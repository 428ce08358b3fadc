"""The command line: files in, files out."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

from jaxcam._src.cli import audit, explain, lists
from jaxcam._src.cli.model import METHODS
from jaxcam._src.files import UsageError

__all__ = ["METHODS", "main"]


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
    demo.set_defaults(command=lists.demo)

    listing = commands.add_parser("layers", help="where a model can be cut")
    listing.set_defaults(command=lists.list_layers)

    every = commands.add_parser("methods", help="what each method computes, costs and is not for")
    every.add_argument("--markdown", action="store_true", help="print the table of the README")
    every.set_defaults(command=lists.list_methods)

    explaining, checking = _add_explain(commands), _add_audit(commands)
    factory = "a function without arguments that returns a jaxcam.Model (default: %(default)s)"
    for command in (listing, explaining, checking):
        command.add_argument("--model", default="jaxcam:digits_relu", help=factory)
    return parser


def _add_explain(commands: Any) -> argparse.ArgumentParser:
    explaining = commands.add_parser("explain", help="explain a model's answers for images")
    explaining.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    explaining.add_argument("--layer", required=True, help="a name that `jaxcam layers` lists")
    explaining.add_argument("--occurrence", type=int, help="which run of a layer that runs often")
    explaining.add_argument("--method", default="grad_cam", help="as `jaxcam methods` lists")
    explaining.add_argument("--seed", type=int, default=0, help="of methods with random numbers")
    explaining.add_argument("--target", help="class name or index (default: the top class)")
    explaining.add_argument(
        "--out", type=Path, default=Path("jaxcam-out"), help="folder to write to"
    )
    explaining.set_defaults(command=explain.run)
    return explaining


def _add_audit(commands: Any) -> argparse.ArgumentParser:
    checking = commands.add_parser("audit", help="does the closed form of Grad-CAM++ hold here?")
    checking.add_argument("images", nargs="+", type=Path, metavar="IMAGE", help="file or folder")
    checking.add_argument("--layer", required=True, action="append", help="once for each layer")
    checking.add_argument("--target", help="class name or index (default: the top class)")
    checking.add_argument("--out", type=Path, default=Path("jaxcam-audit"), help="folder for files")
    checking.set_defaults(command=audit.run)
    return checking
