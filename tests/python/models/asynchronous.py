"""Models with asynchronous methods."""

import asyncio
import threading
from typing import List


class Asynchronous:
    def __init__(self):
        self.lock = asyncio.Lock()

    async def load(self, settings):
        self.loop = asyncio.get_running_loop()
        self.queue = asyncio.Queue()
        self.ticks = 0
        self.ticking = asyncio.ensure_future(self.tick())
        await asyncio.sleep(0)

    async def tick(self):
        """Runs between batches."""
        while True:
            self.ticks += 1
            await self.queue.put(self.ticks)
            await asyncio.sleep(0.001)

    async def shout(self, texts: List[str]) -> List[str]:
        async with self.lock:
            await asyncio.sleep(0)
        assert asyncio.get_running_loop() is self.loop
        return [text.upper() for text in texts]

    async def next_tick(self, items: List[int]) -> List[int]:
        return [await self.queue.get() for _ in items]

    async def size(self, texts: List[str]) -> List[int]:
        return [len(texts)] * len(texts)

    async def fail(self, texts: List[str]) -> List[str]:
        await asyncio.gather(*[self.check(text) for text in texts])
        return texts

    async def check(self, text):
        if text == "value":
            raise ValueError("not a good text")
        if text == "exit":
            raise SystemExit(3)
        if text == "cancel":
            raise asyncio.CancelledError()
        if text == "key":
            raise KeyError("secret")

    def plain(self, texts: List[str]) -> List[str]:
        return [str(threading.current_thread().name != "event loop")] * len(texts)

    def forgotten(self, texts: List[str]) -> List[str]:
        """A synchronous method that returns a coroutine."""
        return self.shout(texts)

    async def unload(self):
        self.ticking.cancel()
        await asyncio.sleep(0)
        print("farewell on the loop:", asyncio.get_running_loop() is self.loop)


class Generating:
    async def stream(self, texts: List[str]):
        yield texts


class GeneratingPlainly:
    def stream(self, texts: List[str]):
        yield from texts


class FailingToLoad:
    async def load(self, settings):
        await asyncio.sleep(0)
        raise RuntimeError("no disk")

    def shout(self, texts: List[str]) -> List[str]:
        return texts
