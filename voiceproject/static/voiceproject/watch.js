"use strict";

// What others' scripts draw is looked at again after each of its changes, at most once a frame.
function lookAfterChanges(root, look) {
  let waits = false;
  new MutationObserver(() => {
    if (waits) return;
    waits = true;
    requestAnimationFrame(() => {
      waits = false;
      look(root);
    });
  }).observe(root, { childList: true, subtree: true });
  look(root);
}
