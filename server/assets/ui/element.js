// Creates elements.

// Properties are set on the element; `role` and null children are treated as attributes and nothing.
export function element(name, properties = {}, ...children) {
  const created = document.createElement(name);
  const { role, ...others } = properties;
  if (role) created.setAttribute("role", role);
  Object.assign(created, others);
  created.append(...children.filter((child) => child !== null && child !== undefined));
  return created;
}

// The same for SVG, whose properties are all attributes.
export function shape(name, attributes = {}, ...children) {
  const created = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) created.setAttribute(key, value);
  created.append(...children);
  return created;
}
