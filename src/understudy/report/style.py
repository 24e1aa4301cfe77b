"""The style of a report: one sheet, no font and no image from anywhere, light and dark, screen and paper."""

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f6f6f3; --card: #ffffff; --ink: #1c2126; --muted: #59636e; --line: #dfe2e4; --wash: #f0f1f0;
  --blue: #0a6ab0; --orange: #c24e00; --red: #b3261e; --track: #e4e8eb;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #121518; --card: #1b1f23; --ink: #e9ecef; --muted: #a4aeb8; --line: #343b42; --wash: #23282d;
    --blue: #62b4f4; --orange: #ff9a57; --red: #ff8a80; --track: #30373e;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", "Liberation Sans", Arial, sans-serif;
}
.page { max-width: 66rem; margin: 0 auto; padding: 3rem 1.5rem 4rem; }
h1, h2, h3 { line-height: 1.25; text-wrap: balance; overflow-wrap: anywhere; }
h1 { margin: .15em 0 .3em; font-size: clamp(1.7rem, 4.5vw, 2.5rem); letter-spacing: -.02em; font-weight: 680; }
h2 { margin: 0 0 .5rem; font-size: 1.3rem; letter-spacing: -.01em; }
h3 { margin: 1.75rem 0 .5rem; font-size: 1rem; }
p { margin: 0 0 .8rem; max-width: 46rem; overflow-wrap: anywhere; }
a { color: var(--blue); }
.eyebrow {
  margin: 0; color: var(--blue); font-size: .8rem; font-weight: 650; letter-spacing: .08em; text-transform:
  uppercase;
}
.muted, figcaption, .facts dt { color: var(--muted); }
.small { font-size: .875rem; }
.lead { font-size: 1.06rem; }
.unseen { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
nav { margin: 1.1rem 0 0; }
nav ul {
  display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: 0; padding: 0; list-style: none; font-size: .9rem;
}
nav a { color: var(--muted); text-decoration: none; }
nav a:hover, nav a:focus-visible { color: var(--blue); text-decoration: underline; }
section {
  margin-top: 1.25rem; padding: 1.6rem 1.75rem 1.75rem; background: var(--card);
  border: 1px solid var(--line); border-radius: 14px; scroll-margin-top: 1rem;
}
section > :last-child { margin-bottom: 0; }
.hero { display: grid; grid-template-columns: auto 1fr; gap: .25rem 2rem; align-items: center; margin-top: .4rem; }
.number {
  font-size: clamp(3.4rem, 11vw, 5.5rem); line-height: 1; font-weight: 700; letter-spacing: -.045em; color:
  var(--blue); font-variant-numeric: tabular-nums;
}
.number small { font-size: .5em; letter-spacing: 0; margin-left: .06em; }
.hero p { margin: 0; }
.hero .wide { grid-column: 1 / -1; margin-top: 1.1rem; }
.facts {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: 1rem 1.75rem; margin: 1.4rem 0
  0; padding-top: 1.25rem; border-top: 1px solid var(--line);
}
.facts dt { font-size: .8rem; }
.facts dd { margin: 0; font-weight: 550; overflow-wrap: anywhere; }
.pair {
  display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.25rem 2.25rem;
  align-items: start; margin: 1rem 0 0;
}
figure { margin: 0; min-width: 0; }
figcaption { margin-top: .5rem; font-size: .875rem; line-height: 1.5; }
svg.chart { display: block; width: 100%; max-width: 36rem; height: auto; }
svg.bar { display: block; width: 100%; height: 1.1rem; overflow: visible; }
.track { fill: var(--track); } .fill { fill: var(--blue); opacity: .5; } .whisker { fill: var(--ink); }
.ends { stroke: var(--ink); stroke-width: 2; fill: none; }
.hero svg.bar { height: 1.5rem; }
.scroll { overflow-x: auto; margin: .75rem 0 1rem; }
.scroll:focus-visible { outline: 2px solid var(--blue); outline-offset: 3px; border-radius: 4px; }
table {
  width: 100%; border-collapse: collapse; font-size: .92rem; line-height: 1.45; font-variant-numeric:
  tabular-nums;
}
th, td { padding: .5rem .9rem .5rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line); }
th:last-child, td:last-child { padding-right: 0; }
thead th { color: var(--muted); font-size: .8rem; font-weight: 550; vertical-align: bottom; }
tbody th { font-weight: 550; }
tbody tr:last-child > * { border-bottom: 0; }
.bars th:first-child { width: 30%; min-width: 9rem; overflow-wrap: anywhere; }
.bars td:nth-child(2) { width: 36%; min-width: 8rem; padding-top: .68rem; }
.bars td:nth-child(n + 3), .narrow td, .figures td { white-space: nowrap; }
.causes tbody th { min-width: 11rem; }
summary { margin-top: 1.25rem; color: var(--blue); cursor: pointer; }
.narrow { width: auto; } .narrow th, .narrow td { padding-right: 2rem; }
.settings { table-layout: fixed; }
.settings th, .settings td { overflow-wrap: anywhere; }
.settings th { width: 40%; color: var(--muted); font-weight: 450; }
.settings td, code, pre {
  font-family: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, "Liberation Mono", monospace; font-size:
  .85rem;
}
.grid { border-collapse: separate; border-spacing: 5px; margin-inline: -5px; table-layout: fixed; min-width: 17rem; }
.grid th, .grid td { border: 0; padding: .55rem .3rem; text-align: center; vertical-align: middle; font-weight: 450; }
.grid tbody th {
  width: 22%; padding-left: 0; text-align: right; color: var(--muted); font-size: .8rem; overflow-wrap:
  break-word;
}
.grid thead th { overflow-wrap: break-word; }
.grid td { border-radius: 8px; background: var(--wash); }
.grid td.tinted { background: color-mix(in srgb, var(--orange) var(--failing), var(--wash)); }
.grid b { display: block; font-size: 1.2rem; line-height: 1.3; }
.grid span { display: block; font-size: .78rem; color: var(--muted); }
.grid td.tinted span { color: var(--ink); }
.clips {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 13rem), 1fr)); gap: 1.25rem;
  margin-top: 1rem;
}
video { display: block; width: 100%; background: #000; border-radius: 8px; }
.pill {
  display: inline-block; padding: .05rem .55rem; border: 1px solid currentColor; border-radius: 99px; font-size:
  .75rem; font-weight: 600; line-height: 1.5; white-space: nowrap;
}
.good { color: var(--blue); } .bad { color: var(--orange); } .worst { color: var(--red); }
.hint {
  margin: 1.1rem 0 0; padding: .75rem 1rem; border-left: 3px solid var(--blue); background: var(--wash);
  border-radius: 0 8px 8px 0; max-width: none;
}
.hint p { margin: 0 0 .35rem; max-width: 52rem; } .hint ul { margin: 0; padding-left: 1.15rem; }
.defects { margin: .75rem 0 0; padding: 0; list-style: none; }
.defects li { padding: .75rem 0; border-top: 1px solid var(--line); }
.defects p { margin: .2rem 0 0; }
pre { margin: .75rem 0 1rem; padding: 1rem 1.1rem; background: var(--wash); border-radius: 8px; line-height: 1.7; }
pre code { white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 2rem; color: var(--muted); font-size: .85rem; }
@media (max-width: 40rem) {
  .page { padding: 1.75rem .9rem 2.5rem; }
  section { padding: 1.2rem 1.1rem 1.25rem; border-radius: 12px; }
  .hero { grid-template-columns: 1fr; gap: .75rem; }
  .bars, .bars tbody { display: block; } .bars thead { display: none; }
  .bars tr {
    display: grid; grid-template-columns: auto auto 1fr; padding: .6rem 0; border-bottom: 1px solid var(--line);
  }
  .bars tr:last-child { border-bottom: 0; }
  .bars th:first-child, .bars td:nth-child(n) { width: auto; padding: .1rem 1rem .1rem 0; border: 0; }
  .bars th:first-child, .bars td:nth-child(2) { grid-column: 1 / -1; }
  .facts { grid-template-columns: 1fr 1fr; gap: .9rem 1.1rem; }
}
@media print {
  :root {
    color-scheme: light;
    --page: #fff; --card: #fff; --ink: #111; --muted: #444; --line: #ccc; --wash: #f3f3f3;
    --blue: #0a5c99; --orange: #b34700; --red: #a11; --track: #ddd;
  }
  body { font-size: 10.5pt; } .page { max-width: none; padding: 0; } nav, video { display: none; }
  section { border: 0; border-top: 1px solid var(--line); border-radius: 0; padding: 1rem 0; }
  figure, tr, li, .hint { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
  .scroll { overflow: visible; }
  svg, .grid td { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
@media (prefers-reduced-motion: reduce) { html { scroll-behavior: auto; } }
"""
