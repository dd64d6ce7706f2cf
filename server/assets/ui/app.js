// Keeps a page up to date: applies the events of its stream, and renders it again when its models have changed.

import { Charts } from "./charts.js";
import { buildForm } from "./try.js";

const RETRY_MILLIS = 5000;
// A connection that is back before is not worth a message.
const OFFLINE_MILLIS = 4000;
const BACK_MILLIS = 20000;

let source = null;
let charts = null;
let refreshing = false;
// When the last event arrived, and the timer of the message about the connection.
let lastEvent = Date.now();
let offlineSince = null;
let bannerTimer = 0;

const main = () => document.getElementById("main");

function show(text, isLive) {
  const status = document.getElementById("connection");
  if (!status) return;
  status.hidden = false;
  status.classList.toggle("on", isLive);
  if (status.textContent !== text) status.textContent = text;
}

const clock = (millis) => new Date(millis).toLocaleTimeString([], { hourCycle: "h23" });

function banner(text, isFine) {
  const place = document.getElementById("offline");
  if (!place) return;
  place.hidden = !text;
  place.classList.toggle("back", isFine);
  place.textContent = text;
}

// Says since when the figures are old, unless the connection is back soon.
function disconnected() {
  if (offlineSince !== null) return;
  offlineSince = lastEvent;
  clearTimeout(bannerTimer);
  bannerTimer = setTimeout(() => {
    banner(`No connection to the server since ${clock(offlineSince)}. The figures are from then. Reconnecting …`, false);
    document.body.classList.add("offline");
  }, OFFLINE_MILLIS);
}

function connected() {
  show("live", true);
  if (offlineSince === null) return;
  clearTimeout(bannerTimer);
  if (document.body.classList.contains("offline")) {
    document.body.classList.remove("offline");
    banner(`Reconnected at ${clock(Date.now())}, after no connection since ${clock(offlineSince)}.`, true);
    bannerTimer = setTimeout(() => banner("", false), BACK_MILLIS);
  }
  offlineSince = null;
  // The seconds that were missed.
  charts?.load();
}

function apply(event) {
  lastEvent = Date.now();
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
  current.onopen = connected;
  current.onmessage = (message) => apply(JSON.parse(message.data));
  current.onerror = () => {
    show("reconnecting", false);
    disconnected();
    // The browser connects again by itself, unless the server has rejected the stream.
    if (current.readyState === EventSource.CLOSED) setTimeout(refresh, RETRY_MILLIS);
  };
}

// Loads the page again.
async function refresh() {
  if (refreshing) return;
  refreshing = true;
  source?.close();
  try {
    await replace(await fetch(location.href, { cache: "no-store" }));
  } catch {
    show("not reachable", false);
    disconnected();
    setTimeout(refresh, RETRY_MILLIS);
  } finally {
    refreshing = false;
  }
}

// Replaces the content of the page by that of a reply, except for the form, which may have unsent input. The reply can also say
// that the page no longer exists.
async function replace(response) {
  if (response.status === 401) return location.reload();
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const fresh = page.getElementById("main");
  if (response.status >= 500 || !fresh) throw new Error(`status ${response.status}`);
  const focused = document.activeElement;
  const form = document.getElementById("try");
  const place = fresh.querySelector("#try");
  if (form && place && form.dataset.task === place.dataset.task) place.replaceWith(form);
  main().replaceWith(fresh);
  document.title = page.title;
  const again = focused?.isConnected ? focused : focused?.id && document.getElementById(focused.id);
  if (again) again.focus({ preventScroll: true });
  start();
}

// Cancels or retries a job, and shows the list as it is afterwards.
async function changeJob(event) {
  event.preventDefault();
  const { form, name, value } = event.submitter;
  event.submitter.disabled = true;
  const say = (text, isError) => {
    const notice = document.getElementById("notice");
    notice.classList.toggle("bad", isError);
    notice.textContent = text;
    notice.focus({ preventScroll: true });
  };
  try {
    const response = await fetch(form.action, { method: "POST", body: new URLSearchParams({ [name]: value }) });
    const hasFailed = !response.ok;
    source?.close();
    await replace(response);
    const notice = document.getElementById("notice");
    if (hasFailed) notice?.focus({ preventScroll: true });
    else say(name === "cancel" ? `Cancelled job ${value}.` : `Job ${value} is queued again.`, false);
  } catch (error) {
    say(`The job was not changed: ${error.message}`, true);
    event.submitter.disabled = false;
    connect();
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
  const jobs = document.getElementById("change");
  if (jobs) jobs.onsubmit = changeJob;
  if (main().dataset.events) connect();
  else show("not available", false);
}

start();
