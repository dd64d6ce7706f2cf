"""LiteLLM, in the protocols of OpenAI, Cohere, Jina, vLLM and text-embeddings-inference: litellm_client.py ADDRESS"""

import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

url = f"http://{sys.argv[1]}"
vectors = [[5.0, 2.0, 0.5], [3.0, 1.0, 0.5]]
common = {"api_key": "none is needed", "num_retries": 0}


def embed(model, api_base, **more):
    reply = litellm.embedding(model=model, input=["to be", "one"], api_base=api_base, **common, **more)
    return [element["embedding"] for element in reply.data]


assert embed("openai/org/letters", f"{url}/v1") == vectors
assert embed("hosted_vllm/org/letters", f"{url}/v1") == vectors
assert embed("jina_ai/org/letters", f"{url}/v1") == vectors
assert embed("cohere/org/letters", f"{url}/v2/embed") == vectors

documents = ["The lake is deep.", "Mont Blanc is high."]
expected = None
for model, api_base in (
    ("cohere/cross", url),
    ("jina_ai/cross", url),
    ("hosted_vllm/cross", url),
    ("huggingface/cross", url),
):
    reply = litellm.rerank(
        model=model, query="How tall is Mont Blanc?", documents=documents, top_n=2, api_base=api_base, **common
    )
    order = [result["index"] for result in reply.results]
    expected = expected or order
    assert order == expected and sorted(order) == [0, 1], (model, reply)
