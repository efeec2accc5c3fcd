// Prints, as JSON, whether each of DELIVERIES is signed by a key of JWKS, checked as fal's guide to webhooks says.

import { createHash, createPublicKey, verify } from "node:crypto";

const keys = JSON.parse(process.env.JWKS).keys.map((jwk) => createPublicKey({ key: jwk, format: "jwk" }));

function isSigned({ headers, body }) {
  const [requestId, userId, timestamp, signature] = ["request-id", "user-id", "timestamp", "signature"].map(
    (name) => headers[`x-fal-webhook-${name}`],
  );
  const digest = createHash("sha256").update(body, "utf8").digest("hex");
  const message = Buffer.from([requestId, userId, timestamp, digest].join("\n"), "utf8");
  const isFresh = Math.abs(Date.now() / 1000 - Number(timestamp)) <= 300;
  return Boolean(userId) && isFresh && keys.some((key) => verify(null, message, key, Buffer.from(signature, "hex")));
}

console.log(JSON.stringify(JSON.parse(process.env.DELIVERIES).map(isSigned)));
