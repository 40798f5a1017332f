// Asks a running service with OpenAI's own client, and prints what it was told as JSON.
import OpenAI from "openai";

const { URL, MODEL, TEXTS } = process.env;
const client = new OpenAI({ apiKey: "any", baseURL: URL, maxRetries: 0 });
const input = JSON.parse(TEXTS);

const answer = await client.embeddings.create({ model: MODEL, input });
const plain = await client.embeddings.create({ model: MODEL, input, encoding_format: "float" });
const models = [];
for await (const model of client.models.list()) models.push(model.id);
const refused = await client.embeddings
  .create({ model: "gpt-9", input: "a" })
  .catch((error) => [error.status, error.code, error.param]);

console.log(
  JSON.stringify({
    vectors: answer.data.map((one) => one.embedding),
    floats: plain.data.map((one) => one.embedding),
    models,
    refused,
  }),
);
