import asyncio
import json
import sys

import ollama


async def main():
    client = ollama.AsyncClient(host=sys.argv[1])
    texts = json.loads(sys.argv[2])
    one = (await client.embed(model="all-minilm", input=texts[0])).embeddings[0]
    many = (await client.embed(model="all-minilm", input=texts)).embeddings
    try:
        await client.embed(model="nope", input="a")
    except ollama.ResponseError as problem:
        error = problem.error
    print(json.dumps({"one": list(one), "many": [list(vector) for vector in many], "error": error}))


asyncio.run(main())
