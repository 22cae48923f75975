/** What was made before: speech and covers, newest first, page by page. */

import * as api from './api.js';
import { amount, dateTime } from './i18n.js';
import { jobItem } from './cover.js';
import { synthesisItem } from './speak.js';
import * as ui from './ui.js';
import { $, h } from './ui.js';

const KINDS = {
  'history-syntheses': { path: '/voice/syntheses', scope: 'synthesize', icon: 'wave', empty: 'history.no_speech', item: spokenItem },
  'history-covers': { path: '/cover/jobs', scope: 'covers', icon: 'music', empty: 'history.no_covers', item: coverItem },
};
const PAGE = 20;

let scopes = {};
let current = 'history-syntheses';
const stale = new Set(Object.keys(KINDS));

function spokenItem(made) {
  const { element, meta } = synthesisItem(made);
  if (made.duration_seconds) meta.append(h('span', { t: ['plain', { text: () => amount(made.duration_seconds) }] }));
  meta.append(h('time', { datetime: made.created_at, t: ['plain', { text: () => dateTime(made.created_at) }] }));
  return element;
}

function coverItem(job) {
  return jobItem(job, {
    onNew: (fresh) => {
      const element = coverItem(fresh);
      $('history-covers').querySelector('.list').prepend(element);
      element.focus();
    },
  });
}

function clear(panel) {
  for (const item of $(panel).querySelectorAll('.job')) item.dispatchEvent(new Event('studio:stop'));
  $(panel).replaceChildren();
}

async function load(panel, page = null) {
  const kind = KINDS[panel];
  const box = $(panel);
  if (scopes[kind.scope] === false) {
    box.replaceChildren(ui.hintNotice('lacks', { scope: kind.scope }));
    return;
  }
  if (!page) {
    clear(panel);
    stale.delete(panel);
    box.append(h('p', { class: 'hint center', t: 'loading' }));
  }
  try {
    const { results, next } = await api.json(page ?? `${kind.path}?page_size=${PAGE}`);
    if (!page) box.replaceChildren(h('div', { class: 'list' }));
    const list = box.querySelector('.list');
    box.querySelector(':scope > .more')?.remove();
    list.append(...results.map(kind.item));
    if (next) {
      box.append(ui.button('more_items', { kind: 'more', onclick: (event) => ui.busy(event.currentTarget, () => load(panel, next)) }));
    }
    if (!list.childElementCount) box.replaceChildren(ui.empty(kind.icon, kind.empty));
  } catch (error) {
    const notice = ui.errorNotice(error, () => load(panel, page));
    if (page) box.append(notice);
    else box.replaceChildren(notice);
  }
}

export function show() {
  if (stale.has(current)) load(current);
}

export function open(found) {
  ({ scopes } = found);
  for (const panel of Object.keys(KINDS)) stale.add(panel);
}

export function close() {
  for (const panel of Object.keys(KINDS)) clear(panel);
}

export function start() {
  const select = ui.tabs($('history-kinds'), (panel) => {
    current = panel;
    if (!$('history').hidden) show();
  });
  select(current);
  document.addEventListener('studio:made', () => Object.keys(KINDS).forEach((panel) => stale.add(panel)));
  $('history-refresh').addEventListener('click', (event) => ui.busy(event.currentTarget, () => load(current)));
}
