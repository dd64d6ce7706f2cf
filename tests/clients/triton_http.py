"""tritonclient over HTTP, with blocking calls and with asyncio: triton_http.py ADDRESS ADMIN_KEY"""

import asyncio
import sys

import numpy as np
import tritonclient.http as triton
import tritonclient.http.aio as aio
from tritonclient.utils import InferenceServerException

address, key = sys.argv[1:]
admin = {"Authorization": f"Bearer {key}"}
words = np.array([["to be"], ["größer"]], dtype=object)
numbers = np.arange(6, dtype=np.float32).reshape(2, 3)


def texts(binary):
    tensor = triton.InferInput("TEXT", [2, 1], "BYTES")
    tensor.set_data_from_numpy(words, binary_data=binary)
    return tensor


def floats(binary=True):
    tensor = triton.InferInput("numbers", [2, 3], "FP32")
    tensor.set_data_from_numpy(numbers, binary_data=binary)
    return tensor


def refused(call, status):
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == str(status), error
        return error.message()
    raise AssertionError("it was not refused")


client = triton.InferenceServerClient(address, concurrency=4)
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready("words.echo") and client.is_model_ready("words.echo", "1")
assert not client.is_model_ready("nothing")
assert "binary_tensor_data" in client.get_server_metadata()["extensions"]
assert client.get_model_metadata("words.echo")["inputs"] == [
    {"name": "TEXT", "datatype": "BYTES", "shape": [-1, 1]}
]
assert client.get_model_config("m.tensor")["input"][0]["data_type"] == "TYPE_FP32"
assert {model["name"] for model in client.get_model_repository_index()} == {"m", "words"}

for binary_in in (True, False):
    for binary_out in (True, False):
        wanted = [triton.InferRequestedOutput("TEXT", binary_data=binary_out)]
        reply = client.infer("words.echo", [texts(binary_in)], outputs=wanted, request_id="7")
        got = [element.decode() if isinstance(element, bytes) else element for element in reply.as_numpy("TEXT").ravel()]
        assert got == ["to be", "größer"], got
        assert reply.get_response()["id"] == "7"
        wanted = [triton.InferRequestedOutput("doubled", binary_data=binary_out)]
        reply = client.infer("m.tensor", [floats(binary_in)], outputs=wanted)
        assert np.array_equal(reply.as_numpy("doubled"), 2 * numbers)
for algorithm in ("gzip", "deflate"):
    reply = client.infer(
        "m.tensor", [floats()], request_compression_algorithm=algorithm, response_compression_algorithm=algorithm
    )
    assert np.array_equal(reply.as_numpy("doubled"), 2 * numbers)
pending = [client.async_infer("m.tensor", [floats()]) for _ in range(8)]
assert all(np.array_equal(one.get_result().as_numpy("doubled"), 2 * numbers) for one in pending)
assert client.get_inference_statistics("m.tensor")["model_stats"][0]["inference_stats"]["success"]["count"] >= 14
assert len(client.get_inference_statistics()["model_stats"]) >= 6

message = refused(lambda: client.infer("nothing", [floats()]), 404)
assert message.startswith("unknown model `nothing`"), message
message = refused(lambda: client.infer("m.tensor", [texts(True)]), 400)
assert message.startswith("unknown input `TEXT`"), message
asleep = triton.InferInput("JSON", [1, 1], "BYTES")
asleep.set_data_from_numpy(np.array([['{"do": "sleep", "ms": 500}']], dtype=object))
refused(lambda: client.infer("m.text", [asleep], timeout=50_000), 504)

refused(lambda: client.unload_model("words"), 401)
refused(lambda: client.load_model("words", headers=admin, config="{}"), 400)
refused(lambda: client.load_model("words", headers=admin, config="{}", files={"file:1/a": b"a"}), 400)
client.unload_model("words", headers=admin)
assert not client.is_model_ready("words")
client.load_model("words", headers=admin)
assert client.is_model_ready("words")


async def without_blocking():
    async with aio.InferenceServerClient(address) as client:
        assert await client.is_server_live() and await client.is_server_ready()
        assert await client.is_model_ready("words.echo")
        assert (await client.get_model_metadata("m.tensor"))["outputs"][0]["name"] == "doubled"
        assert (await client.get_model_config("m.tensor"))["max_batch_size"] > 0
        replies = await asyncio.gather(*(client.infer("m.tensor", [floats(n % 2 == 0)]) for n in range(8)))
        assert all(np.array_equal(reply.as_numpy("doubled"), 2 * numbers) for reply in replies)
        try:
            await client.infer("nothing", [floats()])
            raise AssertionError("it was not refused")
        except InferenceServerException as error:
            assert "unknown model `nothing`" in error.message()


asyncio.run(without_blocking())
