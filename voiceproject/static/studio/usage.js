/** What this key may do, what is left of its limits, and what was used, day by day. */

import * as api from './api.js';
import { amount, day, number, setText, t } from './i18n.js';
import * as ui from './ui.js';
import { $, h } from './ui.js';

const DAYS = 30;
const MEASURES = ['audio_seconds', 'requests', 'characters'];

const shownAs = (measure, value) => (measure === 'audio_seconds' ? amount(value) : number(value));

const megabytes = (value) => t('amount.megabytes', { n: number(value / 1e6) });

/** Limits in the order in which they are met: their name in /me, how they are written, what is left of them there. */
const LIMITS = [
  ['requests_per_minute', number],
  ['max_running_jobs', number],
  ['max_queued_jobs', number, 'queued_jobs'],
  ['monthly_audio_seconds', amount, 'audio_seconds'],
  ['max_storage_bytes', megabytes, 'storage_bytes'],
];

function limits(me) {
  const rows = LIMITS.filter(([name]) => typeof me.limits?.[name] === 'number').map(([name, format, remainder]) => {
    const limit = me.limits[name];
    const left = remainder ? me.remaining?.[remainder] : undefined;
    const told = typeof left === 'number';
    const meter = told && limit > 0
      ? h('meter', { min: '0', max: String(limit), value: String(Math.max(0, limit - left)), high: String(limit * 0.9), 't-aria-label': `limit.${name}` })
      : null;
    const words = told
      ? h('span', { class: 'hint', t: ['usage.left_of', { left: () => format(left), limit: () => format(limit) }] })
      : h('span', { class: 'hint', t: ['plain', { text: () => format(limit) }] });
    return h('li', {}, h('span', { class: 'split' }, h('span', { t: `limit.${name}` }), words), meter);
  });
  const { audio_seconds_this_month: audio, storage_bytes: stored } = me.usage ?? {};
  if (typeof audio === 'number' && me.limits?.monthly_audio_seconds == null) {
    rows.push(h('li', { class: 'split' }, h('span', { t: 'limit.monthly_audio_seconds' }), h('span', { class: 'hint', t: ['plain', { text: () => amount(audio) }] })));
  }
  if (typeof stored === 'number' && me.limits?.max_storage_bytes == null) {
    rows.push(h('li', { class: 'split' }, h('span', { t: 'limit.max_storage_bytes' }), h('span', { class: 'hint', t: ['plain', { text: () => megabytes(stored) }] })));
  }
  return h('ul', { class: 'limits' }, ...rows);
}

function about(me) {
  const scopes = me.key?.scopes ?? [];
  return h('div', { class: 'card stack' },
    h('h2', { t: ['usage.of', { name: me.username ?? '' }] }),
    h('ul', { class: 'chips', 't-aria-label': 'usage.scopes' },
      ...['synthesize', 'covers', 'voices', 'usage', 'keys'].map((scope) => h('li', {
        class: scopes.includes(scope) ? 'good' : 'off', icon: scopes.includes(scope) ? 'check' : 'cross', t: `scope.${scope}`,
      }))),
    limits(me));
}

/** Bars of one measure for the last days, with the same numbers as a table for those who do not see bars. */
function chart(items) {
  const byDay = new Map(items.map((item) => [item.day, item]));
  const days = Array.from({ length: DAYS }, (_, index) => {
    const date = new Date(Date.now() - (DAYS - 1 - index) * 86_400_000).toISOString().slice(0, 10);
    return byDay.get(date) ?? { day: date, requests: 0, audio_seconds: 0, characters: 0, engine_seconds: 0 };
  });
  const select = h('select', { 't-aria-label': 'usage.measure' });
  ui.fillSelect(select, MEASURES.map((measure) => [measure, `measure.${measure}`]));
  const bars = h('div', { class: 'bars', 'aria-hidden': 'true' });
  const body = h('tbody');
  const draw = () => {
    const measure = select.value;
    const most = Math.max(...days.map((one) => one[measure]), 0);
    bars.replaceChildren(...days.map((one) => {
      const bar = h('i', { class: one[measure] ? '' : 'none' });
      bar.style.height = `${most ? Math.max(2, (one[measure] / most) * 100) : 2}%`;
      const column = h('div', { class: 'bar' }, bar);
      setText(column, 'usage.bar', { day: () => day(one.day), value: () => shownAs(measure, one[measure]) }, 'title');
      return column;
    }));
    body.replaceChildren(...days.filter((one) => one.requests).reverse().map((one) => h('tr', {},
      h('th', { scope: 'row', t: ['plain', { text: () => day(one.day) }] }),
      ...MEASURES.map((name) => h('td', { t: ['plain', { text: () => shownAs(name, one[name]) }] })))));
  };
  select.addEventListener('change', draw);
  draw();
  const ends = h('div', { class: 'split small' }, h('span', { t: ['plain', { text: () => day(days[0].day) }] }), h('span', { t: 'usage.today' }));
  const table = h('details', {}, h('summary', { t: 'usage.table' }),
    h('div', { class: 'scroll', role: 'region', tabindex: '0', 't-aria-label': 'usage.table' }, h('table', {}, h('thead', {}, h('tr', {}, h('th', { scope: 'col', t: 'usage.day' }), ...MEASURES.map((name) => h('th', { scope: 'col', t: `measure.${name}` })))), body)));
  return [h('div', { class: 'split' }, h('h2', { t: 'usage.title' }), select), bars, ends, table];
}

async function usage() {
  const from = new Date(Date.now() - (DAYS - 1) * 86_400_000).toISOString().slice(0, 10);
  const { items, total } = await api.json(`/usage?group_by=day&from=${from}`);
  const sums = MEASURES.map((measure) => h('div', { class: 'sum' },
    h('strong', { t: ['plain', { text: () => shownAs(measure, total?.[measure] ?? 0) }] }), h('span', { class: 'hint', t: `measure.${measure}` })));
  return h('div', { class: 'card stack' }, ...chart(items), h('div', { class: 'sums' }, ...sums));
}

const missing = (error) => error.status === 404;

export async function show() {
  const box = $('usage');
  box.replaceChildren(h('p', { class: 'hint center', t: 'loading' }));
  const parts = await Promise.allSettled([api.json('/me').then(about), usage()]);
  if (parts.every((part) => part.reason && missing(part.reason))) {
    box.replaceChildren(ui.empty('wave', 'usage.not_offered'));
    return;
  }
  const shown = parts.map((part) => {
    if (part.status === 'fulfilled') return part.value;
    if (part.reason.code === 'permission_denied') return ui.hintNotice('lacks', { scope: part.reason.details.scope ?? 'usage' });
    return missing(part.reason) ? null : ui.errorNotice(part.reason, show);
  });
  box.replaceChildren(...shown.filter(Boolean));
}

export function close() {
  $('usage').replaceChildren();
}
