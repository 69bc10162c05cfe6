"use strict";
// The gallery's data: detections at a score, counts, filters and order of images.
// Nothing here accesses the page.

const gallery = JSON.parse(document.getElementById("gallery-data").textContent);
const errorKinds = gallery.kinds.slice(1, -1);

// A box is [x1, y1, x2, y2, label, ...], as report/gallery.py writes it.
const LABEL = 4;
const SCORE = 5; // of a detection
const KIND = 6;
const FOUND = 5; // of a true cell
const COVERED = 6;
const POINT = 7;

function stateOf(cell, score) {
  if (cell[LABEL] < 0) return "region";
  if (cell[FOUND] >= score) return "found";
  return cell[COVERED] >= score ? "covered" : "missed";
}

function shown(detections, score) {
  return detections.filter((row) => row[SCORE] >= score);
}

function kindOf(detection) {
  return gallery.kinds[detection[KIND]];
}

function isError(detection) {
  return detection[KIND] > 0 && detection[KIND] < gallery.kinds.length - 1;
}

function tally(names) {
  const counts = {};
  for (const name of names) counts[name] = (counts[name] ?? 0) + 1;
  return counts;
}

// The counts and sort keys of an image at a score.
function judge(image, score) {
  const detections = shown(image.found, score);
  const wrong = detections.filter(isError);
  const states = tally(image.truth.map((cell) => stateOf(cell, score)));
  const missed = states.missed ?? 0;
  return {
    states,
    kinds: tally(detections.map(kindOf)),
    missed,
    wrong: wrong.length,
    errors: missed + wrong.length,
    surest: wrong.reduce((highest, row) => Math.max(highest, row[SCORE]), -1),
    cells: image.truth.filter((cell) => cell[LABEL] >= 0).length,
  };
}

function matches(image, view) {
  const name = `${image.name}\n${image.group ?? ""}`.toLowerCase();
  if (!name.includes(view.text.trim().toLowerCase())) return false;
  const label = gallery.classes.indexOf(view.class);
  return hasClass(image, label, view.score) && hasError(image, label, view);
}

function hasClass(image, label, score) {
  const rows = [...image.truth, ...shown(image.found, score), ...shown(image.other, score)];
  return label < 0 || rows.some((row) => row[LABEL] === label);
}

// If a class is selected too, the error must be of that class: a missed cell of it, or a wrong detection as it.
function hasError(image, label, view) {
  if (!view.error) return true;
  const ofClass = (row) => label < 0 || row[LABEL] === label;
  const asked = (kind) => view.error === "any" || view.error === kind;
  const missed = (cell) => stateOf(cell, view.score) === "missed" && ofClass(cell);
  const wrong = (row) => isError(row) && asked(kindOf(row)) && ofClass(row);
  return (asked("missed") && image.truth.some(missed)) || shown(image.found, view.score).some(wrong);
}

const collator = new Intl.Collator("en", { numeric: true });
const orders = {
  worst: (a, b) => b.judged.errors - a.judged.errors,
  confident: (a, b) => b.judged.surest - a.judged.surest,
  truths: (a, b) => b.judged.cells - a.judged.cells,
  name: () => 0,
};

// The entries ({image, judged}) that match, in order; ties by name.
function arranged(entries, view) {
  const order = orders[view.sort] ?? orders.worst;
  const chosen = entries.filter((entry) => matches(entry.image, view));
  return chosen.sort((a, b) => order(a, b) || collator.compare(a.image.name, b.image.name));
}

function countText(entries, total) {
  const sum = (name) => entries.reduce((all, entry) => all + entry.judged[name], 0);
  return `${entries.length} of ${total} images; ${sum("missed")} missed, ${sum("wrong")} wrong`;
}
