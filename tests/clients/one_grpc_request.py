"""Sends one command to `m.text` over gRPC with a priority: one_grpc_request.py ADDRESS VALUE

Prints "ready" once it is connected, and sends when it has read a line. Then prints the report, or the status and message of
the error."""

import json
import sys

import numpy as np
import tritonclient.grpc as triton

command = triton.InferInput("JSON", [1, 1], "BYTES")
command.set_data_from_numpy(np.array([[f'{{"value": "{sys.argv[2]}"}}']], dtype=object))
client = triton.InferenceServerClient(sys.argv[1])
assert client.is_server_live()
print("ready", flush=True)
sys.stdin.readline()
try:
    reply = client.infer(
        "m.text", [command], priority=2, headers={"x-request-timeout": "10m", "x-request-id": sys.argv[2]}
    )
except triton.InferenceServerException as error:
    print(json.dumps({"status": error.status(), "message": error.message()}))
else:
    print(reply.as_numpy("JSON").ravel()[0].decode())
