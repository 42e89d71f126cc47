// What ComfyUI's page leaves out: a clip can be chosen, uploaded and dropped on nodes whose `file` may be left out,
// and what a node says of its run (`ui.text`) is shown on it.
import { app } from "../../scripts/app.js";

const SAID = "fvr_said";
const LINE = 15;
const MOST_LINES = 14;

const ours = (nodeType) => String(nodeType?.comfyClass ?? nodeType?.name ?? "").startsWith("FVR");

/** Gives an optional combo with `video_upload` the button that the page gives required ones only. */
function addUpload(nodeData) {
  const { required = {}, optional = {} } = nodeData.input ?? {};
  if ("upload" in required || "upload" in optional) return;
  for (const [name, spec] of Object.entries(optional)) {
    if (spec[1]?.video_upload) {
      optional.upload = ["IMAGEUPLOAD", { ...spec[1], imageInputName: name }];
      return;
    }
  }
}

/** Lines that a text takes at a node's width, as far as that can be known without drawing it. */
function linesOf(text, width) {
  const letters = Math.max(20, Math.floor((width - 40) / 6.2));
  return text.split("\n").reduce((sum, line) => sum + Math.max(1, Math.ceil(line.length / letters)), 0);
}

function addSaid(node) {
  const element = document.createElement("textarea");
  element.readOnly = true;
  element.spellcheck = false;
  element.setAttribute("aria-label", "What this node says of its last run");
  element.dataset.testid = "fvr-said";
  Object.assign(element.style, {
    width: "100%",
    height: "100%",
    boxSizing: "border-box",
    padding: "4px 6px",
    border: "none",
    borderRadius: "4px",
    resize: "none",
    font: `11px/${LINE}px sans-serif`,
    color: "var(--input-text)",
    background: "var(--comfy-input-bg)",
  });
  const widget = node.addDOMWidget(SAID, "FVR_SAID", element, {
    serialize: false,
    hideOnZoom: false,
    getValue: () => element.value,
    setValue: (value) => {
      element.value = value;
    },
    getMinHeight: () => Math.min(MOST_LINES, linesOf(element.value, node.size[0])) * LINE + 12,
  });
  widget.serialize = false; // its value is of one run, not of the workflow
  widget.serializeValue = () => undefined;
  return widget;
}

/** Shows `ui.text` on a node, in a widget that is there only while there is something to say. */
function show(node, said) {
  const text = [said?.text ?? []].flat().filter(Boolean).join("\n\n");
  let widget = node.widgets?.find((one) => one.name === SAID);
  if (!text && !widget) return;
  widget ??= addSaid(node);
  if (widget.element.value === text) return;
  widget.value = text;
  widget.element.value = text;
  const [width, height] = node.computeSize();
  node.setSize([Math.max(node.size[0], width), Math.max(node.size[1], height)]);
  node.setDirtyCanvas?.(true, true);
}

/** The node behind a key of the page's outputs: "7", or "<subgraph>:7" inside a subgraph. */
function nodeAt(key) {
  const root = app.rootGraph ?? app.graph;
  const [graph, id] = key.includes(":") ? [root.subgraphs?.get(key.slice(0, key.lastIndexOf(":"))), key.slice(key.lastIndexOf(":") + 1)] : [root, key];
  return graph?.getNodeById(id) ?? graph?.getNodeById(Number(id));
}

app.registerExtension({
  name: "FaceVideoRestoration.Page",
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name?.startsWith("FVR")) return;
    addUpload(nodeData);
    const executed = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (said) {
      executed?.apply(this, arguments);
      show(this, said);
    };
  },
  onNodeOutputsUpdated(outputs) {
    for (const [key, said] of Object.entries(outputs)) {
      const node = nodeAt(key);
      if (node && ours(node.constructor)) show(node, said);
    }
  },
});
