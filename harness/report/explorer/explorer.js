"use strict";
// What questions, options, answers and names say reaches the page as text nodes only, never as markup.
(() => {
const I = EXPLORER.index, R = I.rows, N = R.id.length, columns = I.columns.map((label, c) => ({ label, number: c + 1 }));
const STATES = { r: "right", w: "wrong", u: "unparsed", f: "failed", m: "missing", n: "not scored" };
const [RIGHT, ...NOT_RIGHT] = [..."rwuf"].map((mark) => mark.charCodeAt(0));
const DURATIONS = [[60, "up to 1 min"], [300, "1 to 5 min"], [1200, "5 to 20 min"], [3600, "20 to 60 min"], [Infinity, "over 1 h"]];
const PAGE = 25, HELD = 40; // rows of a page, and pieces of answers in memory
const at = (id) => document.getElementById(id), control = at("filters").elements;

/** An element; strings among its children are text. */
function el(tag, attributes = {}, ...children) {
  const drawn = tag === "svg" || tag === "path";
  const node = drawn ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(name, value);
  node.append(...children.filter((child) => child !== null));
  return node;
}

// Per column and question: state, letter, beginning of the answer, and which cell it is.
for (const column of columns) Object.assign(column, { state: new Uint8Array(N), letter: new Uint8Array(N),
  said: new Int32Array(N).fill(-1), cell: new Int32Array(N).fill(-1) });
I.cells.forEach((own, c) => I.asked[own.asked].forEach((row, i) => {
  const { state, letter, said, cell } = columns[own.column];
  [state[row], letter[row], said[row], cell[row]] = [own.states.charCodeAt(i), own.letters.charCodeAt(i), own.said[i], c];
}));
const asked = (row) => columns.filter((column) => column.cell[row] >= 0);
const stateOf = ({ state }, row) => String.fromCharCode(state[row]), letterOf = ({ letter }, row) => String.fromCharCode(letter[row]).trim();
const durationOf = Uint8Array.from(R.seconds, (s) => (s === null ? 255 : DURATIONS.findIndex(([most]) => s <= most)));
const total = (list) => list.reduce((sum, value) => sum + value, 0);
const number = (value) => value.toLocaleString("en-US", { maximumFractionDigits: value < 10 ? 2 : 0 });
const seconds = (value) => `${value < 10 ? value.toFixed(2) : value.toFixed(1)} s`;
function clock(length) {
  const s = Math.round(length), parts = [Math.floor(s / 3600), Math.floor(s / 60) % 60, s % 60].slice(s < 3600 ? 1 : 0);
  return parts.map((part, i) => (i ? String(part).padStart(2, "0") : part)).join(":");
}
const title = (row) => R.text[row] || `Question ${R.id[row]}`;
const categories = (row) => R.category[row].map((c) => I.categories[c]);
const link = (row, column) => `#${encodeURIComponent(I.cells[column.cell[row]].id)}/${encodeURIComponent(R.id[row])}`;

// Filters. `order` holds the questions that pass, in the order of the table.
let order = Int32Array.from({ length: N }, (_, row) => row), sorted = null;
const words = { texts: null, said: I.said.map((text) => text.toLowerCase()) };
function wordsOf(row) {
  words.texts ??= R.id.map((id, r) => [id, R.video[r], R.text[r], R.gold[r] ?? "", I.groups[R.group[r]],
    ...categories(r), ...R.options[r].map(([letter, text]) => `${letter}. ${text}`)].join("\n").toLowerCase());
  return words.texts[row];
}
const chosen = (name) => (control[name].value === "" ? -1 : Number(control[name].value));
function outcome(wanted, one, other) {
  const right = (of, row) => of.some((column) => column.state[row] === RIGHT);
  const not = (of, row) => of.some((column) => NOT_RIGHT.includes(column.state[row]));
  const onlyA = (row) => right(one, row) && not(other, row), onlyB = (row) => not(one, row) && right(other, row);
  const special = { "": () => true, onlyA, onlyB, flip: (row) => onlyA(row) || onlyB(row) };
  return special[wanted] ?? ((row) => one.some((column) => column.state[row] === wanted.charCodeAt(0)));
}
function filter() {
  const [group, category, duration, a, b] = ["group", "category", "duration", "a", "b"].map(chosen);
  const query = control.search.value.trim().toLowerCase();
  const passes = outcome(control.outcome.value, a < 0 ? columns : [columns[a]], b < 0 ? columns : [columns[b]]);
  const hit = query ? words.said.map((text) => text.includes(query)) : null, found = [];
  for (let row = 0; row < N; row++) {
    if ((group >= 0 && R.group[row] !== group) || (duration >= 0 && durationOf[row] !== duration)) continue;
    if ((a >= 0 && columns[a].cell[row] < 0) || (b >= 0 && columns[b].cell[row] < 0)) continue;
    if ((category >= 0 && !R.category[row].includes(category)) || !passes(row)) continue;
    if (query && !wordsOf(row).includes(query) && !columns.some((column) => hit[column.said[row]])) continue;
    found.push(row);
  }
  order = Int32Array.from(found);
  if (sorted) order.sort((x, y) => sorted.sign * (sorted.key[x] - sorted.key[y]) || x - y);
  at("count").textContent = `${number(order.length)} of ${number(N)} questions`;
}
const rights = (row) => columns.reduce((n, column) => n + (column.state[row] === RIGHT), 0);
const SORTED = [title, (row) => I.groups[R.group[row]], (row) => categories(row).join(), (row) => R.seconds[row] ?? -1,
  (row) => R.gold[row] ?? "", rights], keys = [];
function sortBy({ column, dir }) {
  const values = keys[column] ? [] : Array.from({ length: N }, (_, row) => SORTED[column](row));
  const ranks = new Map([...new Set(values)].sort((x, y) => (x < y ? -1 : 1)).map((value, rank) => [value, rank]));
  keys[column] ??= Int32Array.from(values, (value) => ranks.get(value));
  return { key: keys[column], sign: dir === "desc" ? -1 : 1 };
}

// Pieces of answers: scripts that are read when a question of theirs is looked at.
const waiting = new Map();
function answers(row) {
  const k = Math.floor(row / I.chunk);
  if (!waiting.has(k)) {
    waiting.set(k, new Promise((resolve, reject) => {
      const script = el("script", { src: `data/${k}.js` });
      script.onload = () => { resolve(EXPLORER.chunks[k]); delete EXPLORER.chunks[k]; script.remove(); };
      script.onerror = () => reject(new Error(`data/${k}.js is not there: write the report again`));
      document.head.append(script);
    }));
    for (const old of [...waiting.keys()].slice(0, -HELD)) waiting.delete(old);
  }
  return waiting.get(k).then((piece) => new Map(piece[row % I.chunk].map(([cell, ...values]) =>
    [cell, Object.fromEntries(I.fields.map((field, i) => [field, values[i]]))])));
}
const hung = new Map(EXPLORER.pictures), contexts = I.cells.map((cell) => new Map(cell.setting).get("context"));
/** The highest value of a field among the answers of cells with the same context: their pictures have one scale. */
const highest = (found, field, of) => [...found].flatMap(([cell, answer]) => (contexts[cell] === contexts[of] ? answer[field] : []))
  .reduce((x, y) => Math.max(x, y), 1);

/** Steps over time or layers as a small picture; `top` is the value at its upper edge. */
function steps(values, top, label) {
  const height = (value) => 100 - (96 * value) / top;
  const line = values.map((value, i) => `V${height(value)}H${(100 * (i + 1)) / values.length}`).join("");
  return el("svg", { viewBox: "0 0 100 100", preserveAspectRatio: "none", role: "img", "aria-label": label },
    el("path", { class: "area", d: `M0 100${line}V100Z` }), el("path", { class: "line", d: `M0 ${height(values[0])}${line}` }));
}
const range = (values) => `${number(Math.min(...values))} to ${number(Math.max(...values))}`;

// The table. `open` are the question and the column that are shown.
let open = null, budgets = false;
function strip(row) {
  const of = asked(row), label = `${rights(row)} of ${of.length} right`;
  return el("div", { class: "strip", role: "img", "aria-label": label }, ...of.map((column) => {
    const mark = stateOf(column, row), says = `${column.number}. ${column.label}: ${STATES[mark]}, ${I.said[column.said[row]]}`;
    const shown = letterOf(column, row) || { f: "!", m: "·" }[mark] || "?";
    return el("span", { class: `mark ${mark}${isChosen(column) ? " chosen" : ""}`, title: says }, shown);
  }));
}
const isChosen = (column) => [chosen("a"), chosen("b")].includes(column.number - 1);
function multiples(row) {
  const box = el("div", { class: "strip" });
  answers(row).then((found) => {
    for (const column of asked(row)) {
      const values = found.get(column.cell[row])?.chunk_budget ?? [];
      const says = values.length ? `${values.length} chunks, ${range(values)} tokens each` : "no budget recorded";
      box.append(el("span", { class: `tile ${stateOf(column, row)}`, title: `${column.number}. ${column.label}: ${says}` },
        values.length ? steps(values, highest(found, "chunk_budget", column.cell[row]), `${column.label}: ${says}`) : null));
    }
  }, (error) => box.append(error.message));
  return box;
}
function fill(tr, row) {
  const [question, group, category, duration, gold, marks] = tr.cells;
  const one = asked(row).find(isChosen) ?? asked(row)[0];
  const anchor = el("a", { href: link(row, one), "data-row": row, "aria-current": open?.row === row }, title(row));
  question.replaceChildren(anchor, el("div", { class: "dim" }, `${R.id[row]} · ${R.video[row]}`));
  group.textContent = I.groups[R.group[row]];
  category.textContent = categories(row).map((text) => text.slice(text.indexOf(": ") + 2)).join(", ");
  duration.textContent = R.seconds[row] === null ? "" : clock(R.seconds[row]);
  gold.textContent = R.gold[row] ?? "";
  marks.replaceChildren(budgets ? multiples(row) : strip(row));
  tr.classList.toggle("open", open?.row === row);
  tr.onclick = (event) => { if (!event.target.closest("a")) location.hash = anchor.getAttribute("href"); };
}
const table = new DataTable("#table", {
  serverSide: true, searching: false, processing: false, autoWidth: false, pageLength: PAGE, order: [],
  layout: { topStart: null, topEnd: null, bottomStart: "info", bottomEnd: "paging" },
  language: { info: "_START_ to _END_", infoEmpty: "", infoFiltered: "", emptyTable: "No question passes these filters.", zeroRecords: "No question passes these filters." },
  columns: ["question", "benchmark", "category", "duration", "gold", "answers"].map((name) => ({ title: name, className: name, data: null, render: () => "" })),
  ajax: (asks, give) => {
    sorted = asks.order.length ? sortBy(asks.order[0]) : null;
    filter();
    const data = Array.from(order.subarray(asks.start, asks.start + asks.length), (row) => ({ row }));
    give({ draw: asks.draw, recordsTotal: N, recordsFiltered: order.length, data });
  },
  createdRow: (tr, { row }) => fill(tr, row),
});

// One question with the answers of all cells.
const pair = (name, ...value) => [el("dt", {}, name), el("dd", {}, ...value)];
function facts(answer) {
  const found = [], spent = Object.entries(answer.seconds), kept = total(answer.cache_length) / answer.cache_length.length;
  const known = (value, words) => (value === null ? "" : words(number(value)));
  if (answer.n_video !== null) found.push(...pair("tokens seen", known(answer.n_video, (n) => `${n} of the video`),
    known(answer.frames, (n) => ` in ${n} frames`), known(answer.n_encoded, (n) => `, ${n} encoded`), known(answer.n_prompt, (n) => `; prompt ${n}`)));
  if (answer.cache_length.length) found.push(...pair("tokens kept", `${number(kept)} cache slots per layer`,
    known(answer.n_prompt && (100 * kept) / answer.n_prompt, (share) => `, ${share} % of the prompt`)));
  if (spent.length) found.push(...pair("seconds", seconds(total(Object.values(answer.seconds))),
    ` (${spent.map(([stage, s]) => `${stage} ${seconds(s)}`).join(", ")})`));
  return found;
}
function plot(values, top, name, ends) {
  return el("figure", {}, el("figcaption", {}, `${name}: ${range(values)}`), steps(values, top, `${name}: ${range(values)}`),
    el("div", { class: "ends dim" }, ...ends.map((end) => el("span", {}, end))));
}
/** The picture of this name that hangs at a question, if there is one. */
function drawn(row, name, says) {
  const [source] = hung.get(R.id[row])?.find((each) => each[1] === name) ?? [];
  return source && el("a", { class: "picture", href: source }, el("img", { src: source, alt: says, loading: "lazy" }));
}
function card(row, column, found) {
  const cell = I.cells[column.cell[row]], answer = found.get(column.cell[row]), mark = stateOf(column, row);
  const box = el("section", { class: `card${open.column === column ? " linked" : ""}`, "aria-label": `${column.label}: ${STATES[mark]}` });
  box.append(el("h3", {}, el("span", { class: "place" }, String(column.number)), el("a", { href: link(row, column) }, column.label),
    el("span", { class: `chip ${mark}` }, STATES[mark])));
  if (!answer) return box;
  if (answer.error) box.append(el("pre", { class: "said failed" }, `${answer.error.type}: ${answer.error.message}`));
  else box.append(el("pre", { class: "said" }, answer.text || "(empty)"));
  const judged = (letter) => (answer.error || R.gold[row] === null ? "" : letter === R.gold[row] ? " right" : " wrong");
  const parsed = cell.parsers.map((name, i) => el("span", { class: "parsed" }, `${name}${i ? "" : " (scores)"} `,
    el("b", {}, answer.letters[i] ?? "nothing"), judged(answer.letters[i])));
  box.append(el("dl", {}, ...pair("parsers", ...parsed), ...facts(answer)), drawn(row, cell.id, `kept tokens, ${column.label}`) ?? "");
  const end = R.seconds[row] === null ? "end" : clock(R.seconds[row]);
  if (answer.chunk_budget.length) box.append(plot(answer.chunk_budget, highest(found, "chunk_budget", column.cell[row]), "budget over time, tokens per chunk", ["0:00", end]));
  if (answer.cache_length.length) box.append(plot(answer.cache_length, highest(found, "cache_length", column.cell[row]), "cache slots per layer", ["first layer", "last layer"]));
  const rest = [["cell", cell.id], ...cell.setting, ...I.fields.slice(1).filter((field) => !["text", "error", "seconds"].includes(field))
    .map((field) => [field.replaceAll("_", " "), answer[field]])].filter(([, value]) => value !== null && value?.length !== 0);
  box.append(el("details", {}, el("summary", {}, "setting and records"),
    el("dl", {}, ...rest.flatMap(([name, value]) => pair(name, Array.isArray(value) ? value.join(", ") : String(value))))));
  return box;
}
function option(row, letter, text) {
  const by = asked(row).filter((column) => letterOf(column, row) === letter).map((column) => column.number);
  return el("li", { class: letter === R.gold[row] ? "gold" : null }, el("b", {}, `${letter}. `), text,
    letter === R.gold[row] ? el("span", { class: "chip r" }, "right answer") : null,
    by.length ? el("span", { class: "dim" }, ` answered by ${by.join(", ")}`) : null);
}
/** Marks the open question in the table; returns the link of the question `row` there. */
function mark(row) {
  const links = [...document.querySelectorAll("#table tbody a")];
  for (const each of links) {
    const own = open !== null && Number(each.dataset.row) === open.row;
    each.closest("tr").classList.toggle("open", own);
    each.setAttribute("aria-current", own);
  }
  return links.find((each) => Number(each.dataset.row) === row);
}
async function show() {
  const { row } = open, place = order.indexOf(row), body = at("body");
  document.title = `${title(row)} · answers`;
  document.body.classList.add("open");
  at("place").textContent = place < 0 ? "not among the filtered" : `${number(place + 1)} of ${number(order.length)}`;
  mark(row);
  let found;
  try { found = await answers(row); } catch (error) { body.replaceChildren(el("p", {}, error.message)); return; }
  if (open?.row !== row) return; // another one was opened meanwhile
  const length = R.seconds[row] === null ? null : `about ${clock(R.seconds[row])} long`;
  const about = [I.groups[R.group[row]], `video ${R.video[row]}`, length, `question ${R.id[row]}`, ...categories(row)];
  const first = (column) => (isChosen(column) ? 0 : 1);
  body.replaceChildren(el("h2", { tabindex: "-1" }, title(row)), el("p", { class: "dim" }, about.filter(Boolean).join(" · ")),
    el("ul", { class: "options" }, ...R.options[row].map(([letter, text]) => option(row, letter, text))),
    drawn(row, `${I.sources[R.group[row]]}.side_by_side`, "kept tokens of the cells side by side") ?? "",
    el("div", { class: "cards" }, ...asked(row).sort((x, y) => first(x) - first(y)).map((column) => card(row, column, found))));
  at("detail").scrollTop = 0;
  if (matchMedia("(max-width: 999px)").matches) { scrollTo(0, 0); body.querySelector("h2").focus(); }
}
function close() {
  const left = open?.row;
  open = null;
  document.body.classList.remove("open");
  document.title = "Answers";
  mark(left)?.focus();
}
function step(by) {
  const place = open ? order.indexOf(open.row) : -1;
  const next = open && place >= 0 ? place + by : 0;
  if (!(next in order)) return;
  if (Math.floor(next / PAGE) !== table.page()) table.page(Math.floor(next / PAGE)).draw("page");
  const of = asked(order[next]), column = of.find((each) => each === open?.column) ?? of.find(isChosen) ?? of[0];
  location.replace(link(order[next], column));
}
function follow() {
  const [name, id] = location.hash.slice(1).split("/");
  const cell = I.cells.find((each) => encodeURIComponent(each.id) === name);
  if (!cell) return void close();
  if (id === undefined) {
    for (const each of control) each.value = "";
    [control.a.value, control.group.value] = [cell.column, R.group[I.asked[cell.asked][0]] ?? ""];
    close();
    return void table.draw();
  }
  const row = I.asked[cell.asked].find((each) => encodeURIComponent(R.id[each]) === id);
  if (row === undefined) return void close();
  open = { row, column: columns[cell.column] };
  show();
}

// Controls.
const choices = (name, list) => control[name].append(...list.map((text, value) => el("option", { value }, text)));
choices("group", I.groups);
choices("category", I.categories);
choices("duration", DURATIONS.map(([, label]) => label));
for (const name of ["a", "b"]) choices(name, columns.map((column) => `${column.number}. ${column.label}`));
at("columns").append(...columns.map((column) => el("li", {}, column.label)));
at("remarks").append(...I.remarks.map((text) => el("p", {}, text)));
at("filters").addEventListener("input", () => table.draw());
at("filters").addEventListener("submit", (event) => event.preventDefault());
at("filters").addEventListener("reset", () => setTimeout(() => table.draw()));
at("budgets").onclick = () => {
  budgets = !budgets;
  at("budgets").setAttribute("aria-pressed", budgets);
  table.draw("page");
};
for (const [id, does] of [["next", () => step(1)], ["previous", () => step(-1)], ["close", () => { location.hash = ""; }]]) at(id).onclick = does;
addEventListener("hashchange", follow);
addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") { if (open) location.hash = ""; else document.activeElement.blur(); return; }
  if (event.target.closest("input, select, textarea")) return;
  const does = { j: () => step(1), ArrowRight: () => step(1), k: () => step(-1), ArrowLeft: () => step(-1), "/": () => control.search.focus(), b: () => at("budgets").click() }[event.key];
  if (does) { event.preventDefault(); does(); }
});
follow();
setTimeout(() => N && wordsOf(0)); // so that the first letter of a search is not slower than the next
})();
