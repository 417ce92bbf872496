const HELP =
  "Drag the start (the white dot), or press where it should go. " +
  "By keyboard: arrow keys move it, with Shift further. Bluer is lower; the star is the lowest point.";

function render({ model, el }) {
  const { panels, limits, axes, colour } = model.get("fixed");
  const root = begin(el, "Drag the start and watch the inner steps");
  let start = model.get("asked").start;
  let held = false;
  let answer = model.get("answered");
  const board = add(root, "div", { class: "panels" });
  const total = add(root, "div", { role: "status" });
  add(root, "div", { class: "note" }, HELP);

  const drawn = panels.map(({ title, best, bands, labels, ticks: [xticks, yticks] }) => {
    const panel = add(board, "div", { class: "panel" });
    add(panel, "b", {}, `The ${title}`);
    const told = add(panel, "div");
    const [x, y] = limits;
    const listen = { pointerdown: press, pointermove: drag, pointerup: release, pointercancel: release, keydown: key };
    const size = { width: 360, height: 320, xlabel: axes[0], ylabel: axes[1], x, y, xticks, yticks };
    const view = plane(panel, { ...size, class: "pad", tabindex: 0, role: "application", ...listen });
    const { inside, sx, sy, path } = view;
    bands.forEach((band, i) => {
      const style = `--depth: ${(1 - i / (bands.length - 1)).toFixed(2)}`;
      add(inside, "path", { d: band.map((part) => `${path(part)}Z`).join(""), class: "band", style });
    });
    const star = [sx(best[0]), sy(best[1])];
    for (const [a, b, text] of labels.filter(([a, b]) => Math.hypot(sx(a) - star[0], sy(b) - star[1]) > 26)) {
      add(inside, "text", { x: sx(a), y: sy(b) + 4, class: "level", "aria-hidden": "true" }, text);
    }
    add(inside, "text", { x: star[0], y: star[1] + 7, class: "best", "aria-hidden": "true" }, "\u2605");
    return { view, told, title, moving: add(inside, "g") };
  });

  function move(place) {
    start = place.map((value) => Math.round(value * 1000) / 1000);
    ask(model, { start });
    draw();
  }
  function press(event) {
    if (event.button) return;
    held = true;
    event.currentTarget.setPointerCapture(event.pointerId);
    event.currentTarget.focus({ focusVisible: false });
    drag(event);
  }
  function drag(event) {
    if (held) move(drawn.find(({ view }) => view.svg === event.currentTarget).view.at(event));
  }
  function release() {
    held = false;
  }
  function key(event) {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
    if (!way) return;
    event.preventDefault();
    const far = event.shiftKey ? 1 / 12 : 1 / 60;
    move(drawn[0].view.clip(start.map((value, i) => value + way[i] * far * (limits[i][1] - limits[i][0]))));
  }

  function draw() {
    drawn.forEach(({ view: { svg, sx, sy, path }, moving, told, title }, i) => {
      const { path: steps, losses } = answer.panels[i];
      const last = losses.at(-1);
      moving.replaceChildren();
      const style = `--c: ${colour}`;
      const line = path([start, ...steps.slice(1)]);
      add(moving, "path", { d: line, class: "under" });
      add(moving, "path", { d: line, class: "steps", style });
      for (const [a, b] of steps.slice(1)) add(moving, "circle", { cx: sx(a), cy: sy(b), r: 4.5, class: "step", style });
      add(moving, "circle", { cx: sx(start[0]), cy: sy(start[1]), r: 8.5, class: "start" });
      told.replaceChildren();
      add(told, "span", {}, `Loss ${losses.slice(0, losses.length > 5 ? 1 : -1).join(" \u2192 ")} \u2192 `);
      add(told, "b", {}, last);
      const [a, b] = start.map((value) => value.toFixed(2));
      const place = `Start: ${axes[0]} ${a}, ${axes[1]} ${b}.`;
      svg.setAttribute("aria-label", `Map, ${title}. ${place} Loss ${losses[0]}, then ${last}. ${HELP}`);
    });
    total.replaceChildren();
    const { means } = answer;
    const count = `${means.length - 1} step${means.length > 2 ? "s" : ""}`;
    const whose = panels.length > 1 ? "Mean of both losses" : "Loss";
    add(total, "span", {}, `${whose}: ${means[0]} at the start, after ${count} `);
    add(total, "b", {}, means.at(-1));
  }
  return onAnswer(model, root, (answered) => { answer = answered; draw(); });
}

export default { render };
