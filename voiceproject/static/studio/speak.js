/** Text to speech: heard while it is made, then kept as a card to play, download and delete. */

import * as api from './api.js';
import { amount, knows, number, onLanguage, setText } from './i18n.js';
import { FilePlayer, PcmReader, StreamPlayer, unlockAudio } from './sound.js';
import * as ui from './ui.js';
import { $, h } from './ui.js';
import * as voice from './voice.js';

const MAX_CHARACTERS = 5000;
const DRAFT = 'studio.text';
const HEARD_WHILE_MADE = ['wav', 'pcm']; // The others are heard when they are whole.
const FORMATS = ['wav', 'mp3', 'flac', 'opus', 'pcm'];

const form = $('speak-form');
let running = null;

function count() {
  const length = [...$('text').value.trim()].length;
  $('text-count').textContent = `${number(length)} / ${number(MAX_CHARACTERS)}`;
  $('text-count').classList.toggle('bad', length > MAX_CHARACTERS);
  try {
    sessionStorage.setItem(DRAFT, $('text').value);
  } catch {
    // No storage, or it is full: the text is still in its field.
  }
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
  if (running) return;
  if (!$('text').value.trim()) {
    ui.showHint(form, 'speak.no_text');
    $('text').focus();
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
  } catch (error) {
    if (api.isAbort(error)) say('speak.stopped');
    else {
      say(null);
      ui.showError(form, error);
    }
  } finally {
    running = null;
    const had = document.activeElement === $('speak-stop');
    setBusy(false);
    if (had || document.activeElement === document.body) $('speak-button').focus();
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
  const item = synthesisItem({ synthesis_id: id, text, response_format: format, status: making ? 'running' : 'succeeded' }, player);
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
        ui.saveBlob(await api.blob(`${link}/audio`), `${made.synthesis_id}.${made.response_format}`);
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
        player?.dispose();
        element.remove();
      });
    },
  });
  const again = ui.button('speak.use_text', {
    icon: 'again', quiet: true,
    onclick: () => {
      $('text').value = made.text;
      count();
      document.dispatchEvent(new CustomEvent('studio:show', { detail: 'speak' }));
      $('text').focus();
    },
  });
  const state = h('span', { class: 'state' });
  const meta = h('p', { class: 'small meta' }, state, h('span', {}, made.response_format.toUpperCase()));
  const setState = (key, kind) => {
    state.className = `state ${kind}`;
    setText(state, key);
    state.hidden = key === 'status.succeeded';
  };
  setState(`status.${made.status}`, made.status);
  element.append(
    h('div', { class: 'split top' }, h('p', { class: 'said' }, made.text), h('div', { class: 'buttons' }, again, download, remove)),
  );
  if (player) element.append(ui.playerView(player, { label: ['speak.result'], onError }));
  if (made.error) {
    const [said, below] = [h('p', { class: 'small bad' }), h('p', { class: 'small' })];
    ui.sayError(said, below, { code: made.error, message: made.error_message });
    element.append(said, below);
  }
  element.append(meta);
  return {
    element,
    meta,
    finished: () => {
      download.disabled = false;
      setState('status.succeeded', 'succeeded');
    },
    broken: (stopped) => setState(stopped ? 'status.canceled' : 'status.failed', stopped ? 'canceled' : 'failed'),
    remove: () => {
      player?.dispose();
      element.remove();
    },
  };
}

// --- The section -----------------------------------------------------------------------------------------------------

/** found: {languages, models} of the engine. */
export function open({ languages, models }) {
  ui.fillSelect($('speak-language'), languages.map((tag) => [tag, knows(`language.${tag}`) ? `language.${tag}` : tag]));
  const own = models.filter((model) => model.uses?.includes('synthesis'));
  ui.fillSelect($('speak-model'), [['', 'model_default'], ...own.map((model) => [model.id, 'plain', { text: model.name || model.id }])]);
  $('speak-model').closest('label').hidden = !own.length;
}

export function close() {
  running?.abort();
  $('spoken').replaceChildren();
}

export function start() {
  ui.fillSelect($('speak-format'), FORMATS.map((format) => [format, `format.${format}`]));
  ui.bindOutput($('speed'), $('speed-value'), (value) => `${number(value, 2)}×`);
  ui.bindOutput($('temperature'), $('temperature-value'), (value) => number(value, 2));
  try {
    $('text').value ||= sessionStorage.getItem(DRAFT) ?? '';
  } catch {
    // No storage, no draft.
  }
  count();
  onLanguage(count);
  $('text').addEventListener('input', count);
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
