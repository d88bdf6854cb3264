"use strict";
// The menu of runs, the map of all views, buttons and downloads; at the end, the page begins.
const LABELS = { "view.png": "View (PNG)", "orbit.mp4": "Orbit (MP4)", "volume.safetensors": "Volume (safetensors)",
  "volume.nrrd.zip": "Volume (NRRD)", "volume.vdb": "Volume (VDB)", "sculpture.html": "Shareable page" };

function showScenes(head) {
  const another = $("scenes").dataset.current !== head.current;
  if ($("scenes").dataset.names !== head.names.join("\n"))  // an open menu would close
    $("scenes").replaceChildren(...head.names.map(name => new Option(name, name)));
  $("scenes").dataset.names = head.names.join("\n");
  $("scenes").value = head.current;
  $("scenes").dataset.current = head.current;
  if (another || $("state").classList.contains("lost")) say(head.notice ?? "");
  if (head.live && (another || $("state").classList.contains("lost"))) setState("", "connected");
  live = head.live; trains = head.trains; acts = head.acts; nativeSize = head.size;
  $("controls").hidden = !live || !head.acts; $("why_not").textContent = head.why_not;
  $("progress").hidden = $("speed").hidden = !live;
  sizes = [...new Set([nativeSize, 64, 128, 256, 384, 512])].sort((a, b) => a - b);
  $("size").max = sizes.length - 1;
  if (another) { resetSliders(); map = null; scored = false; shown = number; showCard(null); showTraining(null); }
  if (!head.reads) showUnread(head.why_no_reader);
  else if (another || lastRead.number === undefined) { showUnread("reading …"); lastRead = { number: -1, version: 0, at: 0 }; }
  if (!live) setState("finished", "finished run");
  listFiles(head.files);
  busy(false); dirty = true;
  document.title = `${head.current} – mnist3d`;
}
$("scenes").onchange = event => { busy(true, event.target.value, "opening"); tell({ do: "open", name: event.target.value }); };
$("scenes").onpointerenter = () => tell({ do: "scenes" });

// ---- the map --------------------------------------------------------------------------------------------------
const atlas = $("atlas").firstElementChild;
async function showAtlas(head, blob) {
  if (head.scene !== $("scenes").dataset.current) return;  // of the run that was shown before
  map = { ...head, bitmap: await createImageBitmap(blob) };
  atlas.width = map.bitmap.width; atlas.height = map.bitmap.height;
  markAtlas();
  if (document.activeElement !== atlas) noteAtlas();
  if (map.labels.length && !scored) showMapped();
}
function noteAtlas() {
  $("atlas_note").textContent = "Click to look from there." + (map?.labels.length ? " Colours: what is read." : "");
}
function showMapped() {  // without a scorecard: the classes over the sphere, each cell as large as it is there
  const shares = Object.fromEntries(map.names.map(name => [name, 0]));
  let legible = 0, all = 0;
  map.labels.forEach((label, k) => {
    const area = Math.cos(Math.PI / 2 - Math.PI * (Math.floor(k / map.columns) + .5) / map.rows);
    all += area;
    if (map.confidences[k] > .5) { legible += area; shares[map.names[label]] += area; }
  });
  for (const name of map.names) shares[name] /= Math.max(legible, 1e-9);
  bars(shares, `Classes on the map, legible on ${Math.round(100 * legible / all)} % of the sphere`);
}
function markAtlas() {
  if (!map) return;
  const c = atlas.getContext("2d"), w = atlas.width / map.columns, h = atlas.height / map.rows;
  c.globalCompositeOperation = "source-over";
  c.drawImage(map.bitmap, 0, 0);
  map.labels.forEach((label, k) => {
    if (map.confidences[k] <= .5) return;
    c.globalCompositeOperation = "multiply"; c.fillStyle = colour(label);
    c.fillRect(k % map.columns * w, Math.floor(k / map.columns) * h, w, h);
    c.globalCompositeOperation = "source-over"; c.globalAlpha = .28;
    c.fillRect(k % map.columns * w, Math.floor(k / map.columns) * h, w, h);
    c.globalAlpha = 1;
  });
  const frame = (column, row) => c.strokeRect(column * w - w / 2, row * h - h / 2, w, h);
  c.strokeStyle = "#fff"; c.lineWidth = 3;
  frame((view.azimuth / (2 * Math.PI) + .5) * map.columns, (.5 - view.elevation / Math.PI) * map.rows);
  if (document.activeElement !== atlas || !cell) return;
  c.strokeStyle = "#7cc4ff"; c.setLineDash([6, 4]);
  frame(cell[0] + .5, cell[1] + .5);
  c.setLineDash([]);
}
// A cell is a column and a row.
const direction = ([column, row], { columns, rows } = map ?? { columns: 24, rows: 12 }) =>
  [-Math.PI + 2 * Math.PI * (column + .5) / columns, Math.PI / 2 - Math.PI * (row + .5) / rows];
function lookFrom(place) { setOrbit(false); keepSwayed(); look(...direction(place)); }
atlas.onclick = event => {
  const box = atlas.getBoundingClientRect(), columns = map?.columns ?? 24, rows = map?.rows ?? 12;
  cell = [Math.min(columns - 1, Math.floor((event.clientX - box.left) / box.width * columns)),
    Math.min(rows - 1, Math.floor((event.clientY - box.top) / box.height * rows))];
  lookFrom(cell);
};
let cell = null;  // where the keys stand
atlas.onfocus = () => {
  if (!map) return;
  cell = [Math.floor((view.azimuth / (2 * Math.PI) + .5) * map.columns) % map.columns,
    between(0, Math.floor((.5 - view.elevation / Math.PI) * map.rows), map.rows - 1)];
  markAtlas();
};
atlas.onblur = () => { markAtlas(); noteAtlas(); };
const STEPS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
atlas.onkeydown = event => {
  if (!cell || !map || event.altKey || event.ctrlKey || event.metaKey) return;
  if (event.key === "Enter" || event.key === " ") lookFrom(cell);
  else if (STEPS[event.key])
    cell = [(cell[0] + STEPS[event.key][0] + map.columns) % map.columns,
      between(0, cell[1] + STEPS[event.key][1], map.rows - 1)];
  else return;
  event.preventDefault(); markAtlas();
  const [azimuth, elevation] = direction(cell), k = cell[1] * map.columns + cell[0];
  const read = !map.labels.length ? "" : map.confidences[k] > .5 ? `: ${map.names[map.labels[k]]}` : ": not legible";
  $("atlas_note").textContent =
    `${inDegrees(azimuth)} around, ${inDegrees(elevation)} up${read}. Enter looks from there.`;
};

// ---- buttons --------------------------------------------------------------------------------------------------
$("pause").onclick = () => tell({ do: state === "paused" ? "resume" : "pause" });
$("train").onclick = () => { $("train").disabled = true; tell({ do: "train" }); };
let sure = -Infinity;  // performance.now() begins at 0 with the page
$("stop").onclick = () => {
  if (performance.now() - sure < 4000) { tell({ do: "stop" }); $("stop").textContent = "Stopping"; return; }
  sure = performance.now(); $("stop").textContent = "Really stop?";
  setTimeout(() => { if ($("stop").textContent !== "Stopping") $("stop").textContent = "Stop and save"; }, 4000);
};
let listed = "";
function listFiles(names) {
  if (!names || listed === names.join()) return;
  listed = names.join(); $("downloads").hidden = !names.length;
  $("files").replaceChildren(...names.map(name => {
    const button = document.createElement("button");
    button.textContent = LABELS[name] ?? name; button.dataset.file = name;
    button.onclick = () => { tell({ do: "download", name }); busy(true, name); };
    return button;
  }));
}
function busy(on, name, doing = "making") {
  for (const button of $("files").children) button.disabled = on;
  $("files_note").textContent = on && name ? `${doing} ${name} …` : "";
}
function fetchFile(head) {
  busy(false); say("");
  const link = document.createElement("a");
  link.href = head.path; link.download = head.name; document.body.append(link); link.click(); link.remove();
}

readAddress(); resetSliders(); connect(); requestAnimationFrame(tick);
