"""A model that fails in the way that each item requests."""

import logging
import os
import sys
import threading
from typing import List

import numpy as np
from numpy.typing import NDArray

log = logging.getLogger("faults.log")


class Faults:
    def load(self, settings):
        self.settings = settings

    def item(self, items: List[str]) -> List[str]:
        errors = {
            "value": ValueError("not a good text"),
            "type": TypeError("not a text"),
            "unsupported": NotImplementedError("no such language"),
            "key": KeyError("secret"),
        }
        return [errors.get(item, item) for item in items]

    def batch(self, items: List[str]) -> List[str]:
        faults = {
            "runtime": self._raise,
            "memory": lambda: (_ for _ in ()).throw(MemoryError()),
            "exit": lambda: sys.exit(3),
            "interrupt": lambda: (_ for _ in ()).throw(KeyboardInterrupt()),
            "abort": os.abort,
            "_exit": lambda: os._exit(7),
            "hang": threading.Event().wait,
        }
        for item in items:
            faults.get(item, str)()
        return items

    def _raise(self):
        password = "hunter2"
        raise RuntimeError(f"the password is {password}")

    def count(self, items: List[str]):
        return {"few": items[1:], "none": None, "text": "abc", "all": iter(items)}[items[0]]

    def unfit(self, items: List[str]) -> List[str]:
        return [{"unfit": 3, "half": "\ud800"}.get(item, item) for item in items]

    def unwritable(self, items: List[str]):
        endless = []
        endless.append(endless)
        return [{"object": object(), "endless": endless}.get(item, item) for item in items]

    def tensor(self, items: List[str]) -> List[NDArray[np.float32]]:
        answers = {"integer": np.zeros(2, np.complex64), "shape": np.zeros((2, 2), np.float32)}
        return [answers.get(item, np.zeros(1, np.float32)) for item in items]

    def say(self, items: List[str]) -> List[str]:
        print("printed", *items)
        print("complained", *items, file=sys.stderr)
        log.warning("logged %s", " ".join(items))
        log.warning("half a pair: \ud800")
        log.debug("whispered %s", " ".join(items))
        return items

    def threads(self, items: List[str]) -> List[str]:
        """Logs from other threads while waiting for them with and without the global interpreter lock."""
        def chat(name):
            for line in range(50):
                print(name, line)
                log.info("%s %s", name, line)

        others = [threading.Thread(target=chat, args=(f"thread {number}",)) for number in range(8)]
        for other in others:
            other.start()
        chat("main")
        for other in others:
            other.join()
        return items

    def who(self, items: List[str]) -> List[int]:
        return [os.getpid()] * len(items)

    def environment(self, items: List[str]) -> List[str]:
        return [os.environ.get(item, "") for item in items]

    def setting(self, items: List[str]):
        return [self.settings.get(item) for item in items]
