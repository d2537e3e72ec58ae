"use strict";
const $ = (id) => document.getElementById(id);
const SIGN = { keep: "✓", reject: "✗", unsure: "?" };
const LABEL = ["good", "defect"];
const SAYS = {
  pool: {
    word: { keep: "keep", reject: "reject", unsure: "unsure" },
    mine: { keep: "kept by me", reject: "rejected by me", unsure: "unsure to me" },
    question: () => "Could this be a real defect of this product?",
    reasons: "Or reject because", groups: "Prompt",
    intro: "You will see pictures of defects that a computer made. For each one, decide as you would on the line:",
    keys: [["K", "Keep", "this could be a real defect of this product."], ["R", "Reject", "it shows no defect, or one that could not be."], ["U", "Unsure", "someone else should look."]],
    outro: "Only kept pictures are used for training when that is asked for. You can stop at any time and go on later.",
  },
  labels: {
    word: { keep: "right", reject: "wrong", unsure: "unsure" },
    mine: { keep: "label right, by me", reject: "label wrong, by me", unsure: "unsure to me" },
    question: (picture) => `The label says “${LABEL[picture.label]}”. Is that right?`,
    reasons: "Or the label is wrong because", groups: "Label",
    intro: "You will see real pictures, those first whose labels a classifier doubts. For each one:",
    keys: [["K", "Right", "the label says what the picture shows."], ["R", "Wrong", "it is the other way round."], ["U", "Unsure", "someone else should look."]],
    outro: "The labels stay as they are: at the end you get one list with the wrong ones corrected, and one without the doubtful ones. You can stop at any time and go on later.",
  },
};
let says = SAYS.pool;      // the words of what is decided here

let desk = null;           // what /api/desk said
let cards = new Map();     // picture id to its element of the grid
let list = [];             // pictures that the filters leave, in order
let here = 0;              // place in the list
let decided = new Map();   // "reviewer\npicture" to { verdict, reason, count }
let summary = null;
let heard = 0;             // decisions heard of so far
let me = localStorage.getItem("reviewer") || "";
let large = false;
let rows = "";             // of the grid that are in the page: first, last, pictures in each
let queue = Promise.resolve();  // keys are worked off one after the other

const ROW = 272, EDGE = 12;  // px, as in review.css: a row of the grid with its gap, and the margin around all

// ---- talking to the server -------------------------------------------------------------------------------------

async function ask(address, body) {
  const options = body === undefined ? {} : { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("The server does not answer, so nothing is saved now. Start it again with the same command; what was saved before is safe.");
  }
  if (answer.ok) return answer.json();
  const text = await answer.text();
  let sentence = text;
  try { sentence = JSON.parse(text).error || text; } catch { /* a plain sentence */ }
  throw Object.assign(new Error(sentence), { status: answer.status });
}

function trouble(error) {
  $("trouble").textContent = error ? error.message : "";
  $("trouble").hidden = !error;
}

async function hear() {
  const news = await ask(`/api/news?since=${heard}`);
  for (const one of news.decisions) note(one.reviewer, one.picture, one);
  heard = news.next;
  summary = news.summary;
  paintSummary();
  if (large && news.decisions.length) paintOne();
}

function note(reviewer, picture, { verdict, reason, count }) {
  decided.set(`${reviewer}\n${picture}`, { verdict, reason, count });
  if (cards.has(picture)) paint(picture);
}

const mine = (picture) => decided.get(`${me}\n${picture}`) || { verdict: "", reason: "", count: 0 };

function others(picture) {
  const end = `\n${picture}`;
  return [...decided].filter(([key, one]) => key.endsWith(end) && key !== `${me}${end}` && one.verdict)
    .map(([key, one]) => ({ reviewer: key.slice(0, -end.length), ...one }));
}

// ---- deciding --------------------------------------------------------------------------------------------------

/* What is seen is what is decided on: the view moves on at once, the saving follows, and comes back where it fails. */
function decide(verdict, reason) {
  const picture = list[here];
  if (!picture || !me) return;
  const before = mine(picture.id), who = me;
  const said = { verdict, reason: reason === undefined ? $("note").value.trim() : reason, count: before.count + 1 };
  $("note").value = "";
  note(who, picture.id, said);
  step(1);
  if (large && list[here] === picture) paintOne();
  queue = queue.then(async () => {
    try {
      await ask("/api/decisions", { picture: picture.id, verdict, reason: said.reason, reviewer: who, seen: before.count });
      trouble(null);
      announce(`picture ${picture.number}: ${says.word[verdict]}`);
      await hear();
    } catch (error) {
      note(who, picture.id, before);
      if (error.status === 409) { heard = 0; await hear().catch(trouble); }
      go(Math.max(0, list.indexOf(picture)));
      trouble(error);
    }
  });
}

function undo() {
  if (!me) return;
  queue = queue.then(async () => {
    try {
      const { picture } = await ask("/api/undo", { reviewer: me });
      await hear();
      trouble(null);
      if (!picture) { announce("nothing to undo"); return; }
      let place = list.findIndex((one) => one.id === picture);
      if (place < 0) { clearFilters(); place = list.findIndex((one) => one.id === picture); }
      go(place);
      announce(`undone: picture ${list[here].number}`);
    } catch (error) { trouble(error); }
  });
}

function announce(text) { $("said").textContent = text; }

// ---- the grid --------------------------------------------------------------------------------------------------

const percent = (score) => `${Math.round(100 * score)} %`;

/* The words below a picture, and what it is filtered by. */
const groupOf = (picture) => (desk.about === "labels" ? LABEL[picture.label] : picture.prompt);
const captionOf = (picture) => (desk.about === "labels" ? `labelled ${groupOf(picture)}, looks like a defect: ${percent(picture.score)}` : picture.prompt || picture.defect || picture.origin);

function makeCard(picture) {
  const card = document.createElement("button");
  card.type = "button";
  card.className = "card";
  card.tabIndex = -1;
  const image = document.createElement("img");
  image.loading = "lazy";
  image.decoding = "async";
  image.src = `/small/${picture.id}`;
  image.alt = "";
  const words = document.createElement("span");
  words.className = "words";
  words.textContent = `${picture.number}. ${captionOf(picture)}`;
  card.append(image, words);
  if (picture.flags.length) {
    const flags = document.createElement("span");
    flags.className = "flags";
    flags.textContent = `⚑ ${picture.flags.join(", ")}`;
    flags.title = picture.flags.map((flag) => desk.flags[flag].meaning).join("; ");
    card.append(flags);
  }
  card.addEventListener("focus", () => { here = list.indexOf(picture); });
  card.addEventListener("dblclick", () => view(true));
  return card;
}

function paint(id) {
  const card = cards.get(id), { verdict } = mine(id), picture = desk.byId.get(id);
  card.className = verdict ? `card ${verdict}` : "card";
  let mark = card.querySelector(".mark");
  if (verdict && !mark) { mark = document.createElement("span"); mark.className = "mark"; card.append(mark); }
  if (mark) { mark.textContent = verdict ? `${SIGN[verdict]} ${says.word[verdict]}` : ""; mark.hidden = !verdict; }
  card.setAttribute("aria-label", `picture ${picture.number}, ${verdict ? says.word[verdict] : "not decided"}${picture.flags.length ? `, flags: ${picture.flags.join(", ")}` : ""}, ${captionOf(picture)}`);
}

function fits(picture) {
  const { verdict } = mine(picture.id), wanted = $("by-verdict").value;
  const byVerdict = !wanted || (wanted === "none" ? !verdict : wanted === "differ" ? others(picture.id).some((one) => verdict && one.verdict !== verdict) : verdict === wanted);
  const prompt = $("by-prompt").value, flag = $("by-flag").value;
  return byVerdict && (prompt === "" || groupOf(picture) === desk.groups[prompt])
    && (!flag || (flag === "any" ? picture.flags.length > 0 : flag === "none" ? !picture.flags.length : picture.flags.includes(flag)));
}

function filter() {
  const before = list[here];
  list = desk.pictures.filter(fits);
  here = Math.max(0, list.indexOf(before));
  const nothing = document.createElement("p");
  nothing.className = "nothing";
  nothing.textContent = "No picture fits these filters.";
  $("cards").replaceChildren(...(list.length ? [] : [nothing]));
  $("grid").scrollTop = 0;
  rows = "";
  render();
  $("shown").textContent = `${list.length} of ${desk.pictures.length} shown`;
  if (large && !list.length) view(false); else go(here, false);
}

function clearFilters() {
  for (const id of ["by-verdict", "by-prompt", "by-flag"]) $(id).value = "";
  filter();
}

const columns = () => getComputedStyle($("cards")).gridTemplateColumns.split(" ").length;

/* Only cards near to what is seen are in the page, so that thousands scroll as well as a dozen. */
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
  const near = list.slice(first * across, last * across).map((picture) => cards.get(picture.id)), wanted = new Set(near);
  for (const card of [...inside.children]) if (!wanted.has(card)) card.remove();
  let at = inside.firstElementChild;
  for (const card of near) {  // cards that stay are not moved, or they would lose the focus
    if (card === at) at = at.nextElementSibling; else inside.insertBefore(card, at);
  }
}

function reveal(place) {
  const grid = $("grid"), top = Math.floor(place / columns()) * ROW, bottom = top + ROW + 2 * EDGE - grid.clientHeight;
  if (top < grid.scrollTop) grid.scrollTop = top; else if (bottom > grid.scrollTop) grid.scrollTop = bottom;
  render();
}

// ---- moving ----------------------------------------------------------------------------------------------------

function go(place, focus = true) {
  if (!list.length) return;
  const old = cards.get(list[here]?.id);
  if (old) old.tabIndex = -1;
  here = Math.max(0, Math.min(list.length - 1, place));
  const card = cards.get(list[here].id);
  card.tabIndex = 0;
  if (large) paintOne(); else { reveal(here); if (focus) card.focus({ preventScroll: true }); }
}

const step = (by) => go(here + by);

function nextUndecided() {
  for (let by = 1; by <= list.length; by++) {
    const place = (here + by) % list.length;
    if (!mine(list[place].id).verdict) { go(place); return; }
  }
  announce("every picture shown is decided");
}

function view(one) {
  if (one && !list.length) return;
  large = one;
  $("grid").hidden = one;
  $("one").hidden = !one;
  $("to-grid").setAttribute("aria-pressed", String(!one));
  $("to-one").setAttribute("aria-pressed", String(one));
  document.activeElement?.blur();
  go(here);
}

// ---- one picture -----------------------------------------------------------------------------------------------

function paintOne() {
  const picture = list[here], own = mine(picture.id), said = own.verdict ? others(picture.id) : [];
  $("picture").src = `/whole/${picture.id}`;
  $("where").textContent = `${here + 1} of ${list.length}`;
  $("question").textContent = says.question(picture);
  $("figure-labelled").hidden = !picture.has_mask || $("figure-labelled").dataset.off === "yes";
  if (!$("figure-labelled").hidden) $("labelled").src = `/labelled/${picture.id}`;
  paintCompared(picture);
  for (const button of document.querySelectorAll("[data-verdict]")) button.setAttribute("aria-pressed", String(button.dataset.verdict === own.verdict));
  $("mine").textContent = own.verdict ? `You: ${says.word[own.verdict]}${own.reason ? `, “${own.reason}”` : ""}` : "Not decided by you yet.";
  const facts = [["prompt", picture.prompt], ["made by", desk.about === "labels" ? "" : picture.origin], ["label", desk.about === "labels" ? LABEL[picture.label] : ""],
    ["classifier", picture.score === null ? "" : `${percent(picture.score)} defect, by one that has not seen it`], ["kind", picture.defect], ["seed", picture.seed], ["alpha", picture.alpha]];
  for (const flag of picture.flags) facts.push(["⚑ flag", desk.flags[flag].meaning]);
  for (const one of said) facts.push([one.reviewer, says.word[one.verdict] + (one.reason ? `, “${one.reason}”` : "")]);
  $("facts").replaceChildren(...facts.filter(([, value]) => value !== null && value !== "").flatMap(([name, value]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    return [dt, dd];
  }));
  const after = list[here + 1];
  if (after) new Image().src = `/whole/${after.id}`;
}

/* What a picture is compared with, and where they differ; a twin at alpha 0 is drawn when it is looked at first. */
async function paintCompared(picture) {
  const show = (words, ready) => {
    $("source-words").textContent = words;
    for (const kind of ["source", "change"]) {
      const figure = $(`figure-${kind}`);
      figure.hidden = !words || figure.dataset.off === "yes" || (kind === "change" && !ready);
      if (!figure.hidden && ready) $(kind).src = `/${kind}/${picture.id}`; else $(kind).removeAttribute("src");
    }
  };
  if (!picture.has_twin) { show(picture.has_source ? "made from this good part" : "", picture.has_source); return; }
  if (!picture.twin) show("the same seed at alpha 0 is being drawn …", false);
  while (!picture.twin && large && list[here] === picture) {
    try {
      const { state, error } = await ask(`/api/twin/${picture.id}`);
      if (state !== "drawing") picture.twin = state === "ready" ? "the same seed at alpha 0, without what was learned" : `the same seed at alpha 0 cannot be drawn: ${error}`;
    } catch { return; }  // the trouble is said by what listens for news
    if (!picture.twin) await new Promise((done) => setTimeout(done, 300));
  }
  if (list[here] === picture) show(picture.twin, !picture.twin.includes("cannot"));
}

function toggle(...kinds) {
  for (const figure of kinds.map((kind) => $(`figure-${kind}`))) figure.dataset.off = figure.dataset.off === "yes" ? "" : "yes";
  if (large) paintOne();
}

function paintBeside() {
  const strips = [["Real defects of this product", desk.real_defects], ["Real good parts", desk.real_good]];
  $("beside").replaceChildren(...strips.filter(([, ids]) => ids.length).flatMap(([words, ids]) => {
    const head = document.createElement("p"), strip = document.createElement("div");
    head.className = "head";
    head.textContent = words;
    strip.className = "strip";
    strip.append(...ids.map((id) => { const image = document.createElement("img"); image.loading = "lazy"; image.src = `/small/${id}`; image.alt = words; return image; }));
    return [head, strip];
  }));
}

// ---- header ----------------------------------------------------------------------------------------------------

function paintSummary() {
  const done = summary.reviewers[me] || 0;
  $("progress").max = Math.max(1, summary.pictures);
  $("progress").value = done;
  $("progress-text").textContent = done === summary.pictures && done ? `all ${done} decided: press Finish` : `${done} of ${summary.pictures} decided by you`;
  const one = summary.agreements.find((each) => each.reviewers.includes(me) && each.pictures) || summary.agreements.find((each) => each.pictures);
  const kappa = one && one.kappa !== null ? `, κ ${one.kappa.toFixed(2)}` : "";
  $("agreement").textContent = one ? `${one.reviewers.join(" and ")} agree on ${one.same} of ${one.pictures}${kappa}` : "";
  $("agreement").title = "κ is Cohen's kappa: 1 is full agreement, 0 is what chance gives";
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
  for (const picture of desk.pictures) paint(picture.id);
  paintSummary();
  if (list.length) go(here);
}

async function finish() {
  $("finish").disabled = true;
  try {
    await queue;
    const { message } = await ask("/api/finish", {});
    await hear();
    $("finish-text").textContent = message;
    const rows = [["prompt", "kept", "of decided", "pictures"], ...summary.prompts.map((one) => [one.prompt || "(none)", one.kept, one.decided ? `${one.decided} (${percent(one.accepted)})` : 0, one.pictures])];
    $("finish-table").replaceChildren(...rows.map((cells, number) => {
      const row = document.createElement("tr");
      row.append(...cells.map((value) => { const cell = document.createElement(number ? "td" : "th"); cell.textContent = value; return cell; }));
      return row;
    }));
    $("finish-table").hidden = !summary.prompts.some((one) => one.prompt);
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
  const reason = desk.reasons[Number(key) - 1];
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

/* Everything that is said otherwise of labels than of synthetic pictures. */
function speak() {
  says = SAYS[desk.about];
  for (const word of document.querySelectorAll("[data-word]")) word.textContent = says.word[word.dataset.word];
  for (const button of document.querySelectorAll("[data-verdict]")) { const word = says.word[button.dataset.verdict]; button.querySelector("span").textContent = word[0].toUpperCase() + word.slice(1); }
  for (const [id, words] of [["reasons-head", says.reasons], ["by-prompt-head", says.groups], ["intro", says.intro], ["outro", says.outro]]) $(id).textContent = words;
  $("intro-keys").replaceChildren(...says.keys.map(([key, name, meaning]) => {
    const line = document.createElement("li"), cap = document.createElement("kbd"), bold = document.createElement("b");
    cap.textContent = key;
    bold.textContent = name;
    line.append(cap, " ", bold, `: ${meaning}`);
    return line;
  }));
  fillSelect("by-verdict", [["", "any"], ["none", "not decided by me"], ...Object.entries(says.mine), ["differ", "reviewers differ"]]);
}

function layOut() {
  document.title = `Review: ${desk.title}`;
  $("title").textContent = desk.title;
  $("title").title = desk.title;
  desk.pictures.forEach((picture, place) => { picture.number = place + 1; });
  desk.byId = new Map(desk.pictures.map((picture) => [picture.id, picture]));
  desk.groups = [...new Set(desk.pictures.map(groupOf))];
  speak();
  cards = new Map(desk.pictures.map((picture) => [picture.id, makeCard(picture)]));
  fillSelect("by-prompt", [["", "any"], ...desk.groups.map((group, place) => [String(place), group || "(none)"])]);
  fillSelect("by-flag", [["", "any or none"], ["none", "without a flag"], ["any", "with a flag"], ...Object.entries(desk.flags).map(([flag, { pictures }]) => [flag, `${flag} (${pictures})`])]);
  $("reasons").replaceChildren(...desk.reasons.map((reason, place) => {
    const button = document.createElement("button"), key = document.createElement("kbd");
    button.type = "button";
    key.textContent = place + 1;
    button.append(key, ` ${reason}`);
    button.onclick = () => decide("reject", reason);
    return button;
  }));
  paintBeside();
  for (const picture of desk.pictures) paint(picture.id);
}

function bind() {
  for (const button of document.querySelectorAll("[data-verdict]")) button.onclick = () => decide(button.dataset.verdict);
  for (const id of ["by-verdict", "by-prompt", "by-flag"]) $(id).onchange = filter;
  $("grid").addEventListener("scroll", render);
  new ResizeObserver(render).observe($("grid"));
  $("to-grid").onclick = () => view(false);
  $("to-one").onclick = () => view(true);
  $("undo").onclick = undo;
  $("previous").onclick = () => step(-1);
  $("next").onclick = () => step(1);
  $("zoom").onclick = KEYS[" "];
  $("picture").onclick = KEYS[" "];
  $("who").onclick = askName;
  $("finish").onclick = finish;
  $("name-form").onsubmit = (event) => { if ($("name").value.trim()) setName($("name").value); else event.preventDefault(); };
  $("name-dialog").addEventListener("cancel", (event) => { if (!me) event.preventDefault(); });
}

async function start() {
  desk = await ask("/api/desk");
  layOut();
  bind();
  await hear();
  $("certify").hidden = !desk.pictures.length;
  filter();
  if (!desk.pictures.length) $("who").hidden = true;
  else if (me) setName(me);
  else askName();
  setInterval(() => { if (!document.hidden) hear().then(() => { if ($("trouble").textContent.startsWith("The server")) trouble(null); }, trouble); }, 3000);
}

const started = start().catch(trouble);
