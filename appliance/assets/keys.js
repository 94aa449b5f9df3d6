// Asks the browser for a key and sends what it answers; the question stands in the page.
"use strict";

(() => {
  const form = document.getElementById("key");
  if (!form) return;
  const status = form.querySelector("[data-key-status]");
  const asking = status.textContent;
  const bytes = (text) => Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
  const text = (buffer) =>
    btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\+/g, "-").replace(/\//g, "_").replace(/=+$/, "");

  const options = () => {
    const asked = JSON.parse(form.dataset.options);
    asked.challenge = bytes(asked.challenge);
    if (asked.user) asked.user.id = bytes(asked.user.id);
    for (const list of [asked.excludeCredentials, asked.allowCredentials]) {
      for (const known of list || []) known.id = bytes(known.id);
    }
    return { publicKey: asked };
  };
  const answer = ({ rawId, response }) =>
    form.dataset.key === "create"
      ? { client_data: text(response.clientDataJSON), attestation: text(response.attestationObject) }
      : {
          id: text(rawId),
          client_data: text(response.clientDataJSON),
          authenticator_data: text(response.authenticatorData),
          signature: text(response.signature),
        };

  const ask = async () => {
    if (!window.PublicKeyCredential) {
      status.textContent = "This browser knows no keys. Use a code from your authenticator.";
      return;
    }
    status.textContent = asking;
    try {
      const credential = await navigator.credentials[form.dataset.key](options());
      form.elements.answer.value = JSON.stringify(answer(credential));
      form.submit();
    } catch {
      status.textContent = "No key answered, or it is known here already. Ask again, or cancel and use a code.";
    }
  };
  form.querySelector("[data-key-again]").addEventListener("click", ask);
  ask();
})();
