"""Cohere's client, both versions: cohere_sdk.py ADDRESS"""

import sys

import cohere

url = f"http://{sys.argv[1]}"
texts = ["to be", "or not to be"]
vectors = [[5.0, 2.0, 0.5], [12.0, 4.0, 0.5]]
documents = ["The lake is deep.", "Mont Blanc is high."]
query = "How tall is Mont Blanc?"

v1 = cohere.Client("none is needed", base_url=url)
reply = v1.embed(texts=texts, model="org/letters", input_type="search_document")
assert reply.embeddings == vectors, reply
reply = v1.embed(texts=texts, model="org/letters", input_type="search_document", embedding_types=["float"])
assert reply.embeddings.float_ == vectors, reply
ranked = v1.rerank(model="cross", query=query, documents=documents, top_n=1, return_documents=True)
assert len(ranked.results) == 1 and ranked.results[0].document.text in documents, ranked

v2 = cohere.ClientV2("none is needed", base_url=url)
reply = v2.embed(
    texts=texts, model="org/letters", input_type="search_query", embedding_types=["float", "base64"], truncate="END"
)
assert reply.embeddings.float_ == vectors, reply
assert len(reply.embeddings.base64) == 2 and reply.meta.billed_units.input_tokens == 6, reply
ranked = v2.rerank(model="cross", query=query, documents=documents)
assert sorted(result.index for result in ranked.results) == [0, 1], ranked

for call in (
    lambda: v2.embed(texts=texts, model="org/letters", input_type="search_query", embedding_types=["int8"]),
    lambda: v2.embed(texts=texts, model="nothing", input_type="search_query", embedding_types=["float"]),
):
    try:
        call()
    except (cohere.UnprocessableEntityError, cohere.NotFoundError) as error:
        assert error.body["message"], error
    else:
        raise AssertionError("it was not refused")
