"""Forwards the output and the log records of Python code to the server's log."""

import io
import logging
import sys
import threading

from inference_server._text import encodable

# The server's levels.
ERROR, WARN, INFO, DEBUG, TRACE = 1, 2, 3, 4, 5

# Maximum length of a record of the server's log. Limits the memory that an endless line can use.
MAX_LINE_LENGTH = 16 << 10


class LineWriter(io.TextIOBase):
    """Standard output or error. Each line becomes a record. Lines of different threads are not mixed."""

    def __init__(self, record, level, target):
        self.record, self.level, self.target = record, level, target
        self.partial = threading.local()

    encoding = "utf-8"

    def writable(self):
        return True

    def write(self, text):
        *lines, rest = (getattr(self.partial, "text", "") + text).split("\n")
        for line in lines:
            self.send(line)
        if len(rest) > MAX_LINE_LENGTH:
            self.send(rest)
            rest = ""
        self.partial.text = rest
        return len(text)

    def flush(self):
        """Does nothing, because a partial line is not a record."""

    def send(self, line):
        # Keep only the last state of a progress bar, which overwrites its line.
        line = line.rstrip("\r").rsplit("\r", 1)[-1]
        if line:
            self.record(self.level, self.target, encodable(line))


class NoLock:
    """A lock that is never held. Since Python 3.13, `logging` requires a lock instead of None."""

    def acquire(self):
        pass

    def release(self):
        pass

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        return None


class LogHandler(logging.Handler):
    """A handler that forwards records of `logging`."""

    def __init__(self, record):
        super().__init__()
        self.record = record

    def createLock(self):
        # The server's log has its own lock.
        self.lock = NoLock()

    def emit(self, record):
        try:
            self.record(severity(record.levelno), record.name, encodable(self.format(record)))
        except Exception:
            self.handleError(record)


def severity(number):
    """Converts a level of `logging` to one of the server."""
    for minimum, level in ((logging.ERROR, ERROR), (logging.WARNING, WARN), (logging.INFO, INFO), (logging.DEBUG, DEBUG)):
        if number >= minimum:
            return level
    return TRACE


def redirect(record, max_level):
    """Redirects output and `logging` to `record(level, target, text)`, up to the server's level `max_level`."""
    sys.stdout = LineWriter(record, INFO, "stdout")
    sys.stderr = LineWriter(record, WARN, "stderr")
    root = logging.getLogger()
    root.addHandler(LogHandler(record))
    root.setLevel({ERROR: logging.ERROR, WARN: logging.WARNING, INFO: logging.INFO}.get(max_level, logging.DEBUG))
