const HELP =
  "Draw a letter in each box, then one of them again in the last. " +
  "By keyboard: in a box, up and down arrow put a printed letter there, Backspace undoes a stroke, Delete clears it.";

function render({ model, el }) {
  const { examples, samples, side, colour } = model.get("fixed");
  const root = begin(el, "Draw letters and see them read");
  root.style.setProperty("--c", colour);
  let boxes = structuredClone(model.get("asked").boxes);
  let answer = model.get("answered");
  let next = 1;
  let stroke = null;
  const last = boxes.length - 1;

  const row = add(root, "div", { class: "boxes" });
  const told = add(root, "b", { role: "status", class: "verdict" });
  const controls = add(root, "div", { class: "row" });
  const clearAll = () => change(() => ({}));
  const showExample = () => change((_, i) => examples[next % examples.length][i], next++);
  add(controls, "button", { type: "button", click: clearAll }, "Clear all");
  add(controls, "button", { type: "button", click: showExample }, "Example");
  add(root, "div", { class: "note" }, HELP);

  const drawn = boxes.map((_, i) => {
    const name = i < last ? `Letter ${i + 1}` : "Which of them?";
    const box = add(row, "div", { class: i < last ? "box" : "box asked" });
    const head = add(box, "div", { class: "row head" });
    add(head, "b", {}, name);
    const seen = add(head, "svg", { viewBox: "0 0 100 100", class: "seen", role: "img", "aria-label": `${name} as the network sees it` });
    add(seen, "title", {}, "as the network sees it: 28 by 28 pixels");
    const small = add(seen, "g");
    const listen = {
      pointerdown: (event) => press(event, i), pointermove: (event) => drag(event, i),
      pointerup: () => release(i), pointercancel: () => release(i), keydown: (event) => key(event, i),
    };
    const svg = add(box, "svg", { viewBox: "0 0 100 100", class: "pad sheet", tabindex: 0, role: "application", ...listen });
    add(svg, "rect", { width: 100, height: 100, class: "ground" });
    const inside = add(svg, "g");
    const bar = i < last ? add(add(box, "div", { class: "bar", "aria-hidden": "true" }), "div") : null;
    const foot = add(box, "div", { class: "row foot" });
    const share = add(foot, "b", {}, "");
    add(foot, "button", { type: "button", "aria-label": `Undo in ${name}`, title: "Undo", click: () => undo(i) }, "\u21b6");
    add(foot, "button", { type: "button", "aria-label": `Clear ${name}`, title: "Clear", click: () => set(i, {}) }, "\u2715");
    return { name, box, svg, inside, bar, share, small };
  });

  function change(make) {
    boxes = boxes.map(make);
    ask(model, { boxes });
    draw();
  }
  const set = (i, box) => change((old, j) => (j === i ? box : old));
  const undo = (i) => set(i, { strokes: (boxes[i].strokes ?? []).slice(0, -1) });
  function place(event, { svg }) {
    const { x, y } = new DOMPoint(event.clientX, event.clientY).matrixTransform(svg.getScreenCTM().inverse());
    return [x, y].map((value) => Math.round(Math.min(100, Math.max(0, value)) * 10) / 1000);
  }
  function press(event, i) {
    if (event.button) return;
    event.currentTarget.setPointerCapture(event.pointerId);
    event.currentTarget.focus({ focusVisible: false });
    stroke = [place(event, drawn[i])];
    boxes[i] = { strokes: [...(boxes[i].strokes ?? []), stroke] };
    draw();
  }
  function drag(event, i) {
    if (!stroke) return;
    const [[x, y], [a, b]] = [place(event, drawn[i]), stroke.at(-1)];
    if (Math.hypot(x - a, y - b) < 0.015) return;
    stroke.push([x, y]);
    draw();
  }
  function release(i) {
    if (stroke) set(i, boxes[i]);
    stroke = null;
  }
  function key(event, i) {
    const way = { ArrowUp: 1, ArrowDown: -1 }[event.key];
    if (way) set(i, { sample: boxes[i].sample === undefined ? (way > 0 ? 0 : samples - 1) : (boxes[i].sample + way + samples) % samples });
    else if (event.key === "Backspace") undo(i);
    else if (event.key === "Delete") set(i, {});
    else return;
    event.preventDefault();
  }

  /** Draw the digits of a picture as squares, as dark as its ink. */
  function pixels(parent, digits) {
    const size = 100 / side;
    [...digits].forEach((digit, i) => {
      const where = { x: (i % side) * size, y: Math.floor(i / side) * size, width: size + 0.1, height: size + 0.1 };
      if (digit > 0) add(parent, "rect", { ...where, fill: "currentColor", "fill-opacity": digit / 9 });
    });
  }
  function draw() {
    const { seen, shares } = answer;
    const best = shares.indexOf(Math.max(...shares));
    drawn.forEach(({ name, box, svg, inside, bar, share, small }, i) => {
      inside.replaceChildren();
      small.replaceChildren();
      const { strokes = [], sample } = boxes[i];
      if (sample !== undefined) pixels(inside, seen[i] ?? "");
      for (const points of strokes) {
        const way = points.map(([x, y]) => `${100 * x} ${100 * y}`).join("L");
        add(inside, "path", { d: `M${way}${points.length > 1 ? "" : "h0.01"}`, class: "ink" });
      }
      if (strokes.length) pixels(small, seen[i] ?? "");
      const state = sample !== undefined ? `printed letter ${sample + 1} of ${samples}` : `${strokes.length} strokes`;
      const read = shares[i] == null ? "" : `, probability ${shares[i].toFixed(2)}`;
      svg.setAttribute("aria-label", `${name}: ${state}${read}. ${HELP}`);
      if (!bar) return;
      bar.style.width = `${100 * (shares[i] ?? 0)}%`;
      share.textContent = shares[i] == null ? "" : shares[i].toFixed(2);
      box.classList.toggle("best", shares[i] != null && i === best);
    });
    if (best >= 0 && shares[best] != null) told.textContent = `It reads letter ${best + 1}: probability ${shares[best].toFixed(2)}.`;
    else if (boxes.slice(0, last).filter((box) => box.sample !== undefined || box.strokes?.length).length < 2)
      told.textContent = "Draw a letter in at least two of the boxes.";
    else told.textContent = "Now draw one of your letters again, in the last box.";
  }
  return onAnswer(model, root, (answered) => { answer = answered; draw(); });
}

export default { render };
