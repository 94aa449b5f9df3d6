// The field in which somebody signs: strokes are kept as points, and the picture is only for the eye.
"use strict";

(() => {
  const pad = document.getElementById("pad");
  const kept = document.querySelector("[data-strokes]");
  const clear = document.querySelector("[data-clear]");
  if (!pad || !kept) return;
  const POINTS_MAX = 4000;
  const ink = pad.getContext("2d");
  let strokes = [];
  let drawing = false;
  let points = 0;

  const at = (event) => {
    const box = pad.getBoundingClientRect();
    const clamp = (n, most) => Math.max(0, Math.min(most, Math.round(n)));
    return [clamp(((event.clientX - box.left) / box.width) * 600, 600), clamp(((event.clientY - box.top) / box.height) * 200, 200)];
  };
  ink.lineWidth = 3;
  ink.lineCap = "round";
  ink.lineJoin = "round";

  pad.addEventListener("pointerdown", (event) => {
    event.preventDefault();
    pad.setPointerCapture(event.pointerId);
    drawing = true;
    const point = at(event);
    strokes.push([point]);
    points += 1;
    ink.beginPath();
    ink.moveTo(...point);
  });
  pad.addEventListener("pointermove", (event) => {
    if (!drawing || points >= POINTS_MAX) return;
    const point = at(event);
    strokes[strokes.length - 1].push(point);
    points += 1;
    ink.lineTo(...point);
    ink.stroke();
  });
  const stop = () => {
    drawing = false;
    kept.value = JSON.stringify(strokes);
  };
  pad.addEventListener("pointerup", stop);
  pad.addEventListener("pointercancel", stop);
  clear.addEventListener("click", () => {
    strokes = [];
    points = 0;
    kept.value = "";
    ink.clearRect(0, 0, pad.width, pad.height);
  });
})();
