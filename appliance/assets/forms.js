// A form while it is written: saved every few seconds, questions that are not asked are hidden, and phrases grow from a word.
// Without this file every question is shown and the button saves.
"use strict";

(() => {
  const form = document.querySelector("form[data-autosave]");
  if (!form) return;
  const status = document.getElementById("autosaved");
  const EVERY_MS = 3000;
  let dirty = false;
  let saving = false;
  let stopped = false;

  const value = (name) => {
    const found = form.elements[`a.${name}`];
    if (!found) return "";
    if (found.type === "checkbox") return found.checked ? "yes" : "no";
    return found.value || "";
  };

  function ask() {
    for (const field of form.querySelectorAll("[data-if]")) {
      const [, name, sign, answer] = field.dataset.if.match(/^(\S+) (=|!=) (.*)$/) || [];
      const same = value(name).toLowerCase() === (answer || "").toLowerCase();
      field.hidden = name ? same !== (sign === "=") : false;
    }
  }

  async function save() {
    if (!dirty || saving || stopped) return;
    saving = true;
    dirty = false;
    try {
      const answer = await fetch(form.dataset.autosave, {
        method: "POST", redirect: "manual", headers: { "hx-request": "true" }, body: new URLSearchParams(new FormData(form)),
      });
      if (answer.ok) {
        const { version, values } = await answer.json();
        form.elements.version.value = version;
        for (const [name, shown] of Object.entries(values)) if (form.elements[name]) form.elements[name].value = shown;
        status.textContent = `Saved at ${new Date().toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" })}`;
        status.className = "hint";
      } else if (answer.status === 409) {
        stopped = true;
        status.textContent = "Somebody else changed this form. Press “Save draft” to put both together.";
        status.className = "problem";
      } else {
        throw new Error("refused");
      }
    } catch {
      dirty = true;
      status.textContent = "Connection lost. What you typed stays on this page and is sent when the connection is back.";
      status.className = "problem";
    }
    saving = false;
  }

  form.addEventListener("input", () => { dirty = true; ask(); });
  form.addEventListener("change", () => { dirty = true; ask(); });
  setInterval(save, EVERY_MS);
  ask();

  // ".word " at the end of what was typed becomes the phrase of that name.
  let phrases = null;
  const load = async () => {
    if (phrases) return phrases;
    const answer = await fetch("/phrases.json", { headers: { "hx-request": "true" } }).catch(() => null);
    phrases = answer && answer.ok ? await answer.json() : {};
    return phrases;
  };
  form.addEventListener("input", async (event) => {
    const area = event.target;
    if (!("phrases" in area.dataset)) return;
    const before = area.value.slice(0, area.selectionStart);
    const found = before.match(/(^|\s)\.([a-z0-9-]+)\s$/);
    if (!found) return;
    const phrase = (await load())[found[2]];
    if (phrase === undefined) return;
    const start = before.length - found[2].length - 2;
    area.setRangeText(`${phrase} `, start, before.length, "end");
    dirty = true;
  });
})();
