"""A model server as it is often written by hand: FastAPI, a batcher in asyncio, and a pool of processes.

    fastapi_server.py PORT WORKERS MAX_BATCH_SIZE MAX_DELAY_SECONDS CLASS…

Each class of `models.py` is served at `/CLASS`. The batcher is as good as it can be with a fixed delay: no batch is formed
before a worker is free, and the delay counts from the arrival of the first item.
"""

import asyncio
import contextlib
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import fastapi
import models
import orjson
import pydantic
import uvicorn


class Request(pydantic.BaseModel):
    input: str | int | list[float]


# In the processes of the pool.
model: Any = None


def load(name):
    global model
    model = models.loaded(name)


def predict(items):
    return model.predict(items)


class Batcher:
    """Collects the items of concurrent requests, and runs them in the pool."""

    def __init__(self, name, workers, max_batch_size, max_delay):
        self.pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), load, (name,))
        self.idle_workers = asyncio.Semaphore(workers)
        self.max_batch_size, self.max_delay = max_batch_size, max_delay
        self.queue = asyncio.Queue()
        self.running = set()

    async def submit(self, item):
        loop = asyncio.get_running_loop()
        outcome = loop.create_future()
        self.queue.put_nowait((item, outcome, loop.time() + self.max_delay))
        return await outcome

    async def run(self):
        while True:
            first = await self.queue.get()
            await self.idle_workers.acquire()
            task = asyncio.create_task(self.predict(await self.fill(first)))
            self.running.add(task)
            task.add_done_callback(self.running.discard)

    async def fill(self, first):
        """The first item and those that arrive before the batch is full or the delay has passed."""
        batch, (_, _, until) = [first], first
        while len(batch) < self.max_batch_size:
            try:
                batch.append(self.queue.get_nowait())
            except asyncio.QueueEmpty:
                try:
                    async with asyncio.timeout_at(until):
                        batch.append(await self.queue.get())
                except TimeoutError:
                    break
        return batch

    async def predict(self, batch):
        items = [item for item, _, _ in batch]
        try:
            loop = asyncio.get_running_loop()
            outputs = await loop.run_in_executor(self.pool, predict, items)
        except Exception as error:
            for _, outcome, _ in batch:
                if not outcome.done():
                    outcome.set_exception(error)
        else:
            for (_, outcome, _), output in zip(batch, outputs, strict=True):
                if not outcome.done():
                    outcome.set_result(output)
        finally:
            self.idle_workers.release()


def application(names, workers, max_batch_size, max_delay):
    @contextlib.asynccontextmanager
    async def lifespan(_app):
        tasks = []
        for name in names:
            batchers[name] = Batcher(name, workers, max_batch_size, max_delay)
            tasks.append(asyncio.create_task(batchers[name].run()))
        yield
        for task in tasks:
            task.cancel()
        for batcher in batchers.values():
            batcher.pool.shutdown()

    batchers = {}
    app = fastapi.FastAPI(lifespan=lifespan)

    @app.get("/livez")
    async def livez():
        return fastapi.Response("ok")

    @app.post("/{name}")
    async def route(name: str, request: Request):
        if name not in batchers:
            raise fastapi.HTTPException(404)
        output = await batchers[name].submit(request.input)
        body = orjson.dumps({"output": output}, option=orjson.OPT_SERIALIZE_NUMPY)
        return fastapi.Response(body, media_type="application/json")

    return app


def main():
    port, workers, max_batch_size, max_delay, *names = sys.argv[1:]
    app = application(names, int(workers), int(max_batch_size), float(max_delay))
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(port),
        loop="uvloop",
        http="httptools",
        log_level="warning",
        access_log=False,
    )


if __name__ == "__main__":
    main()
