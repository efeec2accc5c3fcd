// fal's own JavaScript client in front of the queue that `make run` starts. FAL_KEY is a token of the queue; QUEUE_URL is
// where it listens.

import { ApiError, createFalClient } from "@fal-ai/client";

const url = process.env.QUEUE_URL ?? "http://127.0.0.1:5000";

// The client knows fal's hosts only. This sends everything here instead: in your own program, this is all that changes.
const fal = createFalClient({
  requestMiddleware: async (request) => ({
    ...request,
    url: request.url.replace("https://queue.fal.run", `${url}/fal`).replace("https://fal.run", `${url}/fal-run`),
  }),
});

// "local/sentiment" is the service local.sentiment; the target of `make run` serves any name.
const app = "local/sentiment";

// Submit, be told of each change, have the answer.
const { data, requestId } = await fal.subscribe(app, {
  input: { text: "A lovely, friendly hotel." },
  mode: "streaming",
  logs: true,
  onQueueUpdate: (update) => {
    console.log("subscribe:", update.status, update.queue_position ?? "");
    update.logs?.forEach((line) => console.log("  log:", line.message));
  },
});
console.log("answer:", data.label, data.probability, requestId);

// The same in steps, for programs that keep the id and look again later.
const submitted = await fal.queue.submit(app, { input: { text: "The soup was cold." }, priority: "low" });
const stream = await fal.queue.streamStatus(app, { requestId: submitted.request_id });
for await (const update of stream) {
  console.log("stream:", update.status);
}
const result = await fal.queue.result(app, { requestId: submitted.request_id });
console.log("answer:", result.data.label, result.data.probability);

// Without waiting in sight of anybody: one call, one answer.
const direct = await fal.run(app, { input: { text: "I would come again." } });
console.log("run:", direct.data.label, direct.data.probability);

// What the target refuses arrives as its own status and body.
try {
  await fal.run(app, { input: { text: "" } });
} catch (error) {
  if (!(error instanceof ApiError)) throw error;
  console.log("refused:", error.status, error.message);
}
