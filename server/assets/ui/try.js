// The form that tries out a task: built from its description, with an editor for each input, and answers in a fitting form.

import { snippet } from "./snippets.js";
import { problems } from "./schema.js";
import { renderAnswers } from "./answers.js";
import { sendAll, summary } from "./requests.js";
import { element } from "./element.js";

const KIND_NAMES = { text: "text", json: "JSON", bytes: "a file", tensors: "tensors" };
const MAX_ITEMS = 64;
const MAX_REQUESTS = 100;

export function buildForm(place) {
  new Form(place, JSON.parse(place.dataset.task));
}

class Form {
  constructor(place, task) {
    this.task = task;
    this.url = new URL(place.dataset.base + place.dataset.path, location.href);
    this.items = [];
    this.kind = this.preferredKind();
    this.list = element("div", { className: "row-list" });
    this.list.style.display = "grid";
    this.list.style.gap = "10px";
    this.parameters = this.buildParameters();
    this.send = element("button", { className: "primary", type: "submit" }, "Send");
    this.count = element("input", { id: "try-count", type: "number", min: 1, max: MAX_REQUESTS, step: 1, value: "1" });
    this.status = element("span", { className: "muted", role: "status" });
    this.results = element("div", { className: "panel", id: "answers" }, element("p", { className: "muted" }, "Answers appear here."));
    this.results.tabIndex = -1;
    const add = element("button", { type: "button", onclick: () => this.addItem(this.example(this.items.length)) }, "Add an input");
    const form = element(
      "form",
      { className: "panel", noValidate: true },
      this.kindChoice(),
      this.list,
      element("div", { className: "row" }, add, this.exampleChoice()),
      this.parameters?.fieldset,
      element(
        "div",
        { className: "row" },
        this.send,
        this.count,
        element("label", { htmlFor: "try-count", className: "plain" }, "requests at the same time"),
        this.status,
      ),
      this.codeSection(),
    );
    form.onsubmit = (event) => {
      event.preventDefault();
      this.submit();
    };
    form.onkeydown = (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) this.submit();
    };
    form.addEventListener("input", () => this.showCode());
    place.replaceChildren(form, this.results);
    this.addItem(this.example(0));
  }

  preferredKind() {
    const kinds = this.task.input.kinds;
    const example = this.task.examples[0];
    return example === undefined ? kinds[0] : this.kindOf(example);
  }

  // The kind of an example, as the server reads it.
  kindOf(value) {
    const kinds = this.task.input.kinds;
    const has = (kind) => kinds.includes(kind);
    if (typeof value === "string") return ["text", "json", "bytes", "tensors"].find(has) ?? kinds[0];
    if (value && typeof value === "object" && "b64" in value && has("bytes")) return "bytes";
    if (Array.isArray(value)) return ["tensors", "json"].find(has) ?? kinds[0];
    return ["json", "tensors", "bytes"].find(has) ?? kinds[0];
  }

  examplesOf(kind) {
    return this.task.examples.filter((example) => this.kindOf(example) === kind);
  }

  example(index) {
    const examples = this.examplesOf(this.kind);
    return examples.length ? examples[index % examples.length] : undefined;
  }

  kindChoice() {
    const kinds = this.task.input.kinds;
    if (kinds.length < 2) return null;
    const select = element("select", { id: "try-kind" }, ...kinds.map((kind) => element("option", { value: kind }, KIND_NAMES[kind])));
    select.value = this.kind;
    select.onchange = () => {
      this.kind = select.value;
      this.items = [];
      this.list.replaceChildren();
      this.addItem(this.example(0));
    };
    return element("div", { className: "row" }, element("label", { htmlFor: "try-kind" }, "Input as"), select);
  }

  exampleChoice() {
    if (this.task.examples.length < 2) return null;
    const all = () => {
      this.items = [];
      this.list.replaceChildren();
      this.examplesOf(this.kind).forEach((example) => this.addItem(example));
    };
    return element("button", { type: "button", className: "quiet", onclick: all }, "Use all examples");
  }

  addItem(value) {
    if (this.items.length >= MAX_ITEMS) return;
    const editor = EDITORS[this.kind](this, value);
    const title = element("label", {}, "");
    if (editor.input?.id) title.htmlFor = editor.input.id;
    const remove = element("button", { type: "button", className: "quiet" }, "Remove");
    const card = element("div", { className: "item" }, element("header", {}, title, remove), editor.root);
    const item = { ...editor, card, title, remove };
    remove.onclick = () => {
      this.items = this.items.filter((other) => other !== item);
      card.remove();
      this.number();
    };
    this.items.push(item);
    this.list.append(card);
    this.number();
  }

  number() {
    this.items.forEach((item, index) => {
      item.title.textContent = this.items.length > 1 ? `Input ${index + 1}` : "Input";
      item.remove.setAttribute("aria-label", `Remove input ${index + 1}`);
      item.remove.hidden = this.items.length < 2;
    });
    this.showCode();
  }

  // A field for each parameter of the schema, or an editor if it is not a plain object.
  buildParameters() {
    const schema = this.task.parameters;
    if (!schema || typeof schema !== "object") return null;
    const legend = element("legend", {}, "Parameters");
    const properties = Object.entries(schema.properties ?? {});
    if (!properties.length) {
      const editor = jsonEditor(schema, undefined, "try-parameters");
      return { fieldset: element("fieldset", {}, legend, editor.root), read: () => editor.read(true) };
    }
    const fields = properties.map(([name, property]) => parameterField(name, property, schema));
    const read = () => {
      const values = {};
      for (const field of fields) {
        const value = field.read();
        if (value !== undefined) values[field.name] = value;
      }
      return Object.keys(values).length ? values : undefined;
    };
    return { fieldset: element("fieldset", {}, legend, ...fields.map((field) => field.root)), read };
  }

  // The body of the request. Throws if an input is invalid, after marking it.
  body() {
    const inputs = this.items.map((item) => item.read());
    const body = { inputs };
    const parameters = this.parameters?.read();
    if (parameters !== undefined) body.parameters = parameters;
    return body;
  }

  async submit() {
    if (this.send.disabled) return;
    let body, count;
    try {
      body = this.body();
      count = this.requestCount();
    } catch (error) {
      this.status.textContent = error.message;
      this.status.className = "bad";
      return;
    }
    this.send.disabled = true;
    this.status.className = "muted";
    this.status.textContent = "Sending …";
    const replies = await sendAll(this.url, JSON.stringify(body), count);
    const { text, hasFailed, shown } = summary(replies);
    this.status.textContent = text;
    this.status.className = hasFailed ? "bad" : "muted";
    if (shown) renderAnswers(this.results, this.task, this.items, shown.reply, shown.response);
    this.send.disabled = false;
  }

  requestCount() {
    const count = Number(this.count.value);
    const isValid = Number.isInteger(count) && count >= 1 && count <= MAX_REQUESTS;
    this.count.setAttribute("aria-invalid", String(!isValid));
    if (!isValid) throw new Error(`number of requests: expected an integer from 1 to ${MAX_REQUESTS}`);
    return count;
  }

  codeSection() {
    this.language = "curl";
    this.code = element("pre", { tabIndex: 0, id: "try-code" });
    const select = element(
      "select",
      { id: "try-language" },
      ...["curl", "Python", "Rust"].map((name) => element("option", { value: name }, name)),
    );
    select.onchange = () => {
      this.language = select.value;
      this.showCode();
    };
    const copied = element("span", { className: "muted", role: "status" });
    const copy = element("button", { type: "button" }, "Copy");
    copy.onclick = async () => {
      copied.textContent = (await copyText(this.code)) ? "Copied." : "Selected: press Ctrl+C.";
    };
    this.details = element(
      "details",
      {},
      element("summary", {}, "Call this from a program"),
      element("div", { className: "row" }, element("label", { htmlFor: "try-language" }, "As"), select, copy, copied),
      this.code,
    );
    this.details.ontoggle = () => this.showCode();
    return this.details;
  }

  showCode() {
    if (!this.details?.open) return;
    try {
      const files = this.items.map((item) => item.file?.());
      this.code.textContent = snippet(this.language, this.url.href, this.body(), files, !!document.querySelector(".user"));
    } catch (error) {
      this.code.textContent = `The input is not valid: ${error.message}`;
    }
  }
}

// Copies to the clipboard, or selects the text where that is not allowed.
async function copyText(code) {
  try {
    await navigator.clipboard.writeText(code.textContent);
    return true;
  } catch {
    const selection = getSelection();
    selection.selectAllChildren(code);
    return false;
  }
}

let ids = 0;
const newId = () => `try-input-${(ids += 1)}`;

// An editor per kind of input: its element, what it reads, and a short description of its value.
const EDITORS = {
  text: (_, value) => {
    const input = element("textarea", { id: newId(), rows: 3, spellcheck: false, value: value ?? "" });
    return { root: input, input, read: () => input.value, describe: () => input.value };
  },
  json: (form, value) => jsonEditor(form.task.input.schema, value, newId()),
  tensors: (form, value) => {
    const editor = jsonEditor(null, value ?? zeros(form.task.input.tensors), newId());
    return editor;
  },
  bytes: (form, value) => fileEditor(form, value),
};

function jsonEditor(schema, value, id) {
  const text = value === undefined ? "" : format(value);
  const rows = Math.min(Math.max(text.split("\n").length, 3), 14);
  const input = element("textarea", { id, className: "code", rows, spellcheck: false, value: text });
  const message = element("span", { className: "invalid", id: `${id}-problem`, role: "alert" });
  input.setAttribute("aria-describedby", message.id);
  const check = (mayBeEmpty) => {
    let parsed;
    let found = "";
    if (mayBeEmpty && !input.value.trim()) return undefined;
    try {
      parsed = JSON.parse(input.value);
      found = schema ? problems(parsed, schema)[0] ?? "" : "";
    } catch (error) {
      found = `invalid JSON: ${error.message}`;
    }
    message.textContent = found;
    input.setAttribute("aria-invalid", String(!!found));
    if (found) throw new Error(found);
    return parsed;
  };
  input.addEventListener("input", () => {
    try {
      check(false);
    } catch {
      // The message is shown.
    }
  });
  return { root: element("div", {}, input, message), input, read: check, describe: () => input.value };
}

// JSON with the elements of short arrays on one line.
function format(value) {
  const text = JSON.stringify(value, null, 2);
  const short = text.replace(/\[\s+([^[\]{}]*?)\s+\]/g, (whole, inner) => {
    const line = `[${inner.replace(/\s*\n\s*/g, " ")}]`;
    return line.length <= 100 ? line : whole;
  });
  return short;
}

// A value for each declared tensor.
function zeros(tensors) {
  const build = (shape, dtype) => {
    if (!shape.length) return dtype === "BYTES" ? "" : dtype === "BOOL" ? false : 0;
    const [size, ...rest] = shape;
    return Array.from({ length: size < 0 ? 1 : Math.min(size, 256) }, () => build(rest, dtype));
  };
  const entries = (tensors ?? []).map((tensor) => [tensor.sequence ? `${tensor.name}.0` : tensor.name, build(tensor.shape, tensor.dtype)]);
  return Object.fromEntries(entries);
}

function fileEditor(form, value) {
  const types = form.task.input.media_types;
  const state = { b64: "", type: "", name: "" };
  const preview = element("div", {});
  const input = element("input", { type: "file", id: newId(), multiple: true });
  if (types.length) input.accept = types.join(",");
  const hint = element("span", { className: "muted" }, `Drop ${types.every((type) => type.startsWith("image/")) && types.length ? "images" : "files"} here, or choose them`);
  const message = element("span", { className: "invalid", role: "alert" });
  const root = element("div", { className: "drop" }, preview, hint, input, message);
  const show = () => {
    const url = `data:${state.type};base64,${state.b64}`;
    const size = Math.floor((state.b64.length * 3) / 4);
    preview.replaceChildren(
      state.type.startsWith("image/")
        ? element("img", { src: url, alt: `The chosen image ${state.name}` })
        : element("span", {}, `${state.name || "example"}, ${size} bytes, ${state.type || "unknown type"}`),
    );
    message.textContent = "";
    form.showCode();
  };
  const set = (b64, type, name) => {
    Object.assign(state, { b64, type, name });
    show();
  };
  const load = async (files) => {
    const [first, ...others] = files;
    if (!first) return;
    set(await readBase64(first), first.type || types[0] || "application/octet-stream", first.name);
    for (const other of others) {
      form.addItem();
      form.items.at(-1).set(await readBase64(other), other.type || types[0] || "", other.name);
    }
  };
  input.onchange = () => load([...input.files]);
  root.ondragover = (event) => {
    event.preventDefault();
    root.classList.add("over");
  };
  root.ondragleave = () => root.classList.remove("over");
  root.ondrop = (event) => {
    event.preventDefault();
    root.classList.remove("over");
    load([...event.dataTransfer.files]);
  };
  const example = readExample(value);
  if (example) set(example.b64, example.type || types[0] || "", "");
  return {
    root,
    input,
    set,
    read: () => {
      if (!state.b64) {
        message.textContent = "choose a file";
        throw new Error("choose a file");
      }
      return state.type ? { b64: state.b64, media_type: state.type } : { b64: state.b64 };
    },
    describe: () => state.name || "example",
    picture: () => (state.type.startsWith("image/") ? `data:${state.type};base64,${state.b64}` : null),
    file: () => ({ name: state.name || `example.${state.type.split("/")[1] ?? "bin"}`, type: state.type }),
  };
}

function readExample(value) {
  if (typeof value === "string") {
    const found = /^data:([^;,]*);base64,(.*)$/.exec(value);
    return found && { type: found[1], b64: found[2] };
  }
  return value?.b64 ? { type: value.media_type ?? "", b64: value.b64 } : null;
}

function readBase64(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

// A field for a parameter: a box, a choice, a number, or a text; JSON for everything else. Empty fields are not sent.
function parameterField(name, property, schema) {
  const id = `try-parameter-${name}`;
  const types = [property.type].flat().filter((type) => type && type !== "null");
  const type = types.length === 1 ? types[0] : undefined;
  const isRequired = (schema.required ?? []).includes(name);
  const hint = element("small", {}, property.description ?? "");
  const label = element("label", { htmlFor: id }, `${name}${isRequired ? " (required)" : ""}`);
  const placeholder = property.default === undefined || property.default === null ? "" : `default ${JSON.stringify(property.default)}`;
  const wrap = (input) => element("div", { className: "field" }, label, input, hint);
  if (property.enum && property.enum.every((value) => typeof value !== "object")) {
    const options = property.enum.map((value) => element("option", { value: JSON.stringify(value) }, String(value)));
    const input = element("select", { id }, element("option", { value: "" }, placeholder || "not set"), ...options);
    return { name, root: wrap(input), read: () => (input.value ? JSON.parse(input.value) : undefined) };
  }
  if (type === "boolean") {
    const input = element("select", { id }, ...[["", placeholder || "not set"], ["true", "true"], ["false", "false"]].map(([value, text]) => element("option", { value }, text)));
    return { name, root: wrap(input), read: () => (input.value ? input.value === "true" : undefined) };
  }
  if (type === "number" || type === "integer") {
    const input = element("input", { id, type: "number", step: type === "integer" ? "1" : "any", placeholder });
    if (property.minimum !== undefined) input.min = property.minimum;
    if (property.maximum !== undefined) input.max = property.maximum;
    return { name, root: wrap(input), read: () => checked(name, input, property, () => (input.value === "" ? undefined : Number(input.value))) };
  }
  if (type === "string") {
    const input = element("input", { id, type: "text", placeholder });
    return { name, root: wrap(input), read: () => checked(name, input, property, () => (input.value === "" ? undefined : input.value)) };
  }
  const editor = jsonEditor(property.$ref ? { ...property, $defs: schema.$defs, definitions: schema.definitions } : property, undefined, id);
  editor.input.placeholder = placeholder || "JSON";
  editor.input.rows = 2;
  return { name, root: element("div", { className: "field" }, label, editor.root, hint), read: () => editor.read(true) };
}

function checked(name, input, property, read) {
  const value = read();
  const found = value === undefined ? undefined : problems(value, property)[0];
  input.setAttribute("aria-invalid", String(!!found));
  if (found) throw new Error(`parameter ${name}: ${found}`);
  return value;
}
