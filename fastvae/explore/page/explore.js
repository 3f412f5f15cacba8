"use strict";

const $ = (id) => document.getElementById(id);
// The mixed pictures: {z, original (a data URL, or null for a draw), caption, name}.
const chosen = { first: null, second: null };
let metadata = null;

// Messages. One about the server disappears at its next answer, one about an upload at the next action.
let topic = "";

function say(text, of) {
  topic = text ? of : "";
  $("message").textContent = text;
}

function forget(of) {
  if (topic === of) say("", of);
}

async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer. If fastvae explore was stopped, start it again and reload this page.");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Error(capital(said.error || `The server answered with status ${answer.status}.`));
}

const capital = (text) => text[0].toUpperCase() + text.slice(1);

function post(path, body, type = "application/json") {
  return ask(path, { method: "POST", headers: { "Content-Type": type }, body });
}

// The picture.

const sliders = () => [...document.querySelectorAll("#sliders input")];

function wish() {
  const strengths = Object.fromEntries(sliders().map((slider) => [slider.name, slider.valueAsNumber]));
  const second = chosen.second && chosen.second.z;
  return { z: chosen.first.z, strengths, second, mix: second ? $("mix").valueAsNumber : 0 };
}

function caption(wanted) {
  const changed = wanted.mix > 0 || Object.values(wanted.strengths).some((strength) => strength !== 0);
  return chosen.first.caption + (changed ? ", changed" : "");
}

let stale = false;
let showing = false;

// Sends only the newest request: older ones that were waiting for an answer are skipped.
async function show() {
  stale = true;
  if (showing || !chosen.first) return;
  showing = true;
  while (stale) {
    stale = false;
    const wanted = wish();
    const text = caption(wanted);
    const original = chosen.first.original;
    try {
      const answer = await post("decode", JSON.stringify(wanted));
      replace(URL.createObjectURL(await answer.blob()), original, text);
      forget("server");
    } catch (error) {
      say(error.message, "server");
    }
  }
  showing = false;
}

function replace(url, original, text) {
  const old = $("save").href;
  $("result").src = $("save").href = url;
  $("result").alt = $("caption").textContent = text;
  $("original-figure").hidden = !original;
  if (original) $("original").src = original;
  if (old) URL.revokeObjectURL(old);
}

// Where pictures come from, for "first" and "second".

const turns = { first: 0, second: 0 };

async function choose(side, find) {
  const turn = ++turns[side];
  try {
    const picture = await find();
    if (turn !== turns[side]) return; // something else was chosen meanwhile
    say("", "");
    chosen[side] = picture;
    if (side === "second") showSecond(picture);
    show();
  } catch (error) {
    if (turn === turns[side]) say(error.message, "upload");
  }
}

function upload(side, file) {
  $(`${side}-file`).value = ""; // so that the same file can be chosen again
  if (!file) return;
  choose(side, async () => {
    if (file.size > metadata.max_bytes) {
      const limit = metadata.max_bytes / 1e6;
      throw new Error(`${file.name} is too large: it has ${(file.size / 1e6).toFixed(1)} MB; the limit is ${limit} MB.`);
    }
    const bytes = await file.arrayBuffer().catch(() => {
      throw new Error(`${file.name} could not be read. Is it a file that still exists?`);
    });
    const answer = await post("encode", bytes, "application/octet-stream").catch((error) => {
      throw new Error(`${file.name}: ${error.message}`);
    });
    const picture = { ...(await answer.json()), caption: "Reconstruction", name: file.name };
    $(`${side}-seed`).value = "";
    return picture;
  });
}

function draw(side, seed) {
  $(`${side}-seed`).value = seed;
  choose(side, async () => {
    const { z } = await (await post("random", JSON.stringify({ seed }))).json();
    const picture = { z, original: null, caption: `Random, seed ${seed}`, name: `seed ${seed}` };
    if (side === "second") picture.preview = await (await post("decode", JSON.stringify({ z }))).blob();
    return picture;
  });
}

function showSecond(picture) {
  const url = picture.original || URL.createObjectURL(picture.preview);
  $("second-picture").onload = () => URL.revokeObjectURL(url);
  $("second-picture").src = url;
  $("second-picture").hidden = false;
  $("second-picture").alt = `The second picture, ${picture.name}`;
  $("second-hint").textContent = `0 is the first picture, 1 is ${picture.name}.`;
  if ($("mix").disabled) {
    $("mix").disabled = false;
    set($("mix"), 0.5);
  }
}

// The controls.

function set(slider, value) {
  slider.value = value;
  const digits = slider.step.split(".")[1].length;
  const sign = slider.valueAsNumber > 0 && slider.min < 0 ? "+" : "";
  $(`${slider.id}-value`).textContent = sign + slider.valueAsNumber.toFixed(digits);
}

function moved(event) {
  set(event.target, event.target.value);
  forget("upload");
  show();
}

function addSlider({ name, with: withIt, without }, maxStrength) {
  const row = document.createElement("div");
  const label = document.createElement("label");
  const slider = document.createElement("input");
  const value = document.createElement("output");
  row.className = "slider";
  row.title = `from ${withIt.toLocaleString()} images with it and ${without.toLocaleString()} without`;
  slider.id = label.htmlFor = `attribute-${name}`;
  value.id = `${slider.id}-value`;
  value.htmlFor = slider.id;
  label.textContent = name.replaceAll("_", " ");
  Object.assign(slider, { type: "range", name, min: -maxStrength, max: maxStrength, step: "0.1" });
  slider.addEventListener("input", moved);
  row.append(label, slider, value);
  $("sliders").append(row);
  set(slider, 0);
}

function wire(side) {
  const seed = $(`${side}-seed`);
  $(`${side}-file`).addEventListener("change", (event) => upload(side, event.target.files[0]));
  $(`${side}-random`).addEventListener("click", () => draw(side, Math.floor(Math.random() * 1e6)));
  seed.addEventListener("change", () => {
    if (seed.value && seed.checkValidity()) draw(side, seed.valueAsNumber);
    else say("The seed must be an integer, 0 or more.", "upload");
  });
}

function wireDrops() {
  const side = (event) => (event.target.closest?.("#second") ? "second" : "first");
  const mark = (name) => {
    $("stage").classList.toggle("dropping", name === "first");
    $("second").classList.toggle("dropping", name === "second");
  };
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    mark(side(event));
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) mark("");
  });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    mark("");
    if (event.dataTransfer.files.length) upload(side(event), event.dataTransfer.files[0]);
    else say("This is not a file: save the picture first, then drop it here.", "upload");
  });
}

async function start() {
  metadata = await (await ask("metadata")).json();
  const size = `${metadata.image_size}×${metadata.image_size}`;
  document.title = `${metadata.name} · fastvae explore`;
  $("metadata").textContent = `${metadata.name}: pictures of ${size} pixels, ${metadata.latent} latent dimensions`;
  $("save").download = `${metadata.name}.png`;
  $("no-sliders").hidden = !metadata.no_sliders;
  $("no-sliders").textContent = metadata.no_sliders && `No sliders: ${metadata.no_sliders}`;
  $("reset").hidden = !metadata.sliders.length;
  metadata.sliders.forEach((slider) => addSlider(slider, metadata.max_strength));
  $("reset").addEventListener("click", () => {
    sliders().forEach((slider) => set(slider, 0));
    show();
  });
  $("mix").addEventListener("input", moved);
  wire("first");
  wire("second");
  wireDrops();
  draw("first", 0);
}

start().catch((error) => say(error.message, "server"));
