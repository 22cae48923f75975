/** Covers: a song and a voice become a job whose stages are watched; its stems, its result, other mixes of it. */

import * as api from './api.js';
import { clock, dateTime, number, onLanguage, setText, t } from './i18n.js';
import { FilePlayer } from './sound.js';
import * as ui from './ui.js';
import { $, h } from './ui.js';
import * as voice from './voice.js';

const STAGES = ['queued', 'preprocess', 'separate', 'infer', 'mix', 'finalize'];
const FORMATS = ['wav', 'flac', 'mp3'];
const LOADED_AT_ONCE_SECONDS = 60; // What is longer is fetched when it is played.

const form = $('cover-form');
let song = null;
let songPlayer = null;
let sending = null;
let submission = null; // {key, of}: the same form sent again after a lost answer makes no second job.

// --- The form --------------------------------------------------------------------------------------------------------

export function useSong(file) {
  ui.clearNotices(form);
  songPlayer?.dispose();
  song = file;
  $('song').hidden = !file;
  $('song-drop').hidden = Boolean(file);
  if (!file) {
    $('song').replaceChildren();
    return;
  }
  songPlayer = new FilePlayer(file);
  songPlayer.load().catch((error) => ui.showError(form, error));
  $('song').replaceChildren(
    h('div', { class: 'split' }, h('strong', { class: 'title' }, file.name),
      ui.button('cover.clear', { icon: 'cross', quiet: true, onclick: () => (useSong(null), $('song-file').focus()) })),
    ui.playerView(songPlayer, { label: ['cover.song'], onError: (error) => ui.showError(form, error) }),
  );
}

function collect() {
  const data = new FormData();
  voice.addTo(data, 'reference_voice');
  data.append('song', song, song.name || 'song');
  data.append('pitch_shift', $('pitch-mode').value === 'auto' ? 'auto' : $('pitch').value);
  if ($('preview').value) data.append('preview_seconds', $('preview').value);
  data.append('response_format', $('cover-format').value);
  data.append('input_kind', $('input-kind').value);
  data.append('vocal_gain_db', $('vocal-gain').value);
  data.append('instrumental_gain_db', $('instrumental-gain').value);
  if ($('cover-model').value) data.append('model_id', $('cover-model').value);
  return data;
}

const say = (key, values) => setText($('cover-state'), key, values);

async function submit() {
  ui.clearNotices(form);
  if (sending) return;
  if (!song) {
    ui.showHint(form, 'cover.no_song');
    $('song-file').focus();
    return;
  }
  if (!voice.isChosen()) {
    voice.insist(form);
    return;
  }
  const data = collect();
  const of = JSON.stringify([...data].map(([name, value]) => [name, value.name ? [value.name, value.size, value.lastModified] : value]));
  if (submission?.of !== of) submission = { key: api.newIdempotencyKey(), of };
  sending = new AbortController();
  $('cover-button').hidden = true;
  $('cover-stop').hidden = false;
  $('cover-stop').focus();
  say('cover.sending', { percent: '0' });
  try {
    const job = await api.upload('/cover/jobs', data, {
      headers: { 'Idempotency-Key': submission.key },
      signal: sending.signal,
      onProgress: (share) => (share < 1 ? say('cover.sending', { percent: number(share * 100) }) : say('cover.checking')),
    });
    submission = null;
    say('cover.accepted');
    addJob(job).focus();
  } catch (error) {
    if (api.isAbort(error)) say('cover.upload_stopped');
    else {
      say(null);
      ui.showError(form, error);
    }
  } finally {
    sending = null;
    $('cover-stop').hidden = true;
    $('cover-button').hidden = false;
    if (document.activeElement === document.body) $('cover-button').focus();
  }
}

// --- Jobs ------------------------------------------------------------------------------------------------------------

const shown = new Map(); // job_id -> {stop}

function addJob(job) {
  const there = shown.get(job.job_id);
  if (there) return there.element;
  const element = jobItem(job, { eager: true, onGone: () => shown.delete(job.job_id), onNew: (fresh) => addJob(fresh).focus() });
  shown.set(job.job_id, { element, stop: () => element.dispatchEvent(new Event('studio:stop')) });
  $('jobs').prepend(element);
  return element;
}

/**
 * A job as a card that follows the job while it lives. eager: short sounds are fetched before they are played; onGone:
 * it was deleted; onNew(job): a remix of it was made.
 */
export function jobItem(job, { eager = false, onGone = () => {}, onNew = () => {} } = {}) {
  const controller = new AbortController();
  const players = new Map();
  const name = ['cover.job_title', { id: job.job_id.slice(0, 8), when: () => dateTime(job.created_at) }];
  const state = h('span', { class: 'state', role: 'status' });
  const steps = h('ol', { class: 'steps' }, ...STAGES.map((stage) => h('li', { 'data-stage': stage }, h('span', { t: `stage.${stage}` }))));
  const bar = h('progress', { max: '100', 't-aria-label': name });
  const facts = h('p', { class: 'small meta' });
  const audio = h('div', { class: 'tracks' });
  const buttons = h('div', { class: 'buttons' });
  const notices = h('div', { class: 'notices' });
  const remix = h('div');
  const item = h('article', { class: 'item job', tabindex: '-1', 'data-id': job.job_id },
    h('div', { class: 'split top' }, h('div', {}, h('h2', { class: 'name', t: name }), facts), buttons),
    h('div', { class: 'split' }, state), steps, bar, audio, remix, notices);
  const onError = (error) => notices.replaceChildren(ui.errorNotice(error));

  const act = (press, work) => ui.busy(press, async () => {
    notices.replaceChildren();
    try {
      await work();
    } catch (error) {
      onError(error);
    }
  });
  const actions = {
    cancel: ui.button('cancel_job', {
      icon: 'stop',
      onclick: (event) => act(event.currentTarget, async () => show(await api.json(job.links.cancel, { method: 'POST' }))),
    }),
    retry: ui.button('retry_job', {
      icon: 'again',
      onclick: (event) => act(event.currentTarget, async () => {
        show(await api.json(job.links.retry, { method: 'POST' }));
        follow();
      }),
    }),
    remix: ui.button('cover.remix', { icon: 'sliders', 'aria-expanded': 'false', onclick: () => openRemix() }),
    delete: ui.button('delete', {
      icon: 'trash', quiet: true,
      onclick: async (event) => {
        const press = event.currentTarget;
        if (!(await ui.ask('cover.delete_question', {}, 'delete'))) return;
        await act(press, async () => {
          try {
            await api.request(job.links.self, { method: 'DELETE' });
          } catch (error) {
            if (error.code !== 'not_found') throw error;
          }
          gone();
        });
      },
    }),
  };
  buttons.append(actions.cancel, actions.retry, actions.remix, actions.delete);

  function gone() {
    stop();
    item.remove();
    onGone();
  }
  function stop() {
    controller.abort();
    for (const player of players.values()) player.dispose();
  }
  item.addEventListener('studio:stop', stop);

  function openRemix() {
    const open = actions.remix.getAttribute('aria-expanded') === 'true';
    actions.remix.setAttribute('aria-expanded', String(!open));
    if (open) {
      remix.replaceChildren();
      return;
    }
    const slider = (key, value) => {
      const id = `${key}-${job.job_id}`;
      const input = h('input', { id, type: 'range', min: '-24', max: '24', step: '0.5', value: String(value) });
      const output = h('output');
      ui.bindOutput(input, output, ui.decibel);
      return [input, h('label', { class: 'field grow', for: id }, h('span', { class: 'split' }, h('span', { t: key }), output), input)];
    };
    const [vocal, vocalField] = slider('cover.vocal_gain', job.vocal_gain_db);
    const [instrumental, instrumentalField] = slider('cover.instrumental_gain', job.instrumental_gain_db);
    const send = ui.button('cover.remix_go', {
      icon: 'sliders', kind: 'primary',
      onclick: (event) => act(event.currentTarget, async () => {
        const fresh = await api.sendJson(job.links.remix, {
          vocal_gain_db: Number(vocal.value),
          instrumental_gain_db: Number(instrumental.value),
          response_format: job.response_format,
        });
        openRemix();
        onNew(fresh);
      }),
    });
    remix.replaceChildren(h('div', { class: 'inset' },
      h('p', { class: 'hint', t: 'cover.remix_hint' }),
      h('div', { class: 'row' }, vocalField, instrumentalField, send)));
    vocal.focus();
  }

  /** One line for each sound there is: the result first, then the stems in the order in which they are made. */
  function showTracks() {
    const duration = job.preview_seconds ? Math.min(job.preview_seconds, job.duration_seconds ?? Infinity) : job.duration_seconds;
    for (const kind of ['result', 'vocals', 'instrumental', 'converted']) {
      const link = job.links[kind];
      if (!link || players.has(kind)) continue;
      const player = new FilePlayer(() => api.blob(link, controller.signal), duration ?? 0);
      players.set(kind, player);
      const file = `${job.job_id}${kind === 'result' ? '' : `-${kind}`}.${kind === 'result' ? job.response_format : 'wav'}`;
      const save = ui.button('download_what', {
        icon: 'download', quiet: true, values: { what: () => t(`track.${kind}`) },
        onclick: (event) => act(event.currentTarget, async () => ui.saveBlob(await player.load(), file)),
      });
      const track = h('div', { class: `track ${kind}`, 'data-kind': kind }, h('span', { class: 'label', t: `track.${kind}` }),
        ui.playerView(player, { label: [`track.${kind}`], onError, extra: [save] }));
      if (kind === 'result') audio.prepend(track);
      else audio.append(track);
      if (eager && duration <= LOADED_AT_ONCE_SECONDS) player.load().catch((error) => controller.signal.aborted || onError(error));
    }
    for (const [kind, player] of players) {
      if (job.links[kind]) continue; // Expired, or a new attempt makes it again.
      player.dispose();
      players.delete(kind);
      audio.querySelector(`[data-kind=${kind}]`).remove();
    }
  }

  function show(next) {
    job = next;
    const live = api.isLive(job);
    item.dataset.status = job.status;
    state.className = `state ${job.status}`;
    if (job.status === 'queued') {
      setText(state, job.queue_position ? 'cover.queued_at' : 'status.queued', { position: String(job.queue_position) });
    } else if (job.status === 'running') {
      setText(state, 'cover.running', { stage: () => t(`stage.${job.stage}`), progress: number(job.progress) });
    } else setText(state, `status.${job.status}`);
    const at = job.status === 'succeeded' ? STAGES.length : STAGES.indexOf(job.stage);
    [...steps.children].forEach((step, index) => {
      step.classList.toggle('done', index < at);
      step.classList.toggle('now', live && index === at);
      if (live && index === at) step.setAttribute('aria-current', 'step');
      else step.removeAttribute('aria-current');
    });
    steps.hidden = bar.hidden = !live;
    bar.value = job.progress;
    const pitch = job.pitch_shift === null ? t('cover.pitch_auto') : job.pitch_shift ? `${job.pitch_shift > 0 ? '+' : '−'}${Math.abs(job.pitch_shift)}` : '0';
    setText(facts, job.remix_of ? 'cover.facts_remix' : 'cover.facts', {
      length: clock(job.duration_seconds ?? 0), pitch, format: job.response_format.toUpperCase(),
      vocal: ui.decibel(job.vocal_gain_db), instrumental: ui.decibel(job.instrumental_gain_db),
    });
    actions.cancel.hidden = !job.links.cancel;
    actions.retry.hidden = !job.links.retry;
    actions.remix.hidden = !job.links.remix;
    showTracks();
    const said = [];
    if (job.error) said.push(ui.errorNotice(new api.ApiError(job.error, job.error_message ?? job.error)));
    if (job.warning) said.push(h('div', { class: 'notice warn', icon: 'alert' }, h('p', {}, job.warning)));
    if (job.status === 'queued' && job.expected_start_at) {
      said.push(h('p', { class: 'small', t: ['cover.expected', { when: () => dateTime(job.expected_start_at) }] }));
    }
    notices.replaceChildren(...said);
  }

  async function follow() {
    if (!api.isLive(job)) return;
    try {
      await api.watch(job, show, controller.signal);
      document.dispatchEvent(new CustomEvent('studio:made'));
    } catch (error) {
      if (controller.signal.aborted) return;
      if (error.code === 'not_found') gone();
      else onError(error);
    }
  }

  show(job);
  follow();
  return item;
}

/** What is being made already, as after a reload. */
async function resume() {
  try {
    for (const status of ['queued', 'running']) {
      const { results } = await api.json(`/cover/jobs?status=${status}&page_size=20`);
      results.reverse().forEach(addJob);
    }
  } catch (error) {
    if (error.code !== 'permission_denied') ui.showError(form, error);
  }
}

// --- The section -----------------------------------------------------------------------------------------------------

/** found: {scopes, models}. */
export function open({ scopes, models }) {
  const own = models.filter((model) => model.uses?.includes('covers'));
  ui.fillSelect($('cover-model'), [['', 'model_default'], ...own.map((model) => [model.id, 'plain', { text: model.name || model.id }])]);
  $('cover-model').closest('label').hidden = !own.length;
  if (scopes.covers !== false) resume();
}

export function close() {
  sending?.abort();
  for (const { stop } of shown.values()) stop();
  shown.clear();
  $('jobs').replaceChildren();
}

export function start() {
  ui.dropZone($('song-drop'), useSong);
  ui.fillSelect($('pitch-mode'), [['auto', 'cover.pitch_auto'], ['fixed', 'cover.pitch_fixed']]);
  ui.fillSelect($('preview'), [['', 'cover.whole'], ['20', 'cover.preview', { seconds: '20' }], ['40', 'cover.preview', { seconds: '40' }]]);
  ui.fillSelect($('cover-format'), FORMATS.map((format) => [format, 'plain', { text: format.toUpperCase() }]));
  ui.fillSelect($('input-kind'), [['mix', 'cover.input_mix'], ['vocals', 'cover.input_vocals']]);
  const showPitch = () => ($('pitch-field').hidden = $('pitch-mode').value !== 'fixed');
  $('pitch-mode').addEventListener('change', showPitch);
  showPitch();
  ui.bindOutput($('pitch'), $('pitch-value'), (value) => `${value > 0 ? '+' : value < 0 ? '−' : ''}${Math.abs(value)}`);
  ui.bindOutput($('vocal-gain'), $('vocal-gain-value'), ui.decibel);
  ui.bindOutput($('instrumental-gain'), $('instrumental-gain-value'), ui.decibel);
  onLanguage(() => showPitch());
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    submit();
  });
  $('cover-stop').addEventListener('click', () => sending?.abort());
}
