/** What was made before: speech and covers, newest first, page by page. */

import * as api from './api.js';
import { jobItem } from './cover.js';
import { hear } from './elsewhere.js';
import { synthesisItem } from './speak.js';
import * as ui from './ui.js';
import { $, h } from './ui.js';

const KINDS = {
  'history-syntheses': { path: '/voice/syntheses', scope: 'synthesize', icon: 'wave', empty: 'history.no_speech', item: spokenItem },
  'history-covers': { path: '/cover/jobs', scope: 'covers', icon: 'music', empty: 'history.no_covers', item: coverItem },
};
const PAGE = 20;
const STATUSES = ['succeeded', 'running', 'queued', 'failed', 'canceled'];
const DAYS = ['1', '7', '30'];
const TYPING_MS = 300;

let scopes = {};
let current = 'history-syntheses';
const stale = new Set(Object.keys(KINDS));

function spokenItem(made) {
  return synthesisItem(made).element;
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

const isFiltered = () => Boolean($('history-q').value.trim() || $('history-status').value || $('history-since').value);

/** The query of what is searched for. */
function wanted() {
  const query = new URLSearchParams({ page_size: String(PAGE) });
  if ($('history-q').value.trim()) query.set('q', $('history-q').value.trim());
  if ($('history-status').value) query.set('status', $('history-status').value);
  const days = Number($('history-since').value);
  if (days) query.set('created_after', new Date(Date.now() - days * 86_400_000).toISOString());
  return query;
}

let turn = 0; // Of what was typed, only the last is shown.

async function load(panel, page = null) {
  const kind = KINDS[panel];
  const box = $(panel);
  if (scopes[kind.scope] === false) {
    box.replaceChildren(ui.hintNotice('lacks', { scope: kind.scope }));
    return;
  }
  const mine = page ? turn : (turn += 1);
  if (!page) {
    clear(panel);
    stale.delete(panel);
    box.append(h('p', { class: 'hint center', t: 'loading' }));
  }
  try {
    const { results, next } = await api.json(page ?? `${kind.path}?${wanted()}`);
    if (mine !== turn) return;
    if (!page) box.replaceChildren(h('div', { class: 'list' }));
    const list = box.querySelector('.list');
    box.querySelector(':scope > .more')?.remove();
    list.append(...results.map(kind.item));
    if (next) {
      box.append(ui.button('more_items', { kind: 'more', onclick: (event) => ui.busy(event.currentTarget, () => load(panel, next)) }));
    }
    if (!list.childElementCount) box.replaceChildren(ui.empty(kind.icon, isFiltered() ? 'history.none_found' : kind.empty));
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
  ui.fillSelect($('history-status'), [['', 'history.any'], ...STATUSES.map((status) => [status, `status.${status}`])]);
  ui.fillSelect($('history-since'), [['', 'history.ever'], ...DAYS.map((days) => [days, `history.days_${days}`])]);
  let timer = 0;
  const search = () => {
    Object.keys(KINDS).forEach((panel) => stale.add(panel));
    load(current);
  };
  $('history-q').addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(search, TYPING_MS);
  });
  for (const id of ['history-status', 'history-since']) $(id).addEventListener('change', search);
  $('history-filter').addEventListener('submit', (event) => {
    event.preventDefault();
    clearTimeout(timer);
    search();
  });
  const select = ui.tabs($('history-kinds'), (panel) => {
    current = panel;
    if (!$('history').hidden) show();
  });
  select(current);
  const old = () => Object.keys(KINDS).forEach((panel) => stale.add(panel));
  document.addEventListener('studio:made', old);
  hear('made', old);
  $('history-refresh').addEventListener('click', (event) => ui.busy(event.currentTarget, () => load(current)));
}
