"use strict";
/* Texts for the review of synthetic images and for the review of labels. */
const SIGN = { keep: "✓", reject: "✗", unsure: "?" };
const LABEL = ["good", "defect"];
const SAYS = {
  pool: {
    word: { keep: "keep", reject: "reject", unsure: "unsure" },
    mine: { keep: "kept by me", reject: "rejected by me", unsure: "unsure by me" },
    question: () => "Could this be a real defect of this product?",
    reasons: "Or reject because", groups: "Prompt",
    intro: "You will see computer-generated images of defects. Decide on each one as you would on the production line:",
    keys: [["K", "Keep", "this could be a real defect of this product."], ["R", "Reject", "it shows no defect or an impossible one."], ["U", "Unsure", "someone else should look."]],
    outro: "Training can be restricted to kept images. You can stop at any time and continue later.",
  },
  labels: {
    word: { keep: "right", reject: "wrong", unsure: "unsure" },
    mine: { keep: "marked right by me", reject: "marked wrong by me", unsure: "unsure by me" },
    question: (image) => `The label says “${LABEL[image.label]}”. Is that right?`,
    reasons: "Or the label is wrong because", groups: "Label",
    intro: "You will see real images, sorted by how much a classifier disagrees with their labels. For each one:",
    keys: [["K", "Right", "the label matches the image."], ["R", "Wrong", "the other label is right."], ["U", "Unsure", "someone else should look."]],
    outro: "Your data set is not changed. Finish writes one manifest with wrong labels corrected and one without doubtful images. You can stop at any time and continue later.",
  },
};
let says = SAYS.pool;      // texts of this session

const percent = (score) => `${Math.round(100 * score)} %`;

/* The caption of an image, and the group that it is filtered by. */
const groupOf = (image) => (session.about === "labels" ? LABEL[image.label] : image.prompt);
const captionOf = (image) => (session.about === "labels" ? `labelled ${groupOf(image)}, looks like a defect: ${percent(image.score)}` : image.prompt || image.defect || image.origin);

/* Fill in all texts that depend on the kind of review. */
function speak() {
  says = SAYS[session.about];
  for (const word of document.querySelectorAll("[data-word]")) word.textContent = says.word[word.dataset.word];
  for (const button of document.querySelectorAll("[data-decision]")) { const word = says.word[button.dataset.decision]; button.querySelector("span").textContent = word[0].toUpperCase() + word.slice(1); }
  for (const [id, words] of [["reasons-head", says.reasons], ["by-prompt-head", says.groups], ["intro", says.intro], ["outro", says.outro]]) $(id).textContent = words;
  $("intro-keys").replaceChildren(...says.keys.map(([key, name, meaning]) => {
    const line = document.createElement("li"), cap = document.createElement("kbd"), bold = document.createElement("b");
    cap.textContent = key;
    bold.textContent = name;
    line.append(cap, " ", bold, `: ${meaning}`);
    return line;
  }));
  fillSelect("by-decision", [["", "all"], ["none", "not decided by me"], ...Object.entries(says.mine), ["differ", "reviewers differ"]]);
}
