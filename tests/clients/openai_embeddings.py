"""OpenAI's client: openai_embeddings.py ADDRESS"""

import sys

import openai

client = openai.OpenAI(base_url=f"http://{sys.argv[1]}/v1", api_key="none is needed", max_retries=0)
assert {model.id for model in client.models.list()} == {"m", "words"}
assert client.models.retrieve("m").id == "m"

# The client requests base64 by default.
for encoding in ({}, {"encoding_format": "float"}, {"encoding_format": "base64"}):
    reply = client.embeddings.create(model="m", input=["to be", "größer"], user="me", **encoding)
    vectors = [item.embedding for item in reply.data]
    if encoding.get("encoding_format") == "base64":
        assert all(isinstance(vector, str) for vector in vectors), vectors
    else:
        assert vectors == [[5.0, 2.0, 0.5], [6.0, 1.0, 0.5]], vectors
    assert [item.index for item in reply.data] == [0, 1]
    assert (reply.model, reply.usage.prompt_tokens, reply.usage.total_tokens) == ("m", 3, 3), reply
# Token ids of cl100k_base.
assert client.embeddings.create(model="m", input=[9906, 1917]).data[0].embedding == [11.0, 2.0, 0.5]
assert client.embeddings.create(model="m.embed", input="one").data[0].embedding == [3.0, 1.0, 0.5]

azure = openai.AzureOpenAI(
    azure_endpoint=f"http://{sys.argv[1]}", api_key="none is needed", api_version="2024-10-21", max_retries=0
)
assert azure.embeddings.create(model="m.embed", input="one").data[0].embedding == [3.0, 1.0, 0.5]


def refused(kind, param, **request):
    try:
        client.embeddings.create(**request)
    except kind as error:
        assert error.param == param, error
        return
    raise AssertionError("it was not refused")


refused(openai.BadRequestError, "input", model="m", input=[100256])
refused(openai.BadRequestError, "input", model="m", input=[])
refused(openai.BadRequestError, "dimensions", model="m", input="a", dimensions=2)
refused(openai.BadRequestError, "model", model="words", input="a")
refused(openai.NotFoundError, "model", model="nothing", input="a")
