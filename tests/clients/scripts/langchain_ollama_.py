import json
import sys

from langchain_ollama import OllamaEmbeddings

texts = json.loads(sys.argv[2])
client = OllamaEmbeddings(model="all-minilm", base_url=sys.argv[1])
one, many = client.embed_query(texts[0]), client.embed_documents(texts)
try:
    OllamaEmbeddings(model="nope", base_url=sys.argv[1]).embed_query("a")
except Exception as problem:
    error = str(problem)
print(json.dumps({"one": one, "many": many, "error": error}))
