"use strict";
const FINAL = new Set(["described", "handed_over", "failed", "dropped"]);
const LABELS = ["", "State", "Uploaded", "Size", "Behind", "Speed"];
const JOB_LABELS = ["", "State", "Done", "Speed", "Left", "Tries"];
const WATCH_MS = 10000;
const views = new Map();
const rows = new Map();
let playable = new Set();
const body = document.querySelector("#streams tbody");
const link = document.getElementById("link");

function shown(text) {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, c => "\\u{" + c.codePointAt(0).toString(16) + "}");
}
function bytes(n) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit += 1; }
  return (unit && n < 100 ? n.toFixed(1) : Math.round(n)) + " " + units[unit];
}
function seconds(s) {
  if (s < 60) return s.toFixed(s < 10 ? 1 : 0) + " s";
  return s < 3600 ? Math.round(s / 60) + " min" : (s / 3600).toFixed(1) + " h";
}
function make(tag, className, parent) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (parent) parent.append(element);
  return element;
}
function makeCells(row, labels) {
  return labels.map(label => {
    const cell = make("td", "", row);
    cell.dataset.label = label;
    return cell;
  });
}
function makeButton(text, parent, path) {
  const button = make("button", "", parent);
  button.textContent = text;
  button.addEventListener("click", () => act(path));
  return button;
}
function makePlay(id, parent) {
  const link = make("a", "play", parent);
  link.textContent = "Play";
  link.href = "/watch/" + encodeURIComponent(id);
  link.hidden = true;
  return link;
}
function newRow(id) {
  const row = make("tr");
  const cells = makeCells(row, LABELS);
  const parts = {
    row, name: make("div", "name", cells[0]), note: make("div", "note", cells[0]),
    state: make("span", "", cells[1]), uploaded: make("span"), bar: make("progress"),
    size: cells[3], behind: cells[4], speed: cells[5],
  };
  parts.play = makePlay(id, cells[0]);
  parts.retry = makeButton("Retry", cells[0], "/api/streams/" + encodeURIComponent(id) + "/retry");
  const both = make("span", "", cells[2]);
  both.append(parts.bar, " ", parts.uploaded);
  return parts;
}
function stateOf(view) {
  return playable.has(view.id) ? "can be watched" : view.state.replace("_", " ");
}
function fill(parts, view) {
  const ended = FINAL.has(view.state);
  parts.name.textContent = shown(view.relpath);
  const notes = [view.reason, view.playable === false ? "not playable" : "", view.host];
  parts.note.textContent = shown(notes.filter(Boolean).join(" · "));
  parts.state.textContent = stateOf(view);
  parts.state.className = "state " + view.state;
  parts.play.hidden = !playable.has(view.id);
  parts.retry.hidden = view.state !== "failed";
  parts.bar.max = Math.max(view.size, 1);
  parts.bar.value = view.size ? view.uploaded : Number(ended);
  parts.bar.hidden = ended;
  parts.uploaded.textContent = bytes(view.uploaded);
  parts.size.textContent = bytes(view.size);
  parts.behind.textContent = ended || !view.behind_bytes ? "–"
    : bytes(view.behind_bytes) + ", " + seconds(view.behind_seconds);
  parts.speed.textContent = ended ? "–" : bytes(view.bytes_per_second) + "/s";
}
function total(name, value, list) {
  const pair = make("div", "", list);
  make("dt", "", pair).textContent = name;
  make("dd", "", pair).textContent = value;
}
function summarize() {
  const list = document.getElementById("totals");
  const active = [...views.values()].filter(view => !FINAL.has(view.state));
  const sum = field => active.reduce((all, view) => all + view[field], 0);
  list.replaceChildren();
  total("active", String(active.length), list);
  total("behind", bytes(sum("behind_bytes")), list);
  total("speed", bytes(sum("bytes_per_second")) + "/s", list);
}
function arrange() {
  const order = [...views.values()].sort((a, b) =>
    FINAL.has(a.state) - FINAL.has(b.state) || b.started_at - a.started_at || (a.id < b.id ? 1 : -1));
  order.forEach((view, place) => {
    const row = rows.get(view.id).row;
    if (body.children[place] !== row) body.insertBefore(row, body.children[place] || null);
  });
  document.getElementById("streams").hidden = !order.length;
  document.getElementById("none").hidden = order.length > 0;
}
function apply(event) {
  for (const id of event.gone) {
    views.delete(id);
    rows.get(id)?.row.remove();
    rows.delete(id);
  }
  for (const view of event.changed) {
    views.set(view.id, view);
    if (!rows.has(view.id)) rows.set(view.id, newRow(view.id));
    fill(rows.get(view.id), view);
  }
  arrange();
  summarize();
}
async function act(path) {
  const answer = await fetch(path, { method: "POST" });
  if (answer.status === 401) {
    location.assign("/login");
  } else if (!answer.ok) {
    const reason = await answer.json().catch(() => ({}));
    alert(reason.error || answer.statusText);
  }
}
function connect() {
  const source = new EventSource("/events");
  let isFirst = true;
  source.addEventListener("open", () => { isFirst = true; link.className = "up"; link.textContent = "live"; });
  source.addEventListener("streams", message => {
    const event = JSON.parse(message.data);
    if (isFirst) event.gone = [...views.keys()].filter(id => !event.changed.some(view => view.id === id));
    isFirst = false;
    apply(event);
  });
  source.addEventListener("jobs", message => applyJobs(JSON.parse(message.data)));
  source.addEventListener("error", () => {
    link.className = "";
    link.textContent = "no connection";
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 3000);
  });
}
const jobRows = new Map();
const jobBody = document.querySelector("#jobs tbody");
function newJobRow(job) {
  const row = make("tr");
  const cells = makeCells(row, JOB_LABELS);
  const path = "/api/jobs/" + encodeURIComponent(job.id);
  const parts = {
    row, name: make("div", "name", cells[0]), note: make("div", "note", cells[0]),
    state: make("span", "", cells[1]), bar: make("progress"), done: make("span"),
    play: job.kind === "hls" ? makePlay(job.subject, cells[0]) : null,
    speed: cells[3], left: cells[4], tries: cells[5],
    retry: makeButton("Retry", cells[0], path + "/retry"),
    cancel: makeButton("Cancel", cells[0], path + "/cancel"),
  };
  parts.bar.max = 100;
  make("span", "", cells[2]).append(parts.bar, " ", parts.done);
  return parts;
}
function fillJob(parts, job) {
  const progress = job.state === "in_progress" ? job.progress : null;
  parts.name.textContent = shown(job.input);
  const notes = [job.kind, job.slot, job.cancel_requested ? "told to stop" : "", job.state === "complete" ? "" : job.error];
  parts.note.textContent = shown(notes.filter(Boolean).join(" · "));
  parts.state.textContent = (job.reason || job.state).replace("_", " ");
  parts.state.className = "state " + job.state;
  parts.bar.hidden = !progress;
  parts.bar.value = progress ? progress.percent : 0;
  parts.done.textContent = progress ? Math.floor(progress.percent) + " %" : "–";
  parts.speed.textContent = progress && progress.speed ? progress.speed.toFixed(1) + "x" : "–";
  parts.left.textContent = progress && progress.eta_seconds !== null ? seconds(progress.eta_seconds) : "–";
  parts.tries.textContent = job.attempts + "/" + job.max_attempts;
  if (parts.play) parts.play.hidden = job.state !== "complete";
  parts.retry.hidden = job.state !== "failed";
  parts.cancel.hidden = job.cancel_requested || !["queued", "in_progress"].includes(job.state);
}
function applyJobs(event) {
  const present = new Set(event.order);
  for (const [id, parts] of jobRows) {
    if (!present.has(id)) { parts.row.remove(); jobRows.delete(id); }
  }
  for (const job of event.changed) {
    if (!jobRows.has(job.id)) jobRows.set(job.id, newJobRow(job));
    fillJob(jobRows.get(job.id), job);
  }
  event.order.forEach((id, place) => {
    const row = jobRows.get(id)?.row;
    if (row && jobBody.children[place] !== row) jobBody.insertBefore(row, jobBody.children[place] || null);
  });
  document.getElementById("jobs").hidden = !event.order.length && !event.error;
  const more = event.total - event.order.length;
  const notes = [more > 0 ? "and " + more + " more" : "", event.error];
  document.getElementById("more").textContent = shown(notes.filter(Boolean).join(" · "));
  if (event.changed.some(job => job.state === "complete")) loadPlayable();
}
function applyPlayable(answer) {
  playable = new Set(answer.ready);
  for (const [id, parts] of rows) fill(parts, views.get(id));
}
async function load(path, apply) {
  const answer = await fetch(path);
  if (answer.status === 401) location.reload(); // the time of the login is over
  if (answer.ok) apply(await answer.json());
}
function offerLogout(answer) {
  const button = document.getElementById("logout");
  button.hidden = !answer.logged_in;
  button.addEventListener("click", async () => {
    await fetch("/api/session", { method: "DELETE" });
    location.reload();
  });
}
async function loadPlayable() {
  try {
    if (!document.hidden) await load("/api/watch", applyPlayable);
  } catch { /* the line at the top tells of a lost connection */ }
}
summarize();
connect();
loadPlayable();
setInterval(loadPlayable, WATCH_MS);
load("/api/session", offerLogout).catch(() => {});
