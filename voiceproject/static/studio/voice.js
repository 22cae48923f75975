/** The voice that speaks and sings: recorded, a file, or a saved one; its waveform, its quality, saving it. */

import * as api from './api.js';
import { clock, language, number, setText, t } from './i18n.js';
import { hear, tell } from './elsewhere.js';
import { canRecord, Recorder } from './recorder.js';
import { forget, keep, kept } from './kept.js';
import { decode, FilePlayer, MAX_REFERENCE_SECONDS, measure, MIN_REFERENCE_SECONDS } from './sound.js';
import * as ui from './ui.js';
import { $, h } from './ui.js';

const GOOD_SPEECH_SECONDS = 6; // Less clones, but not as well. These thresholds are those of voices/quality.py.
const GOOD_SPEECH_RATIO = 0.5;
const GOOD_SNR_DB = 20;
const BAD_SNR_DB = 10;
const GOOD_CLIPPING_RATIO = 1e-4;
const GOOD_BANDWIDTH_HZ = 6500;
const TELEPHONE_BANDWIDTH_HZ = 4200;

const MAX_BYTES = Number(document.documentElement.dataset.uploadBytes);
const SAMPLES = new URL('./voices/', import.meta.url);

/** What is chosen: {file, name, seconds}, with {sample: its name} where it is one of ours, or {saved: a voice}. */
let chosen = null;
let transcript = '';
let transcriptLanguage = 'auto';
let player = null;
let scopes = {};
let quality = null; // The request for the report that runs.
let languages = ['auto'];
const players = new Set();
export const SAMPLE_NAMES = ['hazel', 'joe', 'mei', 'ren'];

const section = $('voice');
const showSource = ui.tabs($('sources'), (panel) => {
  if (panel === 'source-saved') listSaved();
  if (panel === 'source-samples') listSamples();
});

export const isChosen = () => chosen !== null;

/** Adds the voice to a form; `field`: what the endpoint calls a reference file. */
export function addTo(form, field) {
  if (chosen.saved) form.append('voice_id', chosen.saved.voice_id);
  else form.append(field, chosen.file, chosen.name);
}

/** What is said in the reference, where it was told: {text, language}. A saved voice has its own. */
export const spoken = () => ({ text: chosen?.saved ? '' : transcript.trim(), language: transcriptLanguage });

/** What it is called, in the language of this moment. */
export function called() {
  if (chosen.sample) return t(`sample.${chosen.sample}`);
  return chosen.recorded ? t('record.name', { time: chosen.recorded }) : (chosen.saved?.name ?? chosen.name);
}

/** Leads the reader to choose one. */
export function insist(root) {
  ui.showHint(root, 'voice.none');
  section.scrollIntoView({ block: 'nearest', behavior: 'smooth' });
  $('tab-record').focus({ preventScroll: true });
}

/** Says that the saved voice is gone, where that is what an error is of; the reader then chooses another one. */
export function lost(error, root) {
  if (!chosen?.saved || error.code !== 'not_found') return false;
  const { name } = chosen.saved;
  choose(null);
  listSaved();
  ui.showHint(root, 'voice.gone', { name });
  return true;
}

/** What another tab has done to the saved voices. */
async function changedElsewhere({ id }) {
  if (scopes.voices === false) return;
  if (!$('source-saved').hidden) listSaved();
  if (!id || chosen?.saved?.voice_id !== id) return;
  const mine = chosen;
  try {
    const saved = await api.json(`/voice/voices/${id}`);
    if (chosen === mine) choose({ saved });
  } catch (error) {
    if (chosen === mine) lost(error, section);
  }
}

// --- Choosing --------------------------------------------------------------------------------------------------------

function choose(next, { text = '', language: spokenIn = 'auto' } = {}) {
  quality?.abort();
  player?.dispose();
  chosen = next;
  transcript = text;
  transcriptLanguage = spokenIn;
  ui.clearNotices(section);
  const inside = section.contains(document.activeElement);
  show();
  // What was pressed is hidden now: the keyboard goes on at what came in its place.
  if (inside) (chosen ? $('current').querySelector('.player button') : $('sources').querySelector('[aria-selected=true]'))?.focus();
  remember();
  document.dispatchEvent(new Event('studio:voice'));
}

function remember() {
  if (!chosen) keep('voice', null);
  else if (chosen.saved) keep('voice', { saved: chosen.saved.voice_id });
  else if (chosen.sample) keep('voice', { sample: chosen.sample });
  else keep('voice', { file: chosen.file, name: chosen.name, at: chosen.at, text: transcript, language: transcriptLanguage });
}

/** What was chosen before the page was loaded anew. */
async function restore() {
  const before = await kept('voice');
  if (!before || chosen) return;
  if (before.sample) {
    await useSample(before.sample);
  } else if (before.saved) {
    try {
      const saved = await api.json(`/voice/voices/${before.saved}`);
      if (!chosen && !saved.taken_down_at) choose({ saved });
    } catch {
      keep('voice', null); // It was deleted, or this key may not use it.
    }
  } else {
    const file = new File([before.file], before.name, { type: before.file.type });
    await useFile(file, before.at ?? null, { text: before.text, language: before.language });
  }
}

/** Chooses one of our own voices by its name. */
export async function useSample(name) {
  try {
    const file = new File([await fetchSample(name)], `${name}.mp3`, { type: 'audio/mpeg' });
    choose({ file, name: file.name, seconds: 0, sample: name });
  } catch (error) {
    ui.showError(section, error instanceof api.ApiError ? error : new api.ApiError('network', ''));
  }
}

async function fetchSample(name) {
  const response = await fetch(new URL(`${name}.mp3`, SAMPLES));
  if (!response.ok) throw new api.ApiError('bad_answer', '', { status: response.status });
  return response.blob();
}

/** recorded: when, in ms, where it comes from the microphone. */
async function useFile(file, recorded = null, told = {}) {
  ui.clearNotices(section);
  if (file.size > MAX_BYTES) {
    ui.showHint(section, 'voice.too_large', ui.sizes(file.size, MAX_BYTES));
    return;
  }
  if (!file.size) {
    ui.showHint(section, 'voice.empty');
    return;
  }
  const shown = recorded ? () => new Date(recorded).toLocaleTimeString(language(), { timeStyle: 'short' }) : null;
  choose({ file, name: file.name || 'reference.wav', seconds: 0, recorded: shown, at: recorded }, told);
  const mine = chosen;
  try {
    const { samples, rate } = await decode(file);
    mine.seconds = samples.length / rate;
    mine.measured = measure(samples, rate);
  } catch {
    // A kind that this browser cannot read: the server will say what it is.
  }
  if (chosen !== mine) return;
  if (mine.measured && mine.seconds < MIN_REFERENCE_SECONDS) {
    ui.showHint(section, 'voice.too_short', { seconds: () => number(mine.seconds, 1) });
  } else if (mine.seconds > MAX_REFERENCE_SECONDS) {
    ui.showHint(section, 'voice.too_long', { seconds: () => number(mine.seconds, 0) });
  }
  showQuality(mine);
  await report(mine);
}

/** Asks the server for its report; what the browser measured stays where it has none. */
async function report(mine) {
  const controller = (quality = new AbortController());
  const form = new FormData();
  form.append('sample', mine.file, mine.name);
  try {
    mine.report = await api.json('/voice/quality', { method: 'POST', body: form, signal: controller.signal });
  } catch (error) {
    if (api.isAbort(error) || chosen !== mine) return;
    // A server without the report, or a key that may not ask for it: the browser's measures stay.
    if (![403, 404, 405].includes(error.status)) ui.showError(section, error);
  }
  if (chosen === mine) showQuality(mine);
}

function show() {
  const box = $('current');
  box.hidden = chosen === null;
  $('sources').parentElement.classList.toggle('chosen', chosen !== null);
  if (chosen === null) {
    box.replaceChildren();
    return;
  }
  const { saved } = chosen;
  const name = chosen.recorded ? ['record.name', { time: chosen.recorded }]
    : chosen.sample ? [`sample.${chosen.sample}`]
      : ['plain', { text: saved?.name ?? chosen.name }];
  player = saved
    ? new FilePlayer(() => api.blob(sampleOf(saved)), saved.quality?.duration_seconds)
    : new FilePlayer(chosen.file);
  if (saved) player.load().catch((error) => ui.showError(section, error));
  const clear = ui.button('voice.clear', { icon: 'cross', quiet: true, onclick: () => choose(null) });
  const parts = [
    h('div', { class: 'split' }, h('strong', { class: 'title', t: name }), clear),
    ui.playerView(player, {
      label: ['voice.reference'],
      onError: (error) => ui.showError(section, error),
    }),
    h('div', { class: 'quality', role: 'status' }),
  ];
  if (chosen.sample) parts.push(h('p', { class: 'hint', t: 'samples.about' }));
  else if (!saved) {
    const words = h('textarea', { rows: '2', maxlength: '2000', id: 'transcript' });
    words.value = transcript;
    words.addEventListener('input', () => {
      transcript = words.value;
      remember();
    });
    const select = h('select', { id: 'transcript-language' });
    ui.fillSelect(select, languageOptions());
    select.value = transcriptLanguage;
    select.addEventListener('change', () => {
      transcriptLanguage = select.value;
      remember();
    });
    parts.push(
      h(
        'details',
        {},
        h('summary', { t: 'voice.transcript' }),
        h('div', { class: 'stack' },
          h('p', { class: 'hint', t: 'voice.transcript_hint' }),
          h('label', { class: 'field' }, h('span', { t: 'voice.transcript' }), words),
          h('label', { class: 'field' }, h('span', { t: 'voice.language' }), select)),
      ),
      ui.button('voice.save', {
        icon: 'save', kind: 'block', onclick: openSave, disabled: scopes.voices === false,
        't-title': scopes.voices === false ? ['lacks', { scope: 'voices' }] : undefined,
      }),
    );
  } else if (saved.description) parts.push(h('p', { class: 'hint', dir: 'auto' }, saved.description));
  box.replaceChildren(...parts);
  showQuality(chosen);
}

/** What the server advises, which says it in English, as texts of the dictionary: in the order of voices/quality.py. */
function advice({ duration_seconds: seconds, speech_ratio: ratio, snr_db: snr, clipping_ratio: clipping, bandwidth_hz: bandwidth }) {
  const found = [];
  const speech = seconds * ratio;
  if (speech < GOOD_SPEECH_SECONDS) found.push(['advice.short', { seconds: () => number(speech, 1) }]);
  if (ratio < GOOD_SPEECH_RATIO) found.push(['advice.pauses', { percent: () => number(100 * ratio) }]);
  if (snr < GOOD_SNR_DB && speech > 0) {
    found.push([snr < BAD_SNR_DB ? 'advice.strong_noise' : 'advice.noise', { db: () => number(snr) }]);
  }
  if (clipping > GOOD_CLIPPING_RATIO) found.push(['advice.clipping']);
  if (bandwidth < TELEPHONE_BANDWIDTH_HZ) found.push(['advice.telephone', { hz: () => number(bandwidth) }]);
  else if (bandwidth < GOOD_BANDWIDTH_HZ) found.push(['advice.dull', { hz: () => number(bandwidth) }]);
  return found;
}

/** Each measure as a chip: good, or what to mend; below them the server's advice in its own words. */
function showQuality(mine) {
  const box = $('current').querySelector('.quality');
  if (!box) return;
  const found = mine.saved ? mine.saved.quality : (mine.report ?? mine.measured);
  if (!found) {
    box.replaceChildren();
    return;
  }
  const chips = [];
  const chip = (good, key, values) =>
    chips.push(h('li', { class: good ? 'good' : 'warn', icon: good ? 'check' : 'alert', t: [key, values] }));
  const seconds = found.duration_seconds;
  const enough = seconds * found.speech_ratio >= GOOD_SPEECH_SECONDS;
  chip(enough && seconds <= MAX_REFERENCE_SECONDS + 1, enough ? 'quality.duration' : 'quality.short', { seconds: () => number(seconds, 1) });
  if (found.snr_db !== null && found.snr_db !== undefined) {
    chip(found.snr_db >= GOOD_SNR_DB, 'quality.snr', { db: () => number(found.snr_db) });
  }
  const clean = found.clipping_ratio <= GOOD_CLIPPING_RATIO;
  chip(clean, clean ? 'quality.no_clipping' : 'quality.clipping', {
    percent: () => number(found.clipping_ratio * 100, 2),
  });
  chip(found.speech_ratio >= GOOD_SPEECH_RATIO, 'quality.speech', { percent: () => number(found.speech_ratio * 100) });
  if (found.level_db !== undefined && found.level_db < -36) chip(false, 'quality.quiet');
  if (found.bandwidth_hz) {
    chip(found.bandwidth_hz >= GOOD_BANDWIDTH_HZ, 'quality.bandwidth', { khz: () => number(found.bandwidth_hz / 1000, 1) });
  }
  const said = found.warnings ?? [];
  const own = said.length ? advice(found) : [];
  const warnings = Array.from({ length: Math.max(said.length, own.length) }, (_, index) => h('li', {
    t: ['plain', { text: () => (language() === 'en' ? said[index] : own[index] && t(...own[index])) ?? '' }],
  }));
  box.replaceChildren(
    h('ul', { class: 'chips', 't-aria-label': 'quality.title' }, ...chips),
    warnings.length ? h('ul', { class: 'warnings' }, ...warnings) : '',
    mine.saved || mine.report ? '' : h('p', { class: 'small', t: 'quality.here' }),
  );
}

// --- Recording -------------------------------------------------------------------------------------------------------

let recorder = null;
const levels = [];

function drawLevel() {
  const canvas = $('level');
  const ratio = window.devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, 40];
  canvas.width = Math.round(width * ratio);
  canvas.height = Math.round(height * ratio);
  const pen = canvas.getContext('2d');
  pen.scale(ratio, ratio);
  const colors = getComputedStyle(canvas);
  const count = Math.floor(width / 5);
  const shown = levels.slice(-count);
  for (let index = 0; index < count; index += 1) {
    const level = shown[index - (count - shown.length)] ?? 0;
    // From -50 dB to 0: what is heard as twice as loud is drawn so.
    const tall = Math.max(3, Math.max(0, 1 + Math.log10(Math.max(level, 1e-5)) / 2.5) * (height - 2));
    pen.fillStyle = colors.getPropertyValue(level >= 0.99 ? '--bad' : level ? '--accent' : '--wave');
    pen.beginPath();
    pen.roundRect(index * 5, (height - tall) / 2, 3, tall, 1.5);
    pen.fill();
  }
}

function recording(on) {
  const press = $('record');
  press.classList.toggle('recording', on);
  press.setAttribute('aria-pressed', String(on));
  ui.setIcon(press.querySelector('span'), on ? 'stop' : 'mic');
  setText(press, on ? 'record.stop' : 'record.start', {}, 'aria-label');
}

/** Says only whole seconds, and to a screen reader only what matters. */
function sayProgress(seconds) {
  const left = MIN_REFERENCE_SECONDS - seconds;
  const key = left > 0 ? 'record.more' : 'record.running';
  const state = $('record-state');
  setText(state, key, {
    time: clock(seconds), left: String(Math.ceil(left)), limit: clock(MAX_REFERENCE_SECONDS - seconds),
  });
  state.setAttribute('aria-live', Math.floor(seconds) % 10 ? 'off' : 'polite');
}

async function startRecording() {
  ui.clearNotices(section);
  levels.length = 0;
  player?.pause();
  const state = $('record-state');
  state.setAttribute('aria-live', 'polite');
  setText(state, 'record.asking');
  let said = -1;
  recorder = new Recorder((seconds, peak) => {
    levels.push(peak);
    drawLevel();
    if (Math.floor(seconds) !== said) sayProgress((said = Math.floor(seconds)));
  }, stopRecording);
  try {
    await recorder.start();
    recording(true);
  } catch (error) {
    recorder = null;
    setText(state, 'record.idle');
    const key = { NotAllowedError: 'record.denied', NotFoundError: 'record.no_microphone' }[error.name];
    ui.showHint(section, key ?? 'record.failed', { what: error.message });
  }
}

function stopRecording() {
  if (!recorder) return;
  const { seconds } = recorder;
  const file = recorder.stop();
  recorder = null;
  recording(false);
  levels.length = 0;
  drawLevel();
  setText($('record-state'), 'record.idle');
  if (seconds < MIN_REFERENCE_SECONDS) ui.showHint(section, 'record.too_short', { seconds: number(seconds, 1) });
  else useFile(file, Date.now());
}

// --- Saved voices ----------------------------------------------------------------------------------------------------

const sampleOf = (voice) => voice.links?.sample ?? `/voice/voices/${voice.voice_id}/sample`;

const SORTS = ['newest', 'name', 'used'];
let turn = 0; // Of what was typed, only the last is shown.

function savedPath() {
  const query = new URLSearchParams({ page_size: '20' });
  if ($('saved-q').value.trim()) query.set('q', $('saved-q').value.trim());
  if ($('saved-sort').value !== SORTS[0]) query.set('sort', $('saved-sort').value);
  return `/voice/voices?${query}`;
}

/** next: where the page goes on that is shown. */
async function listSaved(next = null) {
  const box = $('saved-voices');
  if (scopes.voices === false) {
    box.replaceChildren(ui.hintNotice('lacks', { scope: 'voices' }));
    return;
  }
  const mine = next ? turn : (turn += 1);
  if (!next) {
    for (const one of players) one.dispose();
    players.clear();
    box.replaceChildren(h('p', { class: 'hint center', t: 'loading' }));
  }
  try {
    const found = await api.json(next ?? savedPath());
    if (mine !== turn) return;
    if (!next) box.replaceChildren();
    box.querySelector(':scope > .more')?.remove();
    box.append(...found.results.map(savedItem));
    if (found.next) {
      box.append(ui.button('more_items', { kind: 'more', onclick: (event) => ui.busy(event.currentTarget, () => listSaved(found.next)) }));
    }
    if (!box.childElementCount) box.append(ui.empty('voices', $('saved-q').value.trim() ? 'history.none_found' : 'voice.no_saved'));
  } catch (error) {
    if (mine !== turn) return;
    if (next) box.append(ui.errorNotice(error));
    else if (error.status === 404) box.replaceChildren(ui.empty('voices', 'voice.not_offered'));
    else box.replaceChildren(ui.errorNotice(error, () => listSaved()));
  }
}

function searchSaved(words) {
  $('saved-q').value = words;
  listSaved();
}

/** Our own voices, at hand for everybody. */
async function listSamples() {
  const box = $('sample-voices');
  if (box.childElementCount) return;
  box.replaceChildren(...SAMPLE_NAMES.map((name) => {
    const one = new FilePlayer(() => fetchSample(name));
    return h('article', { class: 'item' },
      h('div', { class: 'split' }, h('strong', { class: 'title', t: `sample.${name}` }),
        h('div', { class: 'buttons' }, ui.button('voice.use', { icon: 'check', onclick: () => useSample(name) }))),
      ui.playerView(one, { label: [`sample.${name}`], onError: (error) => ui.showError(section, error) }));
  }));
}

const tagsIn = (text) => text.split(/[,，、]/).filter((tag) => tag.trim());

function savedItem(voice) {
  const one = new FilePlayer(() => api.blob(sampleOf(voice)), voice.quality?.duration_seconds);
  players.add(one);
  const item = h('article', { class: 'item' });
  const onError = (error) => item.append(ui.errorNotice(error));
  const remove = async (event) => {
    const press = event.currentTarget;
    if (!(await ui.ask('voice.delete_question', { name: voice.name }, 'delete'))) return;
    await ui.busy(press, async () => {
      try {
        await api.request(`/voice/voices/${voice.voice_id}`, { method: 'DELETE' });
        one.dispose();
        ui.removeCard(item);
        if (chosen?.saved?.voice_id === voice.voice_id) choose(null);
        tell('voices', { id: voice.voice_id });
        if (!$('saved-voices').childElementCount) listSaved();
      } catch (error) {
        onError(error);
      }
    });
  };
  const tags = h('ul', { class: 'chips', 't-aria-label': 'voice.tags' });
  const showTags = () => {
    tags.hidden = !voice.tags?.length;
    tags.replaceChildren(...(voice.tags ?? []).map((tag) => h('li', {}, h('button', {
      type: 'button', class: 'plain', dir: 'auto', on: { click: () => searchSaved(tag) },
    }, tag))));
  };
  showTags();
  const title = h('strong', { class: 'title', dir: 'auto' }, voice.name);
  const edit = ui.button('voice.edit', { icon: 'pencil', quiet: true, 'aria-expanded': 'false', onclick: () => toggleEdit() });
  let form = null;
  const toggleEdit = () => {
    edit.setAttribute('aria-expanded', String(!form));
    if (form) {
      form.remove();
      form = null;
      edit.focus();
      return;
    }
    const name = h('input', { maxlength: '100', dir: 'auto', autocomplete: 'off' });
    name.value = voice.name;
    const words = h('input', { 't-placeholder': 'voice.tags_hint', maxlength: '400', dir: 'auto', autocomplete: 'off' });
    words.value = (voice.tags ?? []).join(', ');
    form = h('form', { class: 'stack', novalidate: true },
      h('label', { class: 'field' }, h('span', { t: 'save.name' }), name),
      h('label', { class: 'field' }, h('span', { t: 'voice.tags' }), words),
      h('div', { class: 'notices' }),
      h('div', { class: 'actions' }, h('button', { type: 'submit', class: 'primary', t: 'save.go' }), ui.button('cancel', { onclick: toggleEdit })));
    form.addEventListener('keydown', (event) => event.key === 'Escape' && (event.stopPropagation(), toggleEdit()));
    form.addEventListener('submit', (event) => {
      event.preventDefault();
      ui.clearNotices(form);
      if (!name.value.trim()) {
        ui.showHint(form, 'save.needs_name');
        name.focus();
        return;
      }
      ui.busy(form.querySelector('.primary'), async () => {
        const changes = { name: name.value.trim(), tags: tagsIn(words.value) };
        try {
          Object.assign(voice, await api.sendJson(`/voice/voices/${voice.voice_id}`, changes, 'PATCH'));
          title.textContent = voice.name;
          toggleEdit();
          showTags();
          tell('voices', { id: voice.voice_id });
        } catch (error) {
          ui.showError(form, error);
        }
      });
    });
    item.append(form);
    name.focus();
  };
  item.append(
    h('div', { class: 'split' },
      title,
      h('div', { class: 'buttons' },
        voice.taken_down_at ? null : edit,
        ui.button('delete', { icon: 'trash', quiet: true, onclick: remove }))),
    voice.taken_down_at
      ? h('p', { class: 'small bad', t: 'voice.taken_down' })
      : ui.playerView(one, {
        label: ['voice.sample_of', { name: voice.name }], onError,
        extra: [ui.button('voice.use', { icon: 'check', onclick: () => choose({ saved: voice }) })],
      }),
    tags,
  );
  return item;
}

function openSave() {
  const dialog = $('save-dialog');
  ui.clearNotices(dialog);
  $('save-name').value = '';
  $('save-description').value = '';
  $('save-tags').value = '';
  $('save-transcript').value = transcript;
  ui.fillSelect($('save-language'), languageOptions());
  $('save-language').value = transcriptLanguage;
  $('save-consent').checked = false;
  dialog.showModal();
  $('save-name').focus();
}

async function save(event) {
  event.preventDefault();
  const dialog = $('save-dialog');
  ui.clearNotices(dialog);
  const missing = !$('save-name').value.trim() ? 'save.needs_name' : !$('save-consent').checked ? 'save.needs_consent' : '';
  if (missing) {
    ui.showHint(dialog, missing);
    $(missing === 'save.needs_name' ? 'save-name' : 'save-consent').focus();
    return;
  }
  const form = new FormData();
  form.append('name', $('save-name').value.trim());
  form.append('sample', chosen.file, chosen.name);
  // The statement as it stood there when it was agreed to.
  form.append('consent', t('save.consent'));
  if ($('save-tags').value.trim()) form.append('tags', tagsIn($('save-tags').value).join(','));
  for (const name of ['description', 'transcript', 'language']) {
    if ($(`save-${name}`).value.trim()) form.append(name, $(`save-${name}`).value.trim());
  }
  await ui.busy(event.submitter ?? dialog.querySelector('.primary'), async () => {
    try {
      const voice = await api.upload('/voice/voices', form);
      dialog.close();
      choose({ saved: voice });
      showSource('source-saved');
      ui.toast('save.done', { name: voice.name });
      tell('voices');
    } catch (error) {
      ui.showError(dialog, error);
    }
  });
}

// --- The section -----------------------------------------------------------------------------------------------------

const languageOptions = () => languages.map((tag) => [tag, `language.${tag}`]);

/** found: {scopes, languages} of the key and the engine. */
export function open(found) {
  ({ scopes, languages } = found);
  showSource(chosen?.saved ? 'source-saved' : 'source-record');
  if (!canRecord()) {
    $('record').disabled = true;
    setText($('record-state'), 'record.insecure');
    if (!chosen) showSource('source-file');
  }
  show();
  drawLevel();
  forget({ old: true });
  restore();
}

/** The key is gone: nothing that it fetched stays. */
export function close() {
  for (const one of players) one.dispose();
  players.clear();
  $('saved-voices').replaceChildren();
  if (chosen?.saved) choose(null);
}

export function start() {
  recording(false);
  setText($('record-state'), 'record.idle');
  $('record').addEventListener('click', () => (recorder ? stopRecording() : startRecording()));
  ui.dropZone($('reference-drop'), (file) => useFile(file));
  let timer = 0;
  $('saved-q').addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(() => listSaved(), 300);
  });
  ui.fillSelect($('saved-sort'), SORTS.map((sort) => [sort, `sort.${sort}`]));
  $('saved-sort').addEventListener('change', () => listSaved());
  hear('voices', changedElsewhere);
  $('save-form').addEventListener('submit', save);
  $('save-cancel').addEventListener('click', () => $('save-dialog').close());
  new ResizeObserver(() => recorder || drawLevel()).observe($('level'));
  document.addEventListener('studio:theme', drawLevel);
}
