"use strict";
// Figures of the run: numbers, curves, bars, the scorecard, and what is read.
const PALETTE = ["#e64655","#f58c32","#fadc3c","#96d23c","#32aa55","#46dcdc","#4682f0","#965adc","#f050dc","#be966e"];
const clock = seconds => { const s = Math.round(seconds), m = Math.floor(s / 60);
  return m >= 60 ? `${Math.floor(m / 60)}:${String(m % 60).padStart(2, "0")} h` : `${m}:${String(s % 60).padStart(2, "0")}`; };
function showFigures(head) {
  state = head.state;
  setState(state);
  $("step").textContent = head.step?.toLocaleString("en") ?? "–";
  $("rate").textContent = head.rate == null ? "–" : head.rate.toFixed(1);
  const done = head.state === "finished", shown = done ? head.seconds : head.seconds_left;
  $("left").textContent = shown == null ? "–" : clock(shown);
  $("left_name").textContent = done ? "trained" : "left";
  $("progress").value = head.progress ?? 1;
  $("pause").textContent = state === "paused" ? "Resume" : "Pause";
  $("pause").disabled = $("stop").disabled = !["training", "paused"].includes(state);
  plot($("losses"), $("loss_key"), head.curves ?? {}, null);
  $("scores").hidden = !head.scores?.step?.length;
  plot($("scores"), $("score_key"), head.scores ?? {}, [0, 1]);
  if (!head.scores?.step?.length) $("score_key").textContent = head.why_no_scores || "";
  scored = Object.keys(head.histogram ?? {}).length > 0;
  if (scored || !map?.labels.length) bars(head.histogram, head.histogram_note); else showMapped();
  $("loss_note").textContent = head.curves_note ?? "";
  showCard(head.card);
  showTraining(head.classifier_training);
  again = head.look ?? "";
}
function showCard(card) {  // of `mnist3d score`
  const row = (kind, cells) => {
    const line = document.createElement("tr");
    line.append(...cells.map(text => Object.assign(document.createElement(kind),
      { textContent: text ?? "–", title: MEANING[text?.replace(" views", "")] ?? "" })));
    return line;
  };
  $("card").hidden = !card?.rows?.length;
  if (card?.rows?.length)
    $("card").replaceChildren(row("th", ["", ...card.columns]), ...card.rows.map(cells => row("td", cells)));
  $("card_note").textContent = card?.note ?? "";
}
function showTraining(training) {  // of the classifiers, beside that of the volume
  const goes = training?.state === "running", may = !!training?.can_start && acts;
  $("classifiers").hidden = !goes && !may;
  $("classifiers_done").hidden = !goes; $("classifiers_done").value = training?.share ?? 0;
  $("train").hidden = !may; $("train").disabled = !["training", "paused"].includes(state);
  if (training && training.state !== "done") {
    const left = training.seconds_left == null ? "" : `, ${clock(training.seconds_left)} left`;
    showUnread(!goes ? training.words
      : `Two classifiers for these images are being trained: ${Math.round(100 * training.share)} %${left}`);
  }
}
const MEANING = {  // of a curve, for who rests the pointer on its name
  legible: "Share of the views in which both classifiers are above 50 % sure of the same class",
  clean: "Share of the views in which both classifiers are above 90 % sure of the same class",
  discriminator: "How badly the discriminator tells views from images: 0.69 is guessing",
  volume: "How well the discriminator still tells the volume's views from images",
};
const COLOURS = ["#7cc4ff", "#ffb454", "#b9f27c", "#e48cff", "#ff8a80", "#6fe0d0", "#d6c36a", "#b0b8ff"];
function plot(target, key, curves, range) {
  const names = Object.keys(curves).filter(name => name !== "step");
  key.replaceChildren();
  const { clientWidth: w, clientHeight: h } = target, ratio = devicePixelRatio || 1, c = target.getContext("2d");
  target.width = w * ratio; target.height = h * ratio; c.scale(ratio, ratio);
  const x = curves.step ?? [], values = names.flatMap(name => curves[name].filter(v => v != null));
  if (!values.length) return;
  let [low, high] = range ?? [Math.min(...values), Math.max(...values)];
  if (high === low) { high += .5; low -= .5; }
  const left = 34, bottom = 14, right = 4, top = 8;
  const px = step => left + (w - left - right) * (x.at(-1) === x[0] ? 1 : (step - x[0]) / (x.at(-1) - x[0]));
  const py = value => top + (h - top - bottom) * (1 - (value - low) / (high - low));
  c.font = "11px system-ui"; c.fillStyle = "#98a0b4"; c.strokeStyle = "#2e323f";
  for (const share of [0, .5, 1]) {
    const value = low + (high - low) * share, y = py(value);
    c.beginPath(); c.moveTo(left, y); c.lineTo(w - right, y); c.stroke();
    c.textAlign = "right"; c.textBaseline = "middle";
    c.fillText(Math.abs(value) >= 100 ? value.toFixed(0) : value.toFixed(Math.abs(high - low) < 2 ? 2 : 1), left - 4, y);
  }
  c.textBaseline = "bottom"; c.textAlign = "left"; c.fillText(x[0].toLocaleString("en"), left, h);
  c.textAlign = "right"; c.fillText(`step ${x.at(-1).toLocaleString("en")}`, w - right, h);
  names.forEach((name, k) => {
    c.strokeStyle = c.fillStyle = COLOURS[k % COLOURS.length]; c.lineWidth = 1.5; c.beginPath();
    let pen = false;
    curves[name].forEach((value, i) => { if (value == null) { pen = false; return; }
      pen ? c.lineTo(px(x[i]), py(value)) : c.moveTo(px(x[i]), py(value)); pen = true; });
    c.stroke();
    if (x.length < 30) curves[name].forEach((value, i) => { if (value != null) c.fillRect(px(x[i]) - 1.5, py(value) - 1.5, 3, 3); });
    const mark = document.createElement("span"); mark.className = "key"; mark.style.background = COLOURS[k % COLOURS.length];
    const last = curves[name].findLast(v => v != null), said = document.createElement("span");
    said.textContent = `${name} ${last == null ? "" : last.toFixed(2)}`; said.title = MEANING[name] ?? "";
    key.append(mark, said);
  });
}
function bars(histogram, note) {
  $("bars_note").textContent = note || "";
  const entries = Object.entries(histogram ?? {}), high = Math.max(.001, ...entries.map(([, v]) => v));
  $("bars").replaceChildren(...entries.map(([name, value], k) => {
    const cell = document.createElement("div"), bar = document.createElement("i");
    bar.style.height = `${100 * value / high * .75}%`;
    const place = map ? map.names.indexOf(name) : -1;  // an object's keys do not keep the order of the classes
    bar.style.background = colour(place < 0 ? k : place);
    cell.title = `${name}: ${(100 * value).toFixed(1)} %`;
    cell.append(bar, name.slice(0, 6));
    return cell;
  }));
}
const colour = k => PALETTE[k % PALETTE.length];
// What was read last: of which view and volume, and when. Nothing read: no number.
let lastRead = {};
function showUnread(why) {  // nobody reads here
  lastRead = {}; $("reading").classList.remove("old");
  $("read").textContent = "–"; $("read_more").textContent = why;
}
function showAge() {  // a reading is of a view and of a volume; of others it is not shown as if it were
  const { number, version, at, text } = lastRead;
  if (number === undefined || !open) return;
  const newer = +canvas.dataset.version > version && performance.now() - at > OLD;
  const old = number < posed || newer;
  $("reading").classList.toggle("old", old);
  $("read_more").textContent = old ? "reading …" : text;
}
const OLD = 10000;  // ms, that a reading stands beside views of newer volumes
setInterval(showAge, 500);
function showReading(head) {
  // While it sways, the reading stays that of the direction about which it does.
  if (head.scene !== $("scenes").dataset.current || (swung.share && lastRead.number >= posed)) return;
  const percent = `${Math.round(100 * head.confidence)} %`;
  $("read").textContent = head.label ?? "–";
  const text = head.label != null ? `both classifiers agree, the less sure one at ${percent}`
    : head.guess != null ? `not legible; nearest: ${head.guess}` : "these images have no classes";
  lastRead = { number: head.number, version: head.version, at: performance.now(), text };
  showAge();
}
