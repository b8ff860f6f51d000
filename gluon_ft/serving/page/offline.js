// Runs the network in this page: ONNX Runtime Web and the model are in it, packed; nothing is asked of anybody.
const about = JSON.parse(one("#about").textContent);
let session;

const unpacked = async id => {
  const element = one(`#${id}`), text = atob(element.textContent), packed = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) packed[i] = text.charCodeAt(i);
  element.remove();
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
};

const computed = async pixels => {
  const { size, channel_order: order } = about.preprocessing;
  return session.run({ [about.input]: new ort.Tensor("uint8", pixels, [1, size, size, order === "gray" ? 1 : 3]) });
};

const way = {
  parallel: 1,
  async start() {
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.proxy = false;
    ort.env.logLevel = "error";
    ort.env.wasm.wasmBinary = await unpacked("runtime");
    session = await ort.InferenceSession.create(new Uint8Array(await unpacked("model")), { executionProviders: ["wasm"] });
    const { size, channel_order: order } = about.preprocessing, black = new Uint8Array(size * size * (order === "gray" ? 1 : 3));
    await computed(black);
    const began = performance.now();
    await computed(black);
    return `Ready: the network takes ${Math.max(1, performance.now() - began).toFixed(0)} ms an image in this browser`;
  },
  async ask(file) {
    const pixels = await prepared(file, about.preprocessing), found = await computed(pixels);
    const shares = [...found[about.output].data], distance = found[about.distance]?.data[0];
    const order = shares.map((_, i) => i).sort((a, b) => shares[b] - shares[a] || a - b).slice(0, about.top);
    const top = order.map(i => ({ class: about.names[i], probability: shares[i] }));
    return { class: top[0].class, probability: top[0].probability, top,
             ...(distance === undefined ? {} : { unknown: about.limit !== null && distance > about.limit, distance }) };
  },
};
