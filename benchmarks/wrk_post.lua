-- wrk: POST a body of 1 KB, and say at the end in JSON what came of it.
wrk.method = 'POST'
wrk.body = '{"prompt": "' .. string.rep('x', 1010) .. '"}'

function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('JSON {"requests": %d, "rate": %.1f, "p50_ms": %.2f, "p90_ms": %.2f, "p99_ms": %.2f, "errors": %d}\n',
    summary.requests, summary.requests / (summary.duration / 1e6), latency:percentile(50) / 1e3,
    latency:percentile(90) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
