/** How words are said: the entries of the tenant's default lexicon, which counts in all of its texts. */

import * as api from './api.js';
import * as ui from './ui.js';
import { $, h } from './ui.js';

const ALPHABETS = ['respelling', 'ipa', 'cmu-arpabet', 'pinyin', 'kana'];

let lexicon = null; // With its entries; null where there is none yet.
let scopes = {};

const box = $('words');

function row(entry = { word: '', say: '', alphabet: 'respelling' }) {
  const field = (key, value) => {
    const input = h('input', { 't-aria-label': key, 't-placeholder': key, dir: 'auto', maxlength: '100', autocomplete: 'off' });
    input.value = value;
    return input;
  };
  const [word, say] = [field('words.word', entry.word), field('words.say', entry.say)];
  say.maxLength = 200;
  const alphabet = h('select', { 't-aria-label': 'words.alphabet' });
  ui.fillSelect(alphabet, ALPHABETS.map((name) => [name, `words.alphabet_${name}`]));
  alphabet.value = entry.alphabet;
  const element = h('div', { class: 'naming word' }, word, say, alphabet,
    ui.button('words.remove', { icon: 'trash', quiet: true, onclick: () => (element.remove(), $('words-add').focus()) }));
  // What this page does not show of an entry stays as it is.
  element.entry = () => ({ ...entry, word: word.value.trim(), say: say.value.trim(), alphabet: alphabet.value });
  return element;
}

/** The account's default lexicon as it is now; null where there is none yet. */
async function current() {
  const { results } = await api.json('/voice/lexicons?page_size=200');
  const found = results.find((one) => one.is_default);
  return found ? api.json(found.links.self) : null;
}

function show() {
  $('words-list').replaceChildren(...(lexicon?.entries ?? []).map(row));
  if (!$('words-list').childElementCount) $('words-list').append(row());
}

async function load() {
  ui.clearNotices(box);
  if (scopes.voices === false) {
    ui.showHint(box, 'lacks', { scope: 'voices' });
    $('words-add').disabled = $('words-save').disabled = true;
    return;
  }
  try {
    lexicon = await current();
    show();
  } catch (error) {
    box.querySelector('.notices').replaceChildren(ui.errorNotice(error, load));
  }
}

/** The entries that there are now, with what was changed on this page: a program or another tab may have changed others. */
function merged(now, entries) {
  const same = JSON.stringify;
  const before = new Set((lexicon?.entries ?? []).map(same));
  const mine = new Set(entries.map(same));
  const there = now.filter((one) => mine.has(same(one)) || !before.has(same(one)));
  const known = new Set(there.map(same));
  const added = entries.filter((one) => !before.has(same(one)) && !known.has(same(one)));
  const words = new Set(added.map(({ word }) => word));
  return [...there.filter((one) => mine.has(same(one)) || !words.has(one.word)), ...added];
}

async function save() {
  ui.clearNotices(box);
  const entries = [...$('words-list').children].map((one) => one.entry()).filter(({ word, say }) => word || say);
  try {
    const now = await current();
    lexicon = now
      ? await api.sendJson(now.links.self, { entries: merged(now.entries, entries) }, 'PATCH')
      : await api.sendJson('/voice/lexicons', { name: 'Studio', is_default: true, entries });
    show();
    ui.toast('words.saved');
    for (const warning of lexicon.warnings ?? []) ui.addHint(box, 'plain', { text: warning });
  } catch (error) {
    ui.showError(box, error);
  }
}

export function open(found) {
  ({ scopes } = found);
  lexicon = null;
  $('words-list').replaceChildren();
  $('words-add').disabled = $('words-save').disabled = false;
  if (box.open) load();
}

export function close() {
  lexicon = null;
  $('words-list').replaceChildren();
  box.open = false;
}

export function start() {
  box.addEventListener('toggle', () => box.open && load());
  $('words-add').addEventListener('click', () => {
    const fresh = row();
    $('words-list').append(fresh);
    fresh.querySelector('input').focus();
  });
  $('words-save').addEventListener('click', (event) => ui.busy(event.currentTarget, save));
}
