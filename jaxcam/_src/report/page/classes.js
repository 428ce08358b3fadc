// The page of a class: its mean map by each method, what went best and what worst.

const ENDS = 6; // images at each end

function startClasses() {
  whenChanged(showClass);
  showClass();
}

function showClass(before = null) {
  if (isLookAlone(before)) return;
  const own = report.classes.indexOf(state.class);
  byId("class-page").hidden = state.class === "" || own < 0 || state.image !== "";
  if (byId("class-page").hidden) return;
  const members = everyImage.filter((i) => report.ownClass[i] === own);
  const right = members.filter((i) => !isWrong[i]).length;
  const told = isWrong.some(Boolean) ? `, ${right} of them answered right` : "";
  byId("class-title").textContent = state.class;
  byId("class-count").textContent = `${members.length} images ${report.ownClassIs} as this${told}`;
  byId("means").replaceChildren(...report.sets.map((_, set) => meanFigure(own, set)).filter(Boolean));
  byId("for-means").hidden = byId("means").childElementCount === 0;
  showEnds(members);
}

function showEnds(members) {
  const known = sortings(setOf(state));
  const isNumber = state.sort.startsWith("metric ");
  const by = isNumber ? known[state.sort] : known.explained;
  const order = sorted(members.filter((i) => by.values[i] !== null), by.values, by.largestFirst);
  const ends = Math.min(ENDS, Math.ceil(order.length / 2));
  const items = (images) => images.map((image) => element("li", {}, cardOf(image)));
  byId("best").replaceChildren(...items(order.slice(0, ends)));
  byId("worst").replaceChildren(...items(order.slice(ends).slice(-ENDS).reverse()));
  byId("best-by").textContent = `by ${by.label}`;
  byId("for-worst").hidden = byId("worst").childElementCount === 0;
}

function meanFigure(own, set) {
  const map = meanOf(own, set);
  if (map === null) return null;
  const { method, layer } = report.sets[set];
  const canvas = element("canvas", { role: "img" });
  canvas.setAttribute("aria-label", `mean of ${method} at ${layer} over the images of ${state.class}`);
  const look = () => ({ ...lookOf({ ...state, signed: false }, set), opacity: 1 });
  paint(canvas, () => overlaid(null, map, look(), () => ({ low: 0, high: 1 })));
  return element("figure", {}, canvas, element("figcaption", {},
    element("strong", {}, method), element("span", {}, layer)));
}
