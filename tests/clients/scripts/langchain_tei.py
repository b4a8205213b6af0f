import json
import sys

from langchain_huggingface import HuggingFaceEndpointEmbeddings

texts = json.loads(sys.argv[2])
client = HuggingFaceEndpointEmbeddings(model=sys.argv[1])
one, many = client.embed_query(texts[0]), client.embed_documents(texts)
try:
    client.embed_query("too long for the context " * 200)
except Exception as problem:
    error = f"{problem} {problem.response.text}"
print(json.dumps({"one": list(one), "many": [list(vector) for vector in many], "error": error}))
