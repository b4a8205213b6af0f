import json
import sys

from llama_index.embeddings.ollama import OllamaEmbedding

texts = json.loads(sys.argv[2])
client = OllamaEmbedding(model_name="all-minilm", base_url=sys.argv[1])
one, many = client.get_query_embedding(texts[0]), client.get_text_embedding_batch(texts)
try:
    OllamaEmbedding(model_name="nope", base_url=sys.argv[1]).get_query_embedding("a")
except Exception as problem:
    error = str(problem)
print(json.dumps({"one": list(one), "many": [list(vector) for vector in many], "error": error}))
