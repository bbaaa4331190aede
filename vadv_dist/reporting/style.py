"""Palette and style sheet of the page: light, dark, narrow and printed.

The colours of outputs are those of Okabe and Ito (2008), which colour-blind readers can distinguish; lighter in dark
mode.
"""

from vadv_dist.evaluation.description import Output, TaskDescription

# Light and dark by role: o1 to o3 are a task's outputs, the student first. No two light ones are equal, because the
# colours in a picture are mapped back to roles.
_COLOURS = {
    "ground": ("#fbfaf8", "#15171a"),
    "raised": ("#ffffff", "#1c1f23"),
    "ink": ("#1d1f23", "#e8e6e1"),
    "quiet": ("#62666d", "#a0a4ab"),
    "rule": ("#e2dfd9", "#33373d"),
    "grid": ("#ece9e4", "#292d33"),
    "o1": ("#0072b2", "#5bb5ec"),
    "o2": ("#c65500", "#f09050"),
    "o3": ("#00845f", "#3cc79b"),
    "other": ("#9a5b87", "#d99cc4"),
    "label": ("#8b8f96", "#7d828a"),
    "wash": ("#eef4f9", "#1b2833"),
}
PALETTE = {role: light for role, (light, _) in _COLOURS.items()}
_DARK = {role: dark for role, (_, dark) in _COLOURS.items()}


def role_of(task: TaskDescription, output: Output) -> str:
    """The role of an output in the palette."""
    return f"o{1 + task.outputs.index(output) % 3}"


def _variables(palette: dict[str, str]) -> str:
    return " ".join(f"--{role}: {colour};" for role, colour in palette.items())


STYLE = (
    f"""
:root {{ color-scheme: light dark; {_variables(PALETTE)} }}
@media screen and (prefers-color-scheme: dark) {{ :root {{ {_variables(_DARK)} }} }}
"""
    """
*, *::before { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0; background: var(--ground); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
}
.page { max-width: 1080px; margin: 0 auto; padding: 0 clamp(16px, 3.5vw, 40px); }
header { padding: clamp(28px, 5vw, 56px) 0 clamp(20px, 3vw, 32px); }
h1, h2, .lede { font-family: Charter, "Bitstream Charter", "Sitka Text", Cambria, Georgia, "Liberation Serif", serif; }
h1 { font-size: clamp(30px, 5vw, 46px); line-height: 1.12; font-weight: 600; letter-spacing: -.015em;
  margin: 6px 0 0; max-width: 22em; text-wrap: balance; overflow-wrap: anywhere; }
h2 { font-size: 25px; line-height: 1.2; font-weight: 600; letter-spacing: -.008em; margin: 0; }
.over { margin: 0; color: var(--quiet); font-size: 14px; overflow-wrap: anywhere; }
.over b { color: var(--ink); }
.lede { font-size: clamp(18px, 2.2vw, 21px); line-height: 1.5; margin: 18px 0 0; max-width: 44em; text-wrap: pretty; }
.caveat, .about { color: var(--quiet); font-size: 15px; margin: 6px 0 0; max-width: 52em; text-wrap: pretty; }
.notice { border-left: 3px solid var(--o2); padding: 2px 0 2px 14px; margin: 20px 0 0; max-width: 52em; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; font-size: .875em; }
code { overflow-wrap: anywhere; }
nav { position: sticky; top: 0; z-index: 1; background: var(--ground); border-block: 1px solid var(--rule); }
nav .page { display: flex; gap: 22px; overflow-x: auto; scrollbar-width: none; }
nav a { padding: 10px 0; font-size: 14px; color: var(--quiet); text-decoration: none; white-space: nowrap; }
nav a:hover, nav a:focus-visible { color: var(--ink); text-decoration: underline; text-underline-offset: 4px; }
:focus-visible { outline: 2px solid var(--o1); outline-offset: 2px; }
section { padding: 40px 0 12px; scroll-margin-top: 44px; }
section + section { border-top: 1px solid var(--rule); margin-top: 32px; }
footer { margin-top: 40px; padding: 20px 0 48px; border-top: 1px solid var(--rule); color: var(--quiet);
  font-size: 14px; }
ul.notes { margin: 16px 0 0; padding-left: 20px; color: var(--quiet); font-size: 15px; max-width: 52em; }
ul.notes li { margin: 4px 0; }

.o1 { --of: var(--o1); } .o2 { --of: var(--o2); } .o3 { --of: var(--o3); }
.other { --of: var(--other); } .label { --of: var(--label); } .ink { --of: var(--ink); }

.grid-of { display: grid; gap: 28px 32px; margin-top: 24px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 280px), 1fr)); }
.grid-of.wide { grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); }
.grid-of.one { display: block; max-width: 484px; } .grid-of.one figcaption { min-height: 0; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
figcaption { display: flex; flex-wrap: wrap; align-items: baseline; column-gap: 10px; margin-bottom: 6px;
  min-height: 48px; align-content: end; font-size: 15px; line-height: 1.4; }
figcaption b { width: 100%; }
.note { color: var(--quiet); font-size: 13.5px; display: inline-flex; flex-wrap: wrap; align-items: baseline;
  column-gap: 12px; }
.tag { font-size: 12px; border: 1px solid var(--rule); border-radius: 3px; padding: 0 5px; }
sub, sup { font-size: .72em; line-height: 0; }
svg { display: block; width: 100%; height: auto; overflow: visible; font-size: 11px; stroke-linejoin: round;
  font-variant-numeric: tabular-nums; }
svg use:hover { fill-opacity: 1; stroke: var(--ink); }

.key { white-space: nowrap; }
.key::before { content: ""; display: inline-block; width: 9px; height: 9px; margin-right: 7px;
  background: var(--of); border-radius: 50%; }
.key.o2::before { border-radius: 1px; }
.key.o3::before { border-radius: 1px; transform: rotate(45deg) scale(.85); }
.key.other::before { background: none; border: 2px solid var(--of); }

.scroll { overflow-x: auto; margin-top: 22px; }
table { border-collapse: collapse; width: 100%; font-size: 15px; line-height: 1.4; }
th, td { padding: 8px 12px 8px 0; text-align: left; font-weight: 400; border-bottom: 1px solid var(--rule);
  vertical-align: baseline; }
th:last-child, td:last-child { padding-right: 4px; }
thead th { color: var(--quiet); font-size: 13.5px; vertical-align: bottom; }
tbody tr:last-child > * { border-bottom: 0; }
small { display: block; color: var(--quiet); font-size: 12.5px; font-weight: 400; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
b, .lead > * { font-weight: 600; }
tr.ours > * { background: var(--wash); } tr.ours > th { font-weight: 600; padding-left: 10px; }
tr.ours + tr:not(.ours) > th { padding-left: 0; }
q { display: inline-block; min-width: 250px; overflow-wrap: anywhere; quotes: "“" "”"; }
.strip { display: block; width: 100%; max-width: 360px; margin-top: 6px; }
.grid-of .scroll { margin-top: 0; min-width: 0; } ul.notes + .about { margin-top: 22px; }
.query { margin: 0; padding: 14px 0; border-bottom: 1px solid var(--rule); break-inside: avoid; }
.query p { margin: 0 0 8px; } .query p > b { margin-right: 6px; }
.query ol { display: grid; gap: 6px; margin: 0; padding: 0; list-style: none; grid-template-columns: repeat(5, 1fr); }
.query li { --of: var(--o3); padding: 4px 8px; border-left: 3px solid var(--of); background: var(--raised);
  font-size: 14px; line-height: 1.35; min-width: 0; overflow-wrap: anywhere; }
.query li.miss { --of: var(--o2); border-left-style: dashed; } .query li b { color: var(--of); }
.query li small { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.facts { display: grid; gap: 0 32px; margin: 20px 0 0;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 290px), 1fr)); }
.facts div { display: flex; justify-content: space-between; gap: 18px; padding: 7px 0;
  border-bottom: 1px solid var(--rule); font-size: 15px; }
.facts dt { color: var(--quiet); white-space: nowrap; }
.facts dd { margin: 0; text-align: right; overflow-wrap: anywhere; min-width: 0; }
details { margin-top: 26px; } summary { cursor: pointer; color: var(--quiet); font-size: 15px; width: fit-content; }
summary:hover { color: var(--ink); }
pre { background: var(--raised); border: 1px solid var(--rule); border-radius: 4px; padding: 14px 16px;
  overflow-x: auto; line-height: 1.5; }

@media (max-width: 620px) { th, td { padding-right: 10px; } .query ol { grid-template-columns: repeat(2, 1fr); } }
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
@media print {
  nav { display: none; } body { background: #fff; font-size: 11pt; } section { padding-top: 18px; }
  section + section { margin-top: 14px; } h2, .about { break-after: avoid; } tr { break-inside: avoid; }
  * { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  .grid-of { grid-template-columns: repeat(3, 1fr); } .grid-of.wide { grid-template-columns: repeat(2, 1fr); }
  .scroll { overflow: visible; } .about { orphans: 3; widows: 3; }
}
"""
)
