import json
import sys

from chromadb.utils.embedding_functions.ollama_embedding_function import OllamaEmbeddingFunction

texts = json.loads(sys.argv[2])
client = OllamaEmbeddingFunction(url=sys.argv[1], model_name="all-minilm")
one, many = client([texts[0]])[0], client(texts)
try:
    OllamaEmbeddingFunction(url=sys.argv[1], model_name="nope")(["a"])
except Exception as problem:
    error = str(problem)
print(json.dumps({"one": one.tolist(), "many": [vector.tolist() for vector in many], "error": error}))
