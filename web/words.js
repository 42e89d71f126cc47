// What ComfyUI does not translate, in the language of the page: our own buttons, and the titles and notes of our workflows
// (`faceVideo` of locales/<language>/main.json).
import { api } from "../../scripts/api.js";
import { app } from "../../scripts/app.js";

const NOTES = { zh: "中文说明", "zh-TW": "中文说明" };
const ROOM = 300;
let words = {};
let language = "en";

/** An English text of ours in the page's language, with `values` for its {names}. */
export const word = (text, values = {}) => (words.page?.[text] ?? text).replace(/\{(\w+)\}/g, (_, name) => values[name]);

async function read() {
  language = app.extensionManager?.setting?.get?.("Comfy.Locale") ?? "en";
  if (language === "en") return;
  const answer = await api.fetchApi("/i18n");
  words = (answer.ok ? await answer.json() : {})[language]?.faceVideo ?? {};
}

/** Opens the note in the page's language where the English ones stood, and puts those away in a row. */
function turnNotes(nodes) {
  const notes = nodes.filter((node) => node.type === "MarkdownNote");
  const ours = notes.find((node) => node.title === NOTES[language] && node.flags?.collapsed);
  const others = notes.filter((node) => node !== ours && !node.flags?.collapsed);
  if (!ours || !others.length) return;
  const [[x, y], [left, top], [width]] = [ours.pos, others[0].pos, others[0].size];
  const bottoms = others.filter((node) => node.pos[0] === left).map((node) => node.pos[1] + node.size[1]);
  Object.assign(ours, { flags: { ...ours.flags, collapsed: false }, pos: [left, top], size: [width, Math.max(...bottoms) - top] });
  others.forEach((node, k) => Object.assign(node, { flags: { ...node.flags, collapsed: true }, pos: [x + ROOM * k, y] }));
}

app.registerExtension({
  name: "FaceVideoRestoration.Words",
  init: read,
  beforeConfigureGraph(graph) {
    const inside = (graph.definitions?.subgraphs ?? []).flatMap((one) => one.nodes ?? []);
    const nodes = [...(graph.nodes ?? []), ...inside];
    if (!words.titles || !nodes.some((node) => String(node.type).startsWith("FVR"))) return;
    turnNotes(graph.nodes ?? []);
    for (const node of nodes) node.title = words.titles[node.title] ?? node.title;
  },
});
