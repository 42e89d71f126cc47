// What ComfyUI's page leaves out: a clip can be chosen, uploaded and dropped on nodes whose `file` may be left out; what a node says of
// its run (`ui.text`), or why it was refused or failed, is shown on it, and on the subgraph that hides it; the name of a file is filled in; and
// classic nodes put their advanced inputs away and play a subgraph's clip, as Vue nodes do.
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";
import { address, around, elementOn, grow, make, nodeAt, SAID, wired } from "./node_display.js";
import { word } from "./words.js";

const LINE = 15;
const MOST_LINES = 10;

const ours = (node) => String(node?.comfyClass ?? node?.type ?? "").startsWith("FVR");

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

const heightOf = (node, text) => Math.min(MOST_LINES, linesOf(text, node.size[0])) * LINE + 12;

function addSaid(node) {
  const element = document.createElement("textarea");
  element.readOnly = true;
  element.spellcheck = false;
  element.setAttribute("aria-label", word("what this node says of its last run"));
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
    getMinHeight: () => heightOf(node, element.value),
  });
  widget.serialize = false; // its value is of one run, not of the workflow
  widget.serializeValue = () => undefined;
  return widget;
}

/** Shows a text on a node, in a widget that is there only while there is something to say. */
function show(node, text, wrong = false) {
  let widget = node.widgets?.find((one) => one.name === SAID);
  if (!text) {
    if (widget && node.removeWidget) node.removeWidget(widget);
    else if (widget) widget.value = widget.element.value = "";
    return;
  }
  widget ??= addSaid(node);
  widget.element.style.borderLeft = wrong ? "3px solid var(--error-text)" : "none";
  widget.element.dataset.wrong = wrong;
  if (widget.element.value === text) return;
  widget.value = text;
  widget.element.value = text;
  widget.element.style.minHeight = `${heightOf(node, text)}px`; // Vue nodes ask nobody
  grow(node);
}

/** A Markdown table without its padding: on a node, each row is a line. */
const narrow = (text) => text.replace(/^\|[ :|-]+\|\n/gm, "").replace(/^\| *(.*?) *\|$/gm, (_, row) => row.replace(/ {2,}/g, " "));

const textOf = (said) => narrow([said?.text ?? []].flat().filter(Boolean).join("\n\n"));

function everyNode(graph, visit) {
  for (const node of graph?.nodes ?? []) {
    visit(node);
    if (node.subgraph) everyNode(node.subgraph, visit);
  }
}

/** A fault that the server found before the run, as a sentence; of more than 20 choices it lists none. */
function fault({ type, message, details, extra_info: about }) {
  if (type !== "value_not_in_list") return `${message}: ${details}`;
  const [kind, more] = about.input_config ?? [];
  const choices = [more?.options, kind].find(Array.isArray)?.join(", ") ?? word("another");
  const file = /\.\w+$/.test(about.received_value) ? word(", or add the file and press R") : "";
  return word("{input} '{value}' is not here: choose {choices}", { input: about.input_name, value: about.received_value, choices }) + file;
}

/** Of a sentence that the server repeats for every input a node checks, the one whose value it mentions last. */
function repeated(errors, inputs) {
  const sentence = (error) => error.details.slice(error.details.indexOf(" - ") + 3);
  const mentioned = (error) => sentence(error).lastIndexOf(String(inputs?.[error.extra_info?.input_name] || "\0"));
  const checks = errors.filter((error) => error.type === "custom_validation_failed" && error.details?.includes(" - "));
  if (!checks.length) return [errors, errors.map(fault)];
  const kept = checks.reduce((best, error) => (mentioned(error) > mentioned(best) ? error : best));
  const others = errors.filter((error) => !checks.includes(error));
  return [[kept, ...others], [sentence(kept), ...others.map(fault)]];
}

/** What the server has against a prompt, one sentence per node. */
function refused(nodeErrors, prompt) {
  for (const [key, entry] of Object.entries(nodeErrors ?? {})) {
    const node = nodeAt(key);
    if (!node || !ours(node) || !entry.errors?.length) continue;
    const [errors, sentences] = repeated(entry.errors, prompt?.[key]?.inputs);
    entry.errors = errors;
    for (const one of [node, ...around(key)]) show(one, sentences.join("\n"), true);
  }
}

const queuePrompt = api.queuePrompt;
api.queuePrompt = async function (number, data, ...more) {
  everyNode(app.rootGraph ?? app.graph, (node) => {
    const widget = node.widgets?.find((one) => one.name === SAID);
    if (widget?.element?.dataset.wrong === "true") show(node, "");
  });
  try {
    const answer = await queuePrompt.call(this, number, data, ...more);
    refused(answer?.node_errors, data?.output);
    return answer;
  } catch (error) {
    refused(error?.response?.node_errors, data?.output);
    throw error;
  }
};

api.addEventListener("execution_error", ({ detail }) => {
  const node = nodeAt(detail?.node_id);
  if (!node || !ours(node)) return;
  for (const one of [node, ...around(detail.node_id)]) show(one, String(detail.exception_message ?? "").trim(), true);
});

/** Plays a clip on a classic subgraph node. */
function play(node, file) {
  const box = elementOn(node, "fvr_clip", {}, (width) => Math.round((width - 20) * (node.fvrRatio ?? 0.6)));
  const clip = box.firstChild ?? box.appendChild(make("video", { width: "100%", height: "100%" }, { controls: true, loop: true, muted: true }));
  clip.onloadedmetadata = () => {
    node.fvrRatio = clip.videoHeight / clip.videoWidth;
    grow(node);
  };
  clip.src = address(file);
}

api.addEventListener("executed", ({ detail }) => {
  const key = detail?.display_node ?? detail?.node;
  const inner = nodeAt(key);
  if (!ours(inner) || !inner.constructor.nodeData?.output_node) return;
  const clip = detail.output?.animated && !LiteGraph.vueNodesMode ? detail.output.images?.at(-1) : null;
  for (const node of around(key)) {
    if (clip) play(node, clip);
    show(node, textOf(detail.output));
  }
});

const MORE = "fvr_more";

/** Whether an expert's widget of a node is put away; one with a wire is not. The button is shown where there is anything behind it. */
function tucked(node, widget) {
  if (widget.name === MORE) return !node.widgets.some((one) => one.options?.advanced);
  if (!widget.options?.advanced || node.showAdvanced) return false;
  return !wired(node, widget.name);
}

/** Lets classic nodes put away their advanced inputs, as Vue nodes do. */
function tuckAway(nodeType, nodeData) {
  nodeType.prototype.fvrTucks = JSON.stringify(nodeData.input ?? {}).includes('"advanced":true');
  for (const name of ["isWidgetVisible", "isWidgetRowVisible"]) {
    const visible = nodeType.prototype[name];
    if (!visible) continue;
    nodeType.prototype[name] = function (widget) {
      return visible.call(this, widget) && !tucked(this, widget);
    };
  }
  const laidOut = nodeType.prototype.getLayoutWidgets;
  if (laidOut) {
    nodeType.prototype.getLayoutWidgets = function () {
      return laidOut.call(this).filter((widget) => !tucked(this, widget));
    };
  }
}

/** Saved values go by place, and some pages count our button, which is in no workflow, among them; it stands aside meanwhile. */
function setAside(nodeType) {
  const configure = nodeType.prototype.configure;
  nodeType.prototype.configure = function () {
    const at = this.widgets?.findIndex((one) => one.name === MORE) ?? -1;
    if (at < 0) return configure.apply(this, arguments);
    const [button, next] = this.widgets.slice(at, at + 2);
    this.widgets.splice(at, 1);
    try {
      return configure.apply(this, arguments);
    } finally {
      const before = this.widgets.indexOf(next); // a choice that is restored may have taken it away
      this.widgets.splice(before < 0 ? this.widgets.length : before, 0, button);
    }
  };
}

/** The button of a classic node that brings them back. */
function addMore(node) {
  if (!node.fvrTucks) return;
  const name = () => (word(node.showAdvanced ? "fewer settings" : "more settings"));
  const toggle = () => {
    node.showAdvanced = !node.showAdvanced;
    button.label = name();
    node.setSize([node.size[0], node.computeSize()[1]]);
    node.setDirtyCanvas?.(true, true);
  };
  const button = node.addWidget("button", MORE, null, toggle, { serialize: false, canvasOnly: true });
  button.label = name();
  button.serialize = false;
  node.setSize([node.size[0], node.computeSize()[1]]);
}

/** Lets the name of a file say %date:yyyy-MM-dd% and %Node.widget%, which the page fills in for ComfyUI's own nodes that save only. */
function fillInName(node) {
  const widget = node.widgets?.find((one) => one.name === "filename_prefix");
  const filled = window.comfyAPI?.utils?.applyTextReplacements;
  if (!widget || !filled) return;
  widget.serializeValue = () => (typeof widget.value === "string" ? filled(app.rootGraph ?? app.graph, widget.value) : widget.value);
}

/** Where help pages and templates are served, which is not always under our folder's name (host/page_scripts.py). */
const SERVED = new URL(import.meta.url).pathname.split("/").at(-2);

/** The server lists templates in no order; the one to begin with comes first. */
const STARTER = "start_here";
const getTemplates = api.getWorkflowTemplates;
if (getTemplates) {
  api.getWorkflowTemplates = async function (...given) {
    const packs = await getTemplates.apply(this, given);
    for (const [pack, names] of Object.entries(packs ?? {})) {
      if (!names.includes?.(STARTER)) continue;
      delete packs[pack];
      packs[SERVED] = names.sort((a, b) => (b === STARTER) - (a === STARTER) || a.localeCompare(b));
    }
    return packs;
  };
}

/** Choices that came after people had saved workflows, whose values go by place, with what they are in those. */
const LATER = { grain: "auto", deinterlace: "auto", occlusion: "auto" };
/** Those that hold the upload button's value in such workflows. */
const UPLOADED = { job: "", gates: "", scale: 1 };

app.registerExtension({
  name: "FaceVideoRestoration.Page",
  nodeCreated(node) {
    if (!ours(node)) return;
    if (node.comfyClass === "FVRSaveVideoFrames") node.previewMediaType = "video"; // inside a blueprint nobody finds out what its file is
    addMore(node);
    fillInName(node);
  },
  beforeRegisterNodeDef(nodeType, nodeData) {
    if (!nodeData.name?.startsWith("FVR")) return;
    nodeData.python_module = `custom_nodes.${SERVED}`;
    addUpload(nodeData);
    tuckAway(nodeType, nodeData);
    setAside(nodeType);
    const configured = nodeType.prototype.onConfigure;
    nodeType.prototype.onConfigure = function () {
      configured?.apply(this, arguments);
      for (const widget of this.widgets ?? [])
        if (widget.name in LATER && !widget.options?.values?.includes?.(widget.value)) widget.value = LATER[widget.name];
        else if (widget.name in UPLOADED && widget.value === "image") widget.value = UPLOADED[widget.name];
    };
    const executed = nodeType.prototype.onExecuted;
    nodeType.prototype.onExecuted = function (said) {
      executed?.apply(this, arguments);
      show(this, textOf(said));
    };
  },
  onNodeOutputsUpdated(outputs) {
    for (const [key, said] of Object.entries(outputs)) {
      const node = nodeAt(key);
      if (node && ours(node) && textOf(said)) show(node, textOf(said));
    }
  },
});
