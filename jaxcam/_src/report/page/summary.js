// What stands above all: how much there is, what is lacking, and the means of evaluations.

function startSummary() {
  byId("counts").textContent = summaryText();
  byId("notes").replaceChildren(...notes().map((note) => element("li", {}, note)));
  byId("notes").hidden = notes().length === 0;
  byId("judged").replaceChildren(...report.judged.map(meansTable));
  byId("for-judged").hidden = report.judged.length === 0;
}

function summaryText() {
  const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
  const parts = [
    plural(report.names.length, "image"),
    `${plural(methods.length, "method")} at ${plural(layers.length, "layer")}`,
  ];
  const wrong = isWrong.filter(Boolean).length;
  if (wrong > 0) parts.push(`${wrong} answered wrong`);
  const flat = report.sets[0].flat.filter((reason) => reason !== null).length;
  if (flat > 0) parts.push(`${plural(flat, "flat map")} of ${report.sets[0].method}`);
  return parts.join(" · ");
}

function notes() {
  const skipped = report.errors.filter((error) => error !== null).length;
  const found = [...report.notes];
  if (report.missing.length > 0) found.push(`${report.missing.length} photographs missing`);
  if (skipped > 0) found.push(`${skipped} images skipped by the run`);
  return found;
}

// A row for each method, floors last and grey.
function meansTable({ folder, images, floors, means }) {
  const metrics = Object.keys(Object.values(means)[0] ?? {});
  const heading = element("tr", {}, element("th", { scope: "col" }, "mean"),
    ...metrics.map((name) => element("th", { scope: "col" }, `${named(name)}${signOf(name)}`)));
  const rows = Object.entries(means).map(([label, found]) =>
    element("tr", { className: floors.includes(label) ? "floor" : "" },
      element("th", { scope: "row" }, label),
      ...metrics.map((name) => element("td", {}, numberText(found[name])))));
  return element("table", {},
    element("caption", {}, `${folder}: ${images} images; ↑ higher is better, ↓ lower`),
    heading, ...rows);
}
