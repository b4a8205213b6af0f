import asyncio
import json
import sys

import openai


async def main():
    client = openai.AsyncOpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
    texts = json.loads(sys.argv[2])
    one = (await client.embeddings.create(model="all-minilm", input=texts[0])).data[0].embedding
    many = [item.embedding for item in (await client.embeddings.create(model="all-minilm", input=texts)).data]
    try:
        await client.embeddings.create(model="nope", input="a")
    except openai.NotFoundError as problem:
        error = problem.body["message"]
    print(json.dumps({"one": one, "many": many, "error": error}))


asyncio.run(main())
