/** What was typed and chosen, and not sent yet: kept in this browser, so that a reload loses nothing. */

const NAME = 'studio';
const STORE = 'kept';
const DAY_MS = 86_400_000;

/**
 * Whose it is: {tab, device}. What is kept is the tab's. Where the key is remembered here, a new tab begins with what
 * another one kept last: a row of the device says whose that is, since songs are too large to be kept twice.
 */
function owner() {
  try {
    const tab = sessionStorage.getItem('studio.tab') ?? String(Math.random()).slice(2);
    sessionStorage.setItem('studio.tab', tab);
    return { tab, device: Boolean(localStorage.getItem('studio.key')) };
  } catch {
    return null; // No storage: it lives as long as the page.
  }
}

const done = (request) =>
  new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

let opened = null;

function database() {
  opened ??= new Promise((resolve) => {
    try {
      const request = indexedDB.open(NAME, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(STORE);
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => resolve(null);
    } catch {
      resolve(null);
    }
  });
  return opened;
}

async function store(mode) {
  const base = await database();
  return base?.transaction(STORE, mode).objectStore(STORE) ?? null;
}

/** Keeps a value (text, files, plain objects) under a name; null forgets it. */
export async function keep(name, value) {
  const mine = owner();
  if (!mine) return;
  try {
    const rows = await store('readwrite');
    if (!rows) return;
    const at = Date.now();
    const put = (key, row) => done(value === null ? rows.delete(key) : rows.put(row, key));
    const changes = [put(`${mine.tab} ${name}`, { at, value })];
    if (mine.device) changes.push(put(`device ${name}`, { at, tab: mine.tab }));
    await Promise.all(changes);
  } catch {
    // The disk is full, or storage is forbidden: what was typed is still in its field.
  }
}

export async function kept(name) {
  const mine = owner();
  try {
    const rows = mine ? await store('readonly') : null;
    if (!rows) return null;
    let found = await done(rows.get(`${mine.tab} ${name}`));
    if (!found && mine.device) found = await done(rows.get(`device ${name}`));
    if (found?.tab) found = await done(rows.get(`${found.tab} ${name}`));
    return found?.value ?? null;
  } catch {
    return null;
  }
}

/** Forgets all of this tab and this device; with the time, only what closed tabs have left for more than a day. */
export async function forget({ old = false } = {}) {
  try {
    const rows = await store('readwrite');
    if (!rows) return;
    const [keys, values] = await Promise.all([done(rows.getAllKeys()), done(rows.getAll())]);
    const tab = owner()?.tab;
    const of = (key) => key.split(' ')[0];
    // What a new tab would begin with, whichever tab has kept it.
    const pointed = new Set(keys.flatMap((key, index) => (
      of(key) === 'device' ? [key, `${values[index].tab} ${key.slice('device '.length)}`] : [])));
    keys.forEach((key, index) => {
      const stale = !pointed.has(key) && Date.now() - values[index].at > DAY_MS;
      if (old ? stale : pointed.has(key) || of(key) === tab) rows.delete(key);
    });
  } catch {
    // Nothing is kept where nothing can be.
  }
}
