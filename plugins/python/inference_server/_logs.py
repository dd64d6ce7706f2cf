"""Forwards what Python code prints and logs to the server's log."""

import io
import logging
import sys
import threading

from inference_server._text import encodable

# The server's levels.
ERROR, WARN, INFO, DEBUG, TRACE = 1, 2, 3, 4, 5

# As much as one record of the server's log takes; a line that never ends must not fill the memory.
LONGEST_LINE = 16 << 10


class Lines(io.TextIOBase):
    """Standard output or error: each line becomes a record. Threads do not get into each other's lines."""

    def __init__(self, record, level, target):
        self.record, self.level, self.target = record, level, target
        self.begun = threading.local()

    encoding = "utf-8"

    def writable(self):
        return True

    def write(self, text):
        *lines, rest = (getattr(self.begun, "text", "") + text).split("\n")
        for line in lines:
            self.send(line)
        if len(rest) > LONGEST_LINE:
            self.send(rest)
            rest = ""
        self.begun.text = rest
        return len(text)

    def flush(self):
        """Nothing: half a line is no record yet."""

    def send(self, line):
        # A progress bar overwrites its line.
        line = line.rstrip("\r").rsplit("\r", 1)[-1]
        if line:
            self.record(self.level, self.target, encodable(line))


class NoLock:
    """A lock that is always free. `logging` calls it since Python 3.13, where None is not a lock."""

    def acquire(self):
        pass

    def release(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None


class Records(logging.Handler):
    """The log of Python code."""

    def __init__(self, record):
        super().__init__()
        self.record = record

    def createLock(self):
        # The server's log has its own.
        self.lock = NoLock()

    def emit(self, record):
        try:
            self.record(severity(record.levelno), record.name, encodable(self.format(record)))
        except Exception:
            self.handleError(record)


def severity(number):
    """The server's level of one of Python's."""
    for least, level in ((logging.ERROR, ERROR), (logging.WARNING, WARN), (logging.INFO, INFO), (logging.DEBUG, DEBUG)):
        if number >= least:
            return level
    return TRACE


def redirect(record, most):
    """From now on all is recorded with `record(level, target, text)`, up to the server's level `most`."""
    sys.stdout = Lines(record, INFO, "stdout")
    sys.stderr = Lines(record, WARN, "stderr")
    root = logging.getLogger()
    root.addHandler(Records(record))
    root.setLevel({ERROR: logging.ERROR, WARN: logging.WARNING, INFO: logging.INFO}.get(most, logging.DEBUG))
