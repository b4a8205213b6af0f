import json
import sys

import ollama

client = ollama.Client(host=sys.argv[1])
texts = json.loads(sys.argv[2])
one = client.embed(model="all-minilm", input=texts[0]).embeddings[0]
many = client.embed(model="all-minilm", input=texts).embeddings
try:
    client.embed(model="nope", input="a")
except ollama.ResponseError as problem:
    error = problem.error
print(json.dumps({"one": list(one), "many": [list(vector) for vector in many], "error": error}))
