// Calls of fal's client, asked for and answered as plain objects, in Node and in a page alike.
//
//   {id, client: {mode, base, credentials}, call: "submit", app: "owner/alias", options: {..}}   or   {id, abort: true}
//
// The answer is {id, result} or {id, error}; before it, {id, told} for whatever the client tells meanwhile.

import { createFalClient } from "@fal-ai/client";

// The client knows fal's own hosts only; these are the ways to send it elsewhere.
const MODES = {
  middleware: (base) => ({
    requestMiddleware: async (request) => ({ ...request, url: moved(request.url, base) }),
  }),
  fetch: (base) => ({ fetch: (url, init) => fetch(moved(String(url), base), init) }),
  proxy: (base) => ({ proxyUrl: { url: `${base}/api/fal/proxy`, when: "always" } }),
};

const CALLS = {
  submit: (fal, app, options) => fal.queue.submit(app, options),
  status: (fal, app, options) => fal.queue.status(app, options),
  result: (fal, app, options) => fal.queue.result(app, options),
  cancel: (fal, app, options) => fal.queue.cancel(app, options),
  run: (fal, app, options) => fal.run(app, options),
  subscribe: (fal, app, options, tell) =>
    fal.subscribe(app, {
      ...options,
      onEnqueue: (requestId) => tell({ enqueued: requestId }),
      onQueueUpdate: (update) => tell({ update }),
    }),
  streamStatus: async (fal, app, options, tell) => followed(await fal.queue.streamStatus(app, options), tell),
  stream: async (fal, app, options, tell) => followed(await fal.stream(app, options), tell),
  upload: (fal) => fal.storage.upload(new Blob(["text"])),
};

async function followed(stream, tell) {
  const done = stream.done();
  done.catch(() => {}); // it may be rejected before it is awaited below
  for await (const update of stream) {
    tell({ update });
  }
  return { done: await done, requestId: stream.requestId };
}

const clients = new Map();
const running = new Map();

export async function perform({ id, client, call, app, options, abort }, say) {
  if (abort) {
    running.get(id)?.abort();
    return;
  }
  const controller = new AbortController();
  running.set(id, controller);
  const tell = (told) => say({ id, told });
  try {
    const result = await CALLS[call](clientOf(client), app, { ...options, abortSignal: controller.signal }, tell);
    say({ id, result: shown(result) });
  } catch (error) {
    say({ id, error: described(error) });
  } finally {
    running.delete(id);
  }
}

function clientOf({ mode, base, credentials }) {
  const key = JSON.stringify({ mode, base, credentials });
  if (!clients.has(key)) {
    // Without *credentials* the client looks for FAL_KEY itself; null stands for none at all.
    const given = credentials === undefined ? {} : { credentials };
    clients.set(key, createFalClient({ ...MODES[mode](base), ...given, suppressLocalCredentialsWarning: true }));
  }
  return clients.get(key);
}

function moved(url, base) {
  return url.replace(/^https:\/\/queue\.fal\.run(?=\/)/, `${base}/fal`).replace(/^https:\/\/fal\.run(?=\/)/, `${base}/fal-run`);
}

function shown(result) {
  if (result?.data instanceof ArrayBuffer) {
    return { ...result, data: { base64: btoa(String.fromCharCode(...new Uint8Array(result.data))) } };
  }
  return result ?? null;
}

function described(error) {
  const { name, message, status, body, requestId, timeoutType, isUserTimeout, fieldErrors } = error;
  return { name, message, status, body, requestId, timeoutType, isUserTimeout, fieldErrors };
}
