// Whatever scrolls sideways (wide formulas, tables, diagrams, outputs) can be reached and scrolled by keyboard.
const WIDE =
  "div.math, mjx-container[display], .widget-still, .diagram, .pst-scrollable-table-container, .output, pre";

function reachable() {
  for (const box of document.querySelectorAll(WIDE)) {
    if (box.scrollWidth > box.clientWidth && getComputedStyle(box).overflowX !== "visible") box.tabIndex = 0;
    else box.removeAttribute("tabindex");
  }
}

addEventListener("load", () => {
  reachable();
  window.MathJax?.startup?.promise.then(reachable); // formulas have their widths once they are set
});
addEventListener("resize", reachable);
