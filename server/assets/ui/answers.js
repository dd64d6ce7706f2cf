// Shows answers in a fitting form: labels with bars, vectors as a matrix of similarities, images, boxes on an image, text, or
// JSON.

import { element, shape } from "./element.js";

const MAX_TEXT = 20000;
const MAX_LABELS = 20;
const STAGES = ["prepare", "queue", "inference", "encode"];

export function renderAnswers(place, task, items, reply, response) {
  const parts = [];
  const timing = stages(response.headers.get("server-timing"));
  if (timing) parts.push(timing);
  const outputs = reply?.outputs ?? (reply && "output" in Object(reply) ? [reply.output] : null);
  if (!Array.isArray(outputs)) {
    parts.push(failure(reply?.error, response.status, reply));
  } else {
    const vectors = outputs.map((output) => vectorOf(output));
    const isEmbedding = vectors.every((vector) => vector) && (task.embedding || vectors[0].length >= 8);
    if (isEmbedding && vectors.length > 1) parts.push(similarities(vectors, items));
    outputs.forEach((output, index) => parts.push(answer(output, items[index], index, outputs.length, isEmbedding ? vectors[index] : null)));
  }
  place.replaceChildren(...parts);
}

function answer(output, item, index, count, vector) {
  const source = item?.describe?.() ?? "";
  const picture = item?.picture?.();
  const head = element("div", { className: "source" }, count > 1 ? `Input ${index + 1}${picture ? "" : `: ${source.slice(0, 200)}`}` : picture ? "" : source.slice(0, 200));
  const box = element("div", { className: "answer" }, head);
  const boxes = Array.isArray(output?.detections) ? output.detections : null;
  if (picture) box.append(pictureWith(picture, boxes));
  if (output?.error && typeof output.error === "object") box.append(failure(output.error));
  else if (vector) box.append(vectorText(vector));
  else box.append(...shown(output));
  return box;
}

function shown(output) {
  if (typeof output === "string") return [element("pre", { className: "wrap" }, output)];
  if (typeof output?.b64 === "string") return [file(output)];
  const labels = labelsOf(output);
  if (labels) {
    const others = Object.fromEntries(Object.entries(Object(output)).filter(([, value]) => value === null || typeof value !== "object"));
    const hasOthers = !Array.isArray(output) && Object.keys(others).some((name) => name !== "label" && name !== "score" && typeof output[name] !== "number");
    return hasOthers ? [bars(labels), json(others)] : [bars(labels)];
  }
  return [json(output)];
}

function json(value) {
  const text = JSON.stringify(value, null, 2) ?? String(value);
  return element("pre", {}, text.length > MAX_TEXT ? `${text.slice(0, MAX_TEXT)}\n…` : text);
}

function failure(error, status, reply) {
  const message = typeof error === "string" ? error : error?.message;
  const code = error?.code ?? (status ? `status ${status}` : "");
  const text = message ?? (typeof reply === "string" ? reply.slice(0, 2000) : JSON.stringify(reply));
  return element("p", { className: "bad", role: "alert" }, element("strong", {}, code), code ? ": " : "", text);
}

function file({ b64, media_type: type = "application/octet-stream" }) {
  const url = `data:${type};base64,${b64}`;
  if (type.startsWith("image/")) return element("img", { src: url, alt: "The answer as an image" });
  return element("a", { href: url, download: "answer" }, `Download ${Math.floor((b64.length * 3) / 4)} bytes, ${type}`);
}

function pictureWith(url, boxes) {
  const image = element("img", { src: url, alt: "The input" });
  const place = element("div", { className: "picture" }, image);
  if (boxes?.length) {
    image.onload = () => {
      const view = `0 0 ${image.naturalWidth} ${image.naturalHeight}`;
      const rects = boxes.filter((found) => Array.isArray(found.box)).map(({ box: [left, top, right, bottom], label }) => {
        const title = shape("title");
        title.textContent = label;
        return shape("rect", { x: left, y: top, width: right - left, height: bottom - top }, title);
      });
      place.append(shape("svg", { viewBox: view, preserveAspectRatio: "none", "aria-hidden": "true" }, ...rects));
    };
  }
  return place;
}

// Labels with scores: a list of objects with both, at the top or one level below, or an object of shares by name.
function labelsOf(output) {
  const isList = (value) => Array.isArray(value) && value.length > 0 && value.every((entry) => entry && typeof entry.label === "string" && typeof entry.score === "number");
  if (isList(output)) return output;
  if (output && typeof output === "object") {
    const nested = Object.values(output).find(isList);
    if (nested) return nested;
    if (typeof output.label === "string" && typeof output.score === "number") return [output];
    const entries = Object.entries(output);
    const isShare = ([, value]) => typeof value === "number" && value >= 0 && value <= 1;
    const total = entries.reduce((sum, [, value]) => sum + (typeof value === "number" ? value : 0), 0);
    if (entries.length > 1 && entries.every(isShare) && Math.abs(total - 1) < 0.02) {
      return entries.map(([label, score]) => ({ label, score })).sort((one, other) => other.score - one.score);
    }
  }
  return null;
}

function bars(labels) {
  const list = element("dl", { className: "bars" });
  const most = Math.max(1, ...labels.map(({ score }) => Math.abs(score)));
  for (const { label, score } of labels.slice(0, MAX_LABELS)) {
    const bar = element("span", {});
    bar.style.width = `${(Math.max(score, 0) / most) * 100}%`;
    const text = most > 1 ? score.toPrecision(3) : `${(score * 100).toFixed(score < 0.1 ? 2 : 1)}%`;
    list.append(element("dt", { title: label }, label), element("dd", {}, element("div", { className: "track" }, bar)), element("dd", { className: "number" }, text));
  }
  return list;
}

// The vector that an output consists of: the output itself, or its only tensor.
function vectorOf(output) {
  const isVector = (value) => Array.isArray(value) && value.length > 1 && value.every((element) => typeof element === "number");
  if (isVector(output)) return output;
  if (output && typeof output === "object" && !Array.isArray(output)) {
    const values = Object.values(output);
    if (values.length === 1 && isVector(values[0])) return values[0];
  }
  return null;
}

function vectorText(vector) {
  const first = vector.slice(0, 8).map((value) => value.toPrecision(3)).join(", ");
  return element("pre", { className: "wrap" }, `${vector.length} numbers: ${first}${vector.length > 8 ? ", …" : ""}`);
}

function cosine(one, other) {
  let [dot, first, second] = [0, 0, 0];
  one.forEach((value, index) => {
    dot += value * (other[index] ?? 0);
    first += value * value;
    second += (other[index] ?? 0) ** 2;
  });
  return dot / Math.sqrt(first * second || 1);
}

function similarities(vectors, items) {
  const name = (index) => `${index + 1}`;
  const head = element("tr", {}, element("td", {}), ...vectors.map((_, index) => element("th", { scope: "col" }, name(index))));
  const rows = vectors.map((one, row) => {
    const description = items[row]?.picture?.() ? "" : items[row]?.describe?.() ?? "";
    const cells = vectors.map((other) => {
      const value = cosine(one, other);
      const cell = element("td", {}, value.toFixed(2));
      const share = Math.round(Math.max(0, Math.min(1, value)) * 45);
      cell.style.background = `color-mix(in srgb, var(--accent) ${share}%, transparent)`;
      return cell;
    });
    return element("tr", {}, element("th", { scope: "row", title: description }, `${name(row)}  ${description.slice(0, 60)}`), ...cells);
  });
  const caption = element("caption", { className: "muted" }, "Cosine similarity between the inputs");
  caption.style.textAlign = "left";
  return element("table", { className: "matrix" }, caption, element("thead", {}, head), element("tbody", {}, ...rows));
}

// The header `server-timing` as a bar.
function stages(header) {
  const times = Object.fromEntries([...(header ?? "").matchAll(/(\w+);dur=([\d.]+)/g)].map(([, name, time]) => [name, Number(time)]));
  const total = STAGES.reduce((sum, name) => sum + (times[name] ?? 0), 0);
  if (!total) return null;
  let start = 0;
  const rects = STAGES.map((name, index) => {
    const width = ((times[name] ?? 0) / total) * 100;
    const rect = shape("rect", { class: `s${index}`, x: start, width, height: 10 });
    start += width;
    return rect;
  });
  const text = STAGES.filter((name) => times[name]).map((name) => `${name} ${times[name]} ms`).join(" · ");
  return element("div", { className: "timing" }, shape("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, ...rects), element("small", { className: "muted" }, text));
}
