"use strict";
// Drawing: an image with its boxes, in panes side by side. Needs gallery_model.js.

const REGION = "#787878";
const EDGE = 0.06; // of the height; boxes closer to the top have their label inside
const CROSS = 0.012; // of the longer side; half the size of the mark of a labeled center
const HEAD = 80; // approximate px above each pane of the large view

function make(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function draw(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function percent(part, whole) {
  return `${(100 * part) / whole}%`;
}

// An empty card: its name, and a placeholder of the size of its panes.
function emptyCard(image) {
  const panes = make("div", { class: "panes" });
  const head = make("header", {}, make("h3", {}, make("button", { type: "button" }, image.name)));
  if (image.group) head.append(make("span", { class: "group" }, image.group));
  head.append(make("span", { class: "sum" }));
  const card = make("article", {}, head, panes);
  shape(panes, image);
  return card;
}

function shape(panes, image) {
  panes.style.setProperty("--panes", gallery.names.length + 1);
  panes.style.setProperty("--ratio", image.width / image.height);
}

// The large view arranges the panes in the number of columns that makes them largest.
function shapeLarge(panes, image) {
  shape(panes, image);
  const count = gallery.names.length + 1;
  const width = (columns) => {
    const high = window.innerHeight / Math.ceil(count / columns) - HEAD;
    return Math.min(window.innerWidth / columns, (high * image.width) / image.height);
  };
  const columns = [...Array(count).keys()].map((place) => place + 1).reduce((a, b) => (width(b) > width(a) ? b : a));
  panes.style.setProperty("--columns", columns);
  panes.style.setProperty("--rows", Math.ceil(count / columns));
}

// Draw the boxes of an image at a score. Existing pictures are kept.
function fill(panes, image, score) {
  const { states, kinds } = judge(image, score);
  const cells = image.truth.map((cell) => ofCell(cell, score));
  const runs = [image.found, image.other].map((rows) => shown(rows, score));
  const sides = [
    { name: "truth", caption: listed(states, Object.keys(gallery.states)), boxes: cells },
    ...gallery.names.map((name, run) => ({
      name,
      caption: listed(run ? tally(runs[run].map(kindOf)) : kinds, gallery.kinds),
      boxes: runs[run].toReversed().map(ofDetection),
    })),
  ];
  if (!panes.childElementCount) panes.append(...sides.map(() => emptyPane(image)));
  sides.forEach((side, place) => fillPane(panes.children[place], image, side));
}

// "3 found, 1 missed", in the order of `names`.
function listed(counts, names) {
  const parts = names.filter((name) => counts[name]).map((name) => `${counts[name]} ${name}`);
  return parts.join(", ") || "none";
}

// Draw a box with its color, line `style` (see gallery.css) and label.
function ofCell(cell, score) {
  const style = stateOf(cell, score);
  const name = gallery.classes[cell[LABEL]] ?? "ignore";
  const label = { missed: `missed: ${name}`, covered: `${name} · covered`, region: "" }[style] ?? name;
  const point = cell.length > POINT ? cell.slice(POINT) : null;
  return { place: cell, style, label, tip: `${name}, ${style}`, point, loud: style === "missed" };
}

function ofDetection(row) {
  const kind = kindOf(row);
  const said = `${gallery.classes[row[LABEL]]} ${row[SCORE].toFixed(2)}`;
  const label = kind === "correct" ? said : `${said} · ${kind}`;
  return { place: row, style: isError(row) ? `error ${kind}` : kind, label, tip: `${said}, ${kind}`, point: null };
}

function emptyPane(image) {
  const picture = make("img", { src: image.file, alt: "", decoding: "async" });
  const boxes = draw("svg", { viewBox: `0 0 ${image.width} ${image.height}`, preserveAspectRatio: "none", role: "img" });
  return make("figure", {}, make("figcaption", {}), make("div", { class: "pane" }, picture, boxes));
}

function fillPane(figure, image, side) {
  const [caption, pane] = figure.children;
  caption.replaceChildren(make("b", {}, side.name), ` ${side.caption}`);
  const boxes = pane.querySelector("svg");
  boxes.setAttribute("aria-label", `${image.name}, ${side.name}: ${side.caption}`);
  boxes.replaceChildren(...side.boxes.map((box) => outlined(box, image)));
  for (const old of pane.querySelectorAll("span")) old.remove();
  const regions = side.boxes.filter((box) => box.style === "region");
  pane.append(...regions.map((box) => hatched(box, image)));
  pane.append(...side.boxes.filter((box) => box.label).map((box) => tagged(box, image)));
}

function colorOf(box) {
  return gallery.colors[box.place[LABEL]] ?? REGION;
}

function outlined(box, image) {
  const [x, y, right, bottom] = box.place;
  const corner = { x, y, width: Math.max(0, right - x), height: Math.max(0, bottom - y) };
  const group = draw("g", { class: `box ${box.style}` });
  group.append(draw("rect", { class: "halo", ...corner }));
  group.append(draw("rect", { class: "line", stroke: colorOf(box), ...corner }, draw("title", {}, box.tip)));
  if (box.point) {
    const [across, down] = box.point;
    const arm = CROSS * Math.max(image.width, image.height);
    const d = `M${across - arm} ${down}h${2 * arm}M${across} ${down - arm}v${2 * arm}`;
    group.append(draw("path", { class: "halo", d }), draw("path", { class: "cross", stroke: colorOf(box), d }));
  }
  return group;
}

function hatched(box, image) {
  const [x, y, right, bottom] = box.place;
  const region = make("span", { class: "hatch" });
  const { width, height } = image;
  Object.assign(region.style, { left: percent(x, width), top: percent(y, height) });
  Object.assign(region.style, { width: percent(right - x, width), height: percent(bottom - y, height) });
  return region;
}

// A label is above its box, or inside it at the top of the image, and never crosses the right edge of the image.
function tagged(box, image) {
  const [x, y, right] = box.place;
  const above = y > EDGE * image.height;
  const tag = make("span", { class: `tag${above ? " above" : ""}${box.loud ? " loud" : ""}`, "aria-hidden": "true" }, box.label);
  const late = x > image.width / 2;
  tag.style[late ? "right" : "left"] = late ? percent(Math.max(0, image.width - right), image.width) : percent(Math.max(0, x), image.width);
  tag.style.top = percent(Math.max(0, y), image.height);
  tag.style.backgroundColor = colorOf(box);
  tag.style.color = gallery.inks[box.place[LABEL]];
  return tag;
}
