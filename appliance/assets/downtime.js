"use strict";
// Opens the pack with the browser's own cryptography. Nothing is fetched and nothing is kept.
(() => {
  const pack = JSON.parse(document.getElementById("pack").textContent);
  const element = (id) => document.getElementById(id);
  const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const taken = new Date(pack.taken);
  const OLD_MS = 2 * 3600 * 1000;

  function age() {
    const minutes = Math.floor((Date.now() - taken.getTime()) / 60000);
    const [days, hours, rest] = [Math.floor(minutes / 1440), Math.floor(minutes / 60) % 24, minutes % 60];
    const parts = [[days, "day"], [hours, "hour"], [rest, "minute"]].filter(([n]) => n > 0);
    const words = parts.slice(0, 2).map(([n, word]) => `${n} ${word}${n === 1 ? "" : "s"}`).join(" ");
    const old = Date.now() - taken.getTime() > OLD_MS;
    element("age").textContent = minutes < 0 ? "Taken in the future: check this computer's clock" : words ? `${words} old` : "Just taken";
    element("age").className = old || minutes < 0 ? "age old" : "age";
  }
  age();
  setInterval(age, 15000);

  async function open(password) {
    const typed = await crypto.subtle.importKey("raw", new TextEncoder().encode(password), "PBKDF2", false, ["deriveKey"]);
    const stretch = { name: "PBKDF2", hash: "SHA-256", salt: bytes(pack.salt), iterations: pack.iterations };
    const wrapping = await crypto.subtle.deriveKey(stretch, typed, { name: "AES-KW", length: 256 }, false, ["unwrapKey"]);
    const key = await crypto.subtle.unwrapKey("raw", bytes(pack.key), wrapping, "AES-KW", "AES-GCM", false, ["decrypt"]);
    const bound = new TextEncoder().encode(`${pack.taken}\n${pack.shown}\n${pack.practice}`);
    const opened = { name: "AES-GCM", iv: new Uint8Array(12), additionalData: bound };
    return JSON.parse(new TextDecoder().decode(await crypto.subtle.decrypt(opened, key, bytes(pack.data))));
  }

  function show(content) {
    element("open").remove();
    element("title").remove();
    element("tools").hidden = false;
    element("content").innerHTML = content.html;
    element("pdf").addEventListener("click", () => {
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([bytes(content.pdf)], { type: "application/pdf" }));
      link.download = `downtime-${pack.shown.replace(/[^A-Za-z0-9]+/g, "-").replace(/-$/, "")}.pdf`;
      link.click();
    });
    element("print").addEventListener("click", () => window.print());
    const people = [...document.querySelectorAll("article[data-name]")];
    element("find").addEventListener("input", (event) => {
      const words = event.target.value.toLowerCase().split(/[\s,]+/).filter(Boolean);
      for (const person of people) person.hidden = !words.every((word) => person.dataset.name.includes(word));
    });
    element("find").focus();
  }

  element("open").addEventListener("submit", async (event) => {
    event.preventDefault();
    const problem = element("problem");
    problem.textContent = "Opening ...";
    const password = element("password").value.toLowerCase().replace(/\s+/g, "");
    try {
      show(await open(password));
    } catch {
      problem.textContent = "This is not the password of this pack. It may be older than the newest password.";
      element("password").select();
    }
  });
})();
