// The grid: of all cards only those in view, and a little around, are there.

const GAP = 12, LEAST = 150, CAPTION = 58; // pixels: between cards, of a card's width, below it
const AROUND = 2; // rows

let shown = []; // the images, in order
let focused = 0; // the place of the card that keys move from
const cards = new Map(); // place -> card

function startGrid() {
  addEventListener("scroll", placeCards, { passive: true });
  new ResizeObserver(placeCards).observe(byId("grid"));
  byId("grid").addEventListener("keydown", moveByKey);
  whenChanged(refreshGrid);
  refreshGrid();
}

function refreshGrid(before = null) {
  if (isLookAlone(before)) return;
  byId("grid-view").hidden = state.image !== "";
  if (before && before.image === "" && state.image !== "") return; // it is as it was, on the return
  shown = selected(state);
  byId("count").textContent = `${shown.length} of ${report.names.length}`;
  byId("nothing").hidden = shown.length > 0;
  for (const card of cards.values()) card.remove();
  cards.clear();
  byId("grid").dataset.placed = "";
  focused = Math.min(focused, Math.max(shown.length - 1, 0));
  placeCards();
}

// How cards lie in so many pixels.
function arrangement(width) {
  const columns = Math.max(2, Math.floor((width + GAP) / (LEAST + GAP)));
  const side = Math.floor((width - GAP * (columns - 1)) / columns);
  return { columns, side, row: side + CAPTION + GAP };
}

// The places of the first card in view and of the one after the last.
function inView(grid, { columns, row }) {
  const top = -grid.getBoundingClientRect().top;
  const first = Math.max(Math.floor(top / row) - AROUND, 0);
  const end = Math.ceil((top + innerHeight) / row) + AROUND;
  return [first * columns, Math.min(end * columns, shown.length)];
}

function placeCards() {
  const grid = byId("grid");
  if (byId("grid-view").hidden || grid.clientWidth === 0) return;
  const { columns, side, row } = arrangement(grid.clientWidth);
  const [first, end] = inView(grid, { columns, row });
  const placed = `${first} ${end} ${side} ${shown.length}`;
  if (grid.dataset.placed === placed) return;
  grid.dataset.placed = placed;
  grid.style.setProperty("--side", `${side}px`);
  grid.style.setProperty("--height", `${Math.ceil(shown.length / columns) * row}px`);
  for (const [place, card] of cards) {
    if ((place < first || place >= end) && !card.contains(document.activeElement)) removeCard(place);
  }
  for (let place = first; place < end; place++) if (!cards.has(place)) addCard(grid, place);
  for (const [place, { style }] of cards) {
    style.left = `${(place % columns) * (side + GAP)}px`;
    style.top = `${Math.floor(place / columns) * row}px`;
  }
}

function removeCard(place) {
  cards.get(place).remove();
  cards.delete(place);
}

function addCard(grid, place) {
  const item = element("li", { data: { place } }, cardOf(shown[place]));
  item.setAttribute("aria-posinset", place + 1);
  item.setAttribute("aria-setsize", shown.length);
  const after = [...grid.children].find((other) => Number(other.dataset.place) > place);
  grid.insertBefore(item, after ?? null);
  cards.set(place, item);
}

// The arrows go from card to card, whether it is there or not.
function moveByKey(event) {
  const { columns } = arrangement(byId("grid").clientWidth);
  const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns };
  const ends = { Home: -shown.length, End: shown.length };
  const step = steps[event.key] ?? ends[event.key];
  if (step === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  const from = Number(event.target.closest("li").dataset.place);
  focusCard(Math.min(Math.max(from + step, 0), shown.length - 1));
}

function focusCard(place) {
  const grid = byId("grid");
  const { columns, row } = arrangement(grid.clientWidth);
  const top = grid.getBoundingClientRect().top + scrollY + Math.floor(place / columns) * row;
  const hidden = byId("controls").getBoundingClientRect().bottom; // below what stays at the top
  if (top < scrollY + Math.max(hidden, 0) || top + row > scrollY + innerHeight) {
    scrollTo({ top: top - innerHeight / 3 });
  }
  focused = place;
  placeCards();
  cards.get(place)?.querySelector("button").focus({ preventScroll: true });
}
