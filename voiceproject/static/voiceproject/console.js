// The console's own script: htmx without inline styles, the dashboard and live jobs that refresh themselves, waveforms, new keys.
"use strict";

// htmx comes before this file, and writes a <style> into the page when that is ready, which the CSP forbids.
if (window.htmx) {
  htmx.config.includeIndicatorStyles = false;
  htmx.config.allowEval = false;
}

const REFRESH_MS = 10000;
const JOB_REFRESH_MS = 2000;

function replaceInside(box, html) {
  // What is unfolded stays so.
  const open = [...box.querySelectorAll("details")].map((fold) => fold.open);
  box.innerHTML = html;
  box.querySelectorAll("details").forEach((fold, number) => { fold.open = open[number] || fold.open; });
}

// Asks for the inside of a box again and again; `goesOn` says of the new one whether that makes sense.
function refreshBox(box, every, goesOn) {
  const again = () => setTimeout(refresh, every(box));
  const refresh = async () => {
    if (document.hidden) return again();
    try {
      const response = await fetch(box.dataset.refresh, { redirect: "manual", headers: { Accept: "text/html" } });
      if (response.type === "opaqueredirect") return window.location.reload(); // signed out meanwhile
      if (!response.ok) throw new Error(response.status);
      const html = await response.text();
      if (box.contains(document.activeElement) && document.activeElement !== document.body) return again();
      replaceInside(box, html);
      if (!goesOn(box)) return;
    } catch {
      const stale = box.querySelector(".console-stale");
      if (stale) stale.hidden = false;
    }
    again();
  };
  again();
}

function refreshDashboard() {
  const box = document.getElementById("console-numbers");
  if (!box) return;
  const every = () => box.querySelector(".console-pending") ? REFRESH_MS / 5 : REFRESH_MS;
  refreshBox(box, every, () => true);
}

function refreshJob() {
  const box = document.getElementById("console-live");
  if (!box || !box.dataset.refresh) return;
  refreshBox(box, () => JOB_REFRESH_MS, () => {
    if (box.querySelector("[data-live='1']")) return true;
    window.location.reload(); // It has ended: there is something to hear now.
    return false;
  });
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

// select2 names its boxes by what is chosen in them, so by nothing at first: by their labels instead.
function nameChoosers() {
  for (const select of document.querySelectorAll("select.admin-autocomplete")) {
    const label = document.querySelector(`label[for="${select.id}"]`)?.textContent.trim();
    const box = select.nextElementSibling?.querySelector(".select2-selection");
    if (!label || !box) continue;
    box.setAttribute("aria-label", label);
    box.removeAttribute("aria-labelledby");
    box.querySelector("[role=textbox]")?.setAttribute("aria-label", label);
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

// unfold's pages have no main landmark, and its scrolling boxes all have one name.
function nameLandmarks() {
  (document.getElementById("main") ?? document.querySelector(".login #page"))?.setAttribute("role", "main");
  window.addEventListener("load", () => {
    document.querySelectorAll(".simplebar-content-wrapper[aria-label]").forEach((box, number) => {
      if (number) box.setAttribute("aria-label", `${box.getAttribute("aria-label")} ${number + 1}`);
    });
  });
}

document.addEventListener("DOMContentLoaded", () => {
  nameLandmarks();
  window.django?.jQuery?.(nameChoosers); // After Django's own, which makes the boxes.
  refreshDashboard();
  refreshJob();
  drawWaveforms();
  showSecretOnce();
});
