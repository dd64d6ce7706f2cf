// Sends the same request one or many times, and sums up the replies.

async function sendOne(url, body) {
  const started = performance.now();
  try {
    const response = await fetch(url, {
      method: "POST",
      headers: { "content-type": "application/json", accept: "application/json" },
      body,
    });
    const text = await response.text();
    const millis = performance.now() - started;
    try {
      return { response, millis, reply: JSON.parse(text) };
    } catch {
      return { response, millis, reply: text };
    }
  } catch (error) {
    return { error, millis: performance.now() - started };
  }
}

// All replies, in the order of the requests, which are sent at the same time.
export function sendAll(url, body, count) {
  return Promise.all(Array.from({ length: count }, () => sendOne(url, body)));
}

const duration = (millis) => `${millis.toFixed(millis < 10 ? 1 : 0)} ms`;

// What happened, whether any request failed, and the reply to show: the first that failed, or else the first.
export function summary(replies) {
  const failed = replies.filter(({ response }) => !response?.ok);
  const shown = failed.find(({ response }) => response) ?? replies.find(({ response }) => response);
  const hasFailed = failed.length > 0;
  if (replies.length === 1) {
    const [{ response, error, millis }] = replies;
    const text = response ? `Status ${response.status} after ${duration(millis)}` : `No answer: ${error.message}`;
    return { text, hasFailed, shown };
  }
  const times = replies.map(({ millis }) => millis).sort((one, other) => one - other);
  const median = times[Math.floor((times.length - 1) / 2)];
  const statuses = new Map();
  for (const { response } of failed) {
    const name = response ? `status ${response.status}` : "no answer";
    statuses.set(name, (statuses.get(name) ?? 0) + 1);
  }
  const failures = [...statuses].map(([name, count]) => `${count} with ${name}`).join(", ");
  const result = hasFailed ? `${failed.length} of ${replies.length} requests failed (${failures})` : `${replies.length} requests answered`;
  return { text: `${result}; median ${duration(median)}, slowest ${duration(times.at(-1))}`, hasFailed, shown };
}
