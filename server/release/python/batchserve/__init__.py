"""The inference server, as a Python package. `python -m batchserve` runs it; `executable` returns its path."""

import os
import sys
import sysconfig

__all__ = ["executable"]

NAME = "inference-server"


def executable() -> str:
    """Returns the path of the server that was installed with this package.

    It is in the directory for scripts of one of these: this environment, the user's own packages (`pip install --user`), or the
    directory of `pip install --target`.
    """
    directories = [
        sysconfig.get_path("scripts"),
        sysconfig.get_path("scripts", scheme=f"{os.name}_user"),
        os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bin"),
    ]
    for directory in directories:
        path = os.path.join(directory, NAME)
        if os.path.isfile(path):
            return path
    raise FileNotFoundError(
        f"{NAME} is not in {', '.join(directories)}: install the package again with {sys.executable} -m pip"
    )
