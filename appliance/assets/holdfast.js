// Five small things that HTML alone cannot do; every page works without them.
// 1. The screen locks when nobody has touched any page for the practice's idle time; typed text survives behind the cover. All
//    tabs lock and unlock together.
// 2. While a person types, the server is told at most once a minute, so that a long note does not lock the session.
// 3. A page with unsaved input asks before it is left.
// 4. A button prints.
// 5. A form leaves only while the server answers: without a connection what was typed stays, and is sent once when it is back.
"use strict";

(() => {
  const body = document.body;
  const csrf = body.dataset.csrf;
  const idleMs = Number(body.dataset.idleS || 0) * 1000;
  const KEEP_ALIVE_MS = 60_000;
  let touched = Date.now();
  let told = Date.now();
  let changed = false;
  let leaving = false;

  const guarded = (element) => element.form && element.form.method === "post" && !("noGuard" in element.form.dataset);

  document.addEventListener("input", (event) => {
    if (guarded(event.target)) changed = true;
  });
  document.addEventListener("submit", (event) => {
    if (event.target.method !== "post" || event.defaultPrevented) return;
    if (csrf && guarded({ form: event.target })) send(event); else leaving = true;
  });
  window.addEventListener("beforeunload", (event) => {
    if (changed && !leaving) event.preventDefault();
  });

  const RETRY_MS = 2000;
  const ANSWER_MS = 5000;
  const sending = new WeakSet();
  const cleared = new WeakSet();
  const stamped = new WeakMap();

  // The server's answer; null where none came.
  const answer = () =>
    fetch("/alive", { redirect: "manual", headers: { "hx-request": "true" }, signal: AbortSignal.timeout(ANSWER_MS) })
      .catch(() => null);
  const saysLocked = (told) => told?.status === 401 && (told.headers.get("hx-redirect") || "").startsWith("/unlock");
  // Locks the page and waits until it is open again; only pages of the staff lock.
  let throughLock = null;

  // Says who is being sent: the same words again are the same sending, other words another.
  function stamp(form, button) {
    let field = form.querySelector("input[name=once]");
    if (!field) {
      field = document.createElement("input");
      field.type = "hidden";
      field.name = "once";
      form.append(field);
    }
    const filled = [...new FormData(form)].filter(([name]) => name !== "once")
      .map(([name, value]) => [name, typeof value === "string" ? value : `${value.name} ${value.size}`]);
    const words = JSON.stringify([...filled, [button?.name, button?.value]]);
    if (stamped.get(form) !== words) {
      stamped.set(form, words);
      field.value = crypto.randomUUID();
    }
  }

  function lost() {
    const note = document.createElement("div");
    note.className = "lost";
    note.setAttribute("role", "alert");
    note.textContent = "Connection lost. What you entered stays on this page and is sent, once, when the connection is back.";
    body.append(note);
    return note;
  }

  async function send(event) {
    const form = event.target;
    if (cleared.delete(form)) { leaving = true; return; }
    event.preventDefault();
    if (sending.has(form)) return;
    sending.add(form);
    const button = event.submitter;
    let note = null;
    for (;;) {
      const told = await answer();
      if (told && saysLocked(told) && throughLock) {
        // Sent now, a file that was chosen would be lost.
        await throughLock();
      } else if (told) {
        break;
      } else {
        note ||= lost();
        await new Promise((done) => setTimeout(done, RETRY_MS));
      }
    }
    if (note) note.remove();
    stamp(form, button);
    sending.delete(form);
    cleared.add(form);
    form.requestSubmit(button);
    // A field that became invalid while we waited keeps the form here.
    cleared.delete(form);
  }

  for (const button of document.querySelectorAll("[data-print]")) {
    button.addEventListener("click", () => window.print());
  }

  const invalid = document.querySelector("[aria-invalid=true]");
  if (invalid) invalid.focus();

  if (!idleMs || !csrf) return;

  const post = (path, fields) =>
    fetch(path, {
      method: "POST",
      headers: { "x-csrf-token": csrf, "hx-request": "true" },
      body: new URLSearchParams(fields),
      redirect: "manual",
    });

  // Tabs of one session: what one of them is touched by, keeps all of them open.
  const tabs = new BroadcastChannel("holdfast");
  const here = () => location.pathname + location.search;
  let cover = null;
  let whenOpen = [];
  let hidden = null;

  for (const name of ["pointerdown", "keydown", "wheel", "touchstart"]) {
    document.addEventListener(name, () => {
      if (cover) return;
      if (Date.now() - touched > 1000) tabs.postMessage("touched");
      touched = Date.now();
      if (touched - told > KEEP_ALIVE_MS) {
        told = touched;
        fetch("/alive", { redirect: "manual", headers: { "hx-request": "true" } }).catch(() => {});
      }
    }, { passive: true });
  }

  tabs.addEventListener("message", ({ data }) => {
    if (data === "touched") touched = Date.now();
    if (data === "locked") shut();
    if (data === "open" && cover) answer().then((told) => { if (told?.status === 204) open(); });
  });
  tabs.postMessage("open");
  document.addEventListener("submit", (event) => {
    if (new URL(event.target.action, location.href).pathname === "/lock") tabs.postMessage("locked");
  });
  // A page that Back brings out of the browser's memory shows nothing before the server says that the session is open.
  window.addEventListener("pageshow", async (event) => {
    if (!event.persisted) return;
    hide();
    const told = await answer();
    if (told?.status === 204) { if (!cover) show(); } else shut();
  });

  async function lock() {
    if (cover) return;
    shut();
    tabs.postMessage("locked");
    // Unreachable, the server locks by itself after the same time; until then its page would show this one again.
    const told = await post("/lock", {}).catch(() => null);
    if (told && !changed) leave();
  }

  // Nothing of the page is to be seen, printed, found or reached by a key any more; what was entered waits behind a cover.
  function shut() {
    if (cover) return;
    hide();
    cover = lockCover();
    body.append(cover);
    cover.querySelector("input").focus();
  }

  function leave() {
    leaving = true;
    location.replace("/unlock?to=" + encodeURIComponent(here()));
  }

  function hide() {
    hidden ||= { focus: document.activeElement, scroll: window.scrollY, title: document.title };
    body.classList.add("shut");
    document.title = "Screen locked";
  }

  function show() {
    body.classList.remove("shut");
    document.title = hidden.title;
    window.scrollTo(0, hidden.scroll);
    hidden.focus?.focus?.({ preventScroll: true });
    hidden = null;
  }

  function open() {
    touched = told = Date.now();
    cover?.remove();
    cover = null;
    if (hidden) show();
    whenOpen.splice(0).forEach((go) => go());
  }

  throughLock = () => {
    shut();
    return new Promise((go) => whenOpen.push(go));
  };

  // The password takes the cover away again. It is no dialog: those close by a key of the browser's own.
  function lockCover() {
    const make = (name, text, more = {}) => Object.assign(document.createElement(name), { textContent: text, ...more });
    const cover = make("div", "", { className: "cover" });
    cover.setAttribute("role", "dialog");
    cover.setAttribute("aria-modal", "true");
    cover.setAttribute("aria-labelledby", "cover-title");
    const card = make("form", "", { className: "card", method: "dialog" });
    card.dataset.noGuard = "";
    const kept = changed ? "What you entered is kept. " : "";
    const label = make("label", "Password", { htmlFor: "cover-password" });
    const input = make("input", "", {
      type: "password", id: "cover-password", autocomplete: "current-password", required: true,
    });
    const problem = make("p", "", { className: "problem" });
    problem.setAttribute("role", "alert");
    const actions = make("p", "", { className: "actions" });
    actions.append(make("button", "Unlock", { className: "primary" }));
    const text = make("p", `${kept}Enter your password to go on.`);
    card.append(make("h1", "Screen locked", { id: "cover-title" }), text, label, input, problem, actions);
    cover.append(card);
    card.addEventListener("submit", async (event) => {
      event.preventDefault();
      const told = await post("/unlock", { password: input.value }).catch(() => null);
      input.value = "";
      if (told?.status === 204) {
        tabs.postMessage("open");
        open();
      } else if (told?.status === 401 && !changed) {
        leave();
      } else {
        problem.textContent = told?.status === 422 ? "The password is not right." : "Unlocking failed. Try again.";
        input.focus();
      }
    });
    return cover;
  }

  setInterval(() => {
    if (Date.now() - touched >= idleMs) lock();
  }, 1000);
})();
