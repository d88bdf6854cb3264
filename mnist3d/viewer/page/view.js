"use strict";
// The view: what is shown of it, and the hands, keys, sliders and address that turn it.
async function showFrame(head, blob) {
  const bitmap = await createImageBitmap(blob);
  if (head.number >= shown) {
    shown = head.number;
    if (canvas.width !== bitmap.width) canvas.width = canvas.height = bitmap.width;
    context.drawImage(bitmap, 0, 0);
    canvas.classList.toggle("native", bitmap.width <= nativeSize && head.zoom === 1);
    Object.assign(canvas.dataset, { number: head.number, azimuth: head.azimuth, elevation: head.elevation,
      zoom: head.zoom, style: head.style, step: head.step ?? "", version: head.version, scene: head.scene });
  }
  bitmap.close();
  if (sentAt.has(head.number)) {
    latencies.push(performance.now() - sentAt.get(head.number));
    if (latencies.length > 1000) latencies.shift();
  }
  // A view that a newer one has overtaken is never drawn.
  for (const earlier of sentAt.keys()) if (earlier <= head.number) sentAt.delete(earlier);
}
const wrap = angle => angle - 2 * Math.PI * Math.round(angle / (2 * Math.PI));
const between = (low, value, high) => Math.min(high, Math.max(low, value));
const inDegrees = angle => `${Math.round(angle * 180 / Math.PI)}°`;
function look(azimuth, elevation) {
  view.azimuth = wrap(azimuth); view.elevation = between(-Math.PI / 2, elevation, Math.PI / 2);
  changed();
}
function turn(azimuth, elevation) { look(view.azimuth + azimuth, view.elevation + elevation); }
function nearer(factor) {
  const zoom = between(1, view.zoom * factor, 8);
  if (zoom === view.zoom) return;
  view.zoom = zoom; movingUntil = performance.now() + 200;
  changed();
}
function changed() {
  dirty = true;
  $("angles").textContent = `${inDegrees(view.azimuth)} around, ${inDegrees(view.elevation)} up` +
    (view.zoom > 1 ? `, ×${view.zoom.toFixed(1)}` : "");
  markAtlas();
  clearTimeout(changed.soon); changed.soon = setTimeout(writeAddress, 300);  // browsers count how often
}
function setOrbit(on) { orbiting = on; $("orbit").setAttribute("aria-pressed", on); if (!on) dirty = true; }
function setStyle(style) {
  view.style = style; $("shaded").setAttribute("aria-pressed", style === "shaded");
  $("read_style").hidden = style === "exact";
  changed();
}
function toFront() { setOrbit(false); keepSwayed(); view.zoom = 1; look(0, 0); }
function toFullScreen() {
  if (document.fullscreenElement) document.exitFullscreen();
  else $("stage").requestFullscreen?.().catch(() => {});
}
const switchStyle = () => setStyle(view.style === "exact" ? "shaded" : "exact");
$("orbit").onclick = () => setOrbit(!orbiting);
$("shaded").onclick = switchStyle;
$("front").onclick = canvas.ondblclick = toFront;
$("full").onclick = toFullScreen;
$("full").hidden = !document.fullscreenEnabled;

// One finger holds the front of the unit ball: one view's width is two world units, and so two radians. Two turn by
// their middle and come nearer by their distance.
const fingers = new Map();
const spread = () => { const [a, b] = [...fingers.values()]; return b ? Math.hypot(a[0] - b[0], a[1] - b[1]) : 0; };
canvas.addEventListener("pointerdown", event => {
  canvas.setPointerCapture(event.pointerId); canvas.focus({ preventScroll: true });
  fingers.set(event.pointerId, [event.clientX, event.clientY]); moving = true; setOrbit(false); keepSwayed();
});
canvas.addEventListener("pointermove", event => {
  const last = fingers.get(event.pointerId);
  if (!last) return;
  const apart = spread(), scale = 2 / canvas.clientWidth / view.zoom / fingers.size;
  turn(-(event.clientX - last[0]) * scale, (event.clientY - last[1]) * scale);
  fingers.set(event.pointerId, [event.clientX, event.clientY]);
  if (apart > 0 && fingers.size === 2) nearer(spread() / apart);
});
for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, event => {
  fingers.delete(event.pointerId); moving = fingers.size > 0; if (!moving) { tick.moved = true; }
});
canvas.addEventListener("wheel", event => {
  event.preventDefault();
  const pixels = event.deltaY * [1, 16, 400][event.deltaMode];  // some browsers count lines or pages
  nearer(2 ** (-between(-400, pixels, 400) / 400));
}, { passive: false });
const ARROWS = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = { s: switchStyle, f: toFullScreen, home: toFront, 0: toFront, "+": () => nearer(1.25),
  "=": () => nearer(1.25), "-": () => nearer(0.8) };
addEventListener("keydown", event => {
  const key = event.key.toLowerCase(), letter = key === "s" || key === "f", within = event.target.tagName;
  // A menu takes letters, a slider all keys but letters.
  if (event.altKey || event.ctrlKey || event.metaKey || within === "SELECT" || (within === "INPUT" && !letter)) return;
  if (KEYS[key] && !(event.repeat && letter)) { event.preventDefault(); KEYS[key](); }
  if (!ARROWS[event.key] || event.defaultPrevented) return;  // the map has arrows of its own
  event.preventDefault(); setOrbit(false); keepSwayed(); movingUntil = performance.now() + 200;
  const by = event.shiftKey ? Math.PI / 180 : Math.PI / 36;
  turn(ARROWS[event.key][0] * by, ARROWS[event.key][1] * by);
});

// ---- sway -------------------------------------------------------------------------------------------------------
// A still view does not show that it is of a solid. It sways about the direction that was chosen, which stays the
// one of the reading, the map and the address; never while something trains, or while somebody does or reads something.
const SWAY = { after: 5000, rest: 120000, period: 9000, between: 80, azimuth: 0.16, elevation: 0.05 };  // ms, radians
const swung = { wanted: false, share: 0, time: 0, drawn: 0, touched: performance.now() };
const ofItself = !matchMedia("(prefers-reduced-motion: reduce)").matches;
function setSway(on) { swung.wanted = on; $("sway").setAttribute("aria-pressed", on); }
$("sway").onclick = () => {
  setSway(!swung.wanted); changed();
  swung.touched = performance.now() - SWAY.after;  // who asks for it need not wait
};
for (const kind of ["pointermove", "pointerdown", "keydown", "wheel", "input", "scroll", "focusin", "touchmove"])
  addEventListener(kind, event => { if (event.target !== $("sway")) swung.touched = performance.now(); },
    { passive: true, capture: true });
function maySway(now) {
  const idle = now - swung.touched, rests = live ? ["paused", "finished"].includes(state) : !trains;
  return swung.wanted && rests && !orbiting && !moving && view.cut_normal === null && idle > SWAY.after &&
    idle < SWAY.rest && !document.querySelector("aside").matches(":hover");
}
function swing(now, passed) {
  const may = maySway(now);
  if (!may && swung.share === 0) { swung.time = 0; return; }
  // It begins and ends gently, and asks for the next view when the last one has come.
  swung.share = between(0, swung.share + (may ? passed / 2000 : -passed / 400), 1);
  swung.time += passed;
  if (sentAt.size === 0 && now - swung.drawn > SWAY.between) { swung.drawn = now; dirty = true; }
}
function swayed() {
  const angle = 2 * Math.PI * swung.time / SWAY.period;
  return swung.share === 0 ? {} : {
    azimuth: wrap(view.azimuth + swung.share * SWAY.azimuth * Math.sin(angle)),
    elevation: between(-Math.PI / 2, view.elevation + swung.share * SWAY.elevation * Math.sin(2 * angle),
      Math.PI / 2) };
}
function keepSwayed() { Object.assign(view, swayed()); swung.share = 0; }  // a hand takes it where it is

// ---- the address: what is looked at can be linked -------------------------------------------------------------
function writeAddress() {
  const degrees = angle => String(Math.round(angle * 1800 / Math.PI) / 10), words = new URLSearchParams();
  if (degrees(view.azimuth) !== "0") words.set("az", degrees(view.azimuth));
  if (degrees(view.elevation) !== "0") words.set("el", degrees(view.elevation));
  if (view.zoom > 1) words.set("zoom", Math.round(view.zoom * 100) / 100);
  if (view.style !== "exact") words.set("style", view.style);
  if (swung.wanted !== ofItself) words.set("sway", swung.wanted ? "on" : "off");
  const hash = String(words) ? `#${words}` : "";
  try {
    if (hash !== location.hash) history.replaceState(null, "", location.pathname + location.search + hash);
  } catch { /* a browser that counts more strictly; the next change writes it */ }
}
function readAddress() {
  const words = new URLSearchParams(location.hash.slice(1));
  const number = (name, usual) => words.has(name) && isFinite(words.get(name)) ? +words.get(name) : usual;
  view.zoom = between(1, number("zoom", 1), 8);
  view.style = words.get("style") === "shaded" ? "shaded" : "exact";
  setSway(words.has("sway") ? words.get("sway") === "on" : ofItself);
  look(number("az", 0) * Math.PI / 180, number("el", 0) * Math.PI / 180);
  setStyle(view.style);
}
addEventListener("hashchange", () => { setOrbit(false); readAddress(); });

// ---- sliders --------------------------------------------------------------------------------------------------
const sliders = {
  size: { set: value => view.size = sizes[value], say: () => `${view.size}` },
  exposure: { set: value => view.exposure = 2 ** value, say: () => `×${view.exposure.toFixed(2)}` },
  scale: { set: value => view.scale = 2 ** value, say: () => `×${view.scale.toFixed(2)}` },
  cut: { set: value => view.cut = +value, say: () => view.cut <= -1 ? "off" : view.cut.toFixed(2) },
};
for (const [name, slider] of Object.entries(sliders)) {
  const input = $(name);
  slider.show = () => { slider.set(input.value); input.nextElementSibling.textContent = slider.say(); dirty = true; };
  input.addEventListener("input", () => { movingUntil = performance.now() + 150; slider.show(); });
}
function resetSliders() {
  Object.assign($("size"), { value: sizes.indexOf(preferredSize()) });
  $("exposure").value = 0; $("scale").value = 0; $("cut").value = -1; view.cut_normal = null;
  $("hold").setAttribute("aria-pressed", false);
  for (const slider of Object.values(sliders)) slider.show();
}
const preferredSize = () => live ? 128 : 256;
$("plain").onclick = resetSliders;
$("hold").onclick = () => {
  const { azimuth: b, elevation: a } = view;  // third row of Rx(a) Ry(b): away from the eye
  view.cut_normal = view.cut_normal ? null : [-Math.cos(a) * Math.sin(b), Math.sin(a), Math.cos(a) * Math.cos(b)];
  $("hold").setAttribute("aria-pressed", view.cut_normal !== null); dirty = true;
};
