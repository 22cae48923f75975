/** Text to speech: heard while it is made, then kept as a card to play, download and delete. */

import * as api from './api.js';
import { amount, dateTime, knows, number, onLanguage, setText, t } from './i18n.js';
import * as doc from './doc.js';
import { hear as hearTabs, tell } from './elsewhere.js';
import * as words from './words.js';
import { keep, kept } from './kept.js';
import { fileName, stateOf, titleOf } from './names.js';
import { presets } from './presets.js';
import { sharing } from './shares.js';
import { FilePlayer, PcmReader, StreamPlayer, unlockAudio } from './sound.js';
import * as ui from './ui.js';
import { $, h } from './ui.js';
import * as voice from './voice.js';

const MAX_CHARACTERS = 5000;
const RECENT = 10; // are shown again after a reload; the others are in the history
const LOADED_AT_ONCE_SECONDS = 60; // for its waveform; what is longer is fetched when it is played
const HEARD_WHILE_MADE = ['wav', 'pcm']; // The others are heard when they are whole.
const FORMATS = ['wav', 'mp3', 'flac', 'opus', 'pcm'];

const form = $('speak-form');
let running = null;
let mayList = false;

function count() {
  const length = [...$('text').value.trim()].length;
  $('text-count').textContent = `${number(length)} / ${number(MAX_CHARACTERS)}`;
  $('text-count').classList.toggle('bad', length > MAX_CHARACTERS);
}

const OPTIONS = ['speak-language', 'speak-format', 'speed', 'temperature', 'seed', 'speak-model'];

/** What is in the form, kept until it is changed again. */
function remember() {
  keep('speak', { text: $('text').value, options: Object.fromEntries(OPTIONS.map((id) => [id, $(id).value])) });
}

async function restore() {
  const before = await kept('speak');
  if (!before || $('text').value) return;
  $('text').value = before.text;
  ui.setFields(before.options ?? {});
  count();
}

/** What is wrong with the text is told at the text, until it is changed. */
function blameText(notice) {
  $('text-problem').replaceChildren(...(notice ? [notice] : []));
  if (notice) {
    $('text').setAttribute('aria-invalid', 'true');
    $('text').focus();
  } else $('text').removeAttribute('aria-invalid');
}

/** An error that is about the text, as a notice; null for another one. */
function textNotice(error) {
  const field = 'text: ';
  const about = Array.isArray(error.details?.text) || error.message?.startsWith(field);
  if (!about) return null;
  const message = error.message.startsWith(field) ? error.message.slice(field.length) : error.message;
  return ui.errorNotice(new api.ApiError(error.code, message, { status: error.status, requestId: error.requestId }));
}

function setBusy(on) {
  $('speak-button').hidden = on;
  $('speak-stop').hidden = !on;
  if (on) $('speak-stop').focus();
}

const say = (key, values) => setText($('speak-state'), key, values);

function collect() {
  const data = new FormData();
  data.append('text', $('text').value);
  voice.addTo(data, 'reference_audio');
  const { text, language } = voice.spoken();
  if (text) {
    data.append('reference_text', text);
    data.append('reference_language', language);
  }
  data.append('language', $('speak-language').value);
  data.append('speed', $('speed').value);
  data.append('temperature', $('temperature').value);
  data.append('response_format', $('speak-format').value);
  if ($('seed').value !== '') data.append('seed', $('seed').value);
  if ($('speak-model').value) data.append('model_id', $('speak-model').value);
  data.append('stream', String(HEARD_WHILE_MADE.includes($('speak-format').value)));
  return data;
}

async function speak() {
  ui.clearNotices(form);
  blameText(null);
  if (running) return;
  if (!$('text').value.trim()) {
    blameText(ui.hintNotice('speak.no_text', {}, 'warn'));
    return;
  }
  if (!voice.isChosen()) {
    voice.insist(form);
    return;
  }
  unlockAudio();
  const format = $('speak-format').value;
  const text = $('text').value.trim();
  running = new AbortController();
  const { signal } = running;
  let wrong = null;
  setBusy(true);
  say('speak.waiting');
  try {
    const response = await api.request('/voice/synthesize', { method: 'POST', body: collect(), signal });
    const id = response.headers.get('X-Synthesis-ID');
    const card = HEARD_WHILE_MADE.includes(format)
      ? await hear(response, { id, text, format, signal })
      : await whole(response, { id, text, format });
    say('speak.done', { length: () => amount(card.player.duration) });
    document.dispatchEvent(new CustomEvent('studio:made'));
    tell('made');
    if (id) api.json(`/voice/syntheses/${id}`).then(card.tell, () => {}); // Its title; the page has the rest.
  } catch (error) {
    if (api.isAbort(error)) say('speak.stopped');
    else {
      say(null);
      wrong = textNotice(error);
      if (!wrong && !voice.lost(error, form)) ui.showError(form, error);
    }
  } finally {
    running = null;
    const had = document.activeElement === $('speak-stop');
    setBusy(false);
    if (wrong) blameText(wrong);
    else if (had || document.activeElement === document.body) $('speak-button').focus();
  }
}

/** Plays what comes while it comes. */
async function hear(response, { id, text, format, signal }) {
  const rate = Number(response.headers.get('X-Audio-Sample-Rate'));
  const reader = format === 'pcm' ? new PcmReader(rate) : new PcmReader();
  const player = new StreamPlayer(rate);
  const card = addCard({ id, text, format, player, making: true });
  player.play();
  say('speak.streaming', { length: () => amount(player.duration) });
  try {
    for (const stream = response.body.getReader(); ; ) {
      const { value, done } = await stream.read();
      if (done) break;
      player.push(reader.push(value));
      say('speak.streaming', { length: () => amount(player.duration) });
    }
  } catch (error) {
    player.finish();
    if (!player.duration) card.remove();
    else card.broken(api.isAbort(error));
    throw signal.aborted ? error : await reason(id);
  }
  player.finish();
  card.finished();
  return card;
}

/** Why a stream broke off: the synthesis knows. */
async function reason(id) {
  try {
    const { error, error_message: message } = await api.json(`/voice/syntheses/${id}`);
    if (error) return new api.ApiError(error, message);
  } catch (error) {
    return error;
  }
  return new api.ApiError('cut_off', '');
}

async function whole(response, { id, text, format }) {
  const made = await response.blob();
  const player = new FilePlayer(made, Number(response.headers.get('X-Audio-Duration')));
  const card = addCard({ id, text, format, player });
  player.play().catch((error) => ui.showError(form, error));
  return card;
}

// --- What was made ---------------------------------------------------------------------------------------------------

function addCard({ id, text, format, player, making = false }) {
  const links = { self: `/voice/syntheses/${id}` };
  const item = synthesisItem({ synthesis_id: id, title: '', text, response_format: format, status: making ? 'running' : 'succeeded' }, player);
  item.tell({ links });
  $('spoken').prepend(item.element);
  return { ...item, player };
}

/**
 * A synthesis as a card, here and in the history: text, player, download, delete, "use this text".
 * made: its JSON; player: where there is one already.
 */
export function synthesisItem(made, player = null) {
  const element = h('article', { class: 'item', 'data-id': made.synthesis_id });
  const onError = (error) => element.append(ui.errorNotice(error));
  const link = `/voice/syntheses/${made.synthesis_id}`;
  const succeeded = made.status === 'succeeded';
  player ??= succeeded && made.links?.audio ? new FilePlayer(() => api.blob(`${link}/audio`), made.duration_seconds) : null;
  const download = ui.button('download', {
    icon: 'download', quiet: true, disabled: !succeeded || (made.links && !made.links.audio),
    onclick: (event) => ui.busy(event.currentTarget, async () => {
      try {
        ui.saveBlob(await api.blob(`${link}/audio`), fileName(title.title(), made.synthesis_id, made.response_format));
      } catch (error) {
        onError(error);
      }
    }),
  });
  const remove = ui.button('delete', {
    icon: 'trash', quiet: true,
    onclick: async (event) => {
      const press = event.currentTarget;
      if (!(await ui.ask('speak.delete_question', {}, 'delete'))) return;
      await ui.busy(press, async () => {
        try {
          await api.request(link, { method: 'DELETE' });
        } catch (error) {
          if (error.code !== 'not_found') {
            onError(error);
            return;
          }
        }
        gone();
        tell('deleted', { id: made.synthesis_id });
      });
    },
  });
  function gone() {
    player?.dispose();
    ui.removeCard(element);
  }
  element.addEventListener('studio:deleted', gone);
  element.addEventListener('studio:named', ({ detail }) => {
    showText({ title: detail });
    title.show(made);
  });
  const share = sharing(() => link);
  const missing = !succeeded || Boolean(made.links && !made.links.audio);
  share.press.disabled = missing; // While it is made; where it came to nothing there is no button.
  share.offer(!missing || made.status === 'running');
  download.hidden = missing && made.status !== 'running';
  const again = ui.button('speak.use_text', {
    icon: 'again', quiet: true,
    onclick: () => {
      $('text').value = made.text;
      count();
      remember();
      document.dispatchEvent(new CustomEvent('studio:show', { detail: 'speak' }));
      $('text').focus();
    },
  });
  const state = h('span', { class: 'state' });
  const at = made.created_at ?? new Date().toISOString();
  const meta = h('p', { class: 'small meta' }, state, h('time', { datetime: at, t: ['plain', { text: () => dateTime(at) }] }),
    h('span', {}, made.response_format.toUpperCase()));
  const said = h('p', { class: 'said', dir: 'auto' }, made.text);
  const title = titleOf(made, { untitled: ['speak.result'], onNamed: (named) => showText(named) });
  /** Its text, where the title is not all of it. */
  const showText = (next) => {
    made = { ...made, ...next };
    said.hidden = made.title === made.text.trim();
  };
  const setState = (key, kind) => {
    state.className = `state ${kind}`;
    setText(state, key);
    state.hidden = key === 'status.succeeded';
  };
  setState(...stateOf(made, player || made.links?.audio));
  showText(made);
  element.append(
    h('div', { class: 'split top' }, title.element, h('div', { class: 'buttons' }, again, share.press, download, remove)), said,
  );
  if (player) element.append(ui.playerView(player, { label: ['speak.result'], onError }));
  if (made.error) {
    const [said, below] = [h('p', { class: 'small bad' }), h('p', { class: 'small' })];
    ui.sayError(said, below, { code: made.error, message: made.error_message });
    element.append(said, below);
  }
  element.append(meta, share.place);
  if (player && made.links && made.duration_seconds <= LOADED_AT_ONCE_SECONDS) {
    ui.whenSeen(element, () => player.load?.().catch(() => {})); // What is wrong is told when it is played.
  }
  return {
    element,
    meta,
    tell: (next) => {
      showText(next);
      title.show(made);
    },
    finished: () => {
      download.disabled = share.press.disabled = false;
      setState('status.succeeded', 'succeeded');
    },
    broken: (stopped) => setState(stopped ? 'status.canceled' : 'status.failed', stopped ? 'canceled' : 'failed'),
    remove: gone,
  };
}

// --- The section -----------------------------------------------------------------------------------------------------

/** What was made lately, as before a reload. */
async function showRecent() {
  try {
    const { results } = await api.json(`/voice/syntheses?page_size=${RECENT}`);
    // Each before the next older one that is shown already: another tab may have made those between.
    let next = null;
    for (const made of results.reverse()) {
      const there = $('spoken').querySelector(`[data-id="${made.synthesis_id}"]`);
      next = there ?? $('spoken').insertBefore(synthesisItem(made).element, next ?? $('spoken').querySelector(':scope > .item'));
    }
  } catch (error) {
    if (error.code !== 'permission_denied') ui.showError(form, error);
  }
  showTry();
}

/** Voices to hear at once, as long as nothing was chosen and nothing made. */
function showTry() {
  $('try').hidden = voice.isChosen() || Boolean($('spoken').childElementCount) || $('speak-button').disabled;
}

async function tryVoice(name) {
  await voice.useSample(name);
  if (!$('text').value.trim()) {
    $('text').value = t(`samples.text_${{ mei: 'zh', ren: 'ja' }[name] ?? 'en'}`);
    count();
    remember();
  }
  await speak();
}

/** found: {languages, models, scopes} of the engine and the key. */
export function open({ languages, models, scopes }) {
  words.open({ scopes });
  ui.fillSelect($('speak-language'), languages.map((tag) => [tag, knows(`language.${tag}`) ? `language.${tag}` : tag]));
  const own = models.filter((model) => model.uses?.includes('synthesis'));
  ui.fillSelect($('speak-model'), [['', 'model_default'], ...own.map((model) => [model.id, 'plain', { text: model.name || model.id }])]);
  $('speak-model').closest('label').hidden = !own.length;
  restore();
  doc.restore();
  mayList = scopes.synthesize !== false;
  if (mayList) showRecent();
}

export function close() {
  running?.abort();
  mayList = false;
  $('spoken').replaceChildren();
  $('try').hidden = true;
  doc.close();
  words.close();
}

export function start() {
  ui.fillSelect($('speak-format'), FORMATS.map((format) => [format, `format.${format}`]));
  ui.bindOutput($('speed'), $('speed-value'), (value) => `${number(value, 2)}×`);
  ui.bindOutput($('temperature'), $('temperature-value'), (value) => number(value, 2));
  count();
  onLanguage(count);
  $('text').addEventListener('input', count);
  form.addEventListener('input', remember);
  $('text').addEventListener('input', () => blameText(null));
  document.addEventListener('studio:voice', showTry);
  hearTabs('made', () => mayList && !running && showRecent());
  doc.start(collect);
  words.start();
  $('speak-split').addEventListener('click', () => doc.split($('text').value));
  presets($('speak-presets'), 'speak', OPTIONS);
  $('try-voices').replaceChildren(...voice.SAMPLE_NAMES.map((name) =>
    ui.button(`sample.${name}`, { icon: 'play', onclick: (event) => ui.busy(event.currentTarget, () => tryVoice(name)) })));
  $('text').addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      speak();
    }
  });
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    speak();
  });
  $('speak-stop').addEventListener('click', () => running?.abort());
}
