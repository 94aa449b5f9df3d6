// A form while it is written: saved every few seconds, questions that are not asked are hidden, and phrases grow from a word.
// Without this file every question is shown and the button saves.
"use strict";

(() => {
  const form = document.querySelector("form[data-autosave], form[data-questions]");
  if (!form) return;
  const status = document.getElementById("autosaved");
  const EVERY_MS = 3000;
  let dirty = false;
  let saving = false;
  let stopped = false;

  // What is answered: by a field, by whichever of several is chosen, by all that are ticked.
  const answers = (name) => {
    const found = form.elements[name];
    if (!found) return [];
    const fields = found instanceof RadioNodeList ? [...found] : [found];
    return fields.filter((field) => (/^(checkbox|radio)$/.test(field.type) ? field.checked : true))
      .map((field) => field.value.trim()).filter(Boolean);
  };

  // A number counts in the units of the condition only: nothing is converted. "a.NAME" has its unit in "u.NAME".
  const counted = (name, units) => {
    const field = units && form.elements[`u.${name.slice(2)}`];
    return !field || units.includes(field.value.trim()) ? answers(name) : [];
  };

  function isMet({ op, names, kind, is, tick, units, fixed }) {
    if (fixed !== undefined) return fixed;
    let said = op === "exists" ? names.flatMap(answers) : names.flatMap((name) => counted(name, units));
    if (op === "exists") return (said.length > 0) === (is[0] === "yes");
    if (!said.length && tick) said = ["no"];
    const plain = (text) => (kind === "number" ? parseFloat(text.replace(",", ".")) : kind === "time" ? text : text.toLowerCase());
    const some = (fits) => said.some((one) => is.some((wanted) => fits(plain(one), plain(wanted))));
    switch (op) {
      case "=": return some((one, wanted) => one === wanted);
      case "!=": return !some((one, wanted) => one === wanted);
      case ">": return some((one, wanted) => one > wanted);
      case "<": return some((one, wanted) => one < wanted);
      case ">=": return some((one, wanted) => one >= wanted);
      case "<=": return some((one, wanted) => one <= wanted);
      default: return true;
    }
  }

  function ask() {
    for (const field of form.querySelectorAll("[data-if]")) {
      const { any, when } = JSON.parse(field.dataset.if);
      field.hidden = !(any ? when.some(isMet) : when.every(isMet));
    }
  }

  async function save() {
    if (!form.dataset.autosave || !dirty || saving || stopped) return;
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
    if (!form.dataset.autosave || !("phrases" in area.dataset)) return;
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
