// Checks a value against a JSON Schema, as far as that helps while typing. The server checks everything.

export function problems(value, schema, root = schema, path = "", depth = 0) {
  if (schema === true || !schema || typeof schema !== "object" || depth > 24) return [];
  const at = path ? `${path}: ` : "";
  if (schema.$ref) {
    const found = resolve(schema.$ref, root);
    return found ? problems(value, found, root, path, depth + 1) : [];
  }
  const found = [];
  const types = schema.type === undefined ? [] : [schema.type].flat();
  if (types.length && !types.some((type) => isOf(value, type))) {
    return [`${at}expected ${types.join(" or ")}, got ${nameOf(value)}`];
  }
  if (schema.const !== undefined && !same(value, schema.const)) found.push(`${at}expected ${JSON.stringify(schema.const)}`);
  if (schema.enum && !schema.enum.some((allowed) => same(value, allowed))) {
    found.push(`${at}expected one of ${schema.enum.map((allowed) => JSON.stringify(allowed)).join(", ")}`);
  }
  if (typeof value === "number") {
    if (value < schema.minimum) found.push(`${at}expected at least ${schema.minimum}`);
    if (value > schema.maximum) found.push(`${at}expected at most ${schema.maximum}`);
    if (value <= schema.exclusiveMinimum) found.push(`${at}expected more than ${schema.exclusiveMinimum}`);
    if (value >= schema.exclusiveMaximum) found.push(`${at}expected less than ${schema.exclusiveMaximum}`);
  }
  if (typeof value === "string") {
    const length = [...value].length;
    if (length < schema.minLength) found.push(`${at}expected at least ${schema.minLength} characters`);
    if (length > schema.maxLength) found.push(`${at}expected at most ${schema.maxLength} characters`);
  }
  if (Array.isArray(value)) {
    if (value.length < schema.minItems) found.push(`${at}expected at least ${schema.minItems} elements`);
    if (value.length > schema.maxItems) found.push(`${at}expected at most ${schema.maxItems} elements`);
    if (schema.items) value.forEach((inner, index) => found.push(...problems(inner, schema.items, root, `${path}[${index}]`, depth + 1)));
  } else if (value && typeof value === "object") {
    for (const name of schema.required ?? []) if (!(name in value)) found.push(`${at}missing member ${JSON.stringify(name)}`);
    for (const [name, inner] of Object.entries(value)) {
      const known = schema.properties?.[name];
      const inside = path ? `${path}.${name}` : name;
      if (known !== undefined) found.push(...problems(inner, known, root, inside, depth + 1));
      else if (schema.additionalProperties === false) found.push(`${at}unknown member ${JSON.stringify(name)}`);
      else if (schema.additionalProperties) found.push(...problems(inner, schema.additionalProperties, root, inside, depth + 1));
    }
  }
  for (const part of schema.allOf ?? []) found.push(...problems(value, part, root, path, depth + 1));
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) {
    const results = choices.map((choice) => problems(value, choice, root, path, depth + 1));
    if (!results.some((result) => !result.length)) found.push(...results[0]);
  }
  return found;
}

function resolve(reference, root) {
  if (!reference.startsWith("#/")) return undefined;
  const parts = reference.slice(2).split("/").map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"));
  return parts.reduce((value, part) => value?.[part], root);
}

function isOf(value, type) {
  switch (type) {
    case "integer": return Number.isInteger(value);
    case "number": return typeof value === "number";
    case "array": return Array.isArray(value);
    case "object": return value !== null && typeof value === "object" && !Array.isArray(value);
    case "null": return value === null;
    default: return typeof value === type;
  }
}

const nameOf = (value) => (value === null ? "null" : Array.isArray(value) ? "array" : typeof value);
const same = (one, other) => JSON.stringify(one) === JSON.stringify(other);
