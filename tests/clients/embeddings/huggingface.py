"""InferenceClient of huggingface_hub: huggingface.py ADDRESS"""

import sys

import numpy
from huggingface_hub import InferenceClient

url = f"http://{sys.argv[1]}"
vectors = numpy.array([[5.0, 2.0, 0.5], [3.0, 1.0, 0.5]])
normalized = vectors / numpy.linalg.norm(vectors, axis=1, keepdims=True)

for endpoint in (url, f"{url}/org/letters"):
    client = InferenceClient(model=endpoint)
    assert numpy.allclose(client.feature_extraction(["to be", "one"]), normalized, atol=1e-5)
    assert numpy.allclose(client.feature_extraction("one", normalize=False), vectors[1:], atol=1e-5)
    long = client.feature_extraction(
        "a bb ccc dddd eeeee", normalize=False, truncate=True, truncation_direction="left"
    )
    assert numpy.allclose(long, [[17.0, 4.0, 0.5]], atol=1e-5), long
    similarity = client.sentence_similarity("to be", ["to be", "one"])
    assert numpy.allclose(similarity, [1.0, normalized[0] @ normalized[1]], atol=1e-5), similarity
    prompted = client.feature_extraction("to be", normalize=False, prompt_name="find")
    assert numpy.allclose(prompted, [[10.0, 3.0, 0.5]], atol=1e-5), prompted

try:
    InferenceClient(model=url).feature_extraction("one", dimensions=2)
except Exception as error:
    assert "always have 3 dimensions" in str(error) or getattr(error, "response", None).status_code == 400, error
else:
    raise AssertionError("it was not refused")
