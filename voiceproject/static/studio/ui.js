/** The page's building blocks: elements, icons, tabs, notices, questions, drop zones, a player with its waveform. */

import { clock, inEnglish, knows, language, number, onLanguage, setText, t } from './i18n.js';
import { exchange } from './sound.js';

export const $ = (id) => document.getElementById(id);

/**
 * An element. `t`: its text's key, or [key, values]; `icon`: one in front; `on`: listeners; other names that start with
 * `t-`: attributes from the dictionary; the rest are attributes. Children are elements or strings, never HTML.
 */
export function h(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  if (options.icon) element.append(icon(options.icon));
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null || value === false || name === 'icon') continue;
    if (name === 'on') for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === 't') {
      const target = options.icon ? element.appendChild(document.createElement('span')) : element;
      setText(target, ...[value].flat());
    } else if (name.startsWith('t-')) {
      const [key, values] = [value].flat();
      setText(element, key, values, name.slice(2));
    } else element.setAttribute(name, value === true ? '' : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// --- Icons: strokes on a grid of 24 ----------------------------------------------------------------------------------

const PATHS = {
  wave: 'M4 10v4M8 6v12M12 3v18M16 7v10M20 10v4',
  mic: 'M12 3a3 3 0 0 0-3 3v6a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3zM5 11v1a7 7 0 0 0 14 0v-1M12 19v3',
  file: 'M14 3H6v18h12V7zM14 3v4h4M9 13h6M9 17h6',
  voices: 'M9 11a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM2 21v-1a6 6 0 0 1 6-6h2a6 6 0 0 1 6 6v1M17 4a4 4 0 0 1 0 7M19 15a5 5 0 0 1 3 5v1',
  upload: 'M12 16V4M7 9l5-5 5 5M4 17v3h16v-3',
  download: 'M12 4v12M7 11l5 5 5-5M4 17v3h16v-3',
  music: 'M9 18V5l11-2v13M9 18a3 3 0 1 1-6 0 3 3 0 0 1 6 0zM20 16a3 3 0 1 1-6 0 3 3 0 0 1 6 0z',
  play: 'M7 4v16l13-8z',
  pause: 'M8 5v14M16 5v14',
  stop: 'M6 6h12v12H6z',
  trash: 'M4 7h16M9 7V4h6v3M6 7l1 14h10l1-14M10 11v6M14 11v6',
  refresh: 'M20 11a8 8 0 1 0-2 6M20 4v7h-7',
  key: 'M14 10a4 4 0 1 1-8 0 4 4 0 0 1 8 0zM14 10h7v3M18 10v4',
  check: 'M4 12l5 5L20 6',
  alert: 'M12 3L2 20h20zM12 10v4M12 17v.5',
  cross: 'M6 6l12 12M18 6L6 18',
  save: 'M5 3h11l4 4v14H5zM8 3v6h7V3M8 21v-7h9v7',
  sun: 'M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6L19 19M5 19l1.4-1.4M17.6 6.4L19 5',
  moon: 'M20 14A8 8 0 1 1 10 4a7 7 0 0 0 10 10z',
  auto: 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18zM12 3v18M12 8h6M12 12h9M12 16h7',
  sliders: 'M4 6h10M18 6h2M4 12h2M10 12h10M4 18h8M16 18h4M16 4v4M8 10v4M14 16v4',
  pencil: 'M4 20l1-5L16 4l4 4L9 19zM14 6l4 4',
  share: 'M16 6a3 3 0 1 0 6 0 3 3 0 0 0-6 0zM2 12a3 3 0 1 0 6 0 3 3 0 0 0-6 0zM16 18a3 3 0 1 0 6 0 3 3 0 0 0-6 0zM8 11l8-4M8 13l8 4',
  up: 'M12 20V5M6 11l6-6 6 6',
  down: 'M12 4v15M6 13l6 6 6-6',
  swap: 'M4 8h14M14 4l4 4-4 4M20 16H6M10 12l-4 4 4 4',
  book: 'M5 4h11a3 3 0 0 1 3 3v13H8a3 3 0 0 1-3-3zM5 17a3 3 0 0 1 3-3h11',
  again: 'M4 4v6h6M4 10a8 8 0 1 1 1 7',
};

const SVG = 'http://www.w3.org/2000/svg';

export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('class', `icon icon-${name}`);
  svg.setAttribute('aria-hidden', 'true');
  const path = svg.appendChild(document.createElementNS(SVG, 'path'));
  path.setAttribute('d', PATHS[name]);
  return svg;
}

export function setIcon(element, name) {
  element.querySelector('svg')?.remove();
  element.prepend(icon(name));
}

/** A button with an icon and, unless `quiet`, a text. */
export function button(key, { icon: name, quiet = false, kind = '', onclick, values, ...rest } = {}) {
  const names = quiet ? { 't-aria-label': [key, values], 't-title': [key, values] } : { t: [key, values] };
  return h('button', {
    type: 'button',
    icon: name,
    class: `${kind} ${quiet ? 'icon plain' : ''}`.trim() || undefined,
    on: { click: onclick },
    ...names,
    ...rest,
  });
}

// --- What is said to the reader --------------------------------------------------------------------------------------

// What the server says of a request in just these words, which are told in the reader's language.
const WORDED = ['speak.only_markup', 'speak.no_letters'];

/**
 * Sets what is said of an error. The server's words are English, and tell more than its code: in another language its
 * code's text comes first, and below it they, where they say more.
 */
export function sayError(said, below, { code, message, status }) {
  const worded = WORDED.find((key) => inEnglish(key) === message);
  if (worded) {
    setText(said, worded);
    return;
  }
  const own = `error.${code ?? 'unknown'}`;
  const known = knows(own);
  const plain = () => Boolean(code && message) && (language() === 'en' || !known);
  const text = () => t(known ? own : 'error.unknown', { status: String(status ?? ''), what: message || code || '' });
  setText(said, 'plain', { text: () => (plain() ? message : text()) });
  setText(below, 'plain', { text: () => (code && message && !plain() && message !== inEnglish(own) ? message : '') });
  below.lang = 'en';
}

/** An error in words, what the envelope says of each field, and the request's id. */
export function errorNotice(error, onRetry) {
  const said = h('p');
  const below = h('p', { class: 'small' });
  sayError(said, below, error);
  const details = Object.entries(error.details ?? {})
    .filter(([, value]) => Array.isArray(value))
    .flatMap(([field, values]) => values.map((value) => [field, String(value)]))
    .filter(([, value]) => !error.message.includes(value))
    .map(([field, value]) => h('li', {}, `${field}: ${value}`));
  const small = error.retryAfter ? h('p', { class: 'small', t: ['error.retry_after', { seconds: error.retryAfter }] }) : null;
  // For whoever is asked for help: 32 digits tell the reader nothing.
  const technical = error.requestId
    ? h('details', { class: 'small' }, h('summary', { t: 'error.details' }),
      h('p', { class: 'small' }, h('span', { t: 'error.request_id' }), ' ', h('code', {}, error.requestId)))
    : null;
  const notice = h(
    'div',
    { class: 'notice bad', role: 'alert', icon: 'alert' },
    h('div', {}, said, below, details.length ? h('ul', {}, ...details) : null, small, technical),
  );
  if (onRetry) notice.append(button('try_again', { icon: 'again', onclick: onRetry }));
  return notice;
}

export const hintNotice = (key, values, kind = '') =>
  h('div', { class: `notice ${kind}`, icon: kind === 'warn' ? 'alert' : undefined }, h('p', { t: [key, values] }));

export const noticesOf = (root) => root.querySelector(':scope > .notices') ?? root.querySelector('.notices');

export function showError(root, error) {
  noticesOf(root).replaceChildren(errorNotice(error));
}

export function showHint(root, key, values) {
  noticesOf(root).replaceChildren(hintNotice(key, values, 'warn'));
}

export function addHint(root, key, values) {
  noticesOf(root).append(hintNotice(key, values, 'warn'));
}

export const clearNotices = (root) => noticesOf(root).replaceChildren();

export const empty = (name, key) => h('div', { class: 'empty' }, icon(name), h('p', { t: key }));

let toastTimer;

export function toast(key, values) {
  const element = $('toast');
  setText(element, key, values);
  element.classList.add('shown');
  clearTimeout(toastTimer);
  toastTimer = setTimeout(() => element.classList.remove('shown'), 4000);
}

/** A question with two answers; true where it was the dangerous one. */
export function ask(key, values, yesKey) {
  const dialog = $('ask');
  setText($('ask-text'), key, values);
  setText(dialog.querySelector('.danger'), yesKey);
  dialog.returnValue = 'no';
  dialog.showModal();
  return new Promise((resolve) =>
    dialog.addEventListener('close', () => resolve(dialog.returnValue === 'yes'), { once: true }),
  );
}

// --- Forms -----------------------------------------------------------------------------------------------------------

/** options: [value, key of its text, values]. The selection stays where it still can. */
export function fillSelect(select, options) {
  const chosen = select.value;
  select.replaceChildren(...options.map(([value, key, values]) => h('option', { value, t: [key, values] })));
  if (options.some(([value]) => value === chosen)) select.value = chosen;
}

/** Gives fields their values back: {id: value}; each then says so, as if it had been typed. */
export function setFields(values) {
  for (const [id, value] of Object.entries(values)) {
    const field = $(id);
    if (!field || (field.tagName === 'SELECT' && ![...field.options].some((option) => option.value === value))) continue;
    field.value = value;
    for (const name of ['input', 'change']) field.dispatchEvent(new Event(name));
  }
}

/** Shows a slider's value beside it: `format` gives the text. */
export function bindOutput(input, output, format) {
  const show = () => {
    output.textContent = format(Number(input.value));
    input.setAttribute('aria-valuetext', output.textContent);
  };
  input.addEventListener('input', show);
  onLanguage(show);
  show();
}

export const decibel = (value) => `${value > 0 ? '+' : value < 0 ? '−' : ''}${Math.abs(value)} dB`;

/** A label.drop with a file input in it: files that are chosen, dropped on it, or pasted. */
export function dropZone(zone, onFile) {
  const input = zone.querySelector('input');
  input.addEventListener('change', () => {
    if (input.files.length) onFile(...input.files);
    input.value = '';
  });
  for (const name of ['dragenter', 'dragover']) {
    zone.addEventListener(name, (event) => {
      event.preventDefault();
      zone.classList.add('over');
    });
  }
  for (const name of ['dragleave', 'drop']) zone.addEventListener(name, () => zone.classList.remove('over'));
  zone.addEventListener('drop', (event) => {
    event.preventDefault();
    if (event.dataTransfer.files.length) onFile(...event.dataTransfer.files);
  });
}

/** Tabs with the keys that tabs have. `show(id of the panel)` is called at each change; returns the selector. */
export function tabs(list, show = () => {}) {
  const all = [...list.querySelectorAll('[role=tab]')];
  const select = (panel, focus = false) => {
    for (const tab of all) {
      const here = tab.getAttribute('aria-controls') === panel;
      tab.setAttribute('aria-selected', String(here));
      tab.tabIndex = here ? 0 : -1;
      $(tab.getAttribute('aria-controls')).hidden = !here;
      if (here && focus) tab.focus();
    }
    show(panel);
  };
  list.addEventListener('click', (event) => {
    const tab = event.target.closest('[role=tab]');
    if (tab) select(tab.getAttribute('aria-controls'));
  });
  list.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    if (!step) return;
    event.preventDefault();
    const at = all.indexOf(document.activeElement);
    const next = Number.isFinite(step) ? (at + step + all.length) % all.length : step < 0 ? 0 : all.length - 1;
    select(all[next].getAttribute('aria-controls'), true);
  });
  return select;
}

// --- A player with its waveform --------------------------------------------------------------------------------------

const BAR = 3;
const GAP = 2;
const style = (element, name) => getComputedStyle(element).getPropertyValue(name).trim();

/**
 * The element that plays a Player (sound.js): a button, a waveform that is also a slider, the time.
 * label: [key, values] of what it plays; onError(error): where loading fails.
 */
export function playerView(player, { label, onError = () => {}, extra = [] }) {
  const toggle = h('button', { type: 'button', class: 'round small' }, icon('play'));
  const canvas = h('canvas', { 'aria-hidden': 'true' });
  const slider = h('div', { class: 'waveform', role: 'slider', tabindex: '0', 'aria-valuemin': '0' }, canvas);
  const time = h('span', { class: 'time' });
  setText(slider, 'player.position', { what: () => t(...label) }, 'aria-label');
  const view = h('div', { class: 'player' }, toggle, slider, time, ...extra);

  const draw = () => {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    if (!width) return;
    if (canvas.width !== Math.round(width * ratio)) canvas.width = Math.round(width * ratio);
    if (canvas.height !== Math.round(height * ratio)) canvas.height = Math.round(height * ratio);
    const pen = canvas.getContext('2d');
    pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    pen.clearRect(0, 0, width, height);
    const count = Math.max(1, Math.floor((width + GAP) / (BAR + GAP)));
    const columns = player.hasWaveform ? player.peaks.columns(count) : new Float32Array(count);
    const played = player.duration ? (player.currentTime / player.duration) * count : 0;
    const [ahead, behind] = [style(view, '--wave'), style(view, '--accent')];
    columns.forEach((value, index) => {
      const tall = Math.max(BAR, value * (height - 2));
      pen.fillStyle = index < played ? behind : ahead;
      pen.beginPath();
      pen.roundRect(index * (BAR + GAP), (height - tall) / 2, BAR, tall, BAR / 2);
      pen.fill();
    });
  };
  const showTime = () => {
    const [at, length] = [player.currentTime, player.duration];
    time.textContent = player.playing || at > 0 ? `${clock(at)} / ${clock(length)}` : clock(length);
    slider.setAttribute('aria-valuemax', length.toFixed(1));
    slider.setAttribute('aria-valuenow', at.toFixed(1));
    slider.setAttribute('aria-valuetext', `${clock(at)} / ${clock(length)}`);
    draw();
  };
  let frame = 0;
  const follow = () => {
    showTime();
    frame = player.playing && view.isConnected ? requestAnimationFrame(follow) : 0;
  };
  const show = () => {
    setIcon(toggle, player.playing ? 'pause' : 'play');
    setText(toggle, player.playing ? 'player.pause' : 'player.play', { what: () => t(...label) }, 'aria-label');
    toggle.setAttribute('aria-pressed', String(player.playing));
    view.classList.toggle('waiting', player.waiting);
    if (player.playing && !frame) follow();
    else showTime();
  };
  toggle.addEventListener('click', async () => {
    try {
      await player.toggle();
    } catch (error) {
      if (error?.name !== 'AbortError') onError(error);
    }
  });
  const seekTo = (event) => {
    const box = canvas.getBoundingClientRect();
    player.seek(((event.clientX - box.left) / box.width) * player.duration);
  };
  slider.addEventListener('pointerdown', (event) => {
    if (event.button) return;
    slider.setPointerCapture(event.pointerId);
    seekTo(event);
  });
  slider.addEventListener('pointermove', (event) => slider.hasPointerCapture(event.pointerId) && seekTo(event));
  slider.addEventListener('keydown', (event) => {
    const step = { ArrowRight: 2, ArrowUp: 2, ArrowLeft: -2, ArrowDown: -2 }[event.key];
    if (event.key === ' ' || event.key === 'Enter') toggle.click();
    else if (step) player.seek(player.currentTime + step);
    else if (event.key === 'Home') player.seek(0);
    else if (event.key === 'End') player.seek(player.duration);
    else return;
    event.preventDefault();
  });
  player.addEventListener('change', show);
  player.addEventListener('time', showTime);
  new ResizeObserver(draw).observe(canvas);
  document.addEventListener('studio:theme', draw);
  show();
  return view;
}

/** Hands a Blob to the browser as a download. */
export function saveBlob(blob, name) {
  const url = URL.createObjectURL(blob);
  h('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

/** Bytes beside their limit, in words that tell them apart: 10.04 MB, not 10 MB of 10 MB. */
export function sizes(found, limit) {
  const megabytes = (bytes, digits) => number(bytes / 2 ** 20, digits);
  const digits = [0, 1, 2].find((count) => megabytes(found, count) !== megabytes(limit, count)) ?? 2;
  return { found: () => megabytes(found, digits), limit: () => megabytes(limit, digits) };
}

/**
 * Sounds that are of one thing, such as a song's stems: a button and the key X go from the one that plays, or played
 * last, to the next one, at the same place. players(): those that there are now. Returns the button.
 */
export function comparison(element, players) {
  let last = null;
  const next = async () => {
    const all = players();
    const from = all.find((player) => player.playing) ?? (all.includes(last) ? last : null);
    const to = all[(all.indexOf(from) + 1) % all.length];
    if (!to || to === from) return;
    await exchange(from, to);
    last = to;
    announce('compare.now', { what: () => to.name?.() ?? '' });
  };
  const press = button('compare', { icon: 'swap', 'aria-keyshortcuts': 'X', onclick: (event) => busy(event.currentTarget, next) });
  element.addEventListener('keydown', (event) => {
    if (event.key.toLowerCase() !== 'x' || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest('input, textarea, select')) return;
    event.preventDefault();
    press.click();
  });
  return press;
}

/** Takes a card away; who was in it goes on at the next one, or at the tab that the list belongs to. */
export function removeCard(card) {
  const inside = card.contains(document.activeElement);
  const next = card.nextElementSibling ?? card.previousElementSibling;
  const panel = card.closest('[role=tabpanel]');
  card.remove();
  if (inside) (next?.querySelector('button:not([disabled])') ?? $(panel?.getAttribute('aria-labelledby')))?.focus();
}

/** Says something to a screen reader alone. */
function announce(key, values) {
  setText($('announcer'), key, values);
}

/** Calls once `element` is seen. */
export function whenSeen(element, work) {
  const observer = new IntersectionObserver((entries) => {
    if (!entries.some((entry) => entry.isIntersecting)) return;
    observer.disconnect();
    work();
  });
  observer.observe(element);
}

/** Runs `work` while `element` (a button) is busy; a second press does nothing. */
export async function busy(element, work) {
  if (element.getAttribute('aria-busy') === 'true') return undefined;
  element.setAttribute('aria-busy', 'true');
  try {
    return await work();
  } finally {
    element.removeAttribute('aria-busy');
  }
}
