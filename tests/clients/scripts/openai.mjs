import OpenAI from 'openai'

const client = new OpenAI({ baseURL: process.argv[2] + '/v1', apiKey: 'none', maxRetries: 0 })
const texts = JSON.parse(process.argv[3])
const one = (await client.embeddings.create({ model: 'all-minilm', input: texts[0] })).data[0].embedding
const many = (await client.embeddings.create({ model: 'all-minilm', input: texts })).data.map((item) => item.embedding)
let error = ''
try {
  await client.embeddings.create({ model: 'nope', input: 'a' })
} catch (problem) {
  error = problem.message
}
console.log(JSON.stringify({ one, many, error }))
