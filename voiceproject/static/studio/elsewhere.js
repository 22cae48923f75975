/**
 * What is done in another tab of this browser: deleted, named, made, and the key forgotten. Each tab tells the others
 * what it did, so that none shows what is gone or still has a key that its owner took away. No key is told.
 */

const NAME = 'studio';
const channel = typeof BroadcastChannel === 'function' ? new BroadcastChannel(NAME) : null;
const CARDS = ['deleted', 'named'];
const listeners = new Map();

/** Calls `listener(data)` for what another tab tells. */
export function hear(what, listener) {
  listeners.set(what, [...(listeners.get(what) ?? []), listener]);
}

/** Tells the cards of something that was made, wherever they stand on this page. */
function tellCards({ what, id, title }) {
  const event = () => new CustomEvent(`studio:${what}`, { detail: title });
  for (const card of document.querySelectorAll(`[data-id="${CSS.escape(id)}"]`)) card.dispatchEvent(event());
}

/** Tells the other tabs. what: deleted, named, made, voices, or forgotten; the rest is plain data about it. */
export function tell(what, data = {}) {
  channel?.postMessage({ what, ...data });
  if (CARDS.includes(what)) tellCards({ what, ...data }); // The history and the list of what is new show the same.
}

channel?.addEventListener('message', ({ data }) => {
  for (const listener of listeners.get(data?.what) ?? []) listener(data);
});
for (const what of CARDS) hear(what, tellCards);
