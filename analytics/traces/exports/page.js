"use strict";
// Draws what the page holds in its own data; nothing is fetched. Every text goes in as text, never as markup.
const D = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const make = (tag, text, parent) => {
  const node = document.createElement(tag);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
};
const LABEL = 168, AXIS = 22, PATH = 26, LEVEL = 15, GAP = 3, FOLDED = 34, ROWS_OPEN = 200, MIN_US = 10, WHOLE_BESIDE = 2, THIN = 4;
const KINDS = ["task", "compute", "network", "marker", "bad", "open", "other"];
const HUES = { run: 215, staging: 35, upload: 50, queue: 275, limit: 305, provider: 290, dispatch: 175, backoff: 20, lost: 355, verdict: 330,
  settle: 150, "failed run": 3, "lost run": 345, "cancelled run": 60, unknown: 100 };
const S = D.spans, total = Math.max(1, D.total_us);
let from = 0, to = total, scroll = 0, hover = null, found = null, tall = 0, open = new Set(), drag = null;

function time(us) {
  const s = us / 1e6;
  if (s < 1e-3) return `${Math.round(us)} µs`;
  if (s < 1) return `${(s * 1e3).toPrecision(3)} ms`;
  if (s < 120) return `${s < 10 ? s.toFixed(2) : s.toFixed(1)} s`;
  if (s < 7200) return `${Math.floor(s / 60)}m ${Math.round(s % 60)}s`;
  if (s < 172800) return `${Math.floor(s / 3600)}h ${Math.round((s % 3600) / 60)}m`;
  return `${Math.floor(s / 86400)}d ${Math.round((s % 86400) / 3600)}h`;
}

// A group is a provider. Open, each of its rows is drawn; folded, how many of its spans were under way at each time.
D.groups.forEach((group, at) => { if (D.rows_total <= ROWS_OPEN && group.rows.length <= ROWS_OPEN) open.add(at); });

let lines = [];
function layout() {
  lines = [];
  let y = 0;
  D.groups.forEach((group, at) => {
    if (!open.has(at)) {
      lines.push({ y, height: FOLDED, group: at, row: -1, label: `▸ ${group.name} (${group.slots})` });
      y += FOLDED + GAP;
      return;
    }
    let beside = 0;
    group.rows.forEach((row, n) => {
      beside = row.beside ? beside + 1 : 0;
      const level = beside > WHOLE_BESIDE ? THIN : LEVEL, gap = beside > WHOLE_BESIDE ? 1 : GAP;
      const height = level * Math.max(1, row.strips.length) + gap;
      const label = beside > WHOLE_BESIDE ? "" : n ? `   ${row.name}` : `▾ ${group.name} ${row.name}`;
      lines.push({ y, height, level, group: at, row: n, label });
      y += height;
    });
    y += GAP;
  });
  tall = y;
}

const canvas = $("chart"), paint = canvas.getContext("2d");
let width = 0, height = 0, colours = {};
function fitted() {
  const style = getComputedStyle(document.documentElement);
  ["back", "panel", "ink", "dim", "line", ...KINDS].forEach((n) => { colours[n] = style.getPropertyValue(`--${n}`).trim(); });
  const ratio = devicePixelRatio || 1;
  width = canvas.clientWidth || document.documentElement.clientWidth || 800;
  height = Math.min(Math.max(AXIS + PATH + tall + 12, 140), Math.max(240, Math.round(innerHeight * 0.62)));
  canvas.style.height = `${height}px`;
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  paint.setTransform(ratio, 0, 0, ratio, 0, 0);
}
const x = (us) => LABEL + (us - from) / (to - from) * (width - LABEL);
const us = (px) => from + (px - LABEL) / (width - LABEL) * (to - from);
const pathHue = (kind) => `hsl(${HUES[kind] ?? 240} 55% ${dark() ? 45 : 58}%)`;
const dark = () => (document.documentElement.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";

function firstEndingAfter(strip, at) {
  let low = strip[0], high = strip[1];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (S.start[middle] + S.length[middle] > at) high = middle; else low = middle + 1;
  }
  return low;
}

function drawStrip(strip, y, level) {
  const pixel = (to - from) / (width - LABEL);
  let i = firstEndingAfter(strip, from);
  while (i < strip[1] && S.start[i] < to) {
    const left = Math.max(LABEL, x(S.start[i]));
    let right = x(S.start[i] + S.length[i]), kind = S.kind[i], last = i, many = found !== null && S.task[i] === found;
    while (right - left < 1 && last + 1 < strip[1] && S.start[last + 1] + S.length[last + 1] - S.start[i] < pixel) {
      last += 1;  // narrower than a pixel: one mark for them all, and what went wrong shows through
      right = Math.max(right, x(S.start[last] + S.length[last]));
      if (S.kind[last] === 4) kind = 4;
      many ||= found !== null && S.task[last] === found;
    }
    right = Math.min(right, width);
    const wide = Math.max(1, right - left - (right - left > 4 ? 1 : 0));
    paint.globalAlpha = found !== null && !many ? 0.3 : 1;
    paint.fillStyle = colours[KINDS[kind]];
    paint.fillRect(left, y, wide, level > THIN ? level - 2 : level - 1);
    if (last === i && wide > 34 && level > THIN) {
      paint.fillStyle = "#fff";
      const text = D.names[S.name[i]] === "task" ? D.tasks[S.task[i]] ?? "task" : D.names[S.name[i]];
      paint.fillText(text.slice(0, Math.max(1, Math.floor((wide - 6) / 6.2))), left + 3, y + LEVEL / 2 - 0.5);
    }
    paint.globalAlpha = 1;
    i = last + 1;
  }
}

function drawFolded(group, y) {
  // How much of each pixel's time was busy, in slots: what a span covers of its first and its last one, and all between.
  const columns = Math.max(1, Math.floor(width - LABEL)), change = new Float64Array(columns + 1), busy = new Float64Array(columns);
  const bad = new Uint8Array(columns);
  for (const row of group.rows) {
    const strip = row.strips[0];
    if (!strip || row.beside) continue;
    for (let i = firstEndingAfter(strip, from); i < strip[1] && S.start[i] < to; i += 1) {
      const left = Math.max(0, x(S.start[i]) - LABEL), right = Math.min(columns, x(S.start[i] + S.length[i]) - LABEL);
      const first = Math.min(columns - 1, Math.floor(left)), last = Math.min(columns - 1, Math.floor(right));
      if (first === last) busy[first] += right - left;
      else {
        busy[first] += first + 1 - left;
        busy[last] += right - last;
        change[first + 1] += 1;
        change[last] -= 1;
      }
      if (S.kind[i] === 4) bad[first] = 1;
    }
  }
  let now = 0, most = 1;
  for (let c = 0; c < columns; c += 1) { now += change[c]; busy[c] += now; most = Math.max(most, busy[c]); }
  paint.fillStyle = colours.task;
  for (let c = 0; c < columns; c += 1) {
    if (busy[c] <= 0) continue;
    const tallness = Math.max(2, busy[c] / most * (FOLDED - 8));
    paint.fillRect(LABEL + c, y + FOLDED - 2 - tallness, 1, tallness);
  }
  paint.fillStyle = colours.bad;
  for (let c = 0; c < columns; c += 1) if (bad[c]) paint.fillRect(LABEL + c, y, 1, 5);
}

function drawPath(y) {
  paint.fillStyle = colours.panel;
  paint.fillRect(0, y, width, PATH);
  paint.fillStyle = colours.ink;
  paint.fillText("critical path", 8, y + PATH / 2);
  let low = 0, high = D.path.length;
  while (low < high) { const m = (low + high) >> 1; if (D.path[m].to > from) high = m; else low = m + 1; }
  for (let i = low; i < D.path.length && D.path[i].from < to; i += 1) {
    const piece = D.path[i], left = Math.max(LABEL, x(piece.from)), right = Math.min(width, x(piece.to));
    paint.fillStyle = pathHue(piece.kind);
    paint.globalAlpha = found !== null && piece.task !== found ? 0.35 : 1;
    paint.fillRect(left, y + 3, Math.max(1, right - left - (right - left > 4 ? 1 : 0)), PATH - 6);
    if (right - left > 46) {
      paint.fillStyle = "#fff";
      paint.fillText(`${piece.kind} ${piece.task < 0 ? "" : D.tasks[piece.task]}`.slice(0, Math.max(1, Math.floor((right - left - 6) / 6.4))), left + 3, y + PATH / 2);
    }
    paint.globalAlpha = 1;
  }
}

function drawAxis() {
  paint.fillStyle = colours.back;
  paint.fillRect(0, 0, width, AXIS);
  paint.fillStyle = colours.dim;
  const rough = (to - from) / Math.max(2, (width - LABEL) / 110), power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((n) => n * power).find((n) => n >= rough);
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) {
    const px = Math.round(x(at));
    paint.fillText(time(at), px + 3, AXIS / 2);
    paint.fillRect(px, 0, 1, AXIS);
  }
}

let asked = false;
function draw() { if (!asked) { asked = true; requestAnimationFrame(() => { asked = false; drawNow(); }); } }
function drawNow() {
  const room = height - AXIS - PATH;
  scroll = Math.max(0, Math.min(scroll, tall - room + 8));
  paint.font = "11px system-ui, sans-serif";
  paint.textBaseline = "middle";
  paint.fillStyle = colours.back;
  paint.fillRect(0, 0, width, height);
  for (const line of lines) {
    const y = AXIS + PATH + 4 + line.y - scroll;
    if (y + line.height < AXIS + PATH || y > height) continue;
    const group = D.groups[line.group];
    if (line.row < 0) drawFolded(group, y);
    else group.rows[line.row].strips.forEach((strip, depth) => drawStrip(strip, y + depth * line.level, line.level));
    paint.fillStyle = colours.back;
    paint.fillRect(0, y, LABEL - 1, line.height);
    paint.fillStyle = line.row < 0 || line.row === 0 ? colours.ink : colours.dim;
    paint.fillText(line.label.slice(0, 27), 8, y + Math.min(line.height, LEVEL) / 2);
    paint.fillStyle = colours.line;
    if (line.level !== THIN) paint.fillRect(0, y + line.height - 2, width, 0.5);
  }
  drawAxis();
  drawPath(AXIS);
}

function under(px, py) {
  if (px < LABEL) return null;
  if (py >= AXIS && py < AXIS + PATH) {
    const at = us(px), piece = D.path.find((p) => p.from <= at && at < p.to);
    return piece ? { piece } : null;
  }
  const y = py - AXIS - PATH - 4 + scroll;
  const line = lines.find((l) => l.y <= y && y < l.y + l.height);
  if (!line || line.row < 0) return line ? { group: line.group } : null;
  const strip = D.groups[line.group].rows[line.row].strips[Math.floor((y - line.y) / line.level)];
  if (!strip) return null;
  const i = firstEndingAfter(strip, us(px - 1));
  return i < strip[1] && S.start[i] <= us(px + 1) ? { span: i } : null;
}

function told(what) {
  if (what.piece) {
    const p = what.piece;
    return [`${p.kind}: ${time(p.to - p.from)} of the critical path`, p.task < 0 ? "" : `task ${D.tasks[p.task]}${p.attempt ? `, attempt ${p.attempt}` : ""}`,
      p.provider ? `on ${p.provider}` : "", p.cause ? `because of ${p.cause}` : "", `${time(p.from)} to ${time(p.to)}`].filter(Boolean).join("\n");
  }
  if (what.span === undefined) return "";
  const i = what.span;
  return [D.names[S.name[i]], S.task[i] < 0 ? "" : `task ${D.tasks[S.task[i]]}${S.attempt[i] ? `, attempt ${S.attempt[i]}` : ""}`,
    `${time(S.length[i])}, from ${time(S.start[i])} to ${time(S.start[i] + S.length[i])}`,
    S.kind[i] === 4 ? "failed" : S.kind[i] === 5 ? "has not ended" : ""].filter(Boolean).join("\n");
}

function look(start, end) {
  const least = Math.min(MIN_US, total), long = Math.max(least, Math.min(total, end - start));
  from = Math.max(0, Math.min(start, total - long));
  to = from + long;
  draw();
}
const zoom = (factor, at = (from + to) / 2) => look(at - (at - from) * factor, at + (to - at) * factor);
const pan = (share) => look(from + share * (to - from), to + share * (to - from));

function focus(task) {
  found = task;
  let first = Infinity, last = -Infinity, where = null;
  D.groups.forEach((group, at) => group.rows.forEach((row, n) => row.strips.forEach((strip) => {
    for (let i = strip[0]; i < strip[1]; i += 1) if (S.task[i] === task) {
      first = Math.min(first, S.start[i]); last = Math.max(last, S.start[i] + S.length[i]); where ??= [at, n];
    }
  })));
  for (const piece of D.path) if (piece.task === task) { first = Math.min(first, piece.from); last = Math.max(last, piece.to); }
  if (last < first) return draw();
  if (where && !open.has(where[0])) { open.add(where[0]); layout(); fitted(); }
  const line = where && lines.find((l) => l.group === where[0] && l.row === where[1]);
  if (line) scroll = line.y - 60;
  const room = Math.max(last - first, total / 1e6) * 0.6;
  look(first - room, last + room);
}

canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  if (event.ctrlKey || event.metaKey || event.altKey) zoom(Math.exp(event.deltaY * 0.002), us(Math.max(LABEL, event.offsetX)));
  else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) pan((event.deltaX || event.deltaY) / (width - LABEL));
  else { scroll += event.deltaY; draw(); }
}, { passive: false });
canvas.addEventListener("pointerdown", (event) => { drag = { x: event.offsetX, y: event.offsetY, from, to, scroll, moved: false }; canvas.setPointerCapture(event.pointerId); });
canvas.addEventListener("pointerup", (event) => {
  const was = drag;
  drag = null;
  if (!was || was.moved) return;
  if (event.offsetX < LABEL) {
    const y = event.offsetY - AXIS - PATH - 4 + scroll, line = lines.find((l) => l.y <= y && y < l.y + l.height);
    if (line) { if (open.has(line.group)) open.delete(line.group); else open.add(line.group); layout(); fitted(); draw(); }
    return;
  }
  const what = under(event.offsetX, event.offsetY);
  const task = what?.piece ? what.piece.task : what?.span !== undefined ? S.task[what.span] : -1;
  found = task >= 0 && task !== found ? task : null;
  draw();
});
canvas.addEventListener("pointermove", (event) => {
  const tip = $("tip");
  if (drag) {
    const by = (event.offsetX - drag.x) / (width - LABEL) * (drag.to - drag.from);
    if (Math.abs(event.offsetX - drag.x) + Math.abs(event.offsetY - drag.y) > 4) drag.moved = true;
    if (drag.moved) { scroll = drag.scroll - (event.offsetY - drag.y); look(drag.from - by, drag.to - by); tip.hidden = true; }
    return;
  }
  hover = under(event.offsetX, event.offsetY);
  const text = hover ? told(hover) : "";
  tip.hidden = !text;
  if (text) {
    tip.textContent = text;
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
  }
});
canvas.addEventListener("pointerleave", () => { $("tip").hidden = true; });
canvas.addEventListener("dblclick", (event) => {
  const what = under(event.offsetX, event.offsetY);
  if (what?.span !== undefined) look(S.start[what.span] - S.length[what.span] * 0.1, S.start[what.span] + S.length[what.span] * 1.1);
  else if (what?.piece) look(what.piece.from, what.piece.to);
});
canvas.addEventListener("keydown", (event) => {
  const does = { w: () => zoom(0.6), "+": () => zoom(0.6), s: () => zoom(1.7), "-": () => zoom(1.7), a: () => pan(-0.2), ArrowLeft: () => pan(-0.2),
    d: () => pan(0.2), ArrowRight: () => pan(0.2), ArrowUp: () => { scroll -= 60; draw(); }, ArrowDown: () => { scroll += 60; draw(); }, f: () => look(0, total), 0: () => look(0, total) }[event.key];
  if (does && !event.ctrlKey && !event.metaKey) { event.preventDefault(); does(); }
});
$("in").onclick = () => zoom(0.6);
$("out").onclick = () => zoom(1.7);
$("fit").onclick = () => { found = null; scroll = 0; look(0, total); };
$("fold").onclick = () => { if (open.size) open.clear(); else D.groups.forEach((_, at) => open.add(at)); scroll = 0; layout(); fitted(); draw(); };
$("theme").onclick = () => { document.documentElement.dataset.theme = dark() ? "light" : "dark"; fitted(); draw(); };
$("find").addEventListener("change", (event) => {
  const wanted = event.target.value.trim();
  const at = wanted ? D.tasks.findIndex((t) => t === wanted) : -1;
  const near = at >= 0 || !wanted ? at : D.tasks.findIndex((t) => t.includes(wanted));
  if (near >= 0) focus(near); else { found = null; draw(); }
});
addEventListener("resize", () => { fitted(); draw(); });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { fitted(); draw(); });

function table(spec) {
  const section = make("section", undefined, $("tables"));
  make("h2", spec.title, section);
  if (spec.note) make("p", spec.note, section);
  const box = make("div", undefined, section), inner = make("table", undefined, box);
  box.className = "scroll";
  const head = make("tr", undefined, make("thead", undefined, inner)), body = make("tbody", undefined, inner);
  let order = spec.rows.map((_, n) => n), by = null;
  const fill = () => {
    body.replaceChildren();
    for (const n of order) {
      const line = make("tr", undefined, body), task = spec.tasks?.[n] ?? -1;
      if (task >= 0) { line.dataset.task = task; line.onclick = () => { focus(task); canvas.scrollIntoView({ block: "nearest" }); }; }
      spec.rows[n].forEach((cell, c) => {
        const shown = Array.isArray(cell) ? cell[1] : cell, one = make("td", shown, line);
        one.title = shown;
        if (spec.columns[c][1]) one.className = "right";
      });
    }
  };
  spec.columns.forEach(([title, right], c) => {
    const one = make("th", title, head);
    if (right) one.className = "right";
    one.onclick = () => {
      const value = (n) => { const cell = spec.rows[n][c]; return Array.isArray(cell) ? cell[0] : cell; };
      by = by === c ? -c - 1 : c;
      order.sort((a, b) => { const p = value(a), q = value(b), way = p < q ? -1 : p > q ? 1 : a - b; return by < 0 ? -way : way; });
      fill();
    };
  });
  fill();
}

$("title").textContent = document.title = D.title;
$("about").textContent = D.about;
for (const [name, value] of D.facts) { const one = make("span", `${name} `, $("facts")); make("b", value, one); }
for (const note of D.notes) make("li", note, $("notes"));
const legend = [...new Set(D.path.map((p) => p.kind))].map((k) => [k, pathHue(k)]);
for (const [name, colour] of [...legend.slice(0, 10), ["failed", "var(--bad)"]]) {
  const one = make("span", undefined, $("legend"));
  make("i", undefined, one).style.background = colour;
  one.append(name);
}
D.tables.forEach(table);
layout();
fitted();
drawNow();
document.documentElement.dataset.ready = String(lines.length);
