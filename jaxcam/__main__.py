"""`python -m jaxcam` is the command line."""

import sys

from jaxcam._src.cli import main

if __name__ == "__main__":
    sys.exit(main())
