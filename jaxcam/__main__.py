"""The command line, as `jaxcam` and as `python -m jaxcam`."""

import sys

from jaxcam._src.extras import extra


def main() -> int:
    """Runs one command, or says what to install for it."""
    try:
        with extra("cli"):
            from jaxcam._src import cli
    except ModuleNotFoundError as error:
        print(f"jaxcam: {error}", file=sys.stderr)
        return 2
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
