"use strict";

// Scrollable boxes need to be focusable to be scrolled with the keyboard.
const scrollers = new ResizeObserver((entries) => {
  for (const { target } of entries) {
    if (target.scrollWidth > target.clientWidth) target.tabIndex = 0;
    else target.removeAttribute("tabindex");
  }
});
for (const box of document.querySelectorAll(".scroll")) scrollers.observe(box);

// The contents highlight the current section: the last one that starts above the upper third of the window.
function markSection() {
  const links = [...document.querySelectorAll("nav a")];
  const begun = links.filter((link) => sectionOf(link).getBoundingClientRect().top < window.innerHeight / 3);
  const current = begun.at(-1) ?? links[0];
  for (const link of links) {
    if (link !== current) link.removeAttribute("aria-current");
    else if (!link.hasAttribute("aria-current")) showInList(link);
  }
}

function sectionOf(link) {
  return document.getElementById(decodeURIComponent(link.hash.slice(1)));
}

// In a narrow window the contents are one line that scrolls horizontally.
function showInList(link) {
  link.setAttribute("aria-current", "location");
  const list = link.closest("ol");
  list.scrollLeft += link.getBoundingClientRect().left - list.getBoundingClientRect().left;
}

let marking = 0;
function markSoon() {
  cancelAnimationFrame(marking);
  marking = requestAnimationFrame(markSection);
}
addEventListener("scroll", markSoon, { passive: true });
addEventListener("resize", markSoon);
markSoon();
