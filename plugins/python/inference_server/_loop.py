"""Event loop for the asynchronous methods of a model, on a dedicated thread.

The loop runs from `load` to `unload`, including the time between batches, so that connections, locks and background tasks that
`load` creates remain valid.
"""

import asyncio
import inspect
import logging
import threading

from inference_server import _text

log = logging.getLogger("python")

# Timeout for background tasks to handle their cancellation, in seconds.
CANCEL_TIMEOUT = 2


class Loop:
    """An event loop on a thread that starts on first use."""

    def __init__(self):
        self.starting = threading.Lock()
        self.loop = None
        self.thread = None
        self.stopped = False

    def call(self, function, *arguments, **keywords):
        """Calls a function or coroutine function and returns its result."""
        result = function(*arguments, **keywords)
        return self.wait(result) if inspect.isawaitable(result) else result

    def call_within(self, function, *arguments, **keywords):
        """Like `call`, but on the thread of the loop, for code that uses the current loop."""

        async def inside():
            result = function(*arguments, **keywords)
            return await result if inspect.isawaitable(result) else result

        return self.wait(inside())

    def wait(self, awaitable):
        """Waits for an awaitable on the loop. Other threads can run Python in the meantime."""

        async def contained():
            # SystemExit and KeyboardInterrupt would stop the loop.
            try:
                return await awaitable, None
            except BaseException as error:
                return None, error

        result, error = asyncio.run_coroutine_threadsafe(contained(), self.started()).result()
        if error is not None:
            raise error
        return result

    def started(self):
        with self.starting:
            if self.loop is None:
                self.loop = asyncio.new_event_loop()
                self.thread = threading.Thread(target=self.run, name="event loop", daemon=True)
                self.thread.start()
            return self.loop

    def run(self):
        asyncio.set_event_loop(self.loop)
        while not self.stopped:
            try:
                self.loop.run_forever()
            except BaseException as error:
                log.error("a background task raised an exception:\n%s", _text.report(error))
        self.loop.close()

    def stop(self):
        """Cancels background tasks, then stops the loop and its thread."""
        if self.loop is None:
            return
        try:
            asyncio.run_coroutine_threadsafe(self.cancel_all(), self.loop).result(CANCEL_TIMEOUT + 1)
        except BaseException as error:
            log.error("cannot cancel background tasks: %s", _text.name(error))
        self.stopped = True
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(CANCEL_TIMEOUT)

    async def cancel_all(self):
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        if others:
            _, running = await asyncio.wait(others, timeout=CANCEL_TIMEOUT)
            if running:
                log.warning("%d background tasks are still running after cancellation", len(running))
        await self.loop.shutdown_asyncgens()


def is_asynchronous(function):
    return inspect.iscoroutinefunction(function)


def any_asynchronous(cls):
    """Whether a class has an asynchronous method."""
    return any(is_asynchronous(getattr(value, "__func__", value)) for base in cls.__mro__ for value in vars(base).values())
