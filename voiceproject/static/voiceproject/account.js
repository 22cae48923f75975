// The account's only script: copies a new key.
"use strict";

for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const field = document.querySelector(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(field.value);
    } catch {
      // Without TLS, or where the browser does not allow it: the old way, and the text is selected at least.
      field.select();
      if (!document.execCommand("copy")) return;
    }
    button.parentElement.querySelector("[role=status]").textContent = button.dataset.copied;
  });
}
