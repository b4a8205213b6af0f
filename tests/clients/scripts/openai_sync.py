import json
import sys

import openai

client = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
texts = json.loads(sys.argv[2])
one = client.embeddings.create(model="all-minilm", input=texts[0]).data[0].embedding
many = [item.embedding for item in client.embeddings.create(model="all-minilm", input=texts).data]
assert client.models.retrieve("all-minilm").id == "all-minilm"
assert [model.id for model in client.models.list()] == ["all-minilm:latest"]
try:
    client.embeddings.create(model="nope", input="a")
except openai.NotFoundError as problem:
    error = problem.body["message"]
print(json.dumps({"one": one, "many": many, "error": error}))
