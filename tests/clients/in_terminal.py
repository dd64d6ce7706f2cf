"""Run a command in a terminal: python in_terminal.py TEXT KEYS COMMAND…

When the command has shown TEXT, press KEYS. Print everything that it showed, and exit with its exit code.
"""

import fcntl
import os
import pty
import select
import struct
import sys
import termios
import time

PATIENCE_SECONDS = 120


def read(terminal, deadline):
    """Return what the command shows next; nothing after its end."""
    ready, _, _ = select.select([terminal], [], [], max(deadline - time.monotonic(), 0))
    if not ready:
        sys.exit("the command shows nothing more, and does not exit")
    try:
        return os.read(terminal, 65536)
    except OSError:
        # The terminal was closed.
        return b""


def main():
    text, keys, command = sys.argv[1].encode(), sys.argv[2].encode(), sys.argv[3:]
    process, terminal = pty.fork()
    if process == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
        os.execvp(command[0], command)
    deadline = time.monotonic() + PATIENCE_SECONDS
    shown, pressed = b"", False
    while new := read(terminal, deadline):
        shown += new
        if not pressed and text in shown:
            os.write(terminal, keys)
            pressed = True
    _, status = os.waitpid(process, 0)
    sys.stdout.buffer.write(shown)
    sys.stdout.flush()
    sys.exit(os.waitstatus_to_exitcode(status))


main()
