"use strict";
/* One picture, what is known of it, and what it is compared with. */
function paintOne() {
  const picture = list[here], own = mine(picture.id), said = own.verdict ? others(picture.id) : [];
  $("picture").src = `/whole/${picture.id}`;
  $("where").textContent = `the picture to judge, ${here + 1} of ${list.length}`;
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
      if (state !== "drawing") picture.twin = state === "ready" ? "the same seed at alpha 0" : `the same seed at alpha 0 cannot be drawn: ${error}`;
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
