// A call as a program: curl, Python or Rust.

// `files` has the file of each input that is one, so that programs read it instead of containing it.
export function snippet(language, url, body, files, needsKey) {
  switch (language) {
    case "curl": return curl(url, body, files, needsKey);
    case "Python": return python(url, body, files, needsKey);
    default: return rust(url, body, files, needsKey);
  }
}

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl(url, body, files, needsKey) {
  const lines = [`curl -sS ${quote(url)}`];
  if (needsKey) lines.push(`  -H "authorization: Bearer $INFERENCE_KEY"`);
  if (files.length === 1 && files[0] && !body.parameters) {
    lines.push(`  -H ${quote(`content-type: ${files[0].type}`)}`, `  --data-binary @${quote(files[0].name)}`);
    return lines.join(" \\\n");
  }
  lines.push("  -H 'content-type: application/json'");
  if (!files.some(Boolean)) {
    lines.push(`  -d ${quote(JSON.stringify(body))}`);
    return lines.join(" \\\n");
  }
  const inputs = body.inputs.map((input, index) => {
    const file = files[index];
    return file ? `{"b64": "'"$(base64 -w0 < ${quote(file.name)})"'", "media_type": "${file.type}"}` : JSON.stringify(input).replaceAll("'", "'\\''");
  });
  const parameters = body.parameters ? `, "parameters": ${JSON.stringify(body.parameters).replaceAll("'", "'\\''")}` : "";
  lines.push(`  -d '{"inputs": [${inputs.join(", ")}]${parameters}}'`);
  return lines.join(" \\\n");
}

// JSON is Python, except for three words.
function pythonValue(value, indent) {
  if (value === null) return "None";
  if (value === true) return "True";
  if (value === false) return "False";
  if (typeof value !== "object") return JSON.stringify(value);
  const inner = `${indent}    `;
  if (Array.isArray(value)) {
    if (value.every((element) => typeof element !== "object" || element === null)) {
      const line = `[${value.map((element) => pythonValue(element, inner)).join(", ")}]`;
      if (line.length < 90) return line;
    }
    return `[\n${value.map((element) => `${inner}${pythonValue(element, inner)},\n`).join("")}${indent}]`;
  }
  const members = Object.entries(value).map(([name, element]) => `${inner}${JSON.stringify(name)}: ${pythonValue(element, inner)},\n`);
  return members.length ? `{\n${members.join("")}${indent}}` : "{}";
}

function python(url, body, files, needsKey) {
  const hasFiles = files.some(Boolean);
  const lines = [];
  if (hasFiles) lines.push("import base64");
  if (needsKey) lines.push("import os");
  if (lines.length) lines.push("");
  lines.push("import requests", "");
  if (hasFiles) {
    lines.push("", "def file(name, media_type):", "    with open(name, \"rb\") as data:");
    lines.push("        return {\"b64\": base64.b64encode(data.read()).decode(), \"media_type\": media_type}", "", "");
  }
  const inputs = body.inputs.map((input, index) => {
    const found = files[index];
    return found ? `            file(${JSON.stringify(found.name)}, ${JSON.stringify(found.type)}),\n` : `            ${pythonValue(input, "            ")},\n`;
  });
  lines.push("reply = requests.post(", `    ${JSON.stringify(url)},`);
  if (needsKey) lines.push("    headers={\"authorization\": f\"Bearer {os.environ['INFERENCE_KEY']}\"},");
  lines.push("    json={", "        \"inputs\": [", inputs.join("").replace(/\n$/, ""), "        ],");
  if (body.parameters) lines.push(`        "parameters": ${pythonValue(body.parameters, "        ")},`);
  lines.push("    },", ")", "reply.raise_for_status()", "print(reply.json()[\"outputs\"])");
  return lines.join("\n");
}

function rust(url, body, files, needsKey) {
  const hasFiles = files.some(Boolean);
  const dependencies = ["reqwest = { version = \"0.12\", features = [\"blocking\", \"json\"] }", "serde_json = \"1\""];
  if (hasFiles) dependencies.push("base64 = \"0.22\"");
  const text = (value) => JSON.stringify(value, null, 4).split("\n").map((line, index) => (index ? `        ${line}` : line)).join("\n");
  const inputs = body.inputs.map((input, index) => {
    const found = files[index];
    return found ? `file(${JSON.stringify(found.name)}, ${JSON.stringify(found.type)})?` : text(input);
  });
  const lines = dependencies.map((dependency) => `// ${dependency}`);
  lines.push("", "use serde_json::{Value, json};", "", "fn main() -> Result<(), Box<dyn std::error::Error>> {", "    let body = json!({");
  lines.push(`        "inputs": [${inputs.join(", ")}],`);
  if (body.parameters) lines.push(`        "parameters": ${text(body.parameters)},`);
  lines.push("    });", "    let reply: Value = reqwest::blocking::Client::new()", `        .post(${JSON.stringify(url)})`);
  if (needsKey) lines.push("        .bearer_auth(std::env::var(\"INFERENCE_KEY\")?)");
  lines.push("        .json(&body)", "        .send()?", "        .error_for_status()?", "        .json()?;");
  lines.push("    println!(\"{:#}\", reply[\"outputs\"]);", "    Ok(())", "}");
  if (hasFiles) {
    lines.push("", "fn file(name: &str, media_type: &str) -> std::io::Result<Value> {", "    use base64::{Engine as _, engine::general_purpose::STANDARD};");
    lines.push("    Ok(json!({\"b64\": STANDARD.encode(std::fs::read(name)?), \"media_type\": media_type}))", "}");
  }
  return lines.join("\n");
}
