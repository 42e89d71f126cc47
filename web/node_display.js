// What our other files share: elements on nodes that show one run and are no part of the workflow.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

/** The widget of face_video.js for what a node says. */
export const SAID = "fvr_said";

export const address = (file) =>
  api.apiURL(`/view?${new URLSearchParams({ filename: file.filename, subfolder: file.subfolder ?? "", type: file.type })}`);

export function make(tag, style = {}, more = {}) {
  const element = document.createElement(tag);
  Object.assign(element.style, style);
  return Object.assign(element, more);
}

/** The node behind "7", "3:7" (7 inside the subgraph node 3) or "<id of a subgraph>:7". */
export function nodeAt(key) {
  const root = app.rootGraph ?? app.graph;
  const path = String(key).split(":");
  const id = path.pop();
  const find = (graph, name) => graph?.getNodeById(name) ?? graph?.getNodeById(Number(name));
  return find(path.reduce((graph, part) => find(graph, part)?.subgraph ?? root.subgraphs?.get(part), root), id);
}

/** The subgraph nodes around the node behind a key such as "3:7": here 3. */
export function around(key) {
  const path = String(key).split(":").slice(0, -1);
  return path.map((_, k) => nodeAt(path.slice(0, k + 1).join(":"))).filter(Boolean);
}

/** The element of that name on a node, made where there is none; `height` gives its least height for a node's width. */
export function elementOn(node, name, style, height) {
  const here = node.widgets?.find((one) => one.name === name);
  if (here) return here.element;
  const least = `${height(node.size[0])}px`; // Vue nodes do not ask for getMinHeight
  const element = make("div", { width: "100%", height: "100%", minHeight: least, color: "var(--input-text)", ...style });
  element.dataset.testid = name.replaceAll("_", "-");
  for (const kind of ["pointerdown", "pointermove", "pointerup", "click", "dblclick"])
    element.addEventListener(kind, (event) => event.stopPropagation()); // or the node would be dragged
  const options = { serialize: false, hideOnZoom: false, getMinHeight: () => height(node.size[0]) };
  const widget = node.addDOMWidget(name, name.toUpperCase(), element, options);
  widget.serialize = false;
  widget.serializeValue = () => undefined;
  const text = node.widgets.findIndex((one) => one.name === SAID);
  if (text >= 0) node.widgets.push(...node.widgets.splice(text, 1)); // pictures first, whichever came first
  return element;
}

/** Whether a widget's value comes by a wire. */
export const wired = (node, name) => node.inputs?.some((input, slot) => input.widget?.name === name && node.isInputConnected(slot)) ?? false;

/** Makes room on a node for what it now has. */
export function grow(node) {
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
  node.setDirtyCanvas?.(true, true);
}

/** Calls `show(node, ui)` when one of our nodes has run, and when the page comes back to what ran before. */
export function whenRun(name, show) {
  app.registerExtension({
    name: `FaceVideoRestoration.${name}`,
    beforeRegisterNodeDef(nodeType, nodeData) {
      if (!nodeData.name?.startsWith("FVR")) return;
      const executed = nodeType.prototype.onExecuted;
      nodeType.prototype.onExecuted = function (said) {
        executed?.apply(this, arguments);
        show(this, said ?? {});
      };
    },
    onNodeOutputsUpdated(outputs) {
      for (const [key, said] of Object.entries(outputs)) {
        const node = nodeAt(key);
        if (String(node?.comfyClass ?? node?.type ?? "").startsWith("FVR")) show(node, said ?? {});
      }
    },
  });
}
