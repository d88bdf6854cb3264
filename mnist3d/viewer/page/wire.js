"use strict";
// What the page knows, and the wire. The other files draw what comes and change what is asked for.
const $ = id => document.getElementById(id);
const canvas = $("view"), context = canvas.getContext("2d");
const view = { azimuth: 0, elevation: 0, size: 128, exposure: 1, scale: 1, cut: -1, cut_normal: null, zoom: 1,
  style: "exact" };
let socket = null, open = false, dirty = true, received = 0, number = 0, moving = false, movingUntil = 0;
let live = false, trains = false, scored = false, map = null, acts = false;
let posed = 0, pose = "";  // the number of the first view that shows what this one does, and what that is
let nativeSize = 28, sizes = [28, 64, 128, 256, 384, 512], state = "", shown = 0, orbiting = false;
const sentAt = new Map();  // by number: the views on their way
const latencies = [];

// The token leaves the address bar, for bookmarks and screenshots. A reload finds it where no other port
// of this machine can read it: a cookie would be sent to all of them.
let token = new URLSearchParams(location.search).get("token") ?? "";
try {
  if (token) sessionStorage.setItem("token", token); else token = sessionStorage.getItem("token") ?? "";
  history.replaceState(null, "", location.pathname + location.hash);
} catch { /* a browser that keeps nothing: then it stays in the address */ }
const query = () => token ? `?token=${encodeURIComponent(token)}` : "";
function connect() {
  const address = new URL("socket" + query(), location.href);
  address.protocol = address.protocol.replace("http", "ws");
  address.hash = "";  // that of the page; a web socket has none
  socket = new WebSocket(address);
  socket.binaryType = "arraybuffer";
  socket.onopen = () => { open = true; dirty = true; sentAt.clear(); received = 0; };
  socket.onmessage = event => { received++; take(event.data); };
  socket.onclose = event => {
    const refused = !open;
    if (open) wait = 2000;
    open = false; busy(true); $("pause").disabled = $("stop").disabled = $("train").disabled = true;
    const done = live && state === "finished";
    setState(done ? "lost done" : "lost", done ? "finished" : "not connected");
    if (done) say("The run has ended and is saved. Look at it again with", again);
    else if (event.code === 1013) say("Too many pages are open. This one waits until another is closed.");
    else if (refused) fetch(location.pathname + query()).then(answer => answer.status === 403 ? OTHER : GONE, () => GONE)
      .then(why => { if (!open) say(why); });
    else say(GONE);
    // A browser notes each try that fails. Whoever comes back to the page gets another at once.
    connect.soon = setTimeout(connect, done ? LONGEST : wait);
    wait = Math.min(LONGEST, 2 * wait);
  };
}
const LONGEST = 60000;  // ms
let wait = 2000, again = "";
document.addEventListener("visibilitychange", () => {
  if (document.hidden || socket?.readyState !== WebSocket.CLOSED) return;
  clearTimeout(connect.soon); connect();
});
const GONE = "The program that serves this page has ended or cannot be reached. The page goes on by itself once it is back.";
const OTHER = "Another program serves this page now. Open the address that it printed.";
function tell(message) { if (open) socket.send(JSON.stringify(message)); }
function tick(now) {
  requestAnimationFrame(tick);
  const passed = now - (tick.last || now);
  tick.last = now;
  if (!open || socket.bufferedAmount > 4096) return;
  if (orbiting && sentAt.size < 2) {  // while views come late it turns by less than the time that has passed, not by none
    turn(Math.min(now - (tick.turned || now), 250) / 1000 * 0.6, 0);
    tick.turned = now;
  }
  if (!orbiting) tick.turned = 0;
  swing(now, passed);
  const still = !moving && now > movingUntil && !orbiting && !swung.share;
  if (still && tick.moved) dirty = true;
  const message = {};
  // At most two views on their way, so that a slow line never falls behind the hand.
  if (dirty && sentAt.size < 2) {
    dirty = false; tick.moved = !still; number++;
    sentAt.set(number, performance.now());
    message.view = { ...view, ...swayed(), moving: !still, number };
    const { size, zoom, style, ...read } = view;  // what classifiers are shown of it
    if (pose !== JSON.stringify(read)) { pose = JSON.stringify(read); posed = number; showAge(); }
  }
  if (received) { message.received = received; received = 0; }
  if (message.view || message.received) tell(message);
}
function take(data) {
  const length = new DataView(data).getUint32(0);
  const head = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  const image = data.byteLength > 4 + length ? new Blob([new Uint8Array(data, 4 + length)], { type: "image/png" }) : null;
  ({ frame: showFrame, figures: showFigures, scenes: showScenes, reading: showReading, atlas: showAtlas,
     file: fetchFile, problem: showProblem })[head.kind]?.(head, image);
}

function showProblem(head) {
  say(head.text); sentAt.clear(); busy(false);
  $("scenes").value = $("scenes").dataset.current ?? "";  // what was asked for has not come
}
function setState(name, text) { $("state").className = name; $("state").textContent = text || name; }
function say(text, command = "") {  // with a command it is good news
  $("problem").textContent = text;
  if (command) $("problem").append(" ", Object.assign(document.createElement("code"), { textContent: command }));
  $("problem").classList.toggle("shown", !!text); $("problem").classList.toggle("good", !!command);
}
