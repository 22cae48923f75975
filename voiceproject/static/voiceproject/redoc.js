// Redoc shows its maker's logo, from its maker's host: no page of ours asks another host for anything.
"use strict";

const foreign = (image, url) => {
  image.hidden = new URL(url, location.href).host !== location.host;
  return image.hidden;
};
const setAttribute = Element.prototype.setAttribute;
Element.prototype.setAttribute = function (name, value) {
  if (!(this instanceof HTMLImageElement && name === "src" && foreign(this, value))) setAttribute.call(this, name, value);
};
// React sets it a second time once the image is in the page.
const source = Object.getOwnPropertyDescriptor(HTMLImageElement.prototype, "src");
Object.defineProperty(HTMLImageElement.prototype, "src", {
  ...source,
  set(url) {
    if (!foreign(this, url)) source.set.call(this, url);
  },
});

// What it leaves out for those who do not see the page, or have no mouse: levels of headings, and boxes that scroll.
const nameLevels = (root) => {
  for (const heading of root.querySelectorAll("h5:not([aria-level])")) heading.setAttribute("aria-level", "3");
  for (const box of root.querySelectorAll("pre:not([tabindex])")) box.tabIndex = 0;
};

document.addEventListener("DOMContentLoaded", () => lookAfterChanges(document.querySelector("main"), nameLevels));
