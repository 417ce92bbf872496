// What the course's widgets to touch share. It stands in front of each one's own script.

const SVG = new Set(["svg", "g", "path", "circle", "rect", "line", "text", "tspan", "image", "title", "clipPath"]);

/** Add an element with attributes, and text if any, to a parent. Functions among the attributes listen to events. */
function add(parent, tag, attributes = {}, text) {
  const element = SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else element.setAttribute(name, value);
  }
  if (text !== undefined) element.textContent = text;
  parent.append(element);
  return element;
}

/** Prepare the widget's element; keys pressed in it are its own and not JupyterLab's. */
function begin(el, label) {
  el.replaceChildren();
  const root = add(el, "div", { class: "hand", role: "group", "aria-label": label, "data-lm-suppress-shortcuts": "true" });
  root.addEventListener("keydown", (event) => event.stopPropagation());
  return root;
}

/** Tell Python what the learner did. While it computes, later changes wait and go together. */
function ask(model, changes) {
  model.set("asked", { ...model.get("asked"), ...changes });
  model.save_changes();
}

/** Call a function now and whenever Python has answered, with the answer; a message takes the answer's place. */
function onAnswer(model, root, show) {
  const message = add(root, "div", { role: "alert", class: "hand-problem" });
  const update = () => {
    const { problem = "", remedy = "", ...rest } = model.get("answered");
    message.textContent = problem && `${problem} What to do: ${remedy}`;
    if (!problem) show(rest);
  };
  model.on("change:answered", update);
  update();
  return () => model.off("change:answered", update);
}

/** Draw again whenever the element's width changes, with the width in pixels between two bounds. */
function onWidth(el, least, most, draw) {
  let last = 0;
  const measure = () => {
    const width = Math.round(Math.max(least, Math.min(most, el.clientWidth || most)));
    if (width !== last) draw((last = width));
  };
  measure();
  const observer = new ResizeObserver(measure);
  observer.observe(el);
  return () => observer.disconnect();
}

/** A plane with axes in a new svg. Its functions turn values into places and places into values. */
function plane(parent, { width, height, x, y, xlabel, ylabel, xticks, yticks, ...attributes }) {
  const [left, right, top, bottom] = [46, 14, 10, 40];
  const svg = add(parent, "svg", { viewBox: `0 0 ${width} ${height}`, ...attributes });
  const scale = ([low, high], from, to) => (value) => from + ((value - low) / (high - low)) * (to - from);
  const back = ([low, high], from, to) => (place) => low + ((place - from) / (to - from)) * (high - low);
  const within = ([low, high], value) => Math.min(high, Math.max(low, value));
  const [sx, sy] = [scale(x, left, width - right), scale(y, height - bottom, top)];
  const [bx, by] = [back(x, left, width - right), back(y, height - bottom, top)];
  const id = `clip-${Math.random().toString(36).slice(2)}`;
  const frame = { x: left, y: top, width: width - left - right, height: height - top - bottom };
  add(add(svg, "clipPath", { id }), "rect", frame);
  add(svg, "rect", { class: "ground", ...frame });
  const axes = add(svg, "g", { class: "axes", "aria-hidden": "true" });
  for (const value of xticks) {
    add(axes, "line", { x1: sx(value), x2: sx(value), y1: top, y2: height - bottom, class: "grid" });
    add(axes, "text", { x: sx(value), y: height - bottom + 16, "text-anchor": "middle" }, minus(value));
  }
  for (const value of yticks) {
    add(axes, "line", { x1: left, x2: width - right, y1: sy(value), y2: sy(value), class: "grid" });
    add(axes, "text", { x: left - 7, y: sy(value) + 4, "text-anchor": "end" }, minus(value));
  }
  add(axes, "text", { x: (left + width - right) / 2, y: height - 5, "text-anchor": "middle" }, xlabel);
  const turned = `translate(13 ${(top + height - bottom) / 2}) rotate(-90)`;
  add(axes, "text", { transform: turned, "text-anchor": "middle" }, ylabel);
  const inside = add(svg, "g", { "clip-path": `url(#${id})` });
  const at = (event) => {
    const { x: px, y: py } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [within(x, bx(px)), within(y, by(py))];
  };
  const path = (points) => points.map(([a, b], i) => `${i ? "L" : "M"}${sx(a).toFixed(1)} ${sy(b).toFixed(1)}`).join("");
  return { svg, inside, sx, sy, at, path, clip: ([a, b]) => [within(x, a), within(y, b)] };
}

/** Add a piece of a line as a key, and the words behind it. */
function sample(parent, kind, words, style = "") {
  const told = add(parent, "span");
  const drawn = add(told, "svg", { class: "key", viewBox: "0 0 24 8", "aria-hidden": "true" });
  add(drawn, "path", { d: "M0 4h24", class: kind, style });
  add(told, "span", {}, words);
  return told;
}

/** A number with the sign that typographers use. */
function minus(value) {
  return String(value).replace("-", "\u2212");
}
