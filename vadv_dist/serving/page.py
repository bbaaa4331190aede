"""The page of a server: what it offers, and a form to try it. It loads nothing from elsewhere."""

PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

PAGE = r"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>vadv serve</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin-top: 2rem; }
textarea { width: 100%; min-height: 7rem; font: inherit; padding: .5rem; margin-top: .25rem; box-sizing: border-box; }
select { font: inherit; padding: .2rem; }
button { font: inherit; padding: .3rem 1rem; margin: .5rem 0; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid #8884; vertical-align: top; }
td { overflow-wrap: anywhere; }
td:first-child { white-space: nowrap; font-variant-numeric: tabular-nums; }
code, pre { font: 14px/1.4 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .6rem; border: 1px solid #8884; }
#error { color: #b3261e; color: light-dark(#b3261e, #ff8a80); }
[hidden] { display: none; }
</style>
</head>
<body>
<h1 id="title">vadv serve</h1>
<p id="student"></p>
<form id="form">
<p id="kind" hidden><label for="modality">Modality</label>
<select id="modality"><option>audio</option><option>visual</option></select></p>
<label for="items" id="label">Texts, one per line</label>
<textarea id="items">what a wonderful film
i wanted my money back</textarea>
<button id="send">Predict</button>
</form>
<p id="error" role="alert"></p>
<table id="answers" aria-live="polite"></table>
<h2>From a program</h2>
<pre id="curl"></pre>
<h2>Paths</h2>
<table id="paths"></table>
<p>Described for programs in <a href="openapi.json">openapi.json</a> (OpenAPI).</p>
<script>
const $ = id => document.getElementById(id);
function row(table, cells, tag) {
  const line = table.insertRow();
  for (const text of cells) {
    const cell = document.createElement(tag || "td");
    cell.textContent = text;
    line.append(cell);
  }
}
const base = location.href.replace(/(docs)?[?#].*$/, "").replace(/docs$/, "");
let path = "predict", widths = null;
function show(number) { return String(number).replace("-", "\u2212"); }
function numbers(line, place) {
  return line.trim().split(/[\s,;]+/).map(word => {
    if (!word || !isFinite(word))
      throw new Error("Line " + (place + 1) + ": \u201c" + word + "\u201d is not a number.");
    return Number(word);
  });
}
function example() {
  const width = widths[$("modality").value];
  $("items").value = Array.from({length: width}, (_, place) => Math.sin(place + 1).toFixed(2)).join(" ");
}
fetch("model").then(r => r.json()).then(model => {
  $("title").textContent = document.title = "vadv serve: " + model.name;
  let said, body = {texts: ["what a wonderful film"]};
  if (model.widths) {
    path = "embed";
    widths = model.widths;
    $("kind").hidden = false;
    $("label").textContent = "Vectors, one per line, numbers separated by spaces or commas";
    $("send").textContent = "Embed";
    $("modality").addEventListener("change", example);
    example();
    said = "Embeds audio vectors (" + widths.audio + " numbers) and visual vectors (" + widths.visual +
      ") in one space (" + widths.embedding + "), where the cosine of two clips of one class is high. A request has " +
      "at most " + model.limits.vectors + " vectors.";
    body = '{"modality": "audio", "vectors": [[0.1, \u2026]]}';
  } else {
    const labels = model.labels;
    said = "Predicts the sentiment of a text" + (model.classes ? ", one of " + model.classes.join(", ") :
      labels === null ? "" : " from " + show(labels.low) + " to " +
      show(labels.high) + ", negative below " + show(labels.threshold) + ", positive above") +
      ". A text is truncated to " + model.max_tokens + " tokens; a request has at most " + model.limits.texts +
      " texts." +
      (model.context ? " The student also reads up to " + model.context + " previous texts of a video, which this " +
      "form leaves out." : "");
    body = JSON.stringify(body).replace(":", ": ");
  }
  $("student").textContent = said;
  $("curl").textContent = "curl -s " + base + path + " -H 'Content-Type: application/json' \\\n  -d '" + body + "'";
});
fetch("openapi.json").then(r => r.json()).then(api => {
  for (const [path, methods] of Object.entries(api.paths))
    for (const [method, operation] of Object.entries(methods))
      row($("paths"), [method.toUpperCase() + " " + path, operation.summary || ""]);
});
$("form").addEventListener("submit", async event => {
  event.preventDefault();
  $("error").textContent = "";
  $("answers").replaceChildren();
  const lines = $("items").value.split("\n").filter(line => line.trim());
  try {
    const request = widths === null ? {texts: lines} : {modality: $("modality").value, vectors: lines.map(numbers)};
    const response = await fetch(path, {
      method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(request),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    if (widths === null)
      answer.predictions.forEach((value, place) =>
        row($("answers"), [typeof value === "number" ? (value < 0 ? "" : "+") + show(value.toFixed(3)) :
          value + " " + (100 * answer.probabilities[place][value]).toFixed(1) + " %", lines[place]]));
    else
      answer.embeddings.forEach((values, place) =>
        row($("answers"), [String(place + 1), values.map(value => show(value.toFixed(3))).join(" ")]));
    if (answer.truncated) $("error").textContent = answer.truncated + " of the texts were truncated.";
  } catch (error) {
    $("error").textContent = error.message;
  }
});
</script>
</body>
</html>
"""
