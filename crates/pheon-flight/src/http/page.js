"use strict";
// Text only ever becomes text: nothing that comes from the server is read as HTML.
const $ = (id) => document.getElementById(id);
let token = sessionStorage.getItem("pheon-token");
let location_ = "";
let shown = null;

function problem(text) {
  $("problem").textContent = text;
  $("problem").hidden = !text;
}

async function ask(path, body, authorization) {
  const headers = {};
  const bearer = authorization || token;
  if (bearer) headers.authorization = "Bearer " + bearer;
  if (body !== undefined) headers["content-type"] = "application/json";
  const response = await fetch("api/" + path, {
    method: body === undefined ? "GET" : "POST", headers, body: body === undefined ? undefined : JSON.stringify(body),
  });
  const answer = await response.json();
  if (!response.ok) throw Object.assign(new Error(answer.error), { status: response.status });
  return answer;
}

function size(bytes) {
  if (bytes === null) return "?";
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (bytes < 1024) return (unit === "B" ? bytes : bytes.toFixed(1)) + " " + unit;
    bytes /= 1024;
  }
  return bytes.toFixed(1) + " TiB";
}

function table(id, headings, rows, pick) {
  const line = (cells, tag) => {
    const row = document.createElement("tr");
    for (const value of cells) {
      const cell = document.createElement(tag);
      const isNode = value instanceof Node;
      if (isNode) cell.append(value);
      else cell.textContent = value === null ? "null" : typeof value === "number" ? value.toLocaleString("en") : value;
      if (value === null) cell.className = "null";
      if (typeof value === "number") cell.className = "number";
      row.append(cell);
    }
    return row;
  };
  $(id).replaceChildren(line(headings, "th"), ...rows.map((cells, i) => {
    const row = line(cells, "td");
    if (pick) {
      row.className = "pick";
      row.addEventListener("click", () => pick(i));
    }
    return row;
  }));
}

async function show(name, offset) {
  const d = await ask("datasets/" + encodeURIComponent(name) + "?offset=" + offset);
  shown = d;
  $("dataset").hidden = false;
  $("name").textContent = name;
  $("facts").textContent = d.rows.toLocaleString("en") + " rows, version " + d.version
    + (d.in_place ? ", read in place" : ", rows of several segments take turns and are copied when read; compact to avoid that");
  table("columns", ["name", "type", "null", "key"], d.columns.map((c) => [c.name, c.type, c.nullable ? "yes" : "", c.key ? "key" : ""]));
  table("versions", ["version", "published", "rows", "size", "origin"],
    d.versions.map((v) => [v.version, new Date(v.created_unix_ms).toISOString(), v.rows, size(v.bytes), v.origin]));
  table("preview", ["", ...d.columns.map((c) => c.name)], d.preview.map((row, i) => [d.offset + i, ...row]));
  $("connect").textContent = "import pheon\nstore = pheon.connect(" + JSON.stringify(location_) + ", token=...)\nstore.table("
    + JSON.stringify(name) + ")\n\nfrom pyarrow import flight\nclient = flight.connect(" + JSON.stringify(location_)
    + ")\noptions = flight.FlightCallOptions(headers=[(b\"authorization\", b\"Bearer ...\")])\ninfo = client.get_flight_info(flight.FlightDescriptor.for_path("
    + JSON.stringify(name) + "), options)\nclient.do_get(info.endpoints[0].ticket, options).read_all()\n";
}

async function queries() {
  const q = await ask("queries");
  table("running", ["", "query", "ms", "rows", ""], q.running.map((r) => {
    const button = document.createElement("button");
    button.textContent = "Cancel";
    button.addEventListener("click", () => guarded(() => ask("queries/" + r.id + "/cancel", {})));
    return [String(r.id), r.text, r.ms, r.rows, button];
  }));
  table("slow", ["", "query", "ms", "rows"], q.slow.map((r) => [String(r.id), r.text, r.ms, r.rows]));
}

async function start() {
  const me = await ask("me");
  location_ = me.location;
  $("who").textContent = me.name + " on " + me.location + ", Pheon " + me.version;
  $("logout").hidden = me.open;
  $("login").hidden = true;
  document.querySelector("main").hidden = false;
  const list = await ask("datasets");
  table("datasets", ["name", "version", "rows", "size", "resident", "key"],
    list.map((d) => [d.name, d.version, d.rows, size(d.bytes), size(d.resident), d.key.join(", ")]),
    (i) => guarded(() => show(list[i].name, 0)));
  await queries();
}

async function guarded(work) {
  try {
    problem("");
    await work();
  } catch (e) {
    if (e.status === 401) {
      sessionStorage.removeItem("pheon-token");
      $("login").hidden = false;
      document.querySelector("main").hidden = true;
      if (token) problem(e.message);
      token = null;
    } else problem(e.message);
  }
}

$("login").addEventListener("submit", (event) => {
  event.preventDefault();
  guarded(async () => {
    token = $("secret").value;
    token = (await ask("login", {}, token)).token;
    sessionStorage.setItem("pheon-token", token);
    $("secret").value = "";
    await start();
  });
});
$("logout").addEventListener("click", () => {
  sessionStorage.removeItem("pheon-token");
  window.location.reload();
});
$("back").addEventListener("click", () => shown && guarded(() => show(shown.name, Math.max(0, shown.offset - 100))));
$("next").addEventListener("click", () => shown && shown.offset + 100 < shown.rows && guarded(() => show(shown.name, shown.offset + 100)));
guarded(start);
setInterval(() => document.hidden || document.querySelector("main").hidden || guarded(queries), 5000);
