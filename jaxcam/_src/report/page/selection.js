// Which images are shown, and in which order.

const everyImage = report.names.map((_, image) => image);
const isWrong = report.names.map((_, i) => report.isTruth &&
  report.ownClass[i] !== null && report.prediction[i] !== null &&
  report.prediction[i] !== report.ownClass[i]);

const sortingsOfSets = new Map();

function sortings(set) {
  if (!sortingsOfSets.has(set)) sortingsOfSets.set(set, madeSortings(set));
  return sortingsOfSets.get(set);
}

// What images can be sorted by: a label, numbers by image, and whether large ones come first.
function madeSortings(set) {
  const found = {
    order: { label: "as in the run", values: everyImage, largestFirst: false },
    name: { label: "name", values: ranksOf(report.names), largestFirst: false },
    confidence: { label: "confidence", values: report.confidence, largestFirst: true },
    explained: {
      label: "probability of the explained class",
      values: report.sets[set].probabilities,
      largestFirst: true,
    },
    margin: { label: "margin to the second class", values: report.margin, largestFirst: false },
    wrong: { label: "wrong first", values: wrongFirst(), largestFirst: true },
    flat: {
      label: "flat maps first",
      values: report.sets[set].flat.map((reason) => (reason === null ? 0 : 1)),
      largestFirst: true,
    },
  };
  if (report.disagreement) {
    found.disagreement = {
      label: "disagreement of the maps", values: report.disagreement, largestFirst: true,
    };
  }
  for (const [name, values] of Object.entries(report.sets[set].numbers)) {
    const label = name === "border" ? "share on the border" : named(name);
    found[`metric ${name}`] = { label, values, largestFirst: report.better[name] !== false };
  }
  return found;
}

function named(metric) {
  return metric.replaceAll("_", " ");
}

function ranksOf(texts) {
  const order = texts.map((_, i) => i).sort((a, b) => (texts[a] < texts[b] ? -1 : 1));
  const ranks = new Array(texts.length);
  order.forEach((image, rank) => { ranks[image] = rank; });
  return ranks;
}

// The surest mistake first.
function wrongFirst() {
  return everyImage.map((i) => (isWrong[i] ? 1 + (report.confidence[i] ?? 0) : 0));
}

// Images in the order of their numbers; those without one last, equal ones as in the run.
function sorted(images, values, largestFirst) {
  const sign = largestFirst ? -1 : 1;
  return [...images].sort((a, b) => {
    if (values[a] === null || values[b] === null) {
      return (values[a] === null) - (values[b] === null) || a - b;
    }
    return sign * (values[a] - values[b]) || a - b;
  });
}

function filtered(chosen) {
  const part = chosen.name.toLowerCase();
  const ownClass = chosen.class === "" ? null : report.classes.indexOf(chosen.class);
  return everyImage.filter((i) =>
    (!chosen.wrong || isWrong[i]) &&
    (ownClass === null || report.ownClass[i] === ownClass) &&
    report.names[i].toLowerCase().includes(part));
}

function selected(chosen) {
  const known = sortings(setOf(chosen));
  const { values, largestFirst } = known[chosen.sort] ?? known.order;
  return sorted(filtered(chosen), values, largestFirst !== chosen.reversed);
}

// Names are relative to the folder of the images, but where a list has whole paths.
function pathOf(image) {
  const name = report.names[image];
  return name.startsWith("/") ? name : `${report.root}/${name}`;
}

// The list as `jaxcam run --images` takes it.
function csvOf(images) {
  const inQuotes = (text) => `"${text.replaceAll('"', '""')}"`;
  const explained = report.sets[setOf(state)].targets;
  const rows = images.filter((i) => explained[i] !== null).map((i) =>
    `${inQuotes(pathOf(i))},${inQuotes(report.targetTexts[explained[i]])}`);
  return ["image,target", ...rows, ""].join("\r\n");
}
