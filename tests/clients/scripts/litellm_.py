import json
import sys

import litellm

texts = json.loads(sys.argv[2])


def embed(model, texts):
    answer = litellm.embedding(model=f"ollama/{model}", input=texts, api_base=sys.argv[1])
    return [item["embedding"] for item in answer.data]


one, many = embed("all-minilm", [texts[0]])[0], embed("all-minilm", texts)
try:
    embed("nope", ["a"])
except Exception as problem:
    error = str(problem)
print(json.dumps({"one": one, "many": many, "error": error}))
