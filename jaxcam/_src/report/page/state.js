// What the reader chose. It is in the address after "#", so that a link shows the same.

const methods = [...new Set(report.sets.map((set) => set.method))];
const layers = [...new Set(report.sets.map((set) => set.layer))];
const DEFAULTS = {
  method: report.sets[0].method,
  layer: report.sets[0].layer,
  opacity: 0.5,
  contour: 0, // a share of the range; 0 draws none
  colours: "viridis",
  scale: "ranged", // or "raw"
  signed: true, // colours with zero in the middle, where a map has signs
  sort: "order",
  reversed: false,
  class: "", // of report.classes, by name
  wrong: false,
  name: "",
  image: "", // by name; "" is the grid
};

const LOOK = ["opacity", "contour", "colours", "scale", "signed"];

let state = { ...DEFAULTS };
const listeners = [];

function whenChanged(listener) {
  listeners.push(listener);
}

function change(part) {
  const before = state;
  state = { ...state, ...part };
  // An image is a place to come back from; a slider is not.
  const write = before.image === state.image ? "replaceState" : "pushState";
  history[write](null, "", `#${hashOf(state)}`);
  listeners.forEach((listener) => listener(before));
}

function readAddress() {
  const before = state;
  state = stateOf(location.hash.slice(1));
  listeners.forEach((listener) => listener(before));
}

// Whether nothing else changed than how maps are drawn.
function isLookAlone(before) {
  const same = (key) => LOOK.includes(key) || before[key] === state[key];
  return before !== null && Object.keys(DEFAULTS).every(same);
}

function hashOf(chosen) {
  const other = Object.keys(DEFAULTS).filter((key) => chosen[key] !== DEFAULTS[key]);
  return new URLSearchParams(other.map((key) => [key, String(chosen[key])])).toString();
}

function stateOf(hash) {
  const found = { ...DEFAULTS };
  for (const [key, text] of new URLSearchParams(hash)) {
    if (key in DEFAULTS) found[key] = valueOf(text, DEFAULTS[key]);
  }
  if (!report.names.includes(found.image)) found.image = "";
  if (!report.classes.includes(found.class)) found.class = "";
  return found;
}

// Text as a value of the kind that the default is; the default, where it is none.
function valueOf(text, usual) {
  if (typeof usual === "boolean") return text === "true";
  if (typeof usual !== "number") return text;
  const number = Number(text);
  return number >= 0 && number <= 1 ? number : usual;
}

// The set of maps that is chosen: of the method, at the layer if it has been run there.
function setOf(chosen) {
  const ofMethod = report.sets.findIndex((set) => set.method === chosen.method);
  const both = report.sets.findIndex(
    (set) => set.method === chosen.method && set.layer === chosen.layer,
  );
  return both >= 0 ? both : Math.max(ofMethod, 0);
}
