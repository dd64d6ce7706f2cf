"""Opens streams, one of which has received a reply, reports that, and waits until they are closed: open_streams.py ADDRESS"""

import sys

import grpc
import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2

channel = grpc.insecure_channel(sys.argv[1])
watch = channel.unary_stream("/grpc.health.v1.Health/Watch")(b"")
assert next(watch) == b"\x08\x01"
request = service_pb2.ModelInferRequest(model_name="m.tensor")
tensor = request.inputs.add(name="numbers", datatype="FP32", shape=[1, 1])
tensor.contents.fp32_contents.append(2.5)


def one_and_no_end():
    yield request
    for _ in watch:
        pass


stream = channel.stream_stream(
    "/inference.GRPCInferenceService/ModelStreamInfer",
    request_serializer=service_pb2.ModelInferRequest.SerializeToString,
    response_deserializer=service_pb2.ModelStreamInferResponse.FromString,
)(one_and_no_end())
assert next(stream).infer_response.outputs[0].contents.fp32_contents == [5.0]
print("open", flush=True)
for _ in stream:
    raise AssertionError("one request, two answers")
