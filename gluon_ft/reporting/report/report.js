all(".script, .filter").forEach(element => { element.hidden = false; });

// Tables that sort by a column: numbers by their values, what has none last.
const value = cell => {
  const text = cell.dataset.value ?? cell.textContent.trim();
  const number = text === "" ? NaN : Number(text.replace(/%$/, ""));
  return Number.isNaN(number) ? text : number;
};
const compared = (a, b) => {
  if (typeof a === typeof b) return typeof a === "number" ? a - b : a.localeCompare(b, undefined, { numeric: true });
  return 0;
};
all("table.sortable").filter(table => table.tBodies[0].rows.length > 1).forEach(table => all("thead th", table).forEach((head, column) => {
  const button = made("button", head.textContent);
  button.type = "button";
  head.replaceChildren(button);
  button.addEventListener("click", () => {
    const down = head.getAttribute("aria-sort") === "ascending" || (!head.hasAttribute("aria-sort") && head.classList.contains("number"));
    all("th", table.tHead).forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const keyed = [...table.tBodies[0].rows].map(row => [value(row.cells[column]), row]);
    const numbers = keyed.some(([key]) => typeof key === "number");
    const last = key => numbers && typeof key !== "number";
    keyed.sort(([a], [b]) => last(a) - last(b) || (down ? -1 : 1) * compared(a, b));
    table.tBodies[0].append(...keyed.map(([, row]) => row));
  });
}));

all("input[data-filter]").forEach(input => input.addEventListener("input", () => {
  const place = document.getElementById(input.dataset.filter), wanted = input.value.trim().toLowerCase();
  all("tbody tr, details.pair", place).forEach(row => {
    const name = row.querySelector("th, .names").textContent.toLowerCase();
    row.hidden = !name.includes(wanted);
  });
}));

// Charts: the values at the nearest point, by pointer and by arrow keys.
const tip = one("#tip");
const shown = (number, share) => share ? `${(100 * number).toFixed(1)}%` : String(Number(number.toPrecision(4)));
all("svg[data-chart]").forEach(svg => {
  const chart = JSON.parse(svg.dataset.chart), output = svg.closest("figure").querySelector(".at");
  const scaled = (axis, v) => {
    const [low, high, at] = axis.log ? [axis.low, axis.high, v].map(Math.log10) : [axis.low, axis.high, v];
    return axis.start + (at - low) / (high - low) * (axis.end - axis.start);
  };
  const places = [...new Set(chart.lines.flatMap(line => line.points.map(point => point[0])))].sort((a, b) => a - b);
  const cursor = document.createElementNS("http://www.w3.org/2000/svg", "line");
  cursor.setAttribute("class", "cursor");
  svg.append(cursor);
  let chosen = places.length - 1;
  const said = x => {
    const lines = chart.lines.map(line => [line, line.points.find(point => point[0] === x)]).filter(([, p]) => p && p[1] !== null);
    lines.sort((a, b) => b[1][1] - a[1][1]);
    const most = 12, texts = lines.slice(0, most).map(([line, [, y, words]]) => `${line.name}: ${shown(y, chart.share)}${words}`);
    if (lines.length > most) texts.push(`and ${lines.length - most} more`);
    return [`${chart.unit} ${shown(x, chart.percent)}`, ...texts];
  };
  const choose = (index, spoken) => {
    chosen = Math.min(Math.max(index, 0), places.length - 1);
    const x = scaled(chart.x, places[chosen]);
    for (const [name, at] of [["x1", x], ["x2", x], ["y1", chart.y.start], ["y2", chart.y.end]]) cursor.setAttribute(name, at);
    cursor.style.display = "";
    const texts = said(places[chosen]);
    if (spoken) output.textContent = texts.join("; ");
    return texts;
  };
  const left = () => { tip.hidden = true; cursor.style.display = "none"; };
  const moved = event => {
    const box = svg.getBoundingClientRect(), at = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    let nearest = 0;
    places.forEach((x, i) => { if (Math.abs(scaled(chart.x, x) - at) < Math.abs(scaled(chart.x, places[nearest]) - at)) nearest = i; });
    tip.textContent = choose(nearest, false).join("\n");
    tip.hidden = false;
    const width = document.documentElement.clientWidth, right = event.clientX + 16 + tip.offsetWidth > width;
    tip.style.left = `${Math.max(4, right ? event.clientX - 16 - tip.offsetWidth : event.clientX + 16) + scrollX}px`;
    tip.style.top = `${event.clientY + 12 + scrollY}px`;
  };
  svg.tabIndex = 0;
  svg.addEventListener("pointermove", moved);
  svg.addEventListener("pointerdown", moved);
  svg.addEventListener("pointerleave", left);
  svg.addEventListener("focus", () => { if (svg.matches(":focus-visible")) choose(chosen, true); });
  svg.addEventListener("blur", () => { left(); output.textContent = ""; });
  svg.addEventListener("keydown", event => {
    const step = { ArrowLeft: chosen - 1, ArrowRight: chosen + 1, Home: 0, End: places.length - 1 }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    choose(step, true);
  });
});
all(".legend button").forEach(button => {
  button.disabled = false;
  button.addEventListener("click", () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    all(".legend button").forEach(other => other.setAttribute("aria-pressed", String(on && other === button)));
    all("#curves svg").forEach(svg => {
      svg.classList.toggle("faded", on);
      all("[data-series]", svg).forEach(shape => { shape.classList.toggle("lit", on && shape.dataset.series === button.dataset.series); });
    });
  });
});

// The confusion matrix: a cell's images beside it.
const panel = one("#cell"), matrix = one("#matrix");
const show = (row, column, names, count) => {
  const pair = document.getElementById(`pair-${row}-${column}`);
  panel.hidden = false;
  panel.replaceChildren(made("h3", row === column ? `${names[0]}: ${count} right` : `${names[0]} taken for ${names[1]}: ${count}`));
  if (pair) panel.append(...[...pair.children].slice(1).map(child => child.cloneNode(true)));
  else panel.append(made("p", "Its images are in predictions.csv.", "quiet"));
};
if (matrix && matrix.tagName === "TABLE") {
  const cells = all("a[data-row]", matrix), heads = all("thead th", matrix).map(head => head.textContent);
  const at = cell => [Number(cell.dataset.row), Number(cell.dataset.column)];
  const choose = cell => {
    const [row, column] = at(cell);
    cells.forEach(other => { other.tabIndex = other === cell ? 0 : -1; other.removeAttribute("aria-current"); });
    cell.setAttribute("aria-current", "true");
    show(row, column, [heads[row], heads[column]], cell.dataset.count);
  };
  cells.forEach((cell, i) => {
    cell.tabIndex = i ? -1 : 0;
    cell.setAttribute("role", "button");
    cell.addEventListener("click", event => { event.preventDefault(); choose(cell); });
    cell.addEventListener("keydown", event => {
      if (event.key === " ") { event.preventDefault(); choose(cell); return; }
      const [down, right] = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key] ?? [0, 0];
      if (!down && !right) return;
      event.preventDefault();
      const [row, column] = at(cell);
      // The nearest cell that is not empty on that side.
      const side = cells.map(other => [other, at(other)]).filter(([, [r, c]]) => down ? (r - row) * down > 0 : r === row && (c - column) * right > 0);
      side.sort(([, a], [, b]) => Math.abs(a[0] - row) - Math.abs(b[0] - row) || Math.abs(a[1] - column) - Math.abs(b[1] - column));
      if (side.length) { choose(side[0][0]); side[0][0].focus(); }
    });
  });
} else if (matrix) {
  const { names, cells: flat } = JSON.parse(matrix.dataset.matrix), count = names.length;
  const cells = [], sums = new Map();
  for (let i = 0; i < flat.length; i += 3) cells.push(flat.slice(i, i + 3));
  cells.forEach(([row, , images]) => sums.set(row, (sums.get(row) ?? 0) + images));
  const size = Math.max(2, Math.floor(640 / count)), context = matrix.getContext("2d");
  let chosen = -1;
  matrix.hidden = false;
  matrix.width = matrix.height = size * count;
  const draw = () => {
    const style = getComputedStyle(root), colour = (name, shade) => `rgb(${style.getPropertyValue(name)} / ${shade})`;
    context.clearRect(0, 0, matrix.width, matrix.height);
    cells.forEach(([row, column, images]) => {
      context.fillStyle = colour(row === column ? "--right" : "--wrong", 0.35 + 0.65 * Math.sqrt(images / sums.get(row)));
      const more = row === column ? 0 : 1;  // a single confusion can be seen
      context.fillRect(column * size - more, row * size - more, size + 2 * more, size + 2 * more);
    });
    if (chosen < 0) return;
    context.strokeStyle = style.getPropertyValue("--text");
    context.lineWidth = 2;
    context.strokeRect(cells[chosen][1] * size - 3, cells[chosen][0] * size - 3, size + 6, size + 6);
  };
  const choose = index => {
    chosen = index;
    const [row, column, images] = cells[chosen];
    draw();
    show(row, column, [names[row], names[column]], images);
  };
  const nearest = (row, column) => cells.reduce((best, [r, c], i) => {
    const distance = (r - row) ** 2 + (c - column) ** 2;
    return distance < best[0] ? [distance, i] : best;
  }, [Infinity, 0])[1];
  matrix.addEventListener("click", event => {
    const box = matrix.getBoundingClientRect();
    choose(nearest((event.clientY - box.top) / box.height * count - 0.5, (event.clientX - box.left) / box.width * count - 0.5));
  });
  matrix.addEventListener("keydown", event => {
    const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -1, ArrowDown: 1 }[event.key];
    if (!step && event.key !== "Enter") return;
    event.preventDefault();
    if (chosen < 0 || !step) { choose(Math.max(chosen, 0)); return; }
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") { choose(Math.min(Math.max(chosen + step, 0), cells.length - 1)); return; }
    const [row, column] = cells[chosen];
    const side = cells.map((cell, i) => [i, (cell[0] - row) * step, Math.abs(cell[1] - column)]).filter(([, away]) => away > 0);
    side.sort((a, b) => a[1] - b[1] || a[2] - b[2]);
    if (side.length) choose(side[0][0]);
  });
  document.addEventListener("themed", draw);
  draw();
}

// An address such as report.html#pair-3-5 opens the cell; without one the most frequent confusion is shown.
const shownPair = pair => {
  const [row, column] = pair.id.split("-").slice(1).map(Number), { label, predicted, count } = pair.dataset;
  show(row, column, [label, predicted], count);
};
const followed = () => {
  const target = location.hash && document.getElementById(location.hash.slice(1)), part = target && target.closest("details");
  for (let open = part; open; open = open.parentElement.closest("details")) open.open = true;
  if (part && part.matches(".pair")) shownPair(part);
};
addEventListener("hashchange", followed);
if (one("#pairs .pair")) shownPair(one("#pairs .pair"));
followed();
themed();
