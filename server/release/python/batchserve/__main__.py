"""Runs the inference server with the arguments of this process, in its place."""

import os
import sys

from . import executable


def main() -> None:
    try:
        path = executable()
    except FileNotFoundError as error:
        sys.exit(str(error))
    os.execv(path, [path, *sys.argv[1:]])


main()
