// Keeps a page up to date: applies the events of its stream, and renders it again when its models have changed.

import { Charts } from "./charts.js";
import { buildForm } from "./try.js";

const RETRY_MILLIS = 5000;

let source = null;
let charts = null;
let refreshing = false;

const main = () => document.getElementById("main");

function show(text, isLive) {
  const status = document.getElementById("connection");
  if (!status) return;
  status.hidden = false;
  status.classList.toggle("on", isLive);
  if (status.textContent !== text) status.textContent = text;
}

function apply(event) {
  for (const [id, html] of Object.entries(event.c ?? {})) {
    const element = document.getElementById(id);
    // The server has escaped everything in it.
    if (element) element.innerHTML = html;
  }
  if (Object.keys(event.c ?? {}).some((id) => id.startsWith("q"))) sortRequests();
  if (event.p) charts?.push(event.p);
  if (event.stale) refresh();
}

// Rows keep their place in the stream, and are shown latest first.
function sortRequests() {
  const body = document.getElementById("requests");
  if (!body) return;
  const at = (row) => Number(row.firstElementChild?.dataset.at ?? 0);
  const sorted = [...body.children].sort((one, other) => at(other) - at(one));
  sorted.forEach((row, index) => {
    if (body.children[index] !== row) body.insertBefore(row, body.children[index]);
  });
}

function connect() {
  source?.close();
  source = null;
  const url = main()?.dataset.events;
  if (!url) return;
  const current = new EventSource(url);
  source = current;
  current.onopen = () => show("live", true);
  current.onmessage = (message) => apply(JSON.parse(message.data));
  current.onerror = () => {
    show("reconnecting", false);
    // The browser connects again by itself, unless the server has rejected the stream.
    if (current.readyState === EventSource.CLOSED) setTimeout(refresh, RETRY_MILLIS);
  };
}

// Loads the page again and replaces its content, except for the form, which may have unsent input.
async function refresh() {
  if (refreshing) return;
  refreshing = true;
  source?.close();
  try {
    const response = await fetch(location.href, { cache: "no-store" });
    if (response.status === 401) return location.reload();
    if (response.status === 403 || response.status === 404) {
      return location.assign(document.querySelector(".brand").href);
    }
    const page = new DOMParser().parseFromString(await response.text(), "text/html");
    const fresh = page.getElementById("main");
    if (!response.ok || !fresh) throw new Error(`status ${response.status}`);
    const focused = document.activeElement;
    const form = document.getElementById("try");
    const place = fresh.querySelector("#try");
    if (form && place && form.dataset.task === place.dataset.task) place.replaceWith(form);
    main().replaceWith(fresh);
    if (focused?.isConnected) focused.focus({ preventScroll: true });
    start();
  } catch {
    show("not reachable", false);
    setTimeout(refresh, RETRY_MILLIS);
  } finally {
    refreshing = false;
  }
}

async function reloadModel(button) {
  const result = document.getElementById("reload-result");
  const say = (text, isError) => {
    result.hidden = false;
    result.classList.toggle("bad", isError);
    result.textContent = text;
  };
  button.disabled = true;
  say("Reloading …", false);
  try {
    const response = await fetch(button.dataset.path, { method: "POST" });
    const reply = await response.json().catch(() => ({}));
    if (response.ok) say("Reloaded.", false);
    else say(`Reload failed: ${reply.error?.message ?? reply.error ?? `status ${response.status}`}`, true);
  } catch (error) {
    say(`Reload failed: ${error.message}`, true);
  } finally {
    button.disabled = false;
  }
}

function start() {
  charts?.destroy();
  charts = null;
  const place = document.getElementById("charts");
  if (place) {
    charts = new Charts(place);
    charts.load();
  }
  const form = document.getElementById("try");
  if (form && !form.firstChild) buildForm(form);
  const button = document.getElementById("reload");
  if (button) button.onclick = () => reloadModel(button);
  connect();
}

start();
