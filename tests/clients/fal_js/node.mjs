// Performs what is asked on standard input, a line of JSON each, and says the answers on standard output.

import { createInterface } from "node:readline";

import { perform } from "./calls.mjs";

const say = (content) => process.stdout.write(`${JSON.stringify(content)}\n`);

// A streaming subscribe that times out throws where nobody can catch it.
process.on("uncaughtException", (error) => say({ uncaught: error.message }));

for await (const line of createInterface({ input: process.stdin })) {
  perform(JSON.parse(line), say);
}
process.exit(0);
