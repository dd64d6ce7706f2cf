"""The same models in mosec, with its own dynamic batching.

    mosec_server.py PORT WORKERS MAX_BATCH_SIZE MAX_DELAY_SECONDS CLASS…

Each class of `models.py` is served at `/CLASS`.
"""

import os
import sys

import models
import mosec
import orjson


class Worker(mosec.Worker):
    def __init__(self):
        super().__init__()
        self.model = models.loaded(type(self).__name__)

    def deserialize(self, data):
        return orjson.loads(data)["input"]

    def serialize(self, data):
        return orjson.dumps({"output": data}, option=orjson.OPT_SERIALIZE_NUMPY)

    def forward(self, data):
        return list(self.model.predict(data))


class Echo(Worker):
    pass


class Sleep(Worker):
    pass


class Matrix(Worker):
    pass


class MiniLm(Worker):
    pass


def main():
    port, workers, max_batch_size, max_delay, *names = sys.argv[1:]
    # mosec reads the command line as well.
    sys.argv[1:] = []
    os.environ |= {"MOSEC_ADDRESS": "127.0.0.1", "MOSEC_PORT": port, "MOSEC_LOG_LEVEL": "warning"}
    # Milliseconds; by default requests that take longer than 3 s fail.
    os.environ["MOSEC_TIMEOUT"] = "60000"
    server = mosec.Server()
    for name in names:
        runtime = mosec.Runtime(
            globals()[name],
            num=int(workers),
            max_batch_size=int(max_batch_size),
            max_wait_time=round(float(max_delay) * 1000),
            timeout=60,
        )
        server.register_runtime({f"/{name}": [runtime]})
    server.run()


if __name__ == "__main__":
    main()
