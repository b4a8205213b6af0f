import json
import sys

from langchain_openai import OpenAIEmbeddings

# Its own tokens are those of OpenAI's models; check_embedding_ctx_length=False makes it send texts, as to Ollama.
settings = {"base_url": sys.argv[1] + "/v1", "api_key": "none", "check_embedding_ctx_length": False}
texts = json.loads(sys.argv[2])
client = OpenAIEmbeddings(model="all-minilm", **settings)
one, many = client.embed_query(texts[0]), client.embed_documents(texts)
try:
    OpenAIEmbeddings(model="nope", **settings).embed_query("a")
except Exception as problem:
    error = str(problem)
print(json.dumps({"one": one, "many": many, "error": error}))
