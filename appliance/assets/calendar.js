// Moves appointments in the grid: by dragging, or with Alt and the arrow keys and then Enter. The server decides; where it
// refuses, the appointment's own page says why and offers what is possible. Without this file that page does it all.
"use strict";

(() => {
  const calendar = document.querySelector(".calendar");
  const status = document.getElementById("cal-status");
  if (!calendar) return;
  const first = Number(calendar.dataset.first);
  const row = Number(calendar.dataset.row);
  const columns = [...calendar.querySelectorAll(".rows-of[data-day]")];
  const csrf = document.body.dataset.csrf;
  let ghost = null;

  const two = (n) => String(n).padStart(2, "0");
  const clock = (minute) => `${two(Math.floor(minute / 60))}:${two(minute % 60)}`;
  const minuteOf = (entry) => {
    const [h, m] = entry.querySelector("b").textContent.split(" ")[0].split(":");
    return Number(h) * 60 + Number(m);
  };

  // Where the entry would go: { entry, column, minute }.
  function show(place) {
    clear();
    ghost = { ...place, box: document.createElement("div") };
    ghost.box.className = "ghost";
    ghost.box.style.gridRowStart = String(Math.round((place.minute - first) / row) + 1);
    ghost.box.style.gridRowEnd = `span ${Math.max(2, Math.ceil(Number(place.entry.dataset.minutes) / row))}`;
    ghost.box.textContent = clock(place.minute);
    columns[place.column].append(ghost.box);
    const heading = columns[place.column].parentElement.querySelector(".name").textContent;
    status.textContent = `To ${clock(place.minute)}, ${heading}. Enter moves it there, Escape leaves it.`;
  }

  function clear() {
    if (ghost) ghost.box.remove();
    ghost = null;
  }

  async function move({ entry, column, minute }) {
    const from = entry.closest(".rows-of").dataset;
    const to = columns[column].dataset;
    const fields = {
      patient: entry.dataset.patient || "", version: entry.dataset.version,
      day: to.day, time: clock(minute), from: from.actor, with: to.actor,
    };
    const own = `/schedule/${encodeURIComponent(entry.dataset.id)}`;
    const answer = await fetch(`${own}/move`, {
      method: "POST", redirect: "manual", body: new URLSearchParams(fields),
      headers: { "x-csrf-token": csrf, "hx-request": "true" },
    }).catch(() => null);
    if (answer && answer.status === 204) {
      location.reload();
    } else if (answer && answer.status === 409) {
      status.textContent = await answer.text();
      location.assign(`${own}?${new URLSearchParams({ day: to.day, time: fields.time, with: to.kind === "practitioner" ? to.actor : "" })}`);
    } else {
      status.textContent = "It was not moved: the server did not answer. Reload the page and try again.";
      clear();
    }
  }

  const clampMinute = (minute) => Math.max(first, Math.min(24 * 60 - row, Math.round(minute / row) * row));

  calendar.addEventListener("pointerdown", (event) => {
    const entry = event.target.closest(".appt[data-movable]");
    // A finger scrolls; it opens the appointment and moves it there.
    if (!entry || event.button !== 0 || event.pointerType === "touch") return;
    const offset = event.clientY - entry.getBoundingClientRect().top;
    const start = { x: event.clientX, y: event.clientY };
    let dragging = false;
    const onMove = (e) => {
      if (!dragging && Math.hypot(e.clientX - start.x, e.clientY - start.y) < 6) return;
      dragging = true;
      entry.classList.add("dragged");
      const column = columns.findIndex((c) => {
        const box = c.getBoundingClientRect();
        return e.clientX >= box.left && e.clientX < box.right;
      });
      if (column < 0) return;
      const box = columns[column].getBoundingClientRect();
      const height = parseFloat(getComputedStyle(columns[column]).gridAutoRows);
      show({ entry, column, minute: clampMinute(first + ((e.clientY - offset - box.top) / height) * row) });
    };
    const stop = () => {
      removeEventListener("pointermove", onMove);
      removeEventListener("pointerup", onUp);
      removeEventListener("pointercancel", onCancel);
      entry.classList.remove("dragged");
    };
    const onUp = () => {
      stop();
      if (!dragging) return;
      entry.addEventListener("click", (e) => e.preventDefault(), { once: true });
      if (ghost) move(ghost);
    };
    const onCancel = () => { stop(); clear(); };
    addEventListener("pointermove", onMove);
    addEventListener("pointerup", onUp);
    addEventListener("pointercancel", onCancel);
  });

  // Who goes on to something else leaves the appointment where it was.
  document.addEventListener("focusin", (event) => {
    if (!ghost || ghost.entry.contains(event.target)) return;
    clear();
    status.textContent = "It stays where it was.";
  });

  calendar.addEventListener("keydown", (event) => {
    const entry = event.target.closest(".appt[data-movable]");
    if (!entry) return;
    const here = ghost && ghost.entry === entry ? ghost : { entry, column: columns.indexOf(entry.closest(".rows-of")), minute: minuteOf(entry) };
    const steps = { ArrowUp: [0, -row], ArrowDown: [0, row], ArrowLeft: [-1, 0], ArrowRight: [1, 0] };
    if (event.altKey && steps[event.key]) {
      event.preventDefault();
      const [across, down] = steps[event.key];
      const column = Math.max(0, Math.min(columns.length - 1, here.column + across));
      show({ entry, column, minute: clampMinute(here.minute + down) });
    } else if (event.key === "Enter" && ghost && ghost.entry === entry) {
      event.preventDefault();
      move(ghost);
    } else if (event.key === "Escape" && ghost) {
      clear();
      status.textContent = "It stays where it was.";
    }
  });
})();
