"use strict";
/* What is said of synthetic images, and what of labels of real ones. */
const SIGN = { keep: "✓", reject: "✗", unsure: "?" };
const LABEL = ["good", "defect"];
const SAYS = {
  pool: {
    word: { keep: "keep", reject: "reject", unsure: "unsure" },
    mine: { keep: "kept by me", reject: "rejected by me", unsure: "unsure to me" },
    question: () => "Could this be a real defect of this product?",
    reasons: "Or reject because", groups: "Prompt",
    intro: "You will see images of defects that a computer made. For each one, decide as you would on the line:",
    keys: [["K", "Keep", "this could be a real defect of this product."], ["R", "Reject", "it shows no defect, or one that could not be."], ["U", "Unsure", "someone else should look."]],
    outro: "Only kept images are used for training when that is asked for. You can stop at any time and go on later.",
  },
  labels: {
    word: { keep: "right", reject: "wrong", unsure: "unsure" },
    mine: { keep: "label right, by me", reject: "label wrong, by me", unsure: "unsure to me" },
    question: (image) => `The label says “${LABEL[image.label]}”. Is that right?`,
    reasons: "Or the label is wrong because", groups: "Label",
    intro: "You will see real images, those first whose labels a classifier doubts. For each one:",
    keys: [["K", "Right", "the label says what the image shows."], ["R", "Wrong", "it is the other way round."], ["U", "Unsure", "someone else should look."]],
    outro: "The labels stay as they are: at the end you get one list with the wrong ones corrected, and one without the doubtful ones. You can stop at any time and go on later.",
  },
};
let says = SAYS.pool;      // the words of what is decided here

const percent = (score) => `${Math.round(100 * score)} %`;

/* The words below an image, and what it is filtered by. */
const groupOf = (image) => (session.about === "labels" ? LABEL[image.label] : image.prompt);
const captionOf = (image) => (session.about === "labels" ? `labelled ${groupOf(image)}, looks like a defect: ${percent(image.score)}` : image.prompt || image.defect || image.origin);

/* Everything that is said otherwise of labels than of synthetic images. */
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
  fillSelect("by-decision", [["", "any"], ["none", "not decided by me"], ...Object.entries(says.mine), ["differ", "reviewers differ"]]);
}
