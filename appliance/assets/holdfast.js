// Five small things that HTML alone cannot do; every page works without them.
// 1. The screen locks when nobody has touched it for the practice's idle time; typed text survives behind the cover.
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
  let locking = false;

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

  const answers = () =>
    fetch("/alive", { redirect: "manual", headers: { "hx-request": "true" }, signal: AbortSignal.timeout(ANSWER_MS) })
      .then(() => true, () => false);

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
    while (!(await answers())) {
      note ||= lost();
      await new Promise((done) => setTimeout(done, RETRY_MS));
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

  for (const name of ["pointerdown", "keydown", "wheel", "touchstart"]) {
    document.addEventListener(name, () => {
      touched = Date.now();
      if (!locking && touched - told > KEEP_ALIVE_MS) {
        told = touched;
        fetch("/alive", { redirect: "manual", headers: { "hx-request": "true" } }).catch(() => {});
      }
    }, { passive: true });
  }

  const here = () => location.pathname + location.search;

  async function lock() {
    if (locking) return;
    locking = true;
    if (changed) cover();
    try {
      await post("/lock", {});
    } catch {
      // Unreachable: the server locks by itself after the same time.
    }
    if (!changed) {
      leaving = true;
      location.replace("/unlock?to=" + encodeURIComponent(here()));
    }
  }

  // A cover over the unsaved page; the password takes it away again.
  function cover() {
    const dialog = document.createElement("dialog");
    dialog.className = "cover";
    const card = document.createElement("form");
    card.className = "card";
    card.method = "dialog";
    card.dataset.noGuard = "";
    const title = document.createElement("h1");
    title.textContent = "Screen locked";
    const text = document.createElement("p");
    text.textContent = "What you entered is kept. Enter your password to go on.";
    const problem = document.createElement("p");
    problem.className = "problem";
    problem.setAttribute("role", "alert");
    const label = document.createElement("label");
    label.textContent = "Password";
    label.htmlFor = "cover-password";
    const input = document.createElement("input");
    input.type = "password";
    input.id = "cover-password";
    input.autocomplete = "current-password";
    input.required = true;
    const button = document.createElement("button");
    button.className = "primary";
    button.textContent = "Unlock";
    const actions = document.createElement("p");
    actions.className = "actions";
    actions.append(button);
    card.append(title, text, label, input, problem, actions);
    dialog.append(card);
    body.append(dialog);
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    card.addEventListener("submit", async (event) => {
      event.preventDefault();
      const answer = await post("/unlock", { password: input.value }).catch(() => null);
      input.value = "";
      if (answer && answer.status === 204) {
        locking = false;
        touched = told = Date.now();
        dialog.close();
        dialog.remove();
      } else {
        problem.textContent = answer && answer.status === 422 ? "The password is not right." : "Unlocking failed. Try again.";
        input.focus();
      }
    });
    dialog.showModal();
    input.focus();
  }

  setInterval(() => {
    if (Date.now() - touched >= idleMs) lock();
  }, 1000);
})();
