// Prints fal's client as one module for a page. It is published as CommonJS only, which no browser loads: here each of
// its files stands in a function, unchanged, and asks for others by the names that Node has found for them.

import { readFileSync } from "node:fs";
import { createRequire } from "node:module";

const files = new Map();

function add(file) {
  if (files.has(file)) {
    return;
  }
  const text = readFileSync(file, "utf8");
  const names = {};
  files.set(file, { text: file.endsWith(".json") ? `module.exports = ${text}` : text, names });
  for (const [, name] of text.matchAll(/\brequire\("([^"]+)"\)/g)) {
    names[name] = createRequire(file).resolve(name);
    add(names[name]);
  }
}

const main = createRequire(import.meta.url).resolve("@fal-ai/client");
add(main);

const entries = [...files].map(
  ([file, { text, names }]) =>
    `${JSON.stringify(file)}: [${JSON.stringify(names)}, function (module, exports, require) {\n${text}\n}]`,
);
console.log(`const files = {\n${entries.join(",\n")}\n};
const loaded = {};
function load(file) {
  if (!(file in loaded)) {
    const [names, body] = files[file];
    const module = (loaded[file] = { exports: {} });
    body.call(module.exports, module, module.exports, (name) => load(names[name]));
  }
  return loaded[file].exports;
}
export const { createFalClient } = load(${JSON.stringify(main)});`);
