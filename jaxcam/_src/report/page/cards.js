// A card: an image with the chosen map over it, and what the model said.

function cardOf(image) {
  const canvas = element("canvas", { role: "img" });
  canvas.setAttribute("aria-label", describe(image, setOf(state)));
  const opened = element("button", { type: "button", className: "card", title: report.names[image] },
    canvas,
    element("span", { className: "name" }, shortName(report.names[image])),
    answerOf(image),
    element("span", { className: "number" }, numberOf(image)),
  );
  opened.addEventListener("click", () => change({ image: report.names[image] }));
  drawInto(canvas, image, setOf(state));
  return opened;
}

function shortName(name) { // without the folders, which the title has
  return name.split("/").pop();
}

// Draws, or where a shard is missing says so.
function drawInto(canvas, image, set, scaleOf = ownScale) {
  paintMap(canvas, image, set, scaleOf).catch((error) => {
    canvas.setAttribute("aria-label", error.message);
    canvas.title = error.message;
  });
}

// The text in place of the picture.
function describe(image, set) {
  const { method, layer } = report.sets[set];
  const lacks = missing.has(image) ? ", photograph missing" : "";
  return `${method} at ${layer} over ${report.names[image]}${lacks}`;
}

function answerOf(image) {
  if (report.errors[image] !== null) {
    return element("span", { className: "answer bad" }, `skipped: ${report.errors[image]}`);
  }
  const said = report.classes[report.prediction[image]] ?? "";
  const sure = report.confidence[image] === null ? "" : ` ${percent(report.confidence[image])}`;
  const sign = isWrong[image] ? "✗ " : "";
  const kind = isWrong[image] ? "answer bad" : "answer";
  return element("span", { className: kind }, `${sign}${said}${sure}`);
}

// What the card is sorted by, or why its map is flat.
function numberOf(image) {
  const set = setOf(state), { flat, flatReasons } = report.sets[set];
  const { label, values } = sortings(set)[state.sort] ?? {};
  const isNumber = values && !["order", "name", "wrong", "flat", "confidence"].includes(state.sort);
  if (isNumber && values[image] !== null) return `${values[image].toFixed(3)} ${label}`;
  if (missing.has(image)) return "photograph missing";
  return flat[image] === null ? "" : `flat: ${flatReasons[flat[image]]}`;
}
