// Performs what the server of this page hands out, and tells it the answers.

import { perform } from "/calls.mjs";

let saying = Promise.resolve(); // one after the other: they arrive in the order they were said
const say = (content) => {
  saying = saying.then(() => fetch("/said", { method: "POST", body: JSON.stringify(content) }));
};

for (;;) {
  const asked = await (await fetch("/asked")).json();
  if (asked) {
    perform(asked, say);
  }
}
