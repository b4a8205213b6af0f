import json
import sys

from haystack import Document
from haystack_integrations.components.embedders.ollama import OllamaDocumentEmbedder, OllamaTextEmbedder

texts = json.loads(sys.argv[2])
one = OllamaTextEmbedder(model="all-minilm", url=sys.argv[1]).run(text=texts[0])["embedding"]
documents = OllamaDocumentEmbedder(model="all-minilm", url=sys.argv[1], progress_bar=False).run(
    documents=[Document(content=text) for text in texts]
)["documents"]
try:
    OllamaTextEmbedder(model="nope", url=sys.argv[1]).run(text="a")
except Exception as problem:
    error = str(problem)
many = [list(document.embedding) for document in documents]
print(json.dumps({"one": list(one), "many": many, "error": error}))
