"""Clients that never retry, on connections that they keep: keep_asking.py ADDRESS GRPC_ADDRESS PATH VALUE

Prints "asking" when each has had a reply, asks until standard input ends, and prints the number of replies and the failures
of each as JSON."""

import http.client
import json
import sys
import threading
import time

import httpx
import numpy as np
import requests
import tritonclient.grpc as triton

address, grpc_address, path, value = sys.argv[1:]
item = json.dumps({"value": value})
body = f'{{"inputs": [{item}]}}'
host, port = address.split(":")
url = f"http://{address}{path}"
headers = {"content-type": "application/json"}
stop = threading.Event()


def http_client():
    connection = http.client.HTTPConnection(host, int(port), timeout=60)

    def ask():
        connection.request("POST", path, body, headers)
        reply = connection.getresponse()
        reply.read()
        return reply.status

    return ask


def with_httpx():
    client = httpx.Client(timeout=60)
    return lambda: client.post(url, content=body, headers=headers).status_code


def with_requests():
    session = requests.Session()
    return lambda: session.post(url, data=body, headers=headers, timeout=60).status_code


def with_grpc():
    tensor = triton.InferInput("JSON", [1, 1], "BYTES")
    tensor.set_data_from_numpy(np.array([[item.encode()]], dtype=object))
    # Without a separate pool, all clients of the process would share one connection.
    options = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]
    client = triton.InferenceServerClient(grpc_address, channel_args=options)
    return lambda: client.infer("m.text", [tensor]) and 200


class Asker(threading.Thread):
    def __init__(self, name, client, pause):
        super().__init__()
        self.label = f"{name}, pause {pause} s"
        self.ask = client()
        self.pause = pause
        self.replies = 0
        self.failures = []
        self.first = threading.Event()

    def run(self):
        while not stop.is_set():
            try:
                status = self.ask()
                if status == 200:
                    self.replies += 1
                else:
                    self.failures.append(f"status {status}")
            except Exception as error:
                self.failures.append(repr(error))
            self.first.set()
            time.sleep(self.pause)


# An idle connection is closed at the end of the delay, so the interval between requests is shorter.
clients = {"http.client": http_client, "httpx": with_httpx, "requests": with_requests, "grpc": with_grpc}
askers = [Asker(name, client, pause) for name, client in clients.items() for pause in (0.002, 0.05, 0.7)]
for asker in askers:
    asker.start()
for asker in askers:
    asker.first.wait()
print("asking", flush=True)
sys.stdin.read()
stop.set()
for asker in askers:
    asker.join()
print(json.dumps({asker.label: {"replies": asker.replies, "failures": asker.failures} for asker in askers}))
