"use strict";
/* The prompt lab: available only if the server has a base model. */
let promptLab = null;
let rendered = "";

function element(tag, words, attributes = {}) {
  const node = document.createElement(tag);
  if (words) node.textContent = words;
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  return node;
}

function field(words, id, attributes) {
  const label = element("label", words);
  label.append(element("input", "", { id, autocomplete: "off", ...attributes }));
  return label;
}

function buildPromptLab() {
  const { start } = promptLab, form = element("form", "", { id: "request" });
  const numbers = element("div", "", { class: "numbers" });
  numbers.append(
    field("Alpha, 0 = base model, 1 = full adapter", "alpha", { type: "number", min: 0, max: 1, step: "any", value: start.alpha }),
    field("Guidance, weight of the prompt", "guidance", { type: "number", min: 1, max: 50, step: "any", value: start.guidance }),
    field(`Images, up to ${promptLab.most}`, "number", { type: "number", min: 1, max: promptLab.most, value: start.number }),
    field("Seed", "seed", { type: "number", min: 0, max: 4294967295, value: start.seed }),
  );
  form.append(
    element("h2", "Describe a defect"),
    field("Prompt", "prompt-a", { maxlength: 300, required: "", value: start.prompts[0] }),
    field("Second prompt with the same seeds, for comparison (optional)", "prompt-b", { maxlength: 300, value: start.prompts[1] || "" }),
    field("Negative prompt: what to avoid (optional)", "negative", { maxlength: 300, value: start.negative_prompt }),
    numbers, element("button", "Generate images", { class: "main", id: "make" }),
    element("h2", "Chosen prompts"), element("div", "", { id: "chosen" }),
  );
  const beside = $("beside").cloneNode(true);
  beside.id = "prompt-lab-beside";
  form.append(beside);
  form.onsubmit = (event) => { event.preventDefault(); makeImages(); };
  $("prompt-lab").append(form, element("section", "", { id: "attempts", "aria-label": "attempts, newest first" }));
}

async function makeImages() {
  const prompts = [$("prompt-a").value, $("prompt-b").value].filter((prompt) => prompt.trim());
  const number = (id) => Number($(id).value);
  try {
    await ask("/api/attempts", { prompts, negative_prompt: $("negative").value, alpha: number("alpha"), guidance: number("guidance"), number: number("number"), seed: number("seed") });
    trouble(null);
    await refreshPromptLab();
    $("attempts").scrollTop = 0;
  } catch (error) { trouble(error); }
}

async function choose(prompt, use) {
  try { await ask("/api/prompts", { prompt, use }); await refreshPromptLab(); } catch (error) { trouble(error); }
}

function renderAttempt(attempt, chosen) {
  const box = element("article"), request = attempt.request, total = request.number * request.prompts.length, made = attempt.made.reduce((a, b) => a + b, 0);
  const state = { waiting: "waiting", drawing: `${made} of ${total} generated`, done: "", failed: `failed: ${attempt.error}` }[attempt.state];
  box.append(element("p", `Attempt ${attempt.id}: alpha ${request.alpha}, guidance ${request.guidance}, seed ${request.seed}${request.negative_prompt ? `, without “${request.negative_prompt}”` : ""}`, { class: "head" }));
  if (attempt.state === "drawing" || attempt.state === "waiting") box.append(element("progress", "", { max: total, value: made, "aria-label": "generated images" }));
  if (state) box.append(element("span", ` ${state}`, { class: "state" }));
  request.prompts.forEach((prompt, row) => {
    const line = element("div", "", { class: "line" }), strip = element("div", "", { class: "strip" });
    const used = chosen.includes(prompt), button = element("button", used ? "✓ chosen, remove" : "Choose this prompt", { type: "button", "aria-pressed": String(used) });
    button.onclick = () => choose(prompt, !used);
    const again = element("button", "Edit", { type: "button" });
    again.onclick = () => { $("prompt-a").value = prompt; $("prompt-b").value = ""; $("negative").value = request.negative_prompt; for (const id of ["alpha", "guidance", "number", "seed"]) $(id).value = request[id]; $("prompt-a").focus(); };
    line.append(element("b", prompt), button, again);
    for (let index = 0; index < attempt.made[row]; index++) strip.append(element("img", "", { src: `/attempt/${attempt.id}/${row}/${index}`, alt: `${prompt}, image ${index + 1}`, loading: "lazy" }));
    box.append(line, strip);
  });
  return box;
}

async function refreshPromptLab() {
  const { attempts, chosen, option } = await ask("/api/attempts");
  const now = JSON.stringify([attempts, chosen]);
  if (now === rendered) return;
  rendered = now;
  const nothing = element("p", "No attempt yet. Describe the defect and press Generate images.");
  $("attempts").replaceChildren(...(attempts.length ? attempts.reverse().map((attempt) => renderAttempt(attempt, chosen)) : [nothing]));
  $("chosen").replaceChildren(...(chosen.length ? [...chosen.map((prompt) => element("p", `✓ ${prompt}`)), element("p", "To make a pool with these prompts, add this option to augment:"), element("code", option)] : [element("p", "None yet. Press “Choose this prompt” at images that could be real.")]));
}

function showPromptLab(inside) {
  $("prompt-lab").hidden = !inside;
  $("certify").hidden = inside;
  $("to-prompt-lab").setAttribute("aria-pressed", String(inside));
  $("to-certify").setAttribute("aria-pressed", String(!inside));
}

started.then(async () => {
  if (!session?.prompt_lab) return;
  promptLab = await ask("/api/prompt-lab");
  buildPromptLab();
  $("tabs").hidden = !session.images.length;
  $("progress-box").style.visibility = session.images.length ? "" : "hidden";
  $("to-prompt-lab").onclick = () => showPromptLab(true);
  $("to-certify").onclick = () => showPromptLab(false);
  showPromptLab(!session.images.length);
  await refreshPromptLab();
  setInterval(() => { if (!document.hidden && !$("prompt-lab").hidden) refreshPromptLab().catch(trouble); }, 1000);
}).catch(trouble);
