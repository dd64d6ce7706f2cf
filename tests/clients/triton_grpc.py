"""tritonclient over gRPC: triton_grpc.py ADDRESS ADMIN_KEY"""

import queue
import sys

import grpc
import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

address, key = sys.argv[1:]
admin = {"authorization": f"Bearer {key}"}
numbers = np.arange(6, dtype=np.float32).reshape(2, 3)


def tensor(name, datatype, array):
    tensor = triton.InferInput(name, list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return tensor


def refused(call, status):
    try:
        call()
    except InferenceServerException as error:
        assert error.status() == f"StatusCode.{status}", error
        return error.message()
    raise AssertionError("it was not refused")


floats = tensor("numbers", "FP32", numbers)
words = tensor("TEXT", "BYTES", np.array([["to be"], ["größer"]], dtype=object))
asleep = tensor("JSON", "BYTES", np.array([['{"do": "sleep", "ms": 500}']], dtype=object))

client = triton.InferenceServerClient(address)
assert client.is_server_live() and client.is_server_ready()
assert client.is_model_ready("words.echo") and client.is_model_ready("words")
assert client.get_server_metadata().name == "inference-server"
assert list(client.get_model_metadata("m.tensor").inputs[0].shape) == [-1, -1]
config = client.get_model_config("words.echo").config
assert (config.input[0].data_type, list(config.input[0].dims)) == (13, [1]), config
assert {model.name for model in client.get_model_repository_index().models} == {"m", "words"}

for compression in (None, "gzip", "deflate"):
    reply = client.infer("m.tensor", [floats], request_id="7", compression_algorithm=compression)
    assert np.array_equal(reply.as_numpy("doubled"), 2 * numbers)
    assert (reply.get_response().id, reply.get_response().model_version) == ("7", "1")
reply = client.infer("words.echo", [words], outputs=[triton.InferRequestedOutput("TEXT")])
assert [text.decode() for text in reply.as_numpy("TEXT").ravel()] == ["to be", "größer"]
statistics = client.get_inference_statistics("m.tensor").model_stats[0]
batches = statistics.batch_stats
assert sum(batch.compute_infer.count for batch in batches) == statistics.execution_count, statistics
assert statistics.inference_count >= 6 and statistics.inference_stats.success.count >= 3, statistics
# Larger than gRPC's default limit of 4 MiB.
large = np.ones((2, 1 << 20), dtype=np.float32)
reply = client.infer("m.tensor", [tensor("numbers", "FP32", large)])
assert reply.as_numpy("doubled").sum() == 2 * large.size

assert refused(lambda: client.infer("nothing", [floats]), "NOT_FOUND").startswith("unknown model `nothing`")
assert refused(lambda: client.infer("m.tensor", [words]), "INVALID_ARGUMENT").startswith("unknown input `TEXT`")
refused(lambda: client.infer("m.text", [asleep], timeout=50_000), "DEADLINE_EXCEEDED")
refused(lambda: client.infer("m.text", [asleep], client_timeout=0.05), "DEADLINE_EXCEEDED")
too_large = np.ones((1, 20 << 20), dtype=np.float32)
refused(lambda: client.infer("m.tensor", [tensor("numbers", "FP32", too_large)]), "OUT_OF_RANGE")

answers = queue.Queue()
client.start_stream(callback=lambda result, error: answers.put((result, error)))
for number in range(5):
    client.async_stream_infer("m.tensor", [floats], request_id=str(number), enable_empty_final_response=True)
client.async_stream_infer("nothing", [floats])
for number in range(5):
    result, error = answers.get(timeout=20)
    assert error is None and result.get_response().id == str(number), (error, number)
    assert result.get_response().parameters["triton_final_response"].bool_param
    assert np.array_equal(result.as_numpy("doubled"), 2 * numbers)
_, error = answers.get(timeout=20)
assert "unknown model `nothing`" in str(error), error
client.stop_stream()

refused(lambda: client.unload_model("words"), "UNAUTHENTICATED")
refused(lambda: client.load_model("words", headers=admin, config="{}"), "INVALID_ARGUMENT")
refused(lambda: client.load_model("words", headers=admin, config="{}", files={"file:1/a": b"a"}), "INVALID_ARGUMENT")
client.unload_model("words", headers=admin)
assert not client.is_model_ready("words")
client.load_model("words", headers=admin)
assert client.is_model_ready("words")

# Health and reflection, as used by common tools. The messages are small enough to be encoded by hand.
# In a function, because the package grpc sometimes deadlocks if a call is still open when Python exits.
def health_and_reflection():
    with grpc.insecure_channel(address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check")
        assert check(b"") == b"\x08\x01", "the server does not say that it serves"
        assert check(b"\x0a\x01m") == b"\x08\x01", "the model does not"
        watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"\x0a\x01m")
        assert next(iter(watch)) == b"\x08\x01"
        watch.cancel()
        for version in ["v1", "v1alpha"]:
            method = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
            services = list(channel.stream_stream(method)(iter([b"\x3a\x00"])))
            assert len(services) == 1 and b"inference.GRPCInferenceService" in services[0], version


health_and_reflection()
client.close()
