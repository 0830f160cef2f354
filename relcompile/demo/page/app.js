// The page: a photograph in, its classes and the relevance of its pixels out. Everything is computed here.

import * as ort from "./runtime/ort.wasm.bundle.min.mjs";
import { preprocess } from "./photographs.js";

const SHOWN = 5; // of the best classes
const PERCENTILE = 0.995; // of |relevance|, at which colours end
const COLOURS = [[5, 48, 97], [67, 147, 195], [247, 247, 247], [214, 96, 77], [103, 0, 31]]; // from -1 to 1
const $ = (id) => document.getElementById(id);
const about = await (await fetch("explainer.json")).json();
let session, seen;

ort.env.wasm.wasmPaths = { wasm: new URL("runtime/ort-wasm-simd-threaded.wasm", location.href).href };
ort.env.wasm.numThreads = 1; // several need headers that a plain file server does not send
await guarded(async () => {
  $("about").textContent = about.title;
  $("choice").hidden = !about.takesClass;
  const externalData = about.weights ? [{ path: about.weights, data: about.weights }] : [];
  session = await ort.InferenceSession.create("explainer.onnx", { executionProviders: ["wasm"], externalData });
  if (about.takesClass)
    $("target").replaceChildren(...Array.from({ length: about.classes }, (_, k) => new Option(named(k), k)));
  tell("ready", "Ready.");
});

$("file").addEventListener("change", (event) => guarded(() => open(event.target.files[0])));
$("target").addEventListener("change", (event) => guarded(() => explain(Number(event.target.value))));
$("opacity").addEventListener("input", (event) => ($("map").style.opacity = event.target.value / 100));
$("map").addEventListener("pointermove", point);
for (const [kind, over] of [["dragover", true], ["dragleave", false], ["drop", false]])
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", over);
    if (kind === "drop" && event.dataTransfer.files.length) guarded(() => open(event.dataTransfer.files[0]));
  });

/** What the page says when something fails, instead of saying nothing. */
async function guarded(act) {
  try {
    await act();
  } catch (error) {
    tell("failed", `It did not work: ${error.message ?? error}`);
  }
}

function tell(state, text) {
  document.body.dataset.state = state;
  $("status").textContent = text;
}

async function open(file) {
  if (!file) return;
  tell("working", `Explaining ${file.name} …`);
  seen = preprocess(await pixelsOf(file), about);
  draw($("view"), (k) => [...seen.view.data.subarray(3 * k, 3 * k + 3), 255]);
  const first = await run(0);
  const best = bestOf(first.scores)[0];
  await (about.takesClass && best !== 0 ? explain(best) : show(first, about.takesClass ? 0 : about.index ?? best));
}

/** RGB as it stands in the file: no colour management, upright. */
async function pixelsOf(file) {
  const bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", imageOrientation: "from-image" });
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(bitmap, 0, 0);
  const rgba = context.getImageData(0, 0, bitmap.width, bitmap.height).data;
  const data = new Uint8Array((rgba.length / 4) * 3);
  for (let k = 0; k < rgba.length / 4; k++) data.set(rgba.subarray(4 * k, 4 * k + 3), 3 * k);
  return { data, width: bitmap.width, height: bitmap.height };
}

async function explain(target) {
  if (!seen) return;
  tell("working", `Explaining ${named(target)} …`);
  await show(await run(target), target);
}

/** One run of the graph. */
async function run(target) {
  const feeds = { [about.input]: new ort.Tensor("float32", seen.input, [1, about.channels, about.height, about.width]) };
  if (about.takesClass) feeds[about.target] = new ort.Tensor("int64", BigInt64Array.of(BigInt(target)), [1]);
  const began = performance.now();
  const found = await session.run(feeds, [about.output, about.relevance]);
  const relevance = found[about.relevance].data;
  if (!relevance.every(Number.isFinite)) throw new Error("NaN or infinity in the relevance: there is no map");
  return { scores: found[about.output].data, relevance, milliseconds: performance.now() - began };
}

async function show({ scores, relevance, milliseconds }, target) {
  const size = about.height * about.width;
  const map = new Float64Array(size);
  relevance.forEach((value, k) => (map[k % size] += value));
  const sorted = map.map(Math.abs).sort();
  const limit = sorted[Math.floor(PERCENTILE * (size - 1))] || sorted[size - 1] || 1;
  draw($("map"), (k) => colour(Math.max(-1, Math.min(1, map[k] / limit))));
  $("low").textContent = (-limit).toPrecision(3);
  $("high").textContent = limit.toPrecision(3);
  $("target").value = target;
  const rows = bestOf(scores).slice(0, SHOWN).map((k) => row([named(k), scores[k].toFixed(3)], k === target));
  $("classes").tBodies[0].replaceChildren(...rows);
  const sum = relevance.reduce((a, b) => a + b, 0);
  facts({ "sum of relevance": sum.toPrecision(4), score: scores[target].toPrecision(4), time: `${milliseconds.toFixed(0)} ms` });
  window.explanation = { scores, relevance, target, map };
  tell("done", `Explained: ${named(target)}.`);
}

function named(k) {
  return about.classNames ? `${about.classNames[k]} (${k})` : `class ${k}`;
}

function bestOf(scores) {
  return Array.from(scores.keys()).sort((a, b) => scores[b] - scores[a]);
}

function row(cells, current) {
  const element = document.createElement("tr");
  if (current) element.setAttribute("aria-current", "true");
  for (const text of cells) element.insertCell().textContent = text;
  return element;
}

function facts(entries) {
  const pairs = Object.entries(entries).flatMap(([name, value]) => [["dt", name], ["dd", value]]);
  $("facts").replaceChildren(...pairs.map(([tag, text]) => Object.assign(document.createElement(tag), { textContent: text })));
}

/** Fill a canvas of the input's size; `colourAt(k)` is the RGBA of pixel k. */
function draw(canvas, colourAt) {
  [canvas.width, canvas.height] = [about.width, about.height];
  const image = new ImageData(about.width, about.height);
  for (let k = 0; k < about.width * about.height; k++) image.data.set(colourAt(k), 4 * k);
  canvas.getContext("2d").putImageData(image, 0, 0);
}

/** RGBA: -1 is blue, 1 red; what is near 0 lets the photograph through. */
function colour(value) {
  const place = ((value + 1) / 2) * (COLOURS.length - 1);
  const below = Math.min(Math.floor(place), COLOURS.length - 2);
  const rgb = COLOURS[below].map((low, c) => low + (place - below) * (COLOURS[below + 1][c] - low));
  return [...rgb, 255 * Math.abs(value)];
}

function point(event) {
  if (!window.explanation) return;
  const [x, y] = [event.offsetX / event.target.clientWidth, event.offsetY / event.target.clientHeight];
  const [column, line] = [Math.floor(x * about.width), Math.floor(y * about.height)];
  const value = window.explanation.map[line * about.width + column];
  if (value !== undefined) $("pixel").textContent = `Relevance at (${column}, ${line}): ${value.toPrecision(3)}`;
}
