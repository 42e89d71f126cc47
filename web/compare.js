// Before and after on our nodes: a line that follows the pointer, over a few frames (`a_images` and `b_images` of a node's ui) or over two
// clips that play together, with sound (`a_video` and `b_video`). While a node works, its last frame.
import { api } from "../../scripts/api.js";
import { address, elementOn, grow, make, nodeAt, whenRun } from "./node_display.js";
import { word } from "./words.js";

const BAR = 26;
const WORKING = "working";
const WORKERS = ["FVRRestoreVideo", "FVRRestoreFrames"];

/** Two pictures or clips in one place, and the line between them. */
function stage(tag) {
  const filled = { position: "absolute", inset: "0", width: "100%", height: "100%", objectFit: "contain", pointerEvents: "none" };
  const box = make("div", { position: "relative", flex: "1", minHeight: "130px", overflow: "hidden", background: "#000", cursor: "ew-resize" });
  const [after, before] = [make(tag, filled), make(tag, filled)];
  const line = make("div", { position: "absolute", top: "0", bottom: "0", width: "2px", background: "#fff", pointerEvents: "none" });
  const set = (share) => {
    box.dataset.share = share.toFixed(3);
    before.style.clipPath = `inset(0 ${100 * (1 - share)}% 0 0)`;
    line.style.left = `calc(${100 * share}% - 1px)`;
  };
  const follow = (event) => {
    const { left, width } = box.getBoundingClientRect();
    set(Math.min(1, Math.max(0, (event.clientX - left) / width)));
  };
  box.addEventListener("pointermove", follow);
  box.addEventListener("pointerdown", follow);
  box.append(after, before, line);
  set(0.5);
  return { box, before, after };
}

function scrubber(most, step) {
  const range = make("input", { flex: "1", minWidth: "0", margin: "0" }, { type: "range", min: 0, max: most, step, value: 0 });
  range.setAttribute("aria-label", word("frame"));
  return range;
}

/** A slider over pairs of frames. */
function overFrames(before, after) {
  const view = stage("img");
  const count = Math.min(before.length, after.length);
  const range = scrubber(count - 1, 1);
  const show = () => {
    view.before.src = address(before[Number(range.value)]);
    view.after.src = address(after[Number(range.value)]);
  };
  range.addEventListener("input", show);
  range.style.display = count > 1 ? "" : "none";
  show();
  return { view, controls: [range] };
}

/** A wipe between two clips: the first one leads, and is heard. */
function overClips(before, after) {
  const view = stage("video");
  const [leader, follower] = [view.before, view.after];
  for (const [clip, file] of [[leader, before], [follower, after]]) Object.assign(clip, { src: address(file), muted: true, loop: true, preload: "auto" });
  const range = scrubber(1, "any");
  const style = { border: "none", borderRadius: "4px", background: "var(--comfy-input-bg)", color: "inherit", cursor: "pointer", font: "11px sans-serif" };
  const play = make("button", style, { textContent: word("play") });
  const sound = make("button", style, { textContent: word("sound on") });
  const together = () => {
    if (Math.abs(follower.currentTime - leader.currentTime) > 0.03) follower.currentTime = leader.currentTime;
  };
  const step = () => {
    if (leader.paused) return;
    range.value = leader.currentTime;
    if (Math.abs(follower.currentTime - leader.currentTime) > 0.1) together(); // a seek takes longer than a frame: not for less
    requestAnimationFrame(step);
  };
  leader.addEventListener("loadedmetadata", () => (range.max = leader.duration));
  leader.addEventListener("play", () => {
    play.textContent = word("pause");
    follower.play();
    step();
  });
  leader.addEventListener("pause", () => {
    play.textContent = word("play");
    follower.pause();
    together();
  });
  leader.addEventListener("seeked", together);
  range.addEventListener("input", () => (leader.currentTime = follower.currentTime = Number(range.value)));
  play.addEventListener("click", () => (leader.paused ? leader.play() : leader.pause()));
  sound.addEventListener("click", () => {
    leader.muted = !leader.muted;
    sound.textContent = word(leader.muted ? "sound on" : "sound off");
  });
  return { view, controls: [play, range, sound] };
}

const panel = (node) => elementOn(node, "fvr_compare", { display: "flex", flexDirection: "column" }, (width) => BAR + Math.max(130, 0.5 * width)); // 16:9 between the margins
const barOf = (...controls) => {
  const bar = make("div", { display: "flex", alignItems: "center", gap: "4px", height: `${BAR}px`, font: "11px sans-serif" });
  bar.append(...controls);
  return bar;
};

/** Shows what a run gave to compare. */
function show(node, said) {
  const [images, clips] = [
    [said.a_images, said.b_images],
    [said.a_video, said.b_video],
  ].map((pair) => pair.map((files) => (files ?? []).flat()));
  const given = [clips, images].find(([a, b]) => a.length && b.length);
  if (!given) return;
  const element = panel(node);
  const key = JSON.stringify(given);
  if (element.dataset.key === key) return;
  element.dataset.key = key;
  const { view, controls } = given === clips ? overClips(clips[0][0], clips[1][0]) : overFrames(...images);
  element.replaceChildren(view.box, barOf(...controls));
  grow(node);
}

whenRun("Compare", show);

api.addEventListener("fvr.work", ({ detail }) => {
  const node = nodeAt(detail.node);
  if (!WORKERS.includes(node?.comfyClass)) return; // another graph is open, and has that number too
  const element = panel(node);
  if (element.dataset.key !== WORKING) {
    element.dataset.key = WORKING;
    const picture = make("img", { flex: "1", minHeight: "130px", objectFit: "contain", background: "#000" }, { alt: "" });
    element.replaceChildren(barOf(""), picture); // the text first: the picture may reach below the screen
  }
  const [bar, picture] = element.children;
  bar.textContent = detail.text;
  if (detail.picture) picture.src = detail.picture;
  if (node.size[1] < node.computeSize()[1]) grow(node);
});
