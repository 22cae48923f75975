/** Texts in the reader's language. A dictionary is a flat JSON object of key -> text with {placeholders}. */

const LANGUAGES = { en: './en.json', 'zh-Hans': './zh-hans.json' };
const dictionaries = {};
const listeners = new Set();
let current = 'en';

export const language = () => current;
export const onLanguage = (listener) => listeners.add(listener);

/** The language that was chosen, else the first of the browser's that there is. */
export function preferredLanguage(chosen) {
  if (chosen in LANGUAGES) return chosen;
  for (const tag of navigator.languages ?? [navigator.language]) {
    if (/^zh\b/i.test(tag)) return 'zh-Hans';
    if (/^en\b/i.test(tag)) return 'en';
  }
  return 'en';
}

export async function setLanguage(tag) {
  for (const name of new Set(['en', tag])) {
    dictionaries[name] ??= await (await fetch(new URL(LANGUAGES[name], import.meta.url))).json();
  }
  current = tag;
  document.documentElement.lang = tag;
  translate(document);
  for (const listener of listeners) listener(tag);
}

/** `values` may hold functions, which are asked at each change of language: for dates and numbers. */
export function t(key, values = {}) {
  const text = dictionaries[current]?.[key] ?? dictionaries.en?.[key] ?? key;
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return String(typeof value === 'function' ? value() : (value ?? ''));
  });
}

export const knows = (key) => key in (dictionaries.en ?? {});

export const inEnglish = (key) => dictionaries.en?.[key] ?? '';

// --- Elements that keep their text when the language changes ---------------------------------------------------------

const bound = new WeakMap();

/** Gives an element a text, or an attribute one; `key` null clears it. */
export function setText(element, key, values, attribute = 'textContent') {
  if (!bound.has(element)) bound.set(element, {});
  bound.get(element)[attribute] = key === null ? null : [key, values];
  element.setAttribute('data-i18n', '');
  apply(element);
}

function apply(element) {
  for (const [attribute, entry] of Object.entries(bound.get(element) ?? {})) {
    const text = entry ? t(...entry) : '';
    if (attribute === 'textContent') element.textContent = text;
    else element.setAttribute(attribute, text);
  }
}

/** Fills a part of the document: `data-t="key"` is its text, `data-t-title="key"` an attribute. */
function translate(root) {
  for (const element of root.querySelectorAll('*')) {
    for (const { name, value } of [...element.attributes]) {
      if (name === 'data-t') setText(element, value);
      else if (name.startsWith('data-t-')) setText(element, value, undefined, name.slice('data-t-'.length));
    }
    if (element.hasAttribute('data-i18n')) apply(element);
  }
}

// --- Numbers ---------------------------------------------------------------------------------------------------------

export const number = (value, digits = 0) =>
  value.toLocaleString(current, { minimumFractionDigits: 0, maximumFractionDigits: digits });

/** A moment, as much of it as tells it from others: today's by its time, this year's without the year. */
export function dateTime(iso) {
  const [when, now] = [new Date(iso), new Date()];
  if (when.toDateString() === now.toDateString()) return when.toLocaleTimeString(current, { timeStyle: 'short' });
  const year = when.getFullYear() === now.getFullYear() ? undefined : 'numeric';
  return when.toLocaleString(current, { year, month: 'short', day: 'numeric', hour: 'numeric', minute: '2-digit' });
}

export const day = (iso) =>
  new Date(iso).toLocaleDateString(current, { month: 'short', day: 'numeric', timeZone: 'UTC' });

/** Seconds as 3:05, or 1:02:05. */
export function clock(seconds) {
  const whole = Math.max(0, Math.floor(Number.isFinite(seconds) ? seconds : 0));
  const two = (value) => String(value).padStart(2, '0');
  const [hours, minutes] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60];
  return hours ? `${hours}:${two(minutes)}:${two(whole % 60)}` : `${minutes}:${two(whole % 60)}`;
}

/** Seconds of sound that was made, in words. */
export function amount(seconds) {
  if (seconds < 60) return t('amount.seconds', { n: number(seconds, 1) });
  if (seconds < 3600) return t('amount.minutes', { n: number(seconds / 60, 1) });
  return t('amount.hours', { n: number(seconds / 3600, 1) });
}
