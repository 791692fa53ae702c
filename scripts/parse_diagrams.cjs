// Reads Mermaid's bundle and diagrams: node parse_diagrams.cjs BUNDLE FILE...
// One line for each diagram that it cannot read; the exit status says whether there was one.
const fs = require("node:fs");
const path = require("node:path");
const vm = require("node:vm");

const [bundle, ...diagrams] = process.argv.slice(2);

// Nothing is drawn. The bundle's cleaner of HTML looks for a page all the same when it is loaded,
// and lets text through as it is where it finds none that it can use.
globalThis.window = globalThis;
globalThis.document = { nodeType: 9, createElement: () => ({}) };
globalThis.Element = class {};
globalThis.addEventListener = () => {};

vm.runInThisContext(fs.readFileSync(bundle, "utf8"), { filename: bundle });

async function main() {
  for (const diagram of diagrams) {
    try {
      await globalThis.mermaid.parse(fs.readFileSync(diagram, "utf8"));
    } catch (error) {
      console.log(`${path.basename(diagram)}: ${String(error.message).replaceAll("\n", " | ")}`);
      process.exitCode = 1;
    }
  }
}

main();
