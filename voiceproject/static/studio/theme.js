// Runs before anything is painted, so that a chosen theme does not flash. "system" follows the browser's.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem('studio.theme');
  } catch {
    // Storage may be forbidden; the browser's own theme is a fine one.
  }
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
})();
