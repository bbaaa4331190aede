"""The page of a server: what it offers, and a form to try it. It loads nothing from elsewhere."""

PAGE_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>vadv serve</title>
<style>
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 46rem; margin: 2rem auto; padding: 0 1rem; }
textarea { width: 100%; min-height: 7rem; font: inherit; box-sizing: border-box; }
button { font: inherit; padding: .3rem 1rem; margin: .5rem 0; }
table { border-collapse: collapse; width: 100%; }
td, th { text-align: left; padding: .25rem .6rem .25rem 0; border-bottom: 1px solid #8884; vertical-align: top; }
td:first-child { white-space: nowrap; font-variant-numeric: tabular-nums; }
code, pre { font: 14px/1.4 ui-monospace, monospace; }
pre { overflow-x: auto; padding: .6rem; border: 1px solid #8884; }
#error { color: #c33; }
</style>
</head>
<body>
<h1 id="title">vadv serve</h1>
<p id="student"></p>
<form id="form">
<label for="texts">Texts, one per line</label>
<textarea id="texts">what a wonderful film
i wanted my money back</textarea>
<button>Predict</button>
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
$("curl").textContent = "curl -s " + base + "predict -H 'Content-Type: application/json' \\\\\\n" +
  "  -d '{\\"texts\\": [\\"what a wonderful film\\"]}'";
fetch("model").then(r => r.json()).then(model => {
  $("title").textContent = document.title = "vadv serve: " + model.name;
  const labels = model.labels;
  $("student").textContent = "Predicts the sentiment of a text" + (labels === null ? "" :
    " from " + labels.low + " to " + labels.high + ", positive from " + labels.threshold + " on") +
    ". A text is truncated to " + model.max_tokens + " tokens; a request has at most " + model.limits.texts +
    " texts." + (model.context ? " The student also reads up to " + model.context + " previous texts of a video, " +
    "which this form leaves out." : "");
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
  const texts = $("texts").value.split("\\n").filter(text => text.trim());
  try {
    const response = await fetch("predict", {
      method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify({texts}),
    });
    const answer = await response.json();
    if (!response.ok) throw new Error(answer.error);
    answer.predictions.forEach((value, place) =>
      row($("answers"), [(value < 0 ? "\\u2212" : "+") + Math.abs(value).toFixed(3), texts[place]]));
    if (answer.truncated) $("error").textContent = answer.truncated + " of the texts were truncated.";
  } catch (error) {
    $("error").textContent = error.message;
  }
});
</script>
</body>
</html>
"""
