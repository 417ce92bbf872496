// Draw a graph: DOT in, SVG out. Called by tools/book.py, with the folder of npm's packages as its argument.
const { join } = require("node:path");
const { readFileSync } = require("node:fs");
const viz = require(join(process.argv[2], "@viz-js", "viz"));

viz.instance().then((graphviz) => {
  process.stdout.write(graphviz.renderString(readFileSync(0, "utf8"), { format: "svg_inline" }));
});
