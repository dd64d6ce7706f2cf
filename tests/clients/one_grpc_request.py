"""Sends one order to `m.text` over gRPC, with a priority, and prints the report, or the status and the message of a failure:
one_grpc_request.py ADDRESS VALUE"""

import json
import sys

import numpy as np
import tritonclient.grpc as triton

order = triton.InferInput("JSON", [1, 1], "BYTES")
order.set_data_from_numpy(np.array([[f'{{"value": "{sys.argv[2]}"}}']], dtype=object))
try:
    reply = triton.InferenceServerClient(sys.argv[1]).infer(
        "m.text", [order], priority=2, headers={"x-request-timeout": "10m", "x-request-id": sys.argv[2]}
    )
except triton.InferenceServerException as failure:
    print(json.dumps({"status": failure.status(), "message": failure.message()}))
else:
    print(reply.as_numpy("JSON").ravel()[0].decode())
