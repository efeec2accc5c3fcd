// fal's own JavaScript client in front of the queue that `make run` starts. QUEUE_URL is where it listens; FAL_KEY is one of
// its tokens, which the client finds by itself.

import { ApiError, createFalClient } from "@fal-ai/client";

const queue = process.env.QUEUE_URL ?? "http://127.0.0.1:5000";

// In a program of your own, this is all that changes.
const fal = createFalClient({ proxyUrl: { url: `${queue}/api/fal/proxy`, when: "always" } });

// The service "local.sentiment"; the target of `make run` serves any name.
const app = "local/sentiment";
const shown = ({ label, probability, text }) => `${label}, ${Math.round(100 * probability)}%: ${text}`;

// Submit, be told of each change, have the answer.
const { data, requestId } = await fal.subscribe(app, {
  input: { text: "A lovely, friendly hotel." },
  mode: "streaming", // or "polling"
  logs: true,
  onQueueUpdate: (update) => {
    console.log(update.status === "IN_QUEUE" ? `waiting, ${update.queue_position} before it` : update.status);
    update.logs?.forEach((line) => console.log("  it says:", line.message));
  },
});
console.log("subscribe:", shown(data));
console.log("its id:", requestId);

// The same in steps, for programs that keep the id and look again later.
const submitted = await fal.queue.submit(app, { input: { text: "The soup was cold." }, priority: "low" });
const where = { requestId: submitted.request_id };
const stream = await fal.queue.streamStatus(app, where);
await stream.done();
const result = await fal.queue.result(app, where);
console.log("submit:", shown(result.data));

// One call, one answer: for short work, because who hangs up gets nothing.
const direct = await fal.run(app, { input: { text: "I would come again." } });
console.log("run:", shown(direct.data));

// What the target refuses arrives with its own status and body.
try {
  await fal.run(app, { input: { text: "" } });
} catch (error) {
  if (!(error instanceof ApiError)) throw error;
  console.log("refused:", error.status, error.body.error);
}
