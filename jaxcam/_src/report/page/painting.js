// Draws an image with one of its maps into a canvas, a few in each frame.

const MILLISECONDS = 8; // of a frame of 16
const BLANK = 224; // pixels of a map whose photograph is missing
const SIGNED = "RdBu_r";
const colourTables = Object.fromEntries(
  Object.entries(report.colours).map(([name, base64]) => [name, bytesOf(base64)]),
);

const waiting = new Map(); // canvas -> what draws it; the last request counts
const painters = new WeakMap(); // canvas -> what paints it anew, as is chosen by then

function request(canvas, draw) {
  if (waiting.size === 0) requestAnimationFrame(drawSome);
  waiting.set(canvas, draw);
}

function drawSome() {
  const end = performance.now() + MILLISECONDS;
  for (const [canvas, draw] of waiting) {
    waiting.delete(canvas);
    if (canvas.isConnected) draw();
    if (performance.now() > end) break;
  }
  if (waiting.size > 0) requestAnimationFrame(drawSome);
}

// Paints a canvas with pixels that are made when it is its turn, now and when the look changes.
function paint(canvas, pixelsOfLook) {
  painters.set(canvas, () => paint(canvas, pixelsOfLook));
  canvas.dataset.drawn = "no";
  request(canvas, () => show(canvas, pixelsOfLook()));
}

// A change of the look alone needs no other cards; others make theirs anew.
function repaintWhereLookAlone(before) {
  if (!isLookAlone(before)) return;
  document.querySelectorAll("canvas[data-drawn]").forEach((canvas) => painters.get(canvas)?.());
}

// Paints the map of an image over its photograph; set null is the photograph alone.
async function paintMap(canvas, image, set, scaleOf) {
  canvas.dataset.drawn = "no";
  const [photograph, map] = await Promise.all([
    photographOf(image),
    set === null ? null : mapOf(image, set),
  ]);
  paint(canvas, () => (map
    ? overlaid(photograph, map, lookOf(state, set), (range) => scaleOf(state, set, range))
    : photograph ?? greyPixels(BLANK, BLANK)));
}

// How the maps of a set look, by what was chosen.
function lookOf(chosen, set) {
  const isSigned = chosen.signed && report.sets[set].low < 0;
  return {
    colours: colourTables[isSigned ? SIGNED : chosen.colours] ?? colourTables.viridis,
    opacity: chosen.opacity,
    contour: chosen.contour,
    isSigned,
  };
}

// The range of a map's colours: its own, or where raw that of its whole set.
function ownScale(chosen, set, own) {
  return chosen.scale === "raw" ? report.sets[set] : own;
}

// Pixels with a map over them.
function overlaid(photograph, map, look, scaleOf) {
  const under = photograph ?? greyPixels(BLANK, BLANK);
  const pixels = new ImageData(under.data.slice(), under.width, under.height);
  const large = upsample(map, under.height, under.width);
  const range = scaleOf(rangeOf(large));
  const found = shares(large, look.isSigned ? centred(range) : range);
  blend(pixels.data, found, look.colours, look.opacity);
  if (look.contour > 0) outline(pixels.data, found, under.width, look.contour);
  return pixels;
}

// Grey, and what is missing is missing in the light and in the dark.
function greyPixels(width, height) {
  const pixels = new ImageData(width, height);
  for (let i = 0; i < pixels.data.length; i += 4) pixels.data.set([140, 140, 140, 255], i);
  return pixels;
}

function show(canvas, pixels) {
  canvas.width = pixels.width;
  canvas.height = pixels.height;
  canvas.classList.toggle("coarse", pixels.width < 128); // whose pixels are the picture
  canvas.getContext("2d", { willReadFrequently: true }).putImageData(pixels, 0, 0);
  canvas.dataset.drawn = "yes";
}
