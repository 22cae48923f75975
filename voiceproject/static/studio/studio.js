/** The page itself: key, language, theme, sections. What each section does is in the module of its name. */

import * as api from './api.js';
import * as cover from './cover.js';
import * as history from './history.js';
import { hear, tell } from './elsewhere.js';
import { forget } from './kept.js';
import { language, preferredLanguage, setLanguage, setText } from './i18n.js';
import * as speak from './speak.js';
import * as ui from './ui.js';
import { $ } from './ui.js';
import * as usage from './usage.js';
import * as voice from './voice.js';

const stored = (name, value) => {
  try {
    if (value === undefined) return localStorage.getItem(`studio.${name}`);
    localStorage.setItem(`studio.${name}`, value);
  } catch {
    // No storage: the choice lives as long as the page.
  }
  return null;
};

// --- Language and theme ----------------------------------------------------------------------------------------------

const NEXT_LANGUAGE = { en: 'zh-Hans', 'zh-Hans': 'en' };
const THEMES = ['system', 'light', 'dark'];

function showLanguage() {
  const next = NEXT_LANGUAGE[language()];
  $('language').textContent = { en: 'English', 'zh-Hans': '中文' }[next];
  $('language').lang = next;
  setText($('language'), 'language_switch', {}, 'title');
}

function startLanguage() {
  $('language').addEventListener('click', async () => {
    stored('language', NEXT_LANGUAGE[language()]);
    await setLanguage(NEXT_LANGUAGE[language()]);
    showLanguage();
  });
  showLanguage();
}

function startTheme() {
  const press = $('theme');
  let theme = document.documentElement.dataset.theme ?? 'system';
  const show = () => {
    if (theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    ui.setIcon(press, { system: 'auto', light: 'sun', dark: 'moon' }[theme]);
    for (const attribute of ['aria-label', 'title']) setText(press, `theme.${theme}`, {}, attribute);
    document.dispatchEvent(new Event('studio:theme'));
  };
  press.addEventListener('click', () => {
    theme = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
    stored('theme', theme);
    show();
  });
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', show);
  show();
}

/** What the server says of itself, to everybody. */
async function showHealth() {
  const link = $('health');
  try {
    const response = await fetch(link.href, { credentials: 'omit', cache: 'no-store' });
    const { status, checks } = await response.json();
    link.hidden = false;
    link.dataset.status = status;
    setText(link.querySelector('span'), `health.${status}`);
    setText(link, status === 'healthy' || checks?.workers !== false ? 'health.title' : 'health.no_worker', {}, 'title');
  } catch {
    link.hidden = false;
    link.dataset.status = 'unhealthy';
    setText(link.querySelector('span'), 'health.unreachable');
  }
}

// --- Key -------------------------------------------------------------------------------------------------------------

const form = $('key-form');
let open = false;

/** What the key may do and what the engine can; throws where the key is not taken. */
async function look() {
  const state = await api.json('/voice/health');
  const scopes = {};
  try {
    const me = await api.json('/me');
    for (const scope of ['synthesize', 'covers', 'voices', 'usage']) scopes[scope] = me.key.scopes.includes(scope);
  } catch (error) {
    if (error.status === 401) throw error;
    // A server without /me: each list tells whether its scope is there.
    const lists = { synthesize: '/voice/syntheses', covers: '/cover/jobs' };
    for (const [scope, path] of Object.entries(lists)) {
      scopes[scope] = await api.json(`${path}?page_size=1`).then(
        () => true,
        ({ code }) => code !== 'permission_denied',
      );
    }
  }
  const languages = ['auto', ...(state.languages ?? []).filter((tag) => tag !== 'auto')];
  return { scopes, languages, models: state.models ?? [] };
}

function lacking(id, scope, lacks) {
  const section = $(id);
  const box = section.querySelector('.lacking');
  box.hidden = !lacks;
  box.replaceChildren(lacks ? ui.hintNotice('lacks', { scope }, 'warn') : '');
  for (const field of section.querySelector('form').elements) field.disabled = lacks;
}

function show(found) {
  open = true;
  $('welcome').hidden = true;
  $('workspace').hidden = false;
  $('key-button').hidden = false;
  $('key-button').querySelector('code').textContent = api.keyPrefix();
  lacking('speak', 'synthesize', found.scopes.synthesize === false);
  lacking('cover', 'covers', found.scopes.covers === false);
  for (const section of [voice, speak, cover, history]) section.open(found);
  showHash();
}

/** Back to the start. Texts and files that were chosen stay in their fields. */
function leave() {
  open = false;
  api.forgetKey();
  for (const section of [voice, speak, cover, history, usage]) section.close();
  forget();
  $('key').value = '';
  $('welcome').hidden = false;
  $('workspace').hidden = true;
  $('key-button').hidden = true;
  $('key').focus();
}

async function enter(event) {
  event.preventDefault();
  ui.clearNotices(form);
  const key = $('key').value.trim();
  if (!key || !/^[\x21-\x7e]+$/.test(key)) {
    ui.showHint(form, 'key.needed');
    $('key').focus();
    return;
  }
  await ui.busy(form.querySelector('.primary'), async () => {
    api.useKey(key);
    try {
      const found = await look();
      api.keepKey($('remember').checked);
      $('key').value = '';
      show(found);
      $('main').focus();
    } catch (error) {
      ui.showError(form, error);
    }
  });
}

function startKey() {
  form.addEventListener('submit', enter);
  $('key-button').addEventListener('click', async () => {
    if (!(await ui.ask('key.forget_question', {}, 'key.forget'))) return;
    tell('forgotten', { key: api.keyPrefix() });
    leave();
    ui.toast('key.forgotten');
  });
  hear('forgotten', ({ key }) => {
    if (!open || key !== api.keyPrefix()) return;
    leave();
    ui.showHint(form, 'key.forgotten_elsewhere');
  });
  api.onRefused((error) => {
    if (!open) return;
    leave();
    ui.showError(form, error);
  });
}

// --- Sections --------------------------------------------------------------------------------------------------------

const SECTIONS = ['speak', 'cover', 'history', 'usage'];
let selectSection;

function showHash() {
  const name = location.hash.slice(1);
  selectSection(SECTIONS.includes(name) ? name : 'speak');
}

function startSections() {
  selectSection = ui.tabs($('tabs'), (name) => {
    if (location.hash.slice(1) !== name && (name !== 'speak' || location.hash)) window.history.replaceState(null, '', `#${name}`);
    $('workspace').dataset.section = name;
    if (!open) return;
    if (name === 'history') history.show();
    if (name === 'usage') usage.show();
  });
  addEventListener('hashchange', () => open && showHash());
  document.addEventListener('studio:show', ({ detail }) => selectSection(detail));
  // A file that misses its zone would otherwise replace the page, and all that was typed.
  for (const name of ['dragover', 'drop']) addEventListener(name, (event) => event.preventDefault());
}

async function start() {
  for (const element of document.querySelectorAll('[data-icon]')) ui.setIcon(element, element.dataset.icon);
  await setLanguage(preferredLanguage(stored('language')));
  startLanguage();
  startTheme();
  startSections();
  for (const section of [voice, speak, cover, history]) section.start();
  startKey();
  showHealth();
  setInterval(showHealth, 60_000);
  if (!api.storedKey()) {
    $('welcome').hidden = false;
    return;
  }
  try {
    show(await look());
  } catch (error) {
    // A key that is refused is forgotten; where the server cannot be reached it is kept for another try.
    if (error.status === 401) api.forgetKey();
    $('welcome').hidden = false;
    form.querySelector('.notices').replaceChildren(ui.errorNotice(error, error.status === 401 ? null : () => location.reload()));
  }
}

start();
