"use strict";
const ASK_MS = 2000;
const STEP_S = 5;
const KEYS = {
  " ": toggle, k: toggle, m: mute, f: fill,
  ArrowLeft: () => seek(-STEP_S), ArrowRight: () => seek(STEP_S),
  ArrowUp: () => louder(0.1), ArrowDown: () => louder(-0.1),
};
const id = decodeURIComponent(location.pathname.split("/").pop());
const part = name => document.getElementById(name);
const video = part("video");
let repairs = 0;

function shown(text) {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, c => "\\u{" + c.codePointAt(0).toString(16) + "}");
}
function say(message, percent) {
  part("message").textContent = shown(message);
  part("notice").hidden = !message;
  part("bar").hidden = typeof percent !== "number";
  if (typeof percent === "number") part("bar").value = percent;
}
function name(recording) {
  const file = shown(recording.name);
  part("name").textContent = file;
  document.title = file.split("/").pop() + " – CefMP4";
  part("links").hidden = !(recording.master || recording.recording);
  part("elsewhere").hidden = !recording.master;
  part("original").hidden = !recording.recording;
  if (recording.elsewhere) {
    const address = new URL(recording.elsewhere, location.href).href;
    part("master").href = address;
    part("master").textContent = address;
  }
  if (recording.recording) part("recording").href = recording.recording;
}
async function ask() {
  let again = true;
  try {
    const answer = await fetch("/api/watch/" + encodeURIComponent(id));
    const told = await answer.json();
    if (answer.ok) {
      name(told);
      say(told.message, told.percent);
      again = told.state === "waiting";
      if (told.state === "ready") play(told);
    } else {
      again = answer.status !== 404;
      const trouble = "It cannot be watched" + (again ? " at this moment: " : ": ");
      say(trouble + (told.error || answer.statusText) + (again ? ". Trying again …" : "."));
    }
  } catch {
    say("CefMP4 does not answer. Trying again …");
  }
  if (again) setTimeout(ask, ASK_MS);
}
function play(recording) {
  if (recording.poster) video.poster = recording.poster;
  // First where both are there: hls.js changes renditions better than what Chromium has built in.
  if (window.Hls && Hls.isSupported()) playByScript(recording.master);
  else if (video.canPlayType("application/vnd.apple.mpegurl")) video.src = recording.elsewhere;
  else if (window.Hls) return say("This browser cannot play HLS: it has no Media Source Extensions.");
  else return say("The player needs hls.js, which was not fetched when this CefMP4 was installed. In its source folder “scripts/player” fetches it; then load this page again. VLC plays the address below without it.");
  video.hidden = part("keys").hidden = false;
  video.focus({ preventScroll: true });
}
function playByScript(address) {
  const hls = new Hls({ enableWorker: false });
  hls.on(Hls.Events.ERROR, (_, error) => {
    if (!error.fatal) return;
    if (error.type === Hls.ErrorTypes.MEDIA_ERROR && repairs < 2) {
      repairs += 1;
      hls.recoverMediaError();
    } else if (error.type === Hls.ErrorTypes.NETWORK_ERROR && error.response?.code !== 404) {
      say("The next part of the recording does not come. Trying again …");
      setTimeout(() => hls.startLoad(), ASK_MS);
    } else {
      say("This browser cannot play this recording (" + error.details + "). Another browser or VLC may.");
    }
  });
  hls.on(Hls.Events.FRAG_BUFFERED, () => say(""));
  hls.loadSource(address);
  hls.attachMedia(video);
}
function toggle() { if (video.paused) video.play().catch(() => {}); else video.pause(); }
function mute() { video.muted = !video.muted; }
function seek(seconds) { video.currentTime = Math.max(0, video.currentTime + seconds); }
function louder(step) { video.volume = Math.min(1, Math.max(0, video.volume + step)); }
function fill() { if (document.fullscreenElement) document.exitFullscreen(); else video.requestFullscreen?.(); }

video.addEventListener("error", () => {
  if (!window.Hls) say("This browser cannot play this recording (" + (video.error?.message || "no reason given") + ").");
});
document.addEventListener("keydown", event => {
  if (video.hidden || event.ctrlKey || event.altKey || event.metaKey) return;
  // What has the focus, which may be a button of the browser's own controls, is pressed by it.
  if (event.key === " " && event.target.closest("video, a, button")) return;
  const act = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!act) return;
  event.preventDefault();
  act();
  event.stopPropagation(); // a browser that has this key, too, would do it again, or undo it
}, { capture: true });
ask();
