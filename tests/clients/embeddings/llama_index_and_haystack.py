"""LlamaIndex's clients of OpenAI and text-embeddings-inference, and Haystack's: llama_index_and_haystack.py ADDRESS"""

import os
import sys

os.environ["HAYSTACK_TELEMETRY_ENABLED"] = "False"
os.environ["OPENAI_API_KEY"] = "none is needed"

from haystack import Document
from haystack.components.embedders import OpenAIDocumentEmbedder, OpenAITextEmbedder
from llama_index.embeddings.openai import OpenAIEmbedding
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

url = f"http://{sys.argv[1]}"
vectors = [[5.0, 2.0, 0.5], [3.0, 1.0, 0.5]]


def assert_close(got, expected):
    for one, other in zip(got, expected, strict=True):
        assert all(abs(left - right) < 1e-5 for left, right in zip(one, other, strict=True)), (got, expected)


openai = OpenAIEmbedding(model_name="org/letters", api_base=f"{url}/v1", api_key="none is needed")
assert_close(openai.get_text_embedding_batch(["to be", "one"]), vectors)
assert_close([openai.get_query_embedding("to be")], vectors[:1])

normalized = [[element / sum(x * x for x in vector) ** 0.5 for element in vector] for vector in vectors]
for base in (url, f"{url}/org/letters"):
    tei = TextEmbeddingsInference(model_name="org/letters", base_url=base)
    assert_close(tei.get_text_embedding_batch(["to be", "one"]), normalized)
    assert_close([tei.get_query_embedding("to be")], normalized[:1])

text = OpenAITextEmbedder(model="org/letters", api_base_url=f"{url}/v1")
assert_close([text.run(text="to be")["embedding"]], vectors[:1])
documents = OpenAIDocumentEmbedder(model="org/letters", api_base_url=f"{url}/v1", progress_bar=False)
embedded = documents.run(documents=[Document(content="to be"), Document(content="one")])["documents"]
assert_close([document.embedding for document in embedded], vectors)
