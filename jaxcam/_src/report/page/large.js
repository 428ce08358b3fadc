// The large view: one image with all its maps side by side, and all that is known of it.

function startLarge() {
  addEventListener("keydown", turnByKey);
  byId("back").addEventListener("click", () => change({ image: "" }));
  byId("before").addEventListener("click", () => turn(-1));
  byId("next").addEventListener("click", () => turn(1));
  whenChanged(showLarge);
  showLarge();
}

function showLarge(before = null) {
  if (isLookAlone(before)) return;
  const image = report.names.indexOf(state.image);
  byId("large").hidden = image < 0;
  if (image < 0) {
    if (before && before.image !== "") focusCard(Math.max(placeOf(before.image), 0));
    return;
  }
  describeLarge(image);
  showMaps(image);
  if (!before || before.image !== state.image) {
    scrollTo({ top: 0 });
    byId("large-title").focus({ preventScroll: true });
  }
}

function placeOf(name) { // among those that are shown
  return shown.indexOf(report.names.indexOf(name));
}

function describeLarge(image) {
  const place = placeOf(state.image);
  byId("large-title").textContent = state.image;
  byId("place").textContent = place < 0 ? "" : `${place + 1} of ${shown.length}`;
  byId("answer").replaceChildren(answerOf(image), element("span", {}, truthOf(image)),
    element("span", {}, disagreementOf(image)));
  byId("likeliest").replaceChildren(...likeliest(image));
  byId("numbers").replaceChildren(...numberRows(image));
  byId("for-numbers").hidden = byId("numbers").childElementCount === 0;
  byId("command").textContent = commandOf(image, setOf(state));
}

function truthOf(image) {
  const own = report.ownClass[image];
  return own === null ? "" : `${report.ownClassIs} as ${report.classes[own]}`;
}

function disagreementOf(image) {
  const number = report.disagreement?.[image] ?? null;
  return number === null ? "" : `disagreement of the maps ${number.toFixed(3)}`;
}

function likeliest(image) {
  return report.topNames[image].slice(0, report.topProbabilities[image].length).map((name, i) => {
    const probability = report.topProbabilities[image][i];
    const bar = element("meter", { min: 0, max: 1, value: probability });
    bar.setAttribute("aria-label", `probability of ${name}`);
    return element("li", {}, element("span", {}, name), bar,
      element("span", { className: "share" }, percent(probability, 1)));
  });
}

// A row for each set of maps, a column for each number.
function numberRows(image) {
  const names = [...new Set(report.sets.flatMap((set) => Object.keys(set.numbers)))];
  const heading = element("tr", {}, element("td"), ...names.map((name) =>
    element("th", { scope: "col" }, `${named(name)}${signOf(name)}`)));
  const rows = report.sets.map((set) => element("tr", {},
    element("th", { scope: "row" }, `${set.method} `, element("small", {}, set.layer)),
    ...names.map((name) => element("td", {}, numberText(set.numbers[name]?.[image])))));
  return [heading, ...rows];
}

function signOf(name) { // which way is better
  return { true: " ↑", false: " ↓" }[report.better[name]] ?? "";
}

function numberText(number) {
  return number === null || number === undefined ? "–" : number.toFixed(3);
}

function showMaps(image) {
  const hasMaps = report.errors[image] === null;
  const figures = report.sets.map((set, i) => mapFigure(image, i, set.method, set.layer, sharedScale));
  byId("photograph").replaceChildren(mapFigure(image, null, "photograph", "", ownScale));
  byId("maps").replaceChildren(...(hasMaps ? figures : []));
}

// Beside each other, raw maps of one method have one scale; other methods have other units.
function sharedScale(chosen, set, own) {
  if (chosen.scale !== "raw") return own;
  const alike = report.sets.filter((other) => other.method === report.sets[set].method);
  return {
    low: Math.min(...alike.map((other) => other.low)),
    high: Math.max(...alike.map((other) => other.high)),
  };
}

function mapFigure(image, set, title, detail, scaleOf) {
  const canvas = element("canvas", { role: "img" });
  canvas.setAttribute("aria-label", set === null
    ? `photograph ${report.names[image]}` : describe(image, set));
  const caption = element("figcaption", {}, element("strong", {}, title), element("span", {}, detail));
  if (set !== null) caption.append(element("span", {}, explainedText(image, set)));
  const figure = element("figure", { className: set === setOf(state) ? "chosen" : "" }, canvas, caption);
  drawInto(canvas, image, set, scaleOf);
  return figure;
}

function explainedText(image, set) {
  const { targets, probabilities, flat, flatReasons } = report.sets[set];
  if (flat[image] !== null) return `flat: ${flatReasons[flat[image]]}`;
  const name = report.classes[targets[image]] ?? "";
  return `for ${name} ${percent(probabilities[image], 1)}`;
}

function quoted(text) { // where a shell would not take it as it is
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

// What makes the map again, as a shell takes it.
function commandOf(image, set) {
  const { options, targets } = report.sets[set];
  const target = targets[image] === null ? "" : ` --target ${quoted(report.targetTexts[targets[image]])}`;
  return `jaxcam explain ${quoted(pathOf(image))} ${options}${target} --out again`;
}

function turn(step) {
  const place = placeOf(state.image) + step;
  if (place >= 0 && place < shown.length) change({ image: report.names[shown[place]] });
}

function turnByKey(event) {
  if (state.image === "" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (["INPUT", "SELECT"].includes(event.target.tagName)) return; // whose keys these are
  if (event.key === "Escape") change({ image: "" });
  if (event.key === "ArrowLeft") turn(-1);
  if (event.key === "ArrowRight") turn(1);
}
