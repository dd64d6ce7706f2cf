"""KServe's gRPC client: kserve_grpc.py ADDRESS"""

import asyncio
import sys

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest

numbers = np.arange(6, dtype=np.float32).reshape(2, 3)


def request(model, *tensors):
    return InferRequest(model_name=model, infer_inputs=list(tensors), request_id="k")


async def main():
    client = InferenceGRPCClient(sys.argv[1])
    assert await client.is_server_live() and await client.is_server_ready()
    assert await client.is_model_ready("words.echo")
    words = InferInput("TEXT", [2, 1], "BYTES", data=["to be", "größer"])
    reply = await client.infer(request("words.echo", words))
    assert reply.id == "k" and [text.decode() for text in reply.outputs[0].data] == ["to be", "größer"], reply
    # Raw contents, and typed ones.
    for binary in (True, False):
        floats = InferInput("numbers", [2, 3], "FP32")
        floats.set_data_from_numpy(numbers, binary_data=binary)
        reply = await client.infer(request("m.tensor", floats))
        assert np.array_equal(reply.outputs[0].as_numpy(), 2 * numbers), reply
    try:
        await client.infer(request("nothing", words))
        raise AssertionError("it was not refused")
    except grpc.RpcError as error:
        assert error.code() == grpc.StatusCode.NOT_FOUND, error


asyncio.run(main())
