"use strict";
// The gallery's behavior: controls, lazy cards, the large view. Needs gallery_model.js and gallery_card.js.

const NEAR = "700px 0px"; // cards are drawn this far outside the window
const NARROW = 700; // px; in narrower windows the legend is closed at first
const SETTLED = 250; // ms without a change until the address is updated
const byId = (name) => document.getElementById(`gallery-${name}`);
const form = byId("form");
const list = byId("cards");
const dialog = byId("dialog");
const entries = gallery.images.map((image) => ({ image, card: emptyCard(image), judged: null, near: false }));
const entryOf = new Map(entries.map((entry) => [entry.card, entry]));
let listedEntries = [];
let large = null; // the entry in the dialog
let writing = 0;

function view() {
  const chosen = Object.fromEntries(new FormData(form));
  return { ...chosen, score: Number(chosen.score) };
}

// Cards are reordered only when the slider is released; otherwise they would jump while it moves.
function update(arrange) {
  const now = view();
  byId("score").textContent = now.score.toFixed(2);
  document.getElementById("gallery").classList.toggle("unlabeled", now.labels === undefined);
  for (const entry of entries) entry.judged = judge(entry.image, now.score);
  const matching = arranged(entries, now);
  byId("count").textContent = countText(matching, entries.length);
  if (arrange) arrangeCards(matching);
  for (const entry of entries) if (entry.near) drawCard(entry, now.score);
  if (dialog.open) drawLarge();
  clearTimeout(writing);
  writing = setTimeout(writeAddress, SETTLED);
}

function arrangeCards(matching) {
  listedEntries = matching;
  list.replaceChildren(...matching.map((entry) => entry.card));
  byId("none").hidden = matching.length > 0;
}

function drawCard(entry, score) {
  const { missed, wrong } = entry.judged;
  const sum = missed + wrong ? `${missed} missed, ${wrong} wrong` : "no errors";
  entry.card.querySelector(".sum").textContent = sum;
  fill(entry.card.querySelector(".panes"), entry.image, score);
}

// Cards that are far away are emptied again, so that memory stays small.
const watcher = new IntersectionObserver((changes) => {
  for (const { target, isIntersecting } of changes) {
    const entry = entryOf.get(target);
    entry.near = isIntersecting;
    if (isIntersecting) drawCard(entry, view().score);
    else target.querySelector(".panes").replaceChildren();
  }
}, { rootMargin: NEAR });

// Changed settings are kept in the address, so that a view can be shared: #gallery?score=0.30&sort=name
function isDefault(control) {
  if (control.type === "checkbox") return control.checked === control.defaultChecked;
  if (control.options) return control.selectedIndex === 0;
  if (control.type === "range") return Number(control.value) === Number(control.defaultValue); // 0.5 and 0.50
  return control.value === control.defaultValue;
}

function writeAddress() {
  const changed = [...form.elements].filter((control) => control.name && !isDefault(control));
  const pairs = changed.map((control) => [control.name, control.type === "checkbox" ? "off" : control.value]);
  const ours = location.hash.startsWith("#gallery");
  if (pairs.length || ours) history.replaceState(null, "", `#gallery${pairs.length ? "?" : ""}${new URLSearchParams(pairs)}`);
}

function readAddress() {
  if (!location.hash.startsWith("#gallery?")) return;
  form.reset();
  for (const [name, value] of new URLSearchParams(location.hash.slice("#gallery?".length))) {
    const control = form.elements[name];
    if (!control) continue;
    if (control.type === "checkbox") control.checked = value !== "off";
    else control.value = value;
    if (control.options && control.selectedIndex < 0) control.selectedIndex = 0;
  }
  update(true);
  document.getElementById("gallery").scrollIntoView();
}

function drawLarge() {
  const { image } = large;
  const place = listedEntries.indexOf(large);
  const panes = dialog.querySelector(".panes");
  byId("title").textContent = image.group ? `${image.name} (${image.group})` : image.name;
  byId("place").textContent = `${place + 1} of ${listedEntries.length}`;
  shapeLarge(panes, image);
  fill(panes, image, view().score);
}

function open(entry) {
  large = entry;
  dialog.querySelector(".panes").replaceChildren();
  if (!dialog.open) dialog.showModal();
  drawLarge();
}

function step(by) {
  const place = listedEntries.indexOf(large) + by;
  if (listedEntries[place]) open(listedEntries[place]);
}

function reset() {
  form.reset();
  update(true);
}

function toggleLabels() {
  form.elements.labels.checked = !form.elements.labels.checked;
  update(false);
}

function connect() {
  form.hidden = false;
  byId("legend").open = window.innerWidth > NARROW;
  form.addEventListener("input", (event) => update(event.target.name !== "score"));
  form.addEventListener("change", () => update(true));
  form.addEventListener("submit", (event) => event.preventDefault());
  byId("reset").addEventListener("click", reset);
  list.addEventListener("click", (event) => {
    const card = event.target.closest("article");
    if (card) open(entryOf.get(card));
  });
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) step(by);
  });
  dialog.addEventListener("click", (event) => {
    const { step: by, labels, close } = event.target.closest("button")?.dataset ?? {};
    if (by) step(Number(by));
    if (labels !== undefined) toggleLabels();
    if (close !== undefined) dialog.close();
  });
  dialog.addEventListener("close", () => large.card.querySelector("button").focus());
  addEventListener("hashchange", readAddress);
  addEventListener("resize", () => dialog.open && drawLarge());
}

connect();
update(true);
readAddress();
for (const entry of entries) watcher.observe(entry.card);
performance.mark("gallery-ready");
