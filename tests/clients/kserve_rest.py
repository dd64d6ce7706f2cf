"""KServe's REST client, in both versions of its protocol: kserve_rest.py ADDRESS"""

import asyncio
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

base = f"http://{sys.argv[1]}"
numbers = np.arange(6, dtype=np.float32).reshape(2, 3)


def request(model, *tensors):
    return InferRequest(model_name=model, infer_inputs=list(tensors), request_id="k")


async def version_2():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(base) and await client.is_server_ready(base)
    assert await client.is_model_ready(base, "words.echo")
    words = InferInput("TEXT", [2, 1], "BYTES", data=["to be", "größer"])
    reply = await client.infer(base, request("words.echo", words), model_name="words.echo")
    assert (reply.id, reply.outputs[0].data) == ("k", ["to be", "größer"]), reply
    for binary in (True, False):
        floats = InferInput("numbers", [2, 3], "FP32")
        floats.set_data_from_numpy(numbers, binary_data=binary)
        reply = await client.infer(base, request("m.tensor", floats), model_name="m.tensor")
        assert np.array_equal(reply.outputs[0].as_numpy(), 2 * numbers), reply
    try:
        await client.infer(base, request("nothing", words), model_name="nothing")
        raise AssertionError("it was not refused")
    except httpx.HTTPStatusError as error:
        assert error.response.status_code == 404 and "unknown model `nothing`" in str(error), error


async def version_1():
    client = InferenceRESTClient(RESTConfig(protocol="v1"))
    assert await client.is_server_live(base)
    assert await client.is_model_ready(base, "words") and await client.is_model_ready(base, "words.echo")
    reply = await client.infer(base, {"instances": numbers.tolist()}, model_name="m.tensor")
    assert np.array_equal(reply["predictions"], 2 * numbers), reply
    reply = await client.infer(base, {"inputs": numbers.tolist()}, model_name="m.tensor")
    assert np.array_equal(reply["outputs"], 2 * numbers), reply
    reply = await client.infer(base, {"instances": [{"text": "to be"}]}, model_name="words")
    assert reply["predictions"][0]["words"] == 2, reply


asyncio.run(version_2())
asyncio.run(version_1())
