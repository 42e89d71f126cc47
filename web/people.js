// Everybody in a clip, on the node that found them (`people` of its ui): a click on a face chooses or leaves out a person, in the words of
// the node's own `faces` input.
import { address, elementOn, grow, make, whenRun, wired } from "./node_display.js";
import { word } from "./words.js";

const FACE = 64;
const CELL = FACE + 22;
const STRIP = "fvr_people";
const MOST_ROWS = 2;

/** The ids that the text of `faces` means; of words other than ids, those that the last run chose. */
function meant(text, people) {
  if (text.trim() === "all") return new Set(people.map((one) => one.person));
  if (/^\s*\d+(\s*,\s*\d+)*\s*$/.test(text)) return new Set(text.split(",").map(Number));
  return new Set(people.filter((one) => one.chosen).map((one) => one.person));
}

function paint(strip, widget, people) {
  const chosen = meant(String(widget.value), people);
  for (const [k, cell] of [...strip.children].entries()) {
    const here = chosen.has(people[k].person);
    cell.setAttribute("aria-pressed", here);
    cell.style.opacity = here ? 1 : 0.35;
    cell.style.outline = here ? "2px solid var(--p-primary-color, #4a9eff)" : "none";
  }
}

/** Chooses a person who was left out, or the other way round; somebody always stays. */
function toggle(widget, people, person) {
  const chosen = meant(String(widget.value), people);
  if (!chosen.delete(person)) chosen.add(person);
  if (!chosen.size) return;
  widget.value = people.every((one) => chosen.has(one.person)) ? "all" : [...chosen].sort((a, b) => a - b).join(",");
  widget.callback?.(widget.value);
}

function show(node, said) {
  const people = (said.people ?? []).flat();
  const widget = node.widgets?.find((one) => one.name === "faces");
  if (!widget) return;
  if (!people.length) {
    const old = node.widgets.find((one) => one.name === STRIP);
    if (old) node.removeWidget?.(old); // of another clip
    return;
  }
  const rows = (width) => Math.ceil(people.length / Math.max(1, Math.floor((width - 30) / (FACE + 8))));
  const style = { display: "flex", flexWrap: "wrap", gap: "6px", padding: "4px", boxSizing: "border-box", overflowY: "auto", alignContent: "start" };
  const strip = elementOn(node, STRIP, style, (width) => 8 + CELL * Math.min(MOST_ROWS, rows(width)));
  const key = JSON.stringify(people);
  if (strip.dataset.key !== key) {
    strip.dataset.key = key;
    strip.replaceChildren(
      ...people.map((one) => {
        const look = { width: `${FACE}px`, padding: "0", border: "none", borderRadius: "4px", background: "none", color: "inherit", cursor: "pointer", font: "11px sans-serif" };
        const cell = make("button", look, { title: word("person {person}: click to choose or leave out", one) });
        cell.append(make("img", { width: `${FACE}px`, height: `${FACE}px`, display: "block" }, { src: address(one), alt: "" }), String(one.person));
        cell.addEventListener("click", () => {
          if (wired(node, "faces")) return; // the text comes by a wire
          toggle(widget, people, one.person);
          paint(strip, widget, people);
          node.setDirtyCanvas?.(true, true);
        });
        return cell;
      }),
    );
    grow(node);
  }
  paint(strip, widget, people);
}

whenRun("People", show);
