"""What people write themselves: sentence-transformers behind a FastAPI handler.

    python fastapi_handler.py MODEL_FOLDER PORT

A plain ``def`` handler: FastAPI runs each request in a thread of its pool. Answers in TEI's form.
"""

import sys

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

app = FastAPI()
model = SentenceTransformer(sys.argv[1], device="cpu")


class Texts(BaseModel):
    inputs: list[str]


@app.post("/embed")
def embed(texts: Texts) -> list[list[float]]:
    return model.encode(texts.inputs, normalize_embeddings=True, show_progress_bar=False).tolist()


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
