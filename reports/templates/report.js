"use strict";
const all = (root, what) => [...root.querySelectorAll(what)];
const make = (tag, look, text) => {
  const made = document.createElement(tag);
  if (look) made.className = look;
  if (text !== undefined) made.textContent = text;
  return made;
};

// A link into a closed run opens it and all that is around it.
const goTo = () => {
  const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (!target) return;
  for (let each = target; each; each = each.parentElement) if (each.tagName === "DETAILS") each.open = true;
  target.scrollIntoView();
};

// Replay lines are there to be pasted.
for (const line of all(document, ".replay")) {
  const button = make("button", "", "copy");
  button.type = "button";
  button.onclick = async () => {
    const code = line.querySelector("code");
    try {
      await navigator.clipboard.writeText(code.textContent);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(code);
      button.textContent = "selected";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  };
  line.append(button);
}

document.getElementById("search").oninput = (event) => {
  const wanted = event.target.value.toLowerCase();
  for (const each of all(document, "[data-name]")) each.classList.toggle("hidden", !each.dataset.name.toLowerCase().includes(wanted));
};

// The log: rows, with filters, made when a run is opened first.
const RECORD = /^\s*([\d.]+)\s+(\S+)\s+(DEBUG|INFO|WARNING|ERROR|CRITICAL)\s+(?:([\w.]+): )?(.*)$/;
const LEVELS = ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"];
const short = (text) => text.replace(/\b([0-9a-f]{6})[0-9a-f]{26}\b/g, "$1…");
const readLog = (text) => {
  const records = [];
  for (const line of text.split("\n")) {
    const found = RECORD.exec(line);
    if (found) records.push({ at: found[1], node: found[2], level: found[3], from: found[4] || "", text: found[5] });
    else if (line.startsWith("… ")) records.push({ gap: line });
    else if (records.length) records[records.length - 1].text += "\n" + line.replace(/^ {14}\| /, "");
  }
  return records;
};
const choice = (bar, label, options) => {
  const select = make("select");
  for (const [value, text] of options) select.append(new Option(text, value));
  const whole = make("label", "", label + " ");
  whole.append(select);
  bar.append(whole);
  return select;
};
const showLog = (pre) => {
  const records = readLog(pre.textContent);
  const bar = make("div", "log-bar"), rows = make("div", "log-rows"), count = make("span", "dim");
  const level = choice(bar, "level", LEVELS.map((name, index) => [index, index ? name + " and worse" : "all"]));
  const nodes = [...new Set(records.map((each) => each.node).filter(Boolean))].sort();
  const node = choice(bar, "node", [["", "all"], ...nodes.map((name) => [name, name])]);
  const text = make("input");
  text.type = "search"; text.placeholder = "text contains …"; text.setAttribute("aria-label", "text contains");
  const whole = make("input"), label = make("label", "");
  whole.type = "checkbox";
  label.append(whole, " whole ids");
  bar.append(text, label, count);
  rows.tabIndex = 0;
  const draw = () => {
    const wanted = text.value.toLowerCase(), shown = document.createDocumentFragment();
    let lines = 0;
    for (const each of records) {
      if (each.gap) { shown.append(make("div", "gap", each.gap)); continue; }
      if (LEVELS.indexOf(each.level) < +level.value || (node.value && each.node !== node.value)) continue;
      if (wanted && !(each.from + ": " + each.text).toLowerCase().includes(wanted)) continue;
      const row = make("div", each.level), said = make("span");
      if (each.from) said.append(make("span", "from", each.from + ": "));
      said.append(whole.checked ? each.text : short(each.text));
      row.title = each.level;
      row.append(make("time", "", each.at), make("span", "node", each.node), said);
      shown.append(row);
      lines += 1;
    }
    rows.replaceChildren(shown);
    count.textContent = lines + " records";
  };
  level.onchange = node.onchange = text.oninput = whole.onchange = draw;
  pre.replaceWith(bar, rows);
  draw();
};

// The LSN picture: the legend hides lines and brings them out, and tells positions at the cursor.
const lsnText = (position) => Math.floor(position / 2 ** 32).toString(16).toUpperCase() + "/" + (position % 2 ** 32).toString(16).toUpperCase();
const summed = (text) => { let sum = 0; return text.split(" ").map((each) => (sum += +each)); };
const showLsn = (figure) => {
  const svg = figure.querySelector("svg.lsn"), cursor = svg.querySelector(".cursor"), when = figure.querySelector(".when");
  const left = +svg.dataset.left, width = +svg.dataset.width, end = +svg.dataset.end;
  const series = all(figure, "label[data-s]").map((label) => {
    const path = svg.querySelector("path.s" + label.dataset.s), value = label.querySelector(".value");
    return { label, path, value, last: value.textContent, times: summed(path.dataset.us), positions: summed(path.dataset.lsn) };
  });
  const heat = (one, hot) => { svg.classList.toggle("dimmed", hot); one.path.classList.toggle("hot", hot); one.label.classList.toggle("hot", hot); };
  for (const one of series) {
    const box = one.label.querySelector("input");
    box.onchange = () => all(svg, ".s" + one.label.dataset.s).forEach((each) => each.classList.toggle("off", !box.checked));
    for (const place of [one.label, one.path]) { place.onmouseenter = () => heat(one, true); place.onmouseleave = () => heat(one, false); }
  }
  const toggle = (boxes) => { const on = !boxes.some((box) => box.checked); for (const box of boxes) { box.checked = on; box.onchange(); } };
  for (const button of all(figure, "button.row")) button.onclick = () => toggle(all(button.closest("tr"), "input"));
  for (const button of all(figure, "button.column")) {
    button.onclick = () => {
      const index = button.closest("th").cellIndex;
      toggle(all(figure, "tr").flatMap((row) => all(row.cells[index], "input")));
    };
  }
  svg.onmousemove = (event) => {
    const box = svg.getBoundingClientRect(), x = (event.clientX - box.left) * svg.viewBox.baseVal.width / box.width;
    const at = (x - left) / width * end;
    if (at < 0 || at > end) return svg.onmouseleave();
    cursor.style.visibility = "visible"; cursor.setAttribute("x1", x); cursor.setAttribute("x2", x);
    when.textContent = "at " + at.toFixed(6) + " s";
    for (const one of series) {
      let low = 0, high = one.times.length;
      while (low < high) { const middle = (low + high) >> 1; if (one.times[middle] <= at * 1e6) low = middle + 1; else high = middle; }
      one.value.textContent = low ? lsnText(one.positions[low - 1]) : "–";
    }
  };
  svg.onmouseleave = () => { cursor.style.visibility = "hidden"; when.textContent = ""; for (const one of series) one.value.textContent = one.last; };
};

const opened = (run) => {
  if (run.dataset.shown) return;
  run.dataset.shown = "yes";
  all(run, "pre.log").forEach(showLog);
  all(run, ".lsn-picture").forEach(showLsn);
  for (const strip of all(run, ".time")) strip.scrollLeft = strip.dataset.focus - strip.clientWidth / 3;
};
for (const run of all(document, "details.run")) {
  run.addEventListener("toggle", () => { if (run.open) opened(run); });
  if (run.open) opened(run);
}
addEventListener("hashchange", goTo);
goTo();
