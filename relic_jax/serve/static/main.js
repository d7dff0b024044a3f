// The page: what the server says goes to the screen and the figures, what a person does goes to the server.

import { Connection } from "./connection.js";
import { drawMap, drawMemory } from "./drawings.js";
import { Figures } from "./figures.js";
import { Input, isForPage } from "./input.js";
import { Screen, bestCodec } from "./screen.js";
import { Timeline } from "./timeline.js";
import { World } from "./world.js";

const BACK_SECONDS = 5;
const NOTE_SECONDS = 5;
const $ = (id) => document.getElementById(id);

const figures = new Figures();
const state = {
  welcome: null, epoch: -1, playing: false, waiting: false, recording: false, ended: false,
  path: [], pose: null, memory: null, memoryBytes: 0,
}; // prettier-ignore

// What the server says.

const connection = new Connection({
  welcome(message) {
    state.welcome = message;
    screen.shape = { fps: message.fps, block: message.block };
    timeline.shape = { seconds: message.block / message.fps };
    $("frame").style.setProperty("--aspect", message.width / message.height);
    $("stage").style.setProperty("--aspect", message.width / message.height);
    $("model").textContent = `${message.model} · ${message.width}×${message.height} · ${message.version}`;
    world.fill(message);
    input.restart();
    if (!$("memory").hidden) connection.say({ type: "attention", on: true });
  },
  waiting({ place }) {
    if (place) veil(place === 1 ? "You are next. Somebody else is playing." : `${place - 1} others wait before you.`);
  },
  warming({ done, total, what }) {
    if (done < total) return veil(`The model is warming up: ${what}`, done / total);
    veil(null);
    if (!state.playing) world.open(false);
  },
  opened(message) {
    Object.assign(state, { epoch: message.epoch, playing: true, path: message.path, pose: null, waiting: false });
    screen.flush();
    figures.forget();
    timeline.set(message.blocks);
    $("prompt").value = message.prompt;
    veil(null);
    for (const text of message.notes) note(text);
    pause(false);
    drawMap($("map"), state.path, null);
    $("picture").focus({ preventScroll: true });
  },
  described(message) {
    note(message.notes.length ? message.notes.join("; ") : `From here on: ${message.prompt}`);
  },
  block(header, parts) {
    if (header.epoch !== state.epoch) return; // of another past
    header.thumb = header.codec === "jpeg" ? parts[0] : null;
    screen.take(header, parts);
  },
  recording({ on }) {
    state.recording = on;
    $("to-record").setAttribute("aria-pressed", String(on));
    chip();
  },
  file(header, [bytes]) {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([bytes], { type: header.media }));
    link.download = header.name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
    note(`${header.name} is yours`);
  },
  refused({ why }) {
    state.waiting = false;
    note(why);
    if (!state.playing) world.open(false);
  },
  pong({ memory_bytes }) {
    state.memoryBytes = memory_bytes;
  },
  gone(why, seconds) {
    lost();
    veil(`The connection is gone${why ? `: ${why}` : ""}. Trying again in ${seconds} s.`);
  },
  ended(why, code) {
    lost();
    if (code === 4401) return askForToken();
    veil(why, null, "Connect again");
  },
});

function lost() {
  Object.assign(state, { playing: false, recording: false, epoch: -1, waiting: false });
  $("to-record").setAttribute("aria-pressed", "false");
  screen.flush();
  world.close();
  chip();
}

function askForToken() {
  veil("This server asks for a token: give it in the address, after a #.", null, "Connect again");
}

// The screen.

const screen = new Screen($("picture"), $("glow"), {
  shown(header, early, now) {
    connection.say({ type: "ack", epoch: header.epoch, block: header.block, early });
    figures.shown(header, now);
    state.pose = header.pose;
    state.memory = header.memory;
    state.path.length = header.block;
    state.path.push([header.pose.position[0], header.pose.position[2]]);
    timeline.add(header.block, header.thumb);
    drawMap($("map"), state.path, header.pose);
    if (!$("memory").hidden) drawMemory($("strip"), header.memory);
  },
  drawn(header, index, now) {
    const time = connection.serverTime();
    figures.frame(now, time === null ? null : time - header.end);
  },
});

const timeline = new Timeline($("timeline"), goBack);
const world = new World({
  async begin({ scene, picture, prompt, seed }) {
    const codec = await bestCodec(state.welcome.codecs);
    ask({ type: "open", scene, prompt, seed, codec }, picture);
  },
  async load(bytes) {
    ask({ type: "load", codec: await bestCodec(state.welcome.codecs) }, bytes);
  },
  describe: (prompt) => connection.say({ type: "describe", prompt }),
  refuse: note,
});
const input = new Input($("picture"), $("sticks"), (control) => {
  if (!state.playing || !connection.isOpen) return;
  figures.pressed(control.seq, performance.now() / 1000);
  connection.say(control);
});

// What a person does.

/** Asks for another past or world; the old one goes on until that stands. */
function ask(message, bytes) {
  state.waiting = true;
  connection.say(message, bytes ?? undefined);
}

function goBack(blocks, otherNoise) {
  if (!state.playing || state.waiting) return;
  const seed = otherNoise ? Math.floor(Math.random() * 2 ** 32) : null;
  ask({ type: "branch", blocks, seed });
  note(`back at ${(blocks * timeline.shape.seconds).toFixed(0)} s${otherNoise ? ", with other noise" : ""}`);
}

function reset() {
  if (state.playing && !state.waiting) ask({ type: "reset", seed: Number($("seed").value) || 0 });
}

function pause(on) {
  if (!state.playing || on === screen.paused) return;
  screen.paused = on;
  $("to-pause").setAttribute("aria-pressed", String(on));
  connection.say({ type: "pause", on });
  chip();
}

function toggle(id, button, then) {
  $(id).hidden = !$(id).hidden;
  $(button).setAttribute("aria-pressed", String(!$(id).hidden));
  then?.(!$(id).hidden);
}

const record = () => state.playing && connection.say({ type: "record", on: !state.recording });
const showMemory = () =>
  toggle("memory", "to-memory", (on) => {
    connection.say({ type: "attention", on });
    if (on && state.memory) drawMemory($("strip"), state.memory);
  });
const showFigures = () => toggle("figures", "to-figures");
const help = () => ($("help").open ? $("help").close() : $("help").showModal());
const fullscreen = () =>
  document.fullscreenElement ? document.exitFullscreen() : document.documentElement.requestFullscreen();
const back = (event) =>
  goBack(Math.max(timeline.blocks - Math.round(BACK_SECONDS / timeline.shape.seconds), 0), event.shiftKey);

const SHORTCUTS = {
  KeyP: () => pause(!screen.paused), KeyR: reset, KeyM: showMemory, KeyG: showFigures, KeyH: help, KeyV: record,
  KeyN: () => world.open(state.playing), KeyF: fullscreen, Backspace: back,
}; // prettier-ignore

addEventListener("keydown", (event) => {
  if (event.code === "KeyH" && $("help").open) return help();
  if (isForPage(event) || event.repeat || !(event.code in SHORTCUTS)) return;
  event.preventDefault();
  SHORTCUTS[event.code](event);
});
$("to-world").addEventListener("click", () => state.welcome && world.open(state.playing));
$("to-pause").addEventListener("click", () => pause(!screen.paused));
$("to-record").addEventListener("click", record);
$("to-save").addEventListener("click", () => state.playing && connection.say({ type: "save" }));
$("to-figures").addEventListener("click", showFigures);
$("to-memory").addEventListener("click", showMemory);
$("to-help").addEventListener("click", help);
$("veil-button").addEventListener("click", () => {
  veil("Connecting");
  connection.open();
});
for (const name of ["speed", "sensitivity"]) {
  $(name).addEventListener("input", () => (input.settings[name] = Number($(name).value)));
}
$("sticks").hidden = !matchMedia("(pointer: coarse)").matches;
let hiddenPause = false; // a page that isn't seen waits, unless it waited already
document.addEventListener("visibilitychange", () => {
  if (document.hidden === hiddenPause || (document.hidden && screen.paused)) return;
  hiddenPause = document.hidden;
  pause(document.hidden);
});
addEventListener("hashchange", () => connection.open());

// What the page says.

function veil(text, share = null, button = null) {
  $("veil").hidden = text === null;
  $("veil-text").textContent = text ?? "";
  $("veil-bar").hidden = share === null;
  if (share !== null) $("veil-bar").value = share;
  $("veil-button").hidden = button === null;
  $("veil-button").textContent = button ?? "";
  chip();
}

let noteTimer;
function note(text) {
  $("note").textContent = text;
  $("note").classList.add("shown");
  clearTimeout(noteTimer);
  noteTimer = setTimeout(() => $("note").classList.remove("shown"), NOTE_SECONDS * 1000);
}

function chip() {
  const now = performance.now() / 1000;
  const latency = figures.all(now).latency;
  const [kind, text] = !connection.isOpen
    ? ["bad", "not connected"]
    : state.recording
      ? ["recording", "recording"]
      : !state.playing
        ? ["off", "no world yet"]
        : screen.paused
          ? ["off", "paused"]
          : ["on", `${figures.fps(now).toFixed(0)} fps${latency.count ? ` · ${latency.median.toFixed(1)} s to the picture` : ""}`];
  $("chip").dataset.state = kind;
  $("chip").textContent = text;
}

setInterval(() => {
  chip();
  if ($("figures").hidden) return;
  figures.show(performance.now() / 1000, screen, state.memoryBytes);
  const pose = state.pose;
  if (!pose) return;
  const [x, y, z] = pose.position;
  $("position").textContent = `${x.toFixed(1)}, ${(-y).toFixed(1)}, ${z.toFixed(1)}`;
  $("heading").textContent = `${pose.yaw.toFixed(0)}° ${pose.pitch.toFixed(0)}° ${pose.roll.toFixed(0)}°`;
}, 500);

/** For whoever measures: tests, and a console. */
globalThis.relic = {
  figures: () => ({
    ...figures.all(performance.now() / 1000),
    stalls: { ...screen.stalls },
    depth: screen.depth,
    blocks: timeline.blocks,
    pose: state.pose,
    memory: state.memory,
    memoryBytes: state.memoryBytes,
    playing: state.playing,
  }),
  restart: () => figures.restart(),
};

connection.open();
