import { Ollama } from 'ollama'

const client = new Ollama({ host: process.argv[2] })
const texts = JSON.parse(process.argv[3])
const one = (await client.embed({ model: 'all-minilm', input: texts[0] })).embeddings[0]
const many = (await client.embed({ model: 'all-minilm', input: texts })).embeddings
let error = ''
try {
  await client.embed({ model: 'nope', input: 'a' })
} catch (problem) {
  error = problem.message
}
console.log(JSON.stringify({ one, many, error }))
