"""LangChain's clients of OpenAI, Hugging Face and Cohere, with their default settings: langchain.py ADDRESS"""

import os
import pathlib
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

# The vocabulary that tiktoken would download is part of another client.
os.environ["TIKTOKEN_CACHE_DIR"] = str(pathlib.Path(litellm.__file__).parent / "litellm_core_utils/tokenizers")

from langchain_cohere import CohereEmbeddings, CohereRerank
from langchain_huggingface import HuggingFaceEndpointEmbeddings
from langchain_openai import OpenAIEmbeddings

url = f"http://{sys.argv[1]}"
texts = ["to be", "größer 🙂", "or not to be"]
vectors = [[5.0, 2.0, 0.5], [8.0, 2.0, 0.5], [12.0, 4.0, 0.5]]


def assert_close(got, expected):
    assert len(got) == len(expected), (got, expected)
    for one, other in zip(got, expected):
        assert all(abs(left - right) < 1e-5 for left, right in zip(one, other, strict=True)), (got, expected)


# It sends token ids of cl100k_base.
openai = OpenAIEmbeddings(model="org/letters", base_url=f"{url}/v1", api_key="none is needed")
assert_close(openai.embed_documents(texts), vectors)
assert_close([openai.embed_query("to be")], vectors[:1])
texts_only = OpenAIEmbeddings(
    model="org/letters", base_url=f"{url}/v1", api_key="none is needed", check_embedding_ctx_length=False
)
assert_close(texts_only.embed_documents(texts), vectors)

normalized = [[element / sum(x * x for x in vector) ** 0.5 for element in vector] for vector in vectors]
for endpoint in (url, f"{url}/org/letters", f"{url}/org/letters/embed"):
    huggingface = HuggingFaceEndpointEmbeddings(model=endpoint)
    assert_close(huggingface.embed_documents(texts), normalized)
    assert_close([huggingface.embed_query("to be")], normalized[:1])
raw = HuggingFaceEndpointEmbeddings(model=url, model_kwargs={"normalize": False, "truncate": True})
assert_close(raw.embed_documents(texts), vectors)

cohere = CohereEmbeddings(model="org/letters", base_url=url, cohere_api_key="none is needed")
assert_close(cohere.embed_documents(texts), vectors)
assert_close([cohere.embed_query("to be")], vectors[:1])
rerank = CohereRerank(model="cross", base_url=url, cohere_api_key="none is needed", top_n=2)
ranked = rerank.rerank(["The lake is deep.", "Mont Blanc is high.", "a"], "How tall is Mont Blanc?")
assert len(ranked) == 2 and ranked[0]["relevance_score"] >= ranked[1]["relevance_score"], ranked
