"use strict";
/* The grid: cards of all images that match the filters. */
function makeCard(image) {
  const card = document.createElement("button");
  card.type = "button";
  card.className = "card";
  card.tabIndex = -1;
  const img = document.createElement("img");
  img.loading = "lazy";
  img.decoding = "async";
  img.src = `/small/${image.id}`;
  img.alt = "";
  const words = document.createElement("span");
  words.className = "words";
  words.textContent = `${image.number}. ${captionOf(image)}`;
  card.append(img, words);
  if (image.flags.length) {
    const flags = document.createElement("span");
    flags.className = "flags";
    flags.textContent = `⚑ ${image.flags.join(", ")}`;
    flags.title = image.flags.map((flag) => session.flags[flag].meaning).join("; ");
    card.append(flags);
  }
  card.addEventListener("focus", () => { current = list.indexOf(image); });
  card.addEventListener("dblclick", () => view(true));
  return card;
}

function paint(id) {
  const card = cards.get(id), { decision } = mine(id), image = session.byId.get(id);
  card.className = decision ? `card ${decision}` : "card";
  let mark = card.querySelector(".mark");
  if (decision && !mark) { mark = document.createElement("span"); mark.className = "mark"; card.append(mark); }
  if (mark) { mark.textContent = decision ? `${SIGN[decision]} ${says.word[decision]}` : ""; mark.hidden = !decision; }
  card.setAttribute("aria-label", `image ${image.number}, ${decision ? says.word[decision] : "not decided"}${image.flags.length ? `, flags: ${image.flags.join(", ")}` : ""}, ${captionOf(image)}`);
}

function fits(image) {
  const { decision } = mine(image.id), wanted = $("by-decision").value;
  const byDecision = !wanted || (wanted === "none" ? !decision : wanted === "differ" ? others(image.id).some((other) => decision && other.decision !== decision) : decision === wanted);
  const prompt = $("by-prompt").value, flag = $("by-flag").value;
  return byDecision && (prompt === "" || groupOf(image) === session.groups[prompt])
    && (!flag || (flag === "any" ? image.flags.length > 0 : flag === "none" ? !image.flags.length : image.flags.includes(flag)));
}

function filter() {
  const before = list[current];
  list = session.images.filter(fits);
  current = Math.max(0, list.indexOf(before));
  const nothing = document.createElement("p");
  nothing.className = "nothing";
  nothing.textContent = "No image matches these filters.";
  $("cards").replaceChildren(...(list.length ? [] : [nothing]));
  $("grid").scrollTop = 0;
  rows = "";
  render();
  $("shown").textContent = `${list.length} of ${session.images.length} shown`;
  if (large && !list.length) view(false); else go(current, false);
}

function clearFilters() {
  for (const id of ["by-decision", "by-prompt", "by-flag"]) $(id).value = "";
  filter();
}

const columns = () => getComputedStyle($("cards")).gridTemplateColumns.split(" ").length;

/* Only cards near the viewport are in the document, so that thousands of images scroll smoothly. */
function render() {
  const grid = $("grid"), inside = $("cards");
  if (!grid.clientHeight || !list.length) return;
  const across = columns(), all = Math.ceil(list.length / across);
  const first = Math.max(0, Math.floor(grid.scrollTop / ROW) - 3);
  const last = Math.min(all, Math.ceil((grid.scrollTop + grid.clientHeight) / ROW) + 3);
  if (rows === `${first} ${last} ${across}`) return;
  rows = `${first} ${last} ${across}`;
  inside.style.paddingTop = `${EDGE + first * ROW}px`;
  inside.style.paddingBottom = `${EDGE + (all - last) * ROW}px`;
  const near = list.slice(first * across, last * across).map((image) => cards.get(image.id)), wanted = new Set(near);
  for (const card of [...inside.children]) if (!wanted.has(card)) card.remove();
  let at = inside.firstElementChild;
  for (const card of near) {  // cards already in the document are not moved, because moving loses the focus
    if (card === at) at = at.nextElementSibling; else inside.insertBefore(card, at);
  }
}

function reveal(index) {
  const grid = $("grid"), top = Math.floor(index / columns()) * ROW, bottom = top + ROW + 2 * EDGE - grid.clientHeight;
  if (top < grid.scrollTop) grid.scrollTop = top; else if (bottom > grid.scrollTop) grid.scrollTop = bottom;
  render();
}
