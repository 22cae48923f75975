/** What was typed and chosen, and not sent yet: kept in this browser, so that a reload loses nothing. */

const NAME = 'studio';
const STORE = 'kept';
const DAY_MS = 86_400_000;

/** Whose it is: a tab's, and where the key is remembered here the device's too, which a new tab begins with. */
function owners() {
  try {
    const id = sessionStorage.getItem('studio.tab') ?? String(Math.random()).slice(2);
    sessionStorage.setItem('studio.tab', id);
    return localStorage.getItem('studio.key') ? [id, 'device'] : [id];
  } catch {
    return []; // No storage: it lives as long as the page.
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
  const all = owners();
  if (!all.length) return;
  try {
    const rows = await store('readwrite');
    if (!rows) return;
    const changes = all.map((mine) => (
      value === null ? rows.delete(`${mine} ${name}`) : rows.put({ at: Date.now(), value }, `${mine} ${name}`)));
    await Promise.all(changes.map(done));
  } catch {
    // The disk is full, or storage is forbidden: what was typed is still in its field.
  }
}

export async function kept(name) {
  const all = owners();
  try {
    const rows = all.length ? await store('readonly') : null;
    if (!rows) return null;
    const found = await Promise.all(all.map((mine) => done(rows.get(`${mine} ${name}`))));
    return found.find(Boolean)?.value ?? null;
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
    const mine = owners();
    keys.forEach((key, index) => {
      const whose = key.split(' ')[0];
      const stale = whose !== 'device' && Date.now() - values[index].at > DAY_MS;
      if (old ? stale : whose === 'device' || mine.includes(whose)) rows.delete(key);
    });
  } catch {
    // Nothing is kept where nothing can be.
  }
}
