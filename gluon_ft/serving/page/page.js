// Pictures that are dropped, chosen or pasted, and a card with the answer for each. `way` says who answers.
const drop = one("#drop"), input = one("#files"), state = one("#state"), answers = one("#answers");
const MOST = 200;  // cards that stay
const percent = share => `${(100 * share).toFixed(1)}%`;
const queue = [];
let running = 0, answered = 0, milliseconds = 0, failed = "";

const shown = (card, found) => {
  const holder = card.querySelector("div");
  holder.replaceChildren();
  card.classList.remove("waiting");
  if (found.reason !== undefined) {
    card.dataset.state = "unreadable";
    holder.append(made("p", `not predicted: ${found.reason}`, "remark"));
    return;
  }
  Object.assign(card.dataset, { state: "predicted", class: found.class, probability: found.probability });
  if (found.distance !== undefined) card.dataset.distance = found.distance;
  holder.append(made("span", found.class, "found"));
  const list = made("ol");
  found.top.forEach(({ class: name, probability }) => {
    const line = made("li");
    line.style.setProperty("--share", probability);
    line.append(made("span", name), made("span", percent(probability)));
    list.append(line);
  });
  holder.append(list);
  if (found.unknown) holder.append(made("p", "unknown: like nothing that it was trained on, perhaps no class is right", "remark"));
};

const told = () => {
  const left = queue.length + running;
  const speed = answered ? `${answered} answered, ${(milliseconds / answered).toFixed(0)} ms each` : "";
  state.textContent = failed || [left ? `${left} to go` : "", speed].filter(Boolean).join(", ") || state.textContent;
};

const work = async () => {
  while (queue.length) {
    const [file, card] = queue.shift();
    running += 1;
    told();
    const began = performance.now();
    try {
      shown(card, await way.ask(file));
    } catch (error) {
      shown(card, { reason: error.message || String(error) });
    }
    milliseconds += (performance.now() - began) / way.parallel;
    running -= 1;
    answered += 1;
    told();
  }
};

const added = files => {
  [...files].forEach(file => {
    const card = made("li", undefined, "waiting"), picture = made("img"), name = made("span", file.name, "quiet name");
    picture.src = URL.createObjectURL(file);
    picture.alt = file.name;
    picture.addEventListener("load", () => URL.revokeObjectURL(picture.src), { once: true });
    picture.addEventListener("error", () => { URL.revokeObjectURL(picture.src); picture.remove(); }, { once: true });
    name.title = file.name;
    card.append(picture, name, made("div", "..."));
    answers.prepend(card);
    queue.push([file, card]);
  });
  while (answers.children.length > MOST) answers.lastChild.remove();
  started.then(() => { for (let i = Math.min(way.parallel, queue.length); i > 0; i--) work(); });
};

input.addEventListener("change", () => { added(input.files); input.value = ""; });
document.addEventListener("dragover", event => { event.preventDefault(); drop.classList.add("over"); });
document.addEventListener("dragleave", event => { if (!event.relatedTarget) drop.classList.remove("over"); });
document.addEventListener("drop", event => {
  event.preventDefault();
  drop.classList.remove("over");
  added(event.dataTransfer.files);
});
document.addEventListener("paste", event => added(event.clipboardData.files));

const started = way.start();
started.then(text => { if (text) state.textContent = text; root.dataset.ready = "yes"; }, error => {
  failed = `this browser cannot run the network: ${error.message || error}`;
  told();
});
