/** A long text as paragraphs: each has takes of its own, and those that are chosen become one recording, or subtitles. */

import * as api from './api.js';
import { clock, number, setText, t } from './i18n.js';
import { keep, kept } from './kept.js';
import { fileName } from './names.js';
import { FilePlayer } from './sound.js';
import * as ui from './ui.js';
import { $, h } from './ui.js';
import * as voice from './voice.js';

const MAX_CHARACTERS = 5000;
const MAX_PARAGRAPHS = 200;
const EXPORTS = ['wav', 'mp3', 'flac', 'opus', 'srt', 'vtt'];

/** {text, takes: [{id, voice, speed, seed, seconds}], chosen: the id of a take} of each, and what shows it. */
let paragraphs = [];
let running = null;
let settings = () => new FormData(); // The form's, as speak.js has them.

const section = $('doc');

const remember = () => keep('doc', paragraphs.length ? paragraphs.map(({ text, takes, chosen }) => ({ text, takes, chosen })) : null);

// --- One paragraph ---------------------------------------------------------------------------------------------------

function add({ text = '', takes = [], chosen = null } = {}, at = paragraphs.length) {
  const one = { text, takes: [...takes], chosen, players: new Map() };
  const area = h('textarea', { rows: '3', dir: 'auto', maxlength: String(MAX_CHARACTERS), 't-aria-label': ['doc.paragraph', { number: () => number(paragraphs.indexOf(one) + 1) }] });
  area.value = text;
  area.addEventListener('input', () => {
    one.text = area.value;
    one.element.classList.toggle('changed', isChanged(one));
    remember();
  });
  one.notices = h('div', { class: 'notices' });
  one.list = h('div', { class: 'takes' });
  one.speak = ui.button('doc.take', { icon: 'play', onclick: (event) => attempt(event.currentTarget, one) });
  const move = (key, icon, step) => ui.button(key, { icon, quiet: true, onclick: (event) => {
    const press = event.currentTarget;
    const from = paragraphs.indexOf(one);
    const to = from + step;
    if (to < 0 || to >= paragraphs.length) return;
    paragraphs.splice(from, 1);
    paragraphs.splice(to, 0, one);
    if (step < 0) paragraphs[to + 1].element.before(one.element);
    else paragraphs[to - 1].element.after(one.element);
    press.focus();
    changed();
  } });
  one.element = h('article', { class: 'item paragraph' }, area,
    h('div', { class: 'split wrapping' }, one.speak, h('div', { class: 'buttons' },
      move('doc.up', 'up', -1), move('doc.down', 'down', 1),
      ui.button('doc.remove', { icon: 'trash', quiet: true, onclick: () => remove(one) }))),
    one.list, one.notices);
  one.compare = ui.comparison(one.element, () => [...one.players.values()]);
  one.speak.after(one.compare);
  paragraphs.splice(at, 0, one);
  const next = $('doc-list').children[at];
  if (next) next.before(one.element);
  else $('doc-list').append(one.element);
  showTakes(one);
  return one;
}

async function remove(one) {
  if ((one.text.trim() || one.takes.length) && !(await ui.ask('doc.remove_question', {}, 'doc.remove'))) return;
  for (const player of one.players.values()) player.dispose();
  one.element.remove();
  paragraphs = paragraphs.filter((other) => other !== one);
  changed();
  $('doc-add').focus();
}

const chosenTake = (one) => one.takes.find((take) => take.id === one.chosen);
/** Whether what is heard is not what is written any more. */
const isChanged = (one) => Boolean(chosenTake(one)) && chosenTake(one).text !== one.text.trim();

function showTakes(one) {
  for (const [id, player] of one.players) {
    if (one.takes.some((take) => take.id === id)) continue;
    player.dispose();
    one.players.delete(id);
  }
  const name = `take-${Math.random()}`;
  one.list.replaceChildren(...one.takes.map((take, index) => {
    if (!one.players.has(take.id)) {
      one.players.set(take.id, new FilePlayer(() => api.blob(`/voice/syntheses/${take.id}/audio`), take.seconds));
    }
    const player = one.players.get(take.id);
    const called = ['doc.take_number', { number: () => number(index + 1) }];
    player.name = () => t(...called);
    const choice = h('input', { type: 'radio', name, 't-aria-label': called });
    choice.checked = take.id === one.chosen;
    choice.addEventListener('change', () => {
      one.chosen = take.id;
      changed();
    });
    const about = h('span', { class: 'small', t: ['doc.take_about', { voice: take.voice, speed: () => number(take.speed, 2), seed: String(take.seed) }] });
    const drop = ui.button('doc.drop_take', { icon: 'cross', quiet: true, onclick: () => dropTake(one, take) });
    return h('div', { class: 'take' }, choice, h('div', { class: 'takeplayer' }, ui.playerView(player, {
      label: called, onError: (error) => one.notices.replaceChildren(ui.errorNotice(error)), extra: [drop],
    }), about));
  }));
  one.compare.hidden = one.takes.length < 2;
  setText(one.speak.querySelector('span'), one.takes.length ? 'doc.take_again' : 'doc.take');
  one.element.classList.toggle('changed', isChanged(one));
}

async function dropTake(one, take) {
  try {
    await api.request(`/voice/syntheses/${take.id}`, { method: 'DELETE' });
  } catch (error) {
    if (error.code !== 'not_found') {
      one.notices.replaceChildren(ui.errorNotice(error));
      return;
    }
  }
  one.takes = one.takes.filter((other) => other !== take);
  if (one.chosen === take.id) one.chosen = one.takes.at(-1)?.id ?? null;
  showTakes(one);
  changed();
}

const attempt = (press, one) => ui.busy(press, async () => {
  if (await speak(one)) one.players.get(one.chosen)?.play().catch(() => {});
});

/** Speaks one paragraph with the voice and the settings of this moment; whether that went well. */
async function speak(one) {
  one.notices.replaceChildren();
  if (!one.text.trim()) {
    one.notices.replaceChildren(ui.hintNotice('speak.no_text', {}, 'warn'));
    return false;
  }
  if (!voice.isChosen()) {
    voice.insist(section);
    return false;
  }
  const data = settings();
  const text = one.text.trim();
  for (const [name, value] of [['text', text], ['stream', 'false'], ['response_format', 'wav']]) data.set(name, value);
  try {
    const response = await api.request('/voice/synthesize', { method: 'POST', body: data, signal: running?.signal });
    const id = response.headers.get('X-Synthesis-ID');
    const blob = await response.blob();
    const made = await api.json(`/voice/syntheses/${id}`);
    one.players.set(id, new FilePlayer(blob, made.duration_seconds));
    one.takes.push({ id, text, voice: voice.called(), speed: made.speed, seed: made.seed, seconds: made.duration_seconds });
    one.chosen = id;
    showTakes(one);
    changed();
    document.dispatchEvent(new CustomEvent('studio:made'));
    return true;
  } catch (error) {
    if (!api.isAbort(error)) one.notices.replaceChildren(ui.errorNotice(error, () => attempt(one.speak, one)));
    return false;
  }
}

// --- All of them -----------------------------------------------------------------------------------------------------

function changed() {
  for (const one of paragraphs) one.element.classList.toggle('changed', isChanged(one));
  const takes = paragraphs.map(chosenTake);
  const ready = takes.filter(Boolean);
  $('doc-export').disabled = !ready.length;
  const seconds = ready.reduce((sum, take) => sum + take.seconds, 0);
  setText($('doc-state'), 'doc.state', { ready: () => number(ready.length), all: () => number(takes.length), length: () => clock(seconds) });
  remember();
}

async function speakAll() {
  ui.clearNotices(section);
  if (!voice.isChosen()) {
    voice.insist(section);
    return;
  }
  running = new AbortController();
  $('doc-stop').hidden = false;
  try {
    for (const one of [...paragraphs]) {
      if (running.signal.aborted) break;
      if (!one.text.trim() || (chosenTake(one) && !isChanged(one))) continue;
      if (!(await ui.busy(one.speak, () => speak(one)))) break; // Its reason stands there.
    }
  } finally {
    running = null;
    $('doc-stop').hidden = true;
  }
}

async function exportAll() {
  ui.clearNotices(section);
  const ready = paragraphs.map(chosenTake).filter(Boolean);
  const format = $('doc-format').value;
  const title = paragraphs[0].text.trim().split(/\s+/).slice(0, 8).join(' ').slice(0, 80);
  try {
    const response = await api.request('/voice/join', {
      method: 'POST', headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ synthesis_ids: ready.map(({ id }) => id), pause_seconds: Number($('doc-pause').value), response_format: format, title }),
    });
    ui.saveBlob(await response.blob(), fileName(title, ready[0].id, format === 'opus' ? 'ogg' : format));
    if (ready.length < paragraphs.length) ui.addHint(section, 'doc.left_out', { count: () => number(paragraphs.length - ready.length) });
    if (paragraphs.some(isChanged)) ui.addHint(section, 'doc.old_takes');
  } catch (error) {
    ui.showError(section, error);
  }
}

/** Takes a text in, paragraph by paragraph, behind those that there are. */
export function split(text) {
  const found = text.split(/\n\s*\n|\r?\n/).map((part) => part.trim()).filter(Boolean);
  for (const part of found.slice(0, MAX_PARAGRAPHS - paragraphs.length)) add({ text: part });
  section.hidden = false;
  changed();
  paragraphs.at(-found.length)?.element.querySelector('textarea').focus();
}

export async function restore() {
  const before = await kept('doc');
  if (!before?.length || paragraphs.length) return;
  for (const one of before) add(one);
  section.hidden = false;
  changed();
}

export function close() {
  running?.abort();
  for (const one of paragraphs) for (const player of one.players.values()) player.dispose();
  paragraphs = [];
  $('doc-list').replaceChildren();
  section.hidden = true;
}

/** form(): the settings of the form above it as FormData. */
export function start(form) {
  settings = form;
  ui.fillSelect($('doc-format'), EXPORTS.map((format) => [format, `doc.format_${format}`]));
  ui.bindOutput($('doc-pause'), $('doc-pause-value'), (value) => `${number(value, 1)} s`);
  $('doc-add').addEventListener('click', () => {
    if (paragraphs.length >= MAX_PARAGRAPHS) return;
    add().element.querySelector('textarea').focus();
    changed();
  });
  $('doc-all').addEventListener('click', (event) => ui.busy(event.currentTarget, speakAll));
  $('doc-stop').addEventListener('click', () => running?.abort());
  $('doc-export').addEventListener('click', (event) => ui.busy(event.currentTarget, exportAll));
  $('doc-close').addEventListener('click', async () => {
    if (!(await ui.ask('doc.close_question', {}, 'doc.close'))) return;
    close();
    remember();
    $('text').focus();
  });
}
