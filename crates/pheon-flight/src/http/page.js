"use strict";
// Text only ever becomes text: nothing that comes from the server is read as HTML.
const $ = (id) => document.getElementById(id);
const REFRESH_MS = 3000;
let token = sessionStorage.getItem("pheon-token");
let me = null;
let listed = [];
let shown = null;
let asking = null;

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

async function ask(path, body, options = {}) {
  const headers = {};
  const bearer = options.bearer || token;
  if (bearer) headers.authorization = "Bearer " + bearer;
  if (body !== undefined) headers["content-type"] = "application/json";
  // Text is JSON already.
  const sent = typeof body === "string" ? body : JSON.stringify(body);
  const response = await fetch("api/" + path, {
    method: body === undefined ? "GET" : "POST", headers, signal: options.signal,
    body: body === undefined ? undefined : sent,
  });
  const text = await response.text();
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    // What refuses a request before it is read, here or on the way, says so in plain text.
    answer = { error: text.trim() };
    if (response.ok) throw new Error("unexpected answer: " + answer.error);
  }
  if (!response.ok) throw Object.assign(new Error(answer.error || "status " + response.status), { status: response.status });
  return answer;
}

function size(bytes) {
  if (bytes === null || bytes === undefined) return "?";
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (bytes < 1024) return (unit === "B" ? bytes : bytes.toFixed(1)) + " " + unit;
    bytes /= 1024;
  }
  return bytes.toFixed(1) + " TiB";
}

function duration(ns) {
  if (ns < 1e3) return ns + " ns";
  if (ns < 1e6) return (ns / 1e3).toFixed(1) + " µs";
  return (ns / 1e6).toFixed(1) + " ms";
}

const number = (n) => n.toLocaleString("en");
const count = (n, what) => number(n) + " " + what + (n === 1 ? "" : "s");
const time = (ms) => new Date(ms).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });

function el(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

// A cell is text, a number, null, a node, or { text, kind } with a class.
function cell(tag, value) {
  if (value instanceof Node) {
    const made = el(tag);
    made.append(value);
    return made;
  }
  if (value === null) return el(tag, "null", "null");
  if (typeof value === "number") return el(tag, number(value), "number");
  if (typeof value === "object") {
    const made = cell(tag, value.text);
    if (value.kind) made.classList.add(...value.kind.split(" "));
    return made;
  }
  return el(tag, value);
}

function line(cells, tag) {
  const row = el("tr");
  row.append(...cells.map((value) => cell(tag, value)));
  return row;
}

function table(id, headings, rows) {
  const head = el("thead");
  head.append(line(headings, "th"));
  const body = el("tbody");
  body.append(...rows.map((cells) => line(cells, "td")));
  $(id).replaceChildren(head, body);
  return body;
}

// Rows as the server prints them, under names and types.
function grid(id, columns, rows, first) {
  const heading = (c) => {
    const made = el("span", c.name);
    made.append(el("small", c.type));
    return { text: made, kind: c.number ? "number" : "" };
  };
  const headings = columns.map(heading);
  const cells = rows.map((row) => row.map((value, i) => (columns[i].number ? { text: value, kind: "number" } : value)));
  if (first === undefined) table(id, headings, cells);
  else table(id, ["", ...headings], cells.map((row, i) => [{ text: number(first + i), kind: "place number" }, ...row]));
}

function facts(id, pairs) {
  $(id).replaceChildren(...pairs.map(([name, value]) => {
    const made = el("div");
    made.append(el("dt", name), el("dd", value));
    return made;
  }));
}

function tab(name) {
  for (const button of $("tabs").children) {
    button.setAttribute("aria-selected", String(button.dataset.panel === name));
    $("panel-" + button.dataset.panel).hidden = button.dataset.panel !== name;
  }
}

function resident(d) {
  const made = el("span", size(d.resident));
  if (d.resident !== null && d.bytes > 0) {
    const bar = el("meter");
    bar.max = d.bytes;
    bar.value = Math.min(d.resident, d.bytes);
    bar.title = Math.round(100 * bar.value / d.bytes) + " % in memory";
    made.append(bar);
  }
  return { text: made, kind: "number" };
}

async function datasets() {
  listed = await ask("datasets");
  $("count").textContent = listed.length || "";
  $("empty").hidden = listed.length > 0;
  const right = (text) => ({ text, kind: "number" });
  const body = table("datasets", ["name", right("rows"), right("version"), right("size"), right("in memory"), "key"], listed.map((d) => {
    const open = el("button", d.name);
    if (d.problem) return [open, { text: d.problem, kind: "bad" }, "", "", "", ""];
    return [open, d.rows, d.version, right(size(d.bytes)), resident(d), d.key.length ? d.key.join(", ") : { text: "", kind: "" }];
  }));
  [...body.children].forEach((row, i) => {
    row.classList.add("pick");
    row.classList.toggle("chosen", shown !== null && shown.name === listed[i].name);
    row.addEventListener("click", () => guarded(() => show(listed[i].name, 0)));
  });
}

function verdicts(columns) {
  const reasons = [];
  const verdict = (reason) => {
    if (reason === null) return { text: "in place", kind: "good" };
    if (!reasons.includes(reason)) reasons.push(reason);
    const made = el("span", "copy ");
    made.append(el("small", "[" + (reasons.indexOf(reason) + 1) + "]"));
    made.title = reason;
    return { text: made, kind: "copy" };
  };
  table("columns", ["column", "type", "nulls", ...me.consumers], columns.map((c) => {
    const name = el("span", c.name);
    if (c.key) name.append(el("small", " key"));
    return [name, c.type, c.nullable ? "yes" : "no", ...me.consumers.map((consumer) => verdict(c.copies[consumer]))];
  }));
  $("reasons").replaceChildren(...reasons.map((reason) => el("li", reason)));
}

function snippet(title, text) {
  const made = el("div", undefined, "snippet");
  const head = el("div");
  const copy = el("button", "Copy", "quiet");
  const block = el("pre", text);
  copy.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      copy.textContent = "Copied";
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    } catch {
      // Browsers that do not serve a clipboard here let people copy what is selected.
      getSelection().selectAllChildren(block);
    }
  });
  head.append(el("h3", title), copy);
  made.append(head, block);
  return made;
}

function snippets(d) {
  const text = (value) => JSON.stringify(value);
  const query = "select * from \"" + d.name.replaceAll("\"", "\"\"") + "\" limit 10";
  const secret = me.open ? "" : ", token=\"...\"";
  const header = me.open ? "" : ", db_kwargs={\"adbc.flight.sql.authorization_header\": \"Bearer ...\"}";
  const shell = (value) => "'" + value.replaceAll("'", "'\\''") + "'";
  const made = [
    snippet("Python", "import pheon\n\nstore = pheon.connect(" + text(me.location) + secret + ")\ntable = store.table(" + text(d.name)
      + ")\ntable.to_pandas()" + (d.unique && d.key.length ? "\nstore.map(" + text(d.name) + ").get_many(keys)" : "")),
  ];
  if (me.sql) {
    made.push(
      snippet("ADBC", "import adbc_driver_flightsql.dbapi as flightsql\n\nwith flightsql.connect(" + text(me.location) + header
        + ") as connection, connection.cursor() as cursor:\n    cursor.execute(" + text(query) + ")\n    cursor.fetch_arrow_table()"),
      snippet("polars", "import adbc_driver_flightsql.dbapi as flightsql\nimport polars as pl\n\nwith flightsql.connect(" + text(me.location)
        + header + ") as connection:\n    pl.read_database(" + text(query) + ", connection)"),
    );
  }
  made.push(snippet("On the server's own host", "pheon scan " + shell(me.path) + " " + shell(d.name) + " --limit 10"
    + (me.sql ? "\npheon sql " + shell(me.path) + " " + shell(query) : "")));
  $("snippets").replaceChildren(...made);
}

async function show(name, offset, version) {
  const pinned = version === undefined ? "" : "&version=" + version;
  const d = await ask("datasets/" + encodeURIComponent(name) + "?offset=" + offset + pinned);
  const isOther = shown === null || shown.name !== name;
  shown = { ...d, pinned: version };
  $("dataset").hidden = false;
  $("name").textContent = name;
  const pairs = [
    ["rows", number(d.rows)], ["kind", d.unique && d.key.length ? "map" : "table"], ["key", d.key.join(", ") || "none"],
    ["data", size(d.data_bytes)], ["index", size(d.index_bytes)], ["segments", number(d.segments)], ["published", time(d.created_unix_ms)],
  ];
  if (d.hidden_rows) pairs.push(["hidden rows", number(d.hidden_rows)]);
  if (!d.in_place) pairs.push(["reads", "copied until it is compacted"]);
  facts("facts", pairs);
  const newest = Math.max(...d.versions.map((v) => v.version));
  $("version").replaceChildren(...d.versions.toReversed().map((v) => {
    const option = el("option", "version " + v.version + (v.version === newest ? " (newest)" : ""));
    option.value = String(v.version);
    option.selected = v.version === d.version;
    return option;
  }));
  verdicts(d.columns);
  table("versions", ["version", "published", { text: "rows", kind: "number" }, { text: "size", kind: "number" }, { text: "segments", kind: "number" }, "origin"],
    d.versions.toReversed().map((v) => [String(v.version), time(v.created_unix_ms), v.rows, { text: size(v.bytes), kind: "number" }, v.segments, v.origin]));
  grid("preview", d.columns, d.preview, d.offset);
  $("place").textContent = d.rows ? number(d.offset + 1) + " to " + number(d.offset + d.preview.length) + " of " + number(d.rows) : "no rows";
  $("back").disabled = d.offset === 0;
  $("next").disabled = d.offset + d.preview.length >= d.rows;
  snippets(d);
  if (isOther) {
    tab("rows");
    $("probed").hidden = true;
    $("key").value = "";
    if (me.sql && !$("sql").value) $("sql").value = "select * from \"" + name.replaceAll("\"", "\"\"") + "\" limit 10";
  }
  $("probe").hidden = d.key.length === 0;
  $("no-key").hidden = d.key.length > 0;
  $("key-label").textContent = d.key.join(", ");
  const types = d.key.map((key) => d.columns.find((c) => c.name === key)?.type ?? "?");
  $("key").placeholder = d.key.length > 1 ? "a JSON list: " + types.join(", ") : types[0] ?? "";
  for (const row of $("datasets").tBodies[0]?.rows ?? []) row.classList.toggle("chosen", row.cells[0].textContent === name);
}

// A key as JSON: text, also for what text stands for, as numbers and dates; for several columns the list that was given,
// as it was given: a number of this language has 53 bits.
function keyOf(text) {
  if (shown.key.length > 1) {
    let list;
    try {
      list = JSON.parse(text);
    } catch {
      list = null;
    }
    if (!Array.isArray(list)) throw new Error("a key of several columns is a JSON list, such as [\"a\", 1]");
    return text;
  }
  const column = shown.columns.find((c) => c.name === shown.key[0]);
  if (column.type === "Boolean") {
    const truth = text.trim().toLowerCase();
    if (truth !== "true" && truth !== "false") throw new Error("the key is true or false");
    return truth;
  }
  return JSON.stringify(text);
}

async function probe() {
  const asked = "{\"key\":" + keyOf($("key").value) + ",\"version\":" + JSON.stringify(shown.version) + "}";
  const p = await ask("datasets/" + encodeURIComponent(shown.name) + "/probe", asked);
  $("probed").hidden = false;
  facts("timing", [
    ["found", p.found === 0 ? "no row" : count(p.found, "row")],
    ...(p.first_row === null ? [] : [["first row", number(p.first_row)]]),
    ["first lookup", duration(p.first_ns)], ["median of " + p.lookups, duration(p.median_ns)],
  ]);
  const right = (text) => ({ text, kind: "number" });
  table("steps", ["segment", right("keys"), right("buckets"), right("bucket"), right("other bucket"), right("candidates"), "row"],
    p.steps.map((s) => [String(s.segment), s.keys, s.buckets, s.bucket, s.other === null ? right("not read") : s.other, s.candidates,
      s.row === null ? "not here" : number(s.row) + (s.hidden ? ", replaced or deleted since" : "")]));
  $("explained").textContent = "Each segment is asked in turn, the newest first. A bucket is one cache line of 64 bytes with up to " + p.slots
    + " entries; candidates are entries with the key's fingerprint, whose rows are compared with the key.";
  if (p.found) grid("found", p.columns, p.rows);
  else $("found").replaceChildren();
}

async function queries() {
  const q = await ask("queries");
  const right = (text) => ({ text, kind: "number" });
  $("none-running").hidden = q.running.length > 0;
  $("none-slow").hidden = q.slow.length > 0;
  const cells = (r) => [{ text: r.text, kind: "text" }, right(number(r.ms) + " ms"), r.rows];
  const headings = ["statement", right("time"), right("rows")];
  if (q.running.length === 0) $("running").replaceChildren();
  else table("running", [...headings, ""], q.running.map((r) => {
    const button = el("button", "Cancel", "quiet");
    button.addEventListener("click", () => guarded(async () => {
      await ask("queries/" + r.id + "/cancel", {});
      await queries();
    }));
    return [...cells(r), button];
  }));
  if (q.slow.length === 0) $("slow").replaceChildren();
  else table("slow", headings, q.slow.map(cells));
}

async function run() {
  if (asking) return;
  asking = new AbortController();
  $("run").disabled = true;
  $("stop").hidden = false;
  $("said").textContent = "running";
  $("answer").replaceChildren();
  try {
    const a = await ask("sql", { sql: $("sql").value }, { signal: asking.signal });
    grid("answer", a.columns, a.rows);
    $("said").textContent = (a.more ? "the first " : "") + count(a.rows.length, "row") + " in " + a.ms.toFixed(1) + " ms"
      + (a.more ? "; there are more, the page shows no more than " + number(me.rows_max) : "");
  } catch (e) {
    if (e.name !== "AbortError") {
      $("said").textContent = "";
      throw e;
    }
    $("said").textContent = "cancelled";
  } finally {
    asking = null;
    $("run").disabled = false;
    $("stop").hidden = true;
  }
}

// A server that listens at all addresses names none that a client could connect to; the page's own is one.
function reachable(location) {
  return location.replace(/^([a-z+]+:\/\/)(?:0\.0\.0\.0|\[::\])(?=:|$)/, (_, scheme) => scheme + window.location.hostname);
}

async function start() {
  me = await ask("me");
  me.location = reachable(me.location);
  $("where").textContent = me.location;
  $("who").textContent = (me.open ? "no login needed" : me.name) + " · Pheon " + me.version;
  document.title = "Pheon · " + me.location;
  $("logout").hidden = me.open;
  $("login").hidden = true;
  $("sql-card").hidden = !me.sql;
  document.querySelector("main").hidden = false;
  await datasets();
  await queries();
}

async function guarded(work) {
  try {
    problem("");
    await work();
  } catch (e) {
    if (e.status === 401) {
      const had = token !== null;
      sessionStorage.removeItem("pheon-token");
      token = null;
      $("login").hidden = false;
      document.querySelector("main").hidden = true;
      $("secret").focus();
      if (had) problem(e.message);
    } else problem(e.message);
  }
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  guarded(async () => {
    token = $("secret").value;
    token = (await ask("login", {}, { bearer: token })).token;
    sessionStorage.setItem("pheon-token", token);
    $("secret").value = "";
    await start();
  });
});
$("logout").addEventListener("click", () => {
  sessionStorage.removeItem("pheon-token");
  window.location.reload();
});
$("tabs").addEventListener("click", (event) => event.target.dataset.panel && tab(event.target.dataset.panel));
$("version").addEventListener("change", () => guarded(() => show(shown.name, 0, Number($("version").value))));
$("back").addEventListener("click", () => guarded(() => show(shown.name, Math.max(0, shown.offset - shown.step), shown.pinned)));
$("next").addEventListener("click", () => guarded(() => show(shown.name, shown.offset + shown.step, shown.pinned)));
$("probe").addEventListener("submit", (event) => {
  event.preventDefault();
  guarded(probe);
});
$("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  guarded(run);
});
$("sql").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    guarded(run);
  }
});
$("stop").addEventListener("click", () => asking && asking.abort());
guarded(start);
// What changes by itself. A problem that is shown stays until something is done.
setInterval(async () => {
  if (document.hidden || document.querySelector("main").hidden) return;
  try {
    await queries();
  } catch (e) {
    if (e.status === 401) guarded(() => Promise.reject(e));
  }
}, REFRESH_MS);
