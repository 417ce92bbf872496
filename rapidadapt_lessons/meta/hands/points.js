const GRAB = 14; // pixels from a point within which it is taken hold of
const HELP =
  "Click to add a point, click a point to remove it, or drag it. " +
  "By keyboard: arrow keys move the cross (with Shift: further), Enter adds a point there, Delete removes the nearest.";

function render({ model, el }) {
  const fixed = model.get("fixed");
  const root = begin(el, "Click points and watch the curves adapt");
  const results = add(root, "div", { role: "status", class: "row" });
  const board = add(root, "div");
  let points = model.get("asked").points.map((point) => [...point]);
  let { step } = model.get("asked");
  let [cursor, keys, truth, next] = [[0, 0], false, fixed.examples[0].curve, 1];
  let [view, held, shown] = [null, null, {}];

  const controls = add(root, "div", { class: "row" });
  const label = add(controls, "label", { class: "row" }, "Gradient steps");
  const slider = add(label, "input", { type: "range", min: 0, max: fixed.steps, value: step, input: moveSlider });
  const readout = add(label, "b", {}, step);
  add(controls, "button", { type: "button", click: clear }, "Clear");
  add(controls, "button", { type: "button", click: showExample }, "Example");
  add(root, "div", { class: "note" }, HELP);

  function moveSlider() {
    step = Number(slider.value);
    ask(model, { step });
    draw();
  }
  function clear() {
    change([]);
  }
  function showExample() {
    const chosen = fixed.examples[next++ % fixed.examples.length];
    change(chosen.points.map((point) => [...point]), chosen.curve);
  }
  /** Take other points; the sinusoid behind an example is shown until they change. */
  function change(changed, curve = null) {
    [points, truth] = [changed, curve];
    ask(model, { points });
    draw();
  }
  const tidy = ([x, y]) => [Math.round(x * 100) / 100, Math.round(y * 100) / 100];
  function nearest([x, y], reach) {
    const far = points.map(([a, b]) => Math.hypot(view.sx(a) - view.sx(x), view.sy(b) - view.sy(y)));
    const i = far.indexOf(Math.min(...far));
    return far[i] <= reach ? i : -1;
  }
  function press(event) {
    if (event.button) return;
    view.svg.setPointerCapture(event.pointerId);
    view.svg.focus({ focusVisible: false });
    keys = false;
    const place = tidy(view.at(event));
    const found = nearest(place, GRAB);
    held = { i: found < 0 ? points.length : found, isNew: found < 0, from: [event.clientX, event.clientY], moved: false };
    if (held.isNew) change([...points, place]);
  }
  function drag(event) {
    if (!held) return;
    held.moved ||= Math.hypot(event.clientX - held.from[0], event.clientY - held.from[1]) > 3;
    if (held.moved) change(points.with(held.i, tidy(view.at(event))));
  }
  function release() {
    if (held && !held.isNew && !held.moved) change(points.toSpliced(held.i, 1));
    held = null;
  }
  function key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    const far = event.shiftKey ? 1 : 0.2;
    keys = true;
    if (way) cursor = tidy(view.clip([cursor[0] + way[0] * far, cursor[1] + way[1] * far]));
    else if (event.key === "Enter" || event.key === " ") change([...points, cursor]);
    else if (event.key === "Delete" || event.key === "Backspace") {
      const i = nearest(cursor, Infinity);
      if (i >= 0) change(points.toSpliced(i, 1));
    } else return;
    event.preventDefault();
    draw();
  }

  function draw() {
    if (!view) return;
    const { inside, sx, sy, path } = view;
    inside.replaceChildren();
    readout.textContent = step;
    results.replaceChildren();
    const line = (values) => path(fixed.grid.map((x, i) => [x, values[i]]));
    if (truth) add(inside, "path", { d: line(truth), class: "truth" });
    add(results, "b", {}, `Error on the points after ${step} step${step === 1 ? "" : "s"}`);
    for (const [name, { curves, errors }] of Object.entries(shown)) {
      const now = Math.min(step, curves.length - 1);
      const style = `--c: ${fixed.colours[name]}`;
      add(inside, "path", { d: line(curves[0]), class: "curve before", style });
      if (curves[now]) add(inside, "path", { d: line(curves[now]), class: "curve", style, "data-name": name });
      const told = sample(results, "curve", errors.length ? `${name} ` : `${name} (no points yet)`, style);
      if (errors.length) add(told, "b", {}, errors[now]);
      if (errors.length && now) add(told, "span", {}, ` (${errors[0]} before)`);
    }
    sample(results, "curve before", "before adapting", "--c: currentColor");
    if (truth) sample(results, "truth", "the sinusoid that the points are from");
    for (const [x, y] of points) add(inside, "circle", { cx: sx(x), cy: sy(y), r: 6, class: "point" });
    if (keys) {
      const [x, y] = [sx(cursor[0]), sy(cursor[1])];
      add(inside, "path", { d: `M${x - 11} ${y}h22M${x} ${y - 11}v22`, class: "cross" });
    }
    view.svg.setAttribute("aria-label", `Plane with ${points.length} points. Cross at x ${cursor[0]}, y ${cursor[1]}. ${HELP}`);
  }

  const stopWidth = onWidth(el, 280, 720, (width) => {
    board.replaceChildren();
    const { x, y } = fixed;
    const ticks = { xticks: [-4, -2, 0, 2, 4], yticks: [-6, -3, 0, 3, 6], xlabel: "x", ylabel: "y" };
    const listen = { pointerdown: press, pointermove: drag, pointerup: release, pointercancel: release, keydown: key };
    const aria = { class: "pad", tabindex: 0, role: "application" };
    view = plane(board, { width, height: Math.min(380, 0.72 * width), x, y, ...ticks, ...aria, ...listen });
    view.svg.addEventListener("focus", () => { keys = view.svg.matches(":focus-visible"); draw(); });
    view.svg.addEventListener("blur", () => { keys = false; draw(); });
    draw();
  });
  const stopAnswers = onAnswer(model, root, ({ starts }) => { shown = starts; draw(); });
  return () => { stopWidth(); stopAnswers(); };
}

export default { render };
