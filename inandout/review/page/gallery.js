"use strict";
const cards = [...document.querySelectorAll("figure")];
const large = document.getElementById("large");
const whole = document.getElementById("whole");
let current = 0;
let enlarged = 0;  // the browser returns the focus to the card that opened the dialog; this is the card shown last

function columns() {
  const top = cards[0].offsetTop;
  const next = cards.findIndex((card) => card.offsetTop > top);
  return next < 0 ? cards.length : next;
}

function show(number) {
  if (!cards.length) return;
  cards[current].tabIndex = -1;
  current = Math.max(0, Math.min(cards.length - 1, number));
  const card = cards[current];
  card.tabIndex = 0;
  if (large.open) {
    enlarged = current;
    const small = card.querySelector("img");
    whole.onerror = () => { whole.onerror = null; whole.src = small.src; };  // the full-size image is missing if only this file was copied
    whole.src = card.dataset.whole;
    whole.alt = small.alt;
    document.getElementById("caption").textContent = `${current + 1} of ${cards.length}: ${card.querySelector("figcaption").textContent}`;
    card.scrollIntoView({ block: "nearest" });
  } else {
    card.focus();
  }
}

function open() { large.showModal(); show(current); }

document.getElementById("previous").onclick = () => show(current - 1);
document.getElementById("next").onclick = () => show(current + 1);
large.addEventListener("close", () => show(enlarged));
cards.forEach((card, number) => {
  card.onclick = () => { current = number; open(); };
  card.onfocus = () => { current = number; };
});
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const row = large.open ? 1 : columns();
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: row, ArrowUp: -row, Home: -cards.length, End: cards.length };
  if (event.key in steps) { event.preventDefault(); show(current + steps[event.key]); }
  if (event.key === "Enter" && event.target.tagName !== "BUTTON") { event.preventDefault(); large.open ? large.close() : open(); }
});
