"use strict";
/* The prompt room: only there when the server has a base to draw with. */
let room = null;
let painted = "";

function element(tag, words, attributes = {}) {
  const made = document.createElement(tag);
  if (words) made.textContent = words;
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function field(words, id, attributes) {
  const label = element("label", words);
  label.append(element("input", "", { id, autocomplete: "off", ...attributes }));
  return label;
}

function buildRoom() {
  const { start } = room, form = element("form", "", { id: "wish" });
  const numbers = element("div", "", { class: "numbers" });
  numbers.append(
    field("Alpha, 0 = base, 1 = all it learned", "alpha", { type: "number", min: 0, max: 1, step: "any", value: start.alpha }),
    field("Guidance, weight of the words", "guidance", { type: "number", min: 1, max: 50, step: "any", value: start.guidance }),
    field(`Pictures, up to ${room.most}`, "number", { type: "number", min: 1, max: room.most, value: start.number }),
    field("Seed", "seed", { type: "number", min: 0, max: 4294967295, value: start.seed }),
  );
  form.append(
    element("h2", "Describe a defect"),
    field("Prompt", "prompt-a", { maxlength: 300, required: "", value: start.prompts[0] }),
    field("Second prompt, to compare with the same seeds (may stay empty)", "prompt-b", { maxlength: 300, value: start.prompts[1] || "" }),
    field("What must not be there (may stay empty)", "negative", { maxlength: 300, value: start.negative_prompt }),
    numbers, element("button", "Make pictures", { class: "main", id: "make" }),
    element("h2", "Prompts to use"), element("div", "", { id: "chosen" }),
  );
  const beside = $("beside").cloneNode(true);
  beside.id = "room-beside";
  form.append(beside);
  form.onsubmit = (event) => { event.preventDefault(); makePictures(); };
  $("room").append(form, element("section", "", { id: "tries", "aria-label": "tries, the newest first" }));
}

async function makePictures() {
  const prompts = [$("prompt-a").value, $("prompt-b").value].filter((prompt) => prompt.trim());
  const number = (id) => Number($(id).value);
  try {
    await ask("/api/tries", { prompts, negative_prompt: $("negative").value, alpha: number("alpha"), guidance: number("guidance"), number: number("number"), seed: number("seed") });
    trouble(null);
    await lookRoom();
    $("tries").scrollTop = 0;
  } catch (error) { trouble(error); }
}

async function choose(prompt, use) {
  try { await ask("/api/prompts", { prompt, use }); await lookRoom(); } catch (error) { trouble(error); }
}

function paintTry(one, chosen) {
  const box = element("article"), wish = one.wish, total = wish.number * wish.prompts.length, made = one.made.reduce((a, b) => a + b, 0);
  const state = { waiting: "waiting", drawing: `${made} of ${total} made`, done: "", failed: `failed: ${one.error}` }[one.state];
  box.append(element("p", `Try ${one.id}: alpha ${wish.alpha}, guidance ${wish.guidance}, seed ${wish.seed}${wish.negative_prompt ? `, without “${wish.negative_prompt}”` : ""}`, { class: "head" }));
  if (one.state === "drawing" || one.state === "waiting") box.append(element("progress", "", { max: total, value: made, "aria-label": "pictures made" }));
  if (state) box.append(element("span", ` ${state}`, { class: "state" }));
  wish.prompts.forEach((prompt, row) => {
    const line = element("div", "", { class: "line" }), strip = element("div", "", { class: "strip" });
    const used = chosen.includes(prompt), button = element("button", used ? "✓ used, take away" : "Use this prompt", { type: "button", "aria-pressed": String(used) });
    button.onclick = () => choose(prompt, !used);
    const again = element("button", "Change it", { type: "button" });
    again.onclick = () => { $("prompt-a").value = prompt; $("prompt-b").value = ""; $("negative").value = wish.negative_prompt; for (const id of ["alpha", "guidance", "number", "seed"]) $(id).value = wish[id]; $("prompt-a").focus(); };
    line.append(element("b", prompt), button, again);
    for (let place = 0; place < one.made[row]; place++) strip.append(element("img", "", { src: `/try/${one.id}/${row}/${place}`, alt: `${prompt}, picture ${place + 1}`, loading: "lazy" }));
    box.append(line, strip);
  });
  return box;
}

async function lookRoom() {
  const { tries, chosen, option } = await ask("/api/tries");
  const now = JSON.stringify([tries, chosen]);
  if (now === painted) return;
  painted = now;
  const nothing = element("p", "No try yet. Write what the defect looks like, and press Make pictures.");
  $("tries").replaceChildren(...(tries.length ? tries.reverse().map((one) => paintTry(one, chosen)) : [nothing]));
  $("chosen").replaceChildren(...(chosen.length ? [...chosen.map((prompt) => element("p", `✓ ${prompt}`)), element("p", "To make a pool of them, add this to augment:"), element("code", option)] : [element("p", "None yet. Press “Use this prompt” below pictures that could be real.")]));
}

function enterRoom(inside) {
  $("room").hidden = !inside;
  $("certify").hidden = inside;
  $("to-room").setAttribute("aria-pressed", String(inside));
  $("to-certify").setAttribute("aria-pressed", String(!inside));
}

started.then(async () => {
  if (!desk?.room) return;
  room = await ask("/api/room");
  buildRoom();
  $("tabs").hidden = !desk.pictures.length;
  $("progress-box").style.visibility = desk.pictures.length ? "" : "hidden";
  $("to-room").onclick = () => enterRoom(true);
  $("to-certify").onclick = () => enterRoom(false);
  enterRoom(!desk.pictures.length);
  await lookRoom();
  setInterval(() => { if (!document.hidden && !$("room").hidden) lookRoom().catch(trouble); }, 1000);
}).catch(trouble);
