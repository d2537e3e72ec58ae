"use strict";
/* The view of one image with its facts and the images to compare it with. */
function paintOne() {
  const image = list[current], own = mine(image.id), said = own.decision ? others(image.id) : [];
  $("image").src = `/whole/${image.id}`;
  $("where").textContent = `image ${current + 1} of ${list.length}`;
  $("question").textContent = says.question(image);
  $("figure-labelled").hidden = !image.has_mask || $("figure-labelled").dataset.off === "yes";
  if (!$("figure-labelled").hidden) $("labelled").src = `/labelled/${image.id}`;
  paintCompared(image);
  for (const button of document.querySelectorAll("[data-decision]")) button.setAttribute("aria-pressed", String(button.dataset.decision === own.decision));
  $("mine").textContent = own.decision ? `You: ${says.word[own.decision]}${own.reason ? `, “${own.reason}”` : ""}` : "You have not decided yet.";
  const facts = [["prompt", image.prompt], ["origin", session.about === "labels" ? "" : image.origin], ["label", session.about === "labels" ? LABEL[image.label] : ""],
    ["classifier", image.score === null ? "" : `${percent(image.score)} defect, without training on this image`], ["kind", image.defect], ["seed", image.seed], ["alpha", image.alpha]];
  for (const flag of image.flags) facts.push(["⚑ flag", session.flags[flag].meaning]);
  for (const decision of said) facts.push([decision.reviewer, says.word[decision.decision] + (decision.reason ? `, “${decision.reason}”` : "")]);
  $("facts").replaceChildren(...facts.filter(([, value]) => value !== null && value !== "").flatMap(([name, value]) => {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    return [dt, dd];
  }));
  const after = list[current + 1];
  if (after) new Image().src = `/whole/${after.id}`;
}

/* The image to compare with and the difference map; a preview at alpha 0 is generated when it is first viewed. */
async function paintCompared(image) {
  const show = (words, ready) => {
    $("source-words").textContent = words;
    for (const kind of ["source", "change"]) {
      const figure = $(`figure-${kind}`);
      figure.hidden = !words || figure.dataset.off === "yes" || (kind === "change" && !ready);
      if (!figure.hidden && ready) $(kind).src = `/${kind}/${image.id}`; else $(kind).removeAttribute("src");
    }
  };
  if (!image.has_preview) { show(image.has_source ? "made from this good part" : "", image.has_source); return; }
  if (!image.preview) show("generating the same seed at alpha 0 …", false);
  while (!image.preview && large && list[current] === image) {
    try {
      const { state, error } = await ask(`/api/base-preview/${image.id}`);
      if (state !== "drawing") image.preview = state === "ready" ? "the same seed at alpha 0" : `the same seed at alpha 0 cannot be generated: ${error}`;
    } catch { return; }  // polling for updates reports the error
    if (!image.preview) await new Promise((done) => setTimeout(done, 300));
  }
  if (list[current] === image) show(image.preview, !image.preview.includes("cannot"));
}

function toggle(...kinds) {
  for (const figure of kinds.map((kind) => $(`figure-${kind}`))) figure.dataset.off = figure.dataset.off === "yes" ? "" : "yes";
  if (large) paintOne();
}

function paintBeside() {
  const strips = [["Real defects of this product", session.real_defects], ["Real good parts", session.real_good]];
  $("beside").replaceChildren(...strips.filter(([, ids]) => ids.length).flatMap(([words, ids]) => {
    const head = document.createElement("p"), strip = document.createElement("div");
    head.className = "head";
    head.textContent = words;
    strip.className = "strip";
    strip.append(...ids.map((id) => { const image = document.createElement("img"); image.loading = "lazy"; image.src = `/small/${id}`; image.alt = words; return image; }));
    return [head, strip];
  }));
}
