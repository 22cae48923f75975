// The console's own script: htmx without inline styles, the dashboard that refreshes itself, waveforms, new keys.
"use strict";

// htmx comes before this file, and writes a <style> into the page when that is ready, which the CSP forbids.
if (window.htmx) {
  htmx.config.includeIndicatorStyles = false;
  htmx.config.allowEval = false;
}

const REFRESH_MS = 10000;

function refreshDashboard() {
  const box = document.getElementById("console-numbers");
  if (!box) return;
  const again = () => setTimeout(refresh, box.querySelector(".console-pending") ? REFRESH_MS / 5 : REFRESH_MS);
  const refresh = async () => {
    if (document.hidden) return again();
    try {
      const response = await fetch(box.dataset.refresh, { redirect: "manual", headers: { Accept: "text/html" } });
      if (response.type === "opaqueredirect") return window.location.reload(); // signed out meanwhile
      if (!response.ok) throw new Error(response.status);
      box.innerHTML = await response.text();
    } catch {
      box.querySelector(".console-stale").hidden = false;
    }
    again();
  };
  again();
}

function drawWaveforms() {
  for (const wave of document.querySelectorAll("[data-waveform]")) {
    const audio = wave.parentElement.querySelector("audio");
    const url = wave.dataset.waveform;
    const image = new Image();
    image.onload = () => { wave.style.mask = `url("${url}") center / 100% 100% no-repeat`; };
    image.src = url;
    const show = () => wave.style.setProperty("--played", `${(100 * audio.currentTime) / (audio.duration || 1)}%`);
    audio.addEventListener("timeupdate", show);
    audio.addEventListener("seeked", show);
    wave.addEventListener("click", (event) => {
      const box = wave.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      const seek = () => { audio.currentTime = share * audio.duration; };
      if (audio.readyState > 0) seek();
      else audio.addEventListener("loadedmetadata", seek, { once: true });
      audio.play();
    });
  }
}

function showSecretOnce() {
  const page = document.querySelector("[data-replace-url]");
  // A reload must not send the form again: it would make another key.
  if (page) history.replaceState(null, "", page.dataset.replaceUrl);
  for (const button of document.querySelectorAll("[data-copy]")) {
    button.addEventListener("click", () => {
      const text = document.querySelector(button.dataset.copy);
      if (navigator.clipboard) navigator.clipboard.writeText(text.textContent);
      else window.getSelection().selectAllChildren(text);
    });
  }
}

document.addEventListener("DOMContentLoaded", () => {
  refreshDashboard();
  drawWaveforms();
  showSecretOnce();
});
