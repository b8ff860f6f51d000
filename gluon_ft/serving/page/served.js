// Asks the server that this page came from.
const TRIES = 30;
const pause = seconds => new Promise(resolve => setTimeout(resolve, 1000 * seconds));
const way = {
  parallel: 4,
  async start() { return ""; },
  async ask(file) {
    for (let attempt = 1; ; attempt++) {
      const form = new FormData();
      form.append("image", file, file.name);
      const answer = await fetch("predict", { method: "POST", body: form });
      if (answer.status === 503 && attempt < TRIES) {
        await pause(Number(answer.headers.get("Retry-After")) || 1);
        continue;
      }
      const found = await answer.json();
      return found.error ? { reason: found.error } : found.predictions[0] || found.unreadable[0];
    }
  },
};
