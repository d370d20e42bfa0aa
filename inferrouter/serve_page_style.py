"""Holds how the page looks: one style sheet for light and dark, phone and desktop.

Strategy: colours are variables that follow the viewer's scheme and keep a contrast of at least 4.5 to 1 for text; the layout is a
grid that folds by itself; a row of the calls' table becomes a card on a narrow screen. Must never name anything outside the page.
"""

STYLE = """
:root {
  color-scheme: light dark;
  --back: #f6f7f9; --card: #ffffff; --line: #e1e5ea; --text: #16202b; --dim: #5a6775; --faint: #eceff3;
  --good: #0a7a50; --warm: #b45309; --bad: #c42b3a; --accent: #2563c9; --shadow: 0 1px 2px rgba(20, 30, 45, .06);
}
@media (prefers-color-scheme: dark) {
  :root {
    --back: #0e1217; --card: #171d25; --line: #29323d; --text: #e6ebf1; --dim: #9aa7b5; --faint: #222a34;
    --good: #35c28d; --warm: #f0a13a; --bad: #ff6b78; --accent: #6ea8ff; --shadow: none;
  }
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body {
  margin: 0; background: var(--back); color: var(--text);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; font-variant-numeric: tabular-nums;
}
main, .top { max-width: 1180px; margin: 0 auto; padding: 0 20px; }
.top { display: flex; align-items: center; gap: 12px; padding-top: 18px; }
.name { font-weight: 650; letter-spacing: -.01em; }
.live { margin-left: auto; display: inline-flex; align-items: center; gap: 7px; color: var(--dim); font-size: 13px; }
.live::before { content: ""; width: 8px; height: 8px; border-radius: 50%; background: var(--warm); }
.live.on::before { background: var(--good); }
h1 { font-size: clamp(24px, 4.6vw, 38px); line-height: 1.15; letter-spacing: -.025em; font-weight: 680; margin: 14px 0 6px; }
h2 { font-size: 13px; text-transform: uppercase; letter-spacing: .07em; color: var(--dim); font-weight: 600; margin: 30px 0 10px; }
.facts { display: flex; flex-wrap: wrap; gap: 4px 22px; color: var(--dim); margin: 0; padding: 0; list-style: none; }
.facts b { color: var(--text); font-weight: 600; }
.accounts { display: grid; gap: 14px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px; padding: 15px 17px; box-shadow: var(--shadow); }
.accounts .card { display: flex; flex-direction: column; }
.card.rests { border-color: color-mix(in srgb, var(--warm) 55%, var(--line)); }
.card header { display: flex; align-items: baseline; gap: 8px; }
.card h3 { font-size: 16px; margin: 0; font-weight: 640; overflow-wrap: anywhere; }
.provider { color: var(--dim); font-size: 13px; }
.badge {
  margin-left: auto; white-space: nowrap; font-size: 12px; font-weight: 600; padding: 2px 9px; border-radius: 99px;
  color: var(--good); background: color-mix(in srgb, var(--good) 13%, transparent);
}
.badge.warm { color: var(--warm); background: color-mix(in srgb, var(--warm) 14%, transparent); }
.badge.bad { color: var(--bad); background: color-mix(in srgb, var(--bad) 14%, transparent); }
.badge.busy { color: var(--accent); background: color-mix(in srgb, var(--accent) 14%, transparent); }
.holds { margin: 8px 0 0; padding: 0; list-style: none; color: var(--warm); font-size: 13px; overflow-wrap: anywhere; }
.limit { margin-top: 11px; }
.limit .row { display: flex; gap: 10px; font-size: 13px; }
.limit .row span:first-child { flex: none; }
.limit .row span:last-child { margin-left: auto; text-align: right; }
.dim { color: var(--dim); }
.bar { height: 7px; border-radius: 99px; background: var(--faint); overflow: hidden; margin-top: 4px; }
.bar i { display: block; height: 100%; width: 0; border-radius: 99px; background: var(--good); transition: width .4s ease; }
.bar.warm i { background: var(--warm); }
.bar.bad i { background: var(--bad); }
.card footer { display: flex; align-items: center; gap: 10px; margin-top: auto; padding-top: 14px; color: var(--dim); font-size: 13px; }
.card footer button { margin-left: auto; }
button, select, textarea, input { font: inherit; color: inherit; }
button {
  background: var(--card); border: 1px solid var(--line); border-radius: 8px; padding: 4px 12px; cursor: pointer; font-size: 13px;
  font-weight: 560;
}
button:hover { border-color: var(--accent); color: var(--accent); }
button.main { background: var(--accent); border-color: var(--accent); color: var(--card); padding: 7px 18px; font-size: 14px; }
button.main:hover { filter: brightness(1.08); color: var(--card); }
button:disabled { opacity: .55; cursor: default; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
.empty { color: var(--dim); padding: 14px 17px; background: var(--card); border: 1px dashed var(--line); border-radius: 12px; }
.hours { display: flex; gap: 4px; align-items: stretch; height: 118px; margin: 0; list-style: none; }
.hours li { flex: 1; min-width: 0; display: flex; flex-direction: column; justify-content: flex-end; text-align: center; }
.hours i { display: block; background: var(--good); opacity: .8; border-radius: 3px 3px 0 0; min-height: 2px; }
.hours span { font-size: 11px; color: var(--dim); line-height: 18px; flex: none; }
.now { display: flex; flex-wrap: wrap; gap: 8px; padding: 0; margin: 0; list-style: none; }
.now li {
  background: var(--card); border: 1px solid var(--line); border-radius: 17px; padding: 4px 14px; font-size: 13px; display: flex;
  gap: 8px; align-items: center; max-width: 100%;
}
.now li::before { content: ""; width: 8px; height: 8px; border-radius: 50%; background: var(--accent); flex: none; }
.now li.waiting::before { background: var(--warm); }
.table { background: var(--card); border: 1px solid var(--line); border-radius: 12px; overflow: hidden; box-shadow: var(--shadow); }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; }
th { text-align: left; color: var(--dim); font-weight: 560; font-size: 12px; padding: 9px 12px; border-bottom: 1px solid var(--line); }
td { padding: 8px 12px; border-bottom: 1px solid var(--faint); vertical-align: top; overflow-wrap: anywhere; }
tbody tr:last-child td { border-bottom: 0; }
td.num, th.num { text-align: right; white-space: nowrap; }
td small { color: var(--dim); display: block; font-size: 12px; }
td.why { min-width: 150px; max-width: 330px; }
summary { cursor: pointer; color: var(--dim); }
details ul { margin: 5px 0 2px; padding-left: 17px; color: var(--dim); font-size: 12.5px; }
.free { color: var(--good); font-weight: 600; }
.paid { color: var(--warm); font-weight: 600; }
.failed { color: var(--bad); font-weight: 600; }
.try { display: grid; grid-template-columns: minmax(0, 1fr); gap: 10px; }
.try .row { display: flex; gap: 10px; align-items: center; }
.try .row select { flex: 0 1 auto; min-width: 0; text-overflow: ellipsis; }
select, textarea, input {
  background: var(--back); border: 1px solid var(--line); border-radius: 8px; padding: 7px 10px; max-width: 100%;
}
textarea { width: 100%; min-height: 74px; resize: vertical; }
#answer { white-space: pre-wrap; margin: 0; overflow-wrap: anywhere; font-family: inherit; }
#served { color: var(--dim); font-size: 13px; margin: 0; }
.notes { color: var(--warm); font-size: 13px; padding-left: 18px; }
a { color: var(--accent); }
.end { color: var(--dim); font-size: 12.5px; padding: 26px 0 34px; }
.sr { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }
.gate { max-width: 420px; margin: 12vh auto; display: grid; gap: 12px; }
@media (max-width: 720px) {
  main, .top { padding-left: 14px; padding-right: 14px; }
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table, tbody { display: block; }
  tbody tr { display: grid; grid-template-columns: 1fr auto; gap: 1px 12px; padding: 10px 13px; border-bottom: 1px solid var(--faint); }
  tbody tr:last-child { border-bottom: 0; }
  td { display: block; border: 0; padding: 0; }
  td.num { text-align: left; }
  td.num small { display: inline; margin-left: 8px; }
  td.num[data-name]::before, td[data-name]::before { content: attr(data-name) " "; color: var(--dim); font-size: 12px; }
  td.side { text-align: right; }
  td.why { grid-column: 1 / -1; max-width: none; }
}
@media (prefers-reduced-motion: reduce) { .bar i { transition: none; } }
"""
