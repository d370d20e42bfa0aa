"""Holds what the page does: reads the stream of snapshots and keeps what is shown in step with it.

Strategy: elements are made once for each account, call and limit and changed in place, so that focus and open details stay; all
texts go in as text, never as HTML, since providers' errors may hold anything. The token, where one is needed, stays in the tab.
Must never ask anything but its own server.
"""

SCRIPT = r"""
"use strict";
const $ = id => document.getElementById(id);
const store = window.sessionStorage;
const fromLink = new URLSearchParams(location.hash.slice(1)).get("token");
if (fromLink) { store.setItem("token", fromLink); history.replaceState(null, "", "/"); }
let latest = null, skew = 0;

function headers(more) {
  const token = store.getItem("token");
  return token ? {...more, "Authorization": "Bearer " + token} : {...more};
}
function el(tag, attributes, ...inside) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes || {})) made.setAttribute(name, value);
  made.append(...inside);
  return made;
}
function put(node, text) { if (node.textContent !== text) node.textContent = text; }
function keyed(parent, items, key, make, update) {
  const known = parent.kept || (parent.kept = new Map());
  const wanted = new Set(items.map(item => String(key(item))));
  for (const [name, node] of known) if (!wanted.has(name)) { node.remove(); known.delete(name); }
  let before = parent.firstElementChild;
  for (const item of items) {
    const name = String(key(item));
    let node = known.get(name);
    if (!node) { node = make(item); known.set(name, node); }
    if (node === before) before = before.nextElementSibling; else parent.insertBefore(node, before);
    update(node, item);
  }
}
const now = () => Date.now() / 1000 - skew;
const short = number => number >= 1e6 ? +(number / 1e6).toFixed(2) + " M" : Number(number.toFixed(2)).toLocaleString();
const dollars = amount => "$" + (amount === 0 ? "0" : amount < 0.01 ? amount.toFixed(5) : amount.toFixed(2));
function span(seconds) {
  seconds = Math.max(0, Math.ceil(seconds));
  if (seconds < 120) return seconds + " s";
  const minutes = Math.ceil(seconds / 60);
  if (minutes < 60) return minutes + " min";
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? hours + " h " + minutes % 60 + " min" : Math.floor(hours / 24) + " d " + hours % 24 + " h";
}
function took(seconds) {
  if (seconds === null) return "";
  return seconds < 1 ? Math.max(1, Math.round(seconds * 1000)) + " ms" : seconds.toFixed(1) + " s";
}
const clock = moment => {
  const then = new Date(moment * 1000), day = then.toDateString() === new Date().toDateString() ? {} : {month: "short", day: "numeric"};
  return then.toLocaleTimeString([], {...day, hour: "numeric", minute: "2-digit", second: "2-digit"});
};
const held = text => text.replaceAll(" ", "\u00a0");

function makeAccount(account) {
  const title = el("h3", {}, account.id);
  const node = el("article", {class: "card", "aria-label": "account " + account.id},
    el("header", {}, title, el("span", {class: "provider"}, account.provider), el("span", {class: "badge"})),
    el("ul", {class: "holds"}), el("div", {class: "limits"}),
    el("footer", {}, el("span", {}), el("button", {type: "button"})));
  node.querySelector("button").addEventListener("click", () => hold(node, account.id));
  return node;
}
function showAccount(node, account) {
  const badge = node.querySelector(".badge"), button = node.querySelector("button");
  const until = Math.max(0, ...account.holds.filter(hold => !hold.key.includes("|")).map(hold => hold.until));
  node.classList.toggle("rests", account.resting);
  const limits = account.limits.filter(limit => limit.amount > 0), paid = limits.length < account.limits.length;
  const spent = limits.find(limit => limit.remaining <= 0);
  const [word, kind] = account.breaker === "open" ? ["failing, tried again soon", "bad"]
    : account.resting ? ["rests " + span(until - now()), "warm"]
    : account.in_flight ? [account.in_flight + " in flight", "busy"]
    : spent ? ["spent", "warm"] : [paid ? "paid, ready" : "ready", ""];
  put(badge, word); badge.className = "badge " + kind;
  keyed(node.querySelector(".holds"), account.holds, hold => hold.key, () => el("li"),
    (line, hold) => put(line, (hold.key.includes("|") ? hold.key.split("|")[1] + " " : "") + "until " + clock(hold.until) + ": " + hold.reason));
  keyed(node.querySelector(".limits"), limits, limit => limit.name, makeLimit, showLimit);
  put(node.querySelector("footer span"), account.limits.length || account.spend_today ? (account.spend_today ? dollars(account.spend_today) + " today" : "") : "no limits stated");
  node.resting = account.resting || account.holds.length > 0;
  put(button, node.resting ? "Wake" : "Rest 1 h");
  button.setAttribute("aria-label", (node.resting ? "wake " : "rest for an hour: ") + account.id);
}
function makeLimit() {
  return el("div", {class: "limit"}, el("div", {class: "row"}, el("span"), el("span", {class: "dim"})),
    el("div", {class: "bar", role: "meter", "aria-valuemin": "0", "aria-valuemax": "100"}, el("i")));
}
function showLimit(node, limit) {
  const [name, rest] = node.querySelectorAll(".row span"), bar = node.querySelector(".bar");
  const share = limit.amount > 0 ? Math.min(1, limit.used / limit.amount) : 1;
  const money = limit.unit === "dollars";
  const label = (limit.name === "allowance" ? "free " : "") + (limit.unit === "parallel" ? "calls at once" : limit.unit + " per " + limit.window);
  put(name, label);
  const frees = limit.used > 0 && limit.resets_at ? ", " + held("frees in " + span(limit.resets_at - now())) : "";
  put(rest, held(money ? dollars(limit.used) + " of " + dollars(limit.amount) : short(limit.used) + " of " + short(limit.amount)) + frees);
  bar.className = "bar" + (share >= 1 ? " bad" : share >= .8 ? " warm" : "");
  bar.setAttribute("aria-label", label + " used");
  bar.setAttribute("aria-valuenow", String(Math.round(share * 100)));
  bar.firstElementChild.style.width = (share > 0 ? Math.max(1.5, share * 100) : 0) + "%";
}
async function hold(node, id) {
  const verb = node.resting ? "wake" : "rest", button = node.querySelector("button");
  button.disabled = true;
  try {
    const answer = await fetch("/accounts/" + encodeURIComponent(id) + "/" + verb,
      {method: "POST", headers: headers({"Content-Type": "application/json"}), body: "{}"});
    put($("said"), answer.ok ? id + (verb === "rest" ? " rests" : " is awake") : "that did not work");
  } finally { button.disabled = false; }
}
function makeCall(call) {
  const why = el("td", {class: "why"}, el("details", {}, el("summary"), el("ul")));
  return el("tr", {}, el("td", {"data-name": ""}, el("span"), el("small")), el("td", {class: "side"}, el("span"), el("small")),
    el("td", {class: "num", "data-name": "tokens"}), el("td", {class: "num side"}), el("td", {class: "num", "data-name": "took"}, el("span"), el("small")), why);
}
function showCall(row, call) {
  const [when, who, tokens, cost, time, why] = row.children;
  put(when.firstElementChild, call.model || "default"); put(when.lastElementChild, clock(call.began_at) + " " + call.path.slice(1).replace("/completions", ""));
  put(who.firstElementChild, call.account || "nobody"); put(who.lastElementChild, call.served_by || "");
  put(tokens, call.account ? call.prompt_tokens.toLocaleString() + " \u2192 " + call.completion_tokens.toLocaleString() : "\u2013");
  const word = call.state === "done" ? (call.free ? "free" : dollars(call.cost)) : call.state === "left" ? "left" : String(call.status);
  put(cost, word); cost.className = "num side " + (call.state === "done" ? (call.free ? "free" : "paid") : call.state === "left" ? "dim" : "failed");
  put(time.firstElementChild, took(call.took_s)); put(time.lastElementChild, call.first_s === null ? "" : "first " + took(call.first_s));
  const lines = [];
  if (call.error) lines.push(call.error);
  if (call.why) lines.push("chosen: " + call.why);
  lines.push(...call.ahead.map(line => "ahead of it: " + line), ...call.behind.map(line => (call.account ? "behind it: " : "stood in line: ") + line), ...call.passed_over.map(line => "passed over: " + line));
  const details = why.firstElementChild;
  put(details.firstElementChild, call.state === "left" ? "hung up" : call.error ? "why it failed" : call.attempts > 1 ? call.attempts + " attempts" : call.passed_over.length
    ? call.passed_over.length + " passed over" : "first choice");
  if (!lines.length) lines.push("the first account in the policy's order answered");
  keyed(details.lastElementChild, lines, line => line, () => el("li"), put);
}
function show(found) {
  latest = found;
  if (found.error) { put($("headline"), found.error); return; }
  skew = Date.now() / 1000 - found.now;
  const left = found.free_requests_left, ready = found.accounts.filter(account => !account.resting).length;
  put($("headline"), left === null ? ready + " of " + found.accounts.length + " accounts ready"
    : left.toLocaleString() + (left === 1 ? " free request" : " free requests") + " left today");
  const facts = [];
  if (found.next_reset) facts.push(["next reset in ", span(found.next_reset - now())]);
  facts.push(["saved today ", dollars(found.today.saved_dollars)], ["spent ", dollars(found.today.dollars)]);
  facts.push(["calls in the last hour ", String(found.calls_last_hour)]);
  if (found.capacity && found.capacity.requests) facts.push(["the rest of the day carries ", short(found.capacity.requests) + " requests"]);
  showHours(found.capacity);
  keyed($("facts"), facts, fact => fact[0], fact => el("li", {}, fact[0], el("b")), (node, fact) => put(node.lastElementChild, fact[1]));
  $("facts").title = "free tokens are valued at " + found.today.valued_at.map(price => "$" + (price * 1e6).toFixed(2)).join(" in and ") + " out per million";
  keyed($("accounts"), found.accounts, account => account.id, makeAccount, showAccount);
  keyed($("now"), found.under_way, call => call.number, () => el("li", {}, el("span"), el("span", {class: "dim"})), (node, call) => {
    node.className = call.state;
    put(node.firstElementChild, (call.model || "default") + (call.account ? " at " + call.account : ""));
    const reason = call.state === "waiting" && !call.why && call.passed_over.length ? ": " + call.passed_over[0] : "";
    put(node.lastElementChild, (call.state === "streaming" ? "streaming " : "waiting ") + took(call.took_s) + reason);
  });
  $("idle").hidden = found.under_way.length > 0;
  keyed($("calls"), found.calls, call => call.number, makeCall, showCall);
  $("none").hidden = found.calls.length > 0; $("table").hidden = found.calls.length === 0;
  keyed($("models"), found.models, name => name, name => el("option", {value: name}, name), () => {});
  const notes = [...found.warnings];
  if (found.store_failures) notes.push("the quota store failed " + found.store_failures + " times");
  keyed($("notes"), notes, note => note, () => el("li"), put);
}
function showHours(capacity) {
  const hours = capacity && capacity.requests ? capacity.hours : [];
  $("day").hidden = hours.length < 2;
  const most = Math.max(1, ...hours.map(hour => hour[1]));
  keyed($("hours"), hours, hour => hour[0], () => el("li", {}, el("i"), el("span")), (node, [begin, requests]) => {
    node.firstElementChild.style.height = Math.max(2, requests / most * 100) + "%";
    const hour = new Date(begin * 1000).getHours();
    put(node.lastElementChild, String(hour));
    node.title = "from " + hour + " o'clock: " + requests.toLocaleString() + " requests";
    node.setAttribute("aria-label", node.title);
  });
}
async function lines(answer, take) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = "";;) {
    const {done, value} = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) if (part.startsWith("data: ")) take(part.slice(6));
  }
}
async function follow() {
  for (let pause = 500;; pause = Math.min(5000, pause * 2)) {
    try {
      const answer = await fetch("/events", {headers: headers()});
      if (answer.status === 401) { store.removeItem("token"); ask("That token was not right."); return; }
      if (answer.ok) {
        $("live").className = "live on"; put($("live"), "live"); pause = 500;
        await lines(answer, data => show(JSON.parse(data)));
      }
    } catch (error) { /* the server is gone for a moment */ }
    $("live").className = "live"; put($("live"), "not connected");
    await new Promise(again => setTimeout(again, pause));
  }
}
async function tryPrompt(event) {
  event.preventDefault();
  const button = $("send");
  button.disabled = true; put($("answer"), ""); put($("served"), "waiting for an account\u2026"); $("output").hidden = false;
  try {
    const body = {model: $("models").value, stream: true, messages: [{role: "user", content: $("prompt").value}]};
    const answer = await fetch("/v1/chat/completions",
      {method: "POST", headers: headers({"Content-Type": "application/json"}), body: JSON.stringify(body)});
    if (!answer.ok) { put($("served"), (await answer.json()).error.message); return; }
    const account = answer.headers.get("x-inferrouter-account");
    put($("served"), account ? account + ", " + answer.headers.get("x-inferrouter-model") : "");
    await lines(answer, data => {
      if (data === "[DONE]") return;
      const item = JSON.parse(data);
      if (item.error) put($("served"), item.error.message);
      else $("answer").append((item.choices[0] && item.choices[0].delta.content) || "");
    });
  } catch (error) { put($("served"), "the answer broke off"); } finally { button.disabled = false; }
}
function ask(said) {
  $("gate").hidden = false; $("inside").hidden = true; put($("gatesaid"), said); $("token").focus();
}
$("form").addEventListener("submit", tryPrompt);
$("prompt").addEventListener("keydown", event => { if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("form").requestSubmit(); });
$("gate").addEventListener("submit", event => {
  event.preventDefault();
  store.setItem("token", $("token").value.trim());
  $("gate").hidden = true; $("inside").hidden = false;
  follow();
});
if (document.body.dataset.token && !store.getItem("token")) ask("This endpoint asks for its token."); else follow();
"""
