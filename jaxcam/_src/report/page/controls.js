// Elements made without markup, and the controls above the images.

// An element with properties and children; text among them stays text.
function element(tag, properties = {}, ...children) {
  const { data = {}, ...others } = properties;
  const made = Object.assign(document.createElement(tag), others);
  Object.assign(made.dataset, data);
  made.append(...children.filter((child) => child !== null));
  return made;
}

function byId(id) {
  return document.getElementById(id);
}

function percent(share, digits = 0) {
  return share === null ? "" : `${(100 * share).toFixed(digits)}%`;
}

function fillSelect(id, options, chosen) {
  byId(id).replaceChildren(...options.map(([value, label]) =>
    element("option", { value, selected: value === chosen }, label)));
}

// Ties a control to one of the choices: what it shows, and what it changes.
function tie(id, key, property = "value", valueFrom = (value) => value) {
  const control = byId(id);
  control.addEventListener("input", () => change({ [key]: valueFrom(control[property]) }));
  const display = () => { control[property] = state[key]; };
  whenChanged(display);
  display();
}

function startControls() {
  fillControls();
  whenChanged(fillSortings);
  tie("method", "method");
  tie("layer", "layer");
  tie("colours", "colours");
  tie("opacity", "opacity", "value", Number);
  tie("contour", "contour", "value", Number);
  tie("raw", "scale", "checked", (is) => (is ? "raw" : "ranged"));
  tie("signed", "signed", "checked");
  tie("sort", "sort");
  tie("reversed", "reversed", "checked");
  tie("class", "class");
  tie("wrong", "wrong", "checked");
  tie("name", "name");
  byId("export").addEventListener("click", saveSelection);
  byId("reset").addEventListener("click", () => change({ ...DEFAULTS }));
  whenChanged(describeControls);
  describeControls();
}

function fillControls() {
  fillSelect("method", methods.map((method) => [method, method]), state.method);
  fillSelect("layer", layers.map((layer) => [layer, layer]), state.layer);
  const colours = Object.keys(report.colours).filter((name) => name !== SIGNED);
  fillSelect("colours", colours.map((name) => [name, name]), state.colours);
  fillSelect("class", [["", "every class"], ...ownClasses()], state.class);
  fillSortings();
  byId("for-layer").hidden = layers.length < 2;
  byId("for-wrong").hidden = !isWrong.some(Boolean);
  byId("for-signed").hidden = !report.sets.some((set) => set.low < 0);
}

function fillSortings() {
  const known = Object.entries(sortings(setOf(state)));
  fillSelect("sort", known.map(([key, { label }]) => [key, label]), state.sort);
}

// The classes that images are of, with how many there are.
function ownClasses() {
  const counts = new Map();
  for (const own of report.ownClass) if (own !== null) counts.set(own, (counts.get(own) ?? 0) + 1);
  return [...counts].sort(([a], [b]) => a - b)
    .map(([own, count]) => [report.classes[own], `${report.classes[own]} (${count})`]);
}

function describeControls() {
  byId("raw").checked = state.scale === "raw";
  byId("contour-at").textContent = state.contour > 0 ? `at ${percent(state.contour)}` : "none";
  byId("opacity-at").textContent = percent(state.opacity);
  drawLegend(lookOf(state, setOf(state)));
}

function drawLegend({ colours, isSigned }) {
  const pixels = greyPixels(256, 1);
  blend(pixels.data, Float32Array.from({ length: 256 }, (_, i) => i / 255), colours, 1);
  byId("legend").getContext("2d").putImageData(pixels, 0, 0);
  const text = isSigned ? "against, in the middle 0, for the class" : "from low to high";
  byId("legend").setAttribute("aria-label", `colours ${text}`);
  byId("legend").title = text;
}

function saveSelection() {
  const list = new Blob([csvOf(selected(state))], { type: "text/csv" });
  const link = element("a", { href: URL.createObjectURL(list), download: "selection.csv" });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
