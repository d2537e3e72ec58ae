"use strict";
/* The review page: state, decisions, navigation and keys. Loaded after words.js, grid.js and one.js. */
const $ = (id) => document.getElementById(id);
let session = null;        // response of /api/session
let cards = new Map();     // maps image id to its card in the grid
let list = [];             // images that match the filters, in order
let current = 0;           // index of the current image in the list
let decided = new Map();   // maps "reviewer\nimage" to { decision, reason, count }
let summary = null;
let received = 0;          // number of decisions received so far
let me = localStorage.getItem("reviewer") || "";
let large = false;
let rows = "";             // rendered rows of the grid: first, last, images per row
let queue = Promise.resolve();  // requests are sent one after the other

const ROW = 272, EDGE = 12;  // px, as in review.css: height of a grid row with its gap, and the padding of the grid

// ---- requests --------------------------------------------------------------------------------------------------

async function ask(address, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("The server does not answer, so nothing is saved now. Start it again with the same command; saved decisions are not lost.");
  }
  if (answer.ok) return answer.json();
  const text = await answer.text();
  let sentence = text;
  try { sentence = JSON.parse(text).error || text; } catch { /* plain text */ }
  throw Object.assign(new Error(sentence), { status: answer.status });
}

function trouble(error) {
  $("trouble").textContent = error ? error.message : "";
  $("trouble").hidden = !error;
}

let polled = Promise.resolve(), polls = 0;

/* Ask for updates, one request at a time, so that an older answer never follows a newer one. */
function poll() {
  polls += 1;
  polled = polled.catch(() => {}).then(update).finally(() => { polls -= 1; });
  return polled;
}

async function update() {
  const updates = await ask(`/api/updates?since=${received}`);
  for (const decision of updates.decisions) {
    const known = decided.get(`${decision.reviewer}\n${decision.image}`);
    if (!known || known.count <= decision.count) note(decision.reviewer, decision.image, decision);
  }
  received = updates.next;
  summary = updates.summary;
  paintSummary();
  if (large && updates.decisions.length) paintOne();
}

function note(reviewer, image, { decision, reason, count }) {
  decided.set(`${reviewer}\n${image}`, { decision, reason, count });
  if (cards.has(image)) paint(image);
}

const mine = (image) => decided.get(`${me}\n${image}`) || { decision: "", reason: "", count: 0 };

function others(image) {
  const end = `\n${image}`;
  return [...decided].filter(([key, decision]) => key.endsWith(end) && key !== `${me}${end}` && decision.decision)
    .map(([key, decision]) => ({ reviewer: key.slice(0, -end.length), ...decision }));
}

// ---- decisions -------------------------------------------------------------------------------------------------

/* Show the decision and move on at once, then save it; if saving fails, restore the decision and return to the image. */
function decide(decision, reason) {
  const image = list[current];
  if (!image || !me) return;
  const before = mine(image.id), who = me;
  const said = { decision, reason: reason === undefined ? $("note").value.trim() : reason, count: before.count + 1 };
  $("note").value = "";
  note(who, image.id, said);
  step(1);
  if (large && list[current] === image) paintOne();
  queue = queue.then(async () => {
    try {
      await ask("/api/decisions", { image: image.id, decision, reason: said.reason, reviewer: who, seen: before.count });
      trouble(null);
      announce(`image ${image.number}: ${says.word[decision]}`);
      await poll();
    } catch (error) {
      note(who, image.id, before);
      if (error.status === 409) { received = 0; await poll().catch(trouble); }
      go(Math.max(0, list.indexOf(image)));
      trouble(error);
    }
  });
}

function undo() {
  if (!me) return;
  queue = queue.then(async () => {
    try {
      const { image } = await ask("/api/undo", { reviewer: me });
      await poll();
      trouble(null);
      if (!image) { announce("nothing to undo"); return; }
      let index = list.findIndex((item) => item.id === image);
      if (index < 0) { clearFilters(); index = list.findIndex((item) => item.id === image); }
      go(index);
      announce(`undone: image ${list[current].number}`);
    } catch (error) { trouble(error); }
  });
}

function announce(text) { $("said").textContent = text; }

// ---- navigation ------------------------------------------------------------------------------------------------

function go(index, focus = true) {
  if (!list.length) return;
  const old = cards.get(list[current]?.id);
  if (old) old.tabIndex = -1;
  current = Math.max(0, Math.min(list.length - 1, index));
  const card = cards.get(list[current].id);
  card.tabIndex = 0;
  if (large) paintOne(); else { reveal(current); if (focus) card.focus({ preventScroll: true }); }
}

const step = (by) => go(current + by);

function nextUndecided() {
  for (let by = 1; by <= list.length; by++) {
    const index = (current + by) % list.length;
    if (!mine(list[index].id).decision) { go(index); return; }
  }
  announce("all shown images are decided");
}

function view(enlarge) {
  if (enlarge && !list.length) return;
  large = enlarge;
  $("grid").hidden = enlarge;
  $("one").hidden = !enlarge;
  $("to-grid").setAttribute("aria-pressed", String(!enlarge));
  $("to-one").setAttribute("aria-pressed", String(enlarge));
  document.activeElement?.blur();
  go(current);
}

// ---- header ----------------------------------------------------------------------------------------------------

function paintSummary() {
  const done = summary.reviewers[me] || 0;
  $("progress").max = Math.max(1, summary.images);
  $("progress").value = done;
  $("progress-text").textContent = done === summary.images && done ? `all ${done} decided: press Finish` : `${done} of ${summary.images} decided by you`;
  const pair = summary.agreements.find((agreement) => agreement.reviewers.includes(me) && agreement.images) || summary.agreements.find((agreement) => agreement.images);
  const kappa = pair && pair.kappa !== null ? `, κ ${pair.kappa.toFixed(2)}` : "";
  $("agreement").textContent = pair ? `${pair.reviewers.join(" and ")} agree on ${pair.same} of ${pair.images}${kappa}` : "";
  $("agreement").title = "κ is Cohen's kappa: 1 = full agreement, 0 = chance agreement";
  $("names").replaceChildren(...Object.keys(summary.reviewers).map((name) => { const option = document.createElement("option"); option.value = name; return option; }));
}

function askName() {
  $("name").value = me;
  $("name-dialog").showModal();
}

function setName(name) {
  me = name.trim();
  localStorage.setItem("reviewer", me);
  $("who").textContent = `☺ ${me}`;
  $("name").blur(); // otherwise it keeps the focus until the next frame and swallows the first key
  for (const image of session.images) paint(image.id);
  paintSummary();
  if (list.length) go(current);
}

async function finish() {
  $("finish").disabled = true;
  try {
    await queue;
    const { message } = await ask("/api/finish", {});
    await poll();
    $("finish-text").textContent = message;
    const rows = [["prompt", "kept", "decided (accepted)", "images"], ...summary.prompts.map((share) => [share.prompt || "(none)", share.kept, share.decided ? `${share.decided} (${percent(share.accepted)})` : 0, share.images])];
    $("finish-table").replaceChildren(...rows.map((cells, number) => {
      const row = document.createElement("tr");
      row.append(...cells.map((value) => { const cell = document.createElement(number ? "td" : "th"); cell.textContent = value; return cell; }));
      return row;
    }));
    $("finish-table").hidden = !summary.prompts.some((share) => share.prompt);
    $("finish-dialog").showModal();
    trouble(null);
  } catch (error) { trouble(error); }
  $("finish").disabled = false;
}

// ---- keys ------------------------------------------------------------------------------------------------------

const KEYS = {
  k: () => decide("keep"), r: () => decide("reject"), u: () => decide("unsure"), z: undo, n: nextUndecided,
  h: () => toggle("change"), s: () => toggle("source", "labelled"),
  t: () => { if (!large) view(true); $("note").focus(); },
  " ": () => { if (large) $("stage").classList.toggle("zoomed"); else view(true); },
  ArrowRight: () => step(1), ArrowLeft: () => step(-1),
  ArrowDown: () => step(large ? 1 : columns()), ArrowUp: () => step(large ? -1 : -columns()),
  Home: () => go(0), End: () => go(list.length - 1), PageDown: () => step(large ? 10 : 3 * columns()), PageUp: () => step(large ? -10 : -3 * columns()),
  Enter: () => view(!large), Escape: () => view(false),
};

document.addEventListener("keydown", (event) => {
  if ($("certify").hidden || event.altKey || event.metaKey || document.querySelector("dialog[open]")) return;
  const typing = event.target.matches("input, textarea, select");
  if (typing) {
    if (event.target === $("note") && (event.key === "Enter" || event.key === "Escape")) {
      event.preventDefault();
      event.target.blur();
      if (event.key === "Enter" && event.target.value.trim()) announce("press K, R or U to decide with this reason");
    }
    return;
  }
  const key = event.key.length === 1 ? event.key.toLowerCase() : event.key;
  if (event.ctrlKey && key !== "z") return;
  const onButton = event.target.matches("button:not(.card)") && (key === "Enter" || key === " ");
  if (onButton || !list.length) return;
  const reason = session.reasons[Number(key) - 1];
  if (reason !== undefined && key !== " ") { event.preventDefault(); decide("reject", reason); return; }
  if (key in KEYS) { event.preventDefault(); KEYS[key](); }
});

// ---- start -----------------------------------------------------------------------------------------------------

function fillSelect(id, options) {
  $(id).replaceChildren(...options.map(([value, text]) => {
    const option = document.createElement("option");
    option.value = value;
    option.textContent = text.length > 70 ? `${text.slice(0, 70)}…` : text;
    option.title = text;
    return option;
  }));
}

function layOut() {
  document.title = `Review: ${session.title}`;
  $("title").textContent = session.title;
  $("title").title = session.title;
  session.images.forEach((image, index) => { image.number = index + 1; });
  session.byId = new Map(session.images.map((image) => [image.id, image]));
  session.groups = [...new Set(session.images.map(groupOf))];
  speak();
  cards = new Map(session.images.map((image) => [image.id, makeCard(image)]));
  fillSelect("by-prompt", [["", "all"], ...session.groups.map((group, index) => [String(index), group || "(none)"])]);
  $("by-prompt").parentElement.hidden = session.groups.length < 2;
  fillSelect("by-flag", [["", "all"], ["none", "without a flag"], ["any", "with a flag"], ...Object.entries(session.flags).map(([flag, { images }]) => [flag, `${flag} (${images})`])]);
  $("reasons").replaceChildren(...session.reasons.map((reason, index) => {
    const button = document.createElement("button"), key = document.createElement("kbd");
    button.type = "button";
    key.textContent = index + 1;
    button.append(key, ` ${reason}`);
    button.onclick = () => decide("reject", reason);
    return button;
  }));
  paintBeside();
  for (const image of session.images) paint(image.id);
}

function bind() {
  for (const button of document.querySelectorAll("[data-decision]")) button.onclick = () => decide(button.dataset.decision);
  for (const id of ["by-decision", "by-prompt", "by-flag"]) $(id).onchange = filter;
  $("grid").addEventListener("scroll", render);
  new ResizeObserver(render).observe($("grid"));
  $("to-grid").onclick = () => view(false);
  $("to-one").onclick = () => view(true);
  $("undo").onclick = undo;
  $("previous").onclick = () => step(-1);
  $("next").onclick = () => step(1);
  $("zoom").onclick = KEYS[" "];
  $("image").onclick = KEYS[" "];
  $("who").onclick = askName;
  $("finish").onclick = finish;
  $("name-form").onsubmit = (event) => { if ($("name").value.trim()) setName($("name").value); else event.preventDefault(); };
  $("name-dialog").addEventListener("cancel", (event) => { if (!me) event.preventDefault(); });
}

async function start() {
  session = await ask("/api/session");
  layOut();
  bind();
  await poll();
  $("certify").hidden = !session.images.length;
  filter();
  if (!session.images.length) $("who").hidden = true;
  else if (me) setName(me);
  else askName();
  setInterval(() => { if (!document.hidden && !polls) poll().then(() => { if ($("trouble").textContent.startsWith("The server")) trouble(null); }, trouble); }, 3000);
}

const started = start().catch(trouble);
