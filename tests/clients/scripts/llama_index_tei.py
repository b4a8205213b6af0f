import json
import sys

from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

texts = json.loads(sys.argv[2])
settings = {"model_name": "all-minilm", "query_instruction": "", "text_instruction": ""}
client = TextEmbeddingsInference(base_url=sys.argv[1], **settings)
one, many = client.get_query_embedding(texts[0]), client.get_text_embedding_batch(texts)
try:
    refusing = TextEmbeddingsInference(base_url=sys.argv[1], truncate_text=False, **settings)
    error = str(refusing.get_query_embedding("too long for the context " * 200))
except Exception as problem:
    error = f"{type(problem).__name__}: {problem}"
print(json.dumps({"one": one, "many": many, "error": error}))
