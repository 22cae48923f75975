/** Covers: a song and a voice become a job whose stages are watched; its stems, its result, other mixes of it. */

import * as api from './api.js';
import { clock, dateTime, number, onLanguage, setText, t } from './i18n.js';
import { hear, tell } from './elsewhere.js';
import { keep, kept } from './kept.js';
import { fileName, stateOf, titleOf } from './names.js';
import { presets } from './presets.js';
import { sharing } from './shares.js';
import { FilePlayer } from './sound.js';
import * as ui from './ui.js';
import { $, h } from './ui.js';
import * as voice from './voice.js';

const STAGES = ['queued', 'preprocess', 'separate', 'infer', 'mix', 'finalize'];
const TRACKS = ['result', 'vocals', 'instrumental', 'converted'];
const FORMATS = ['wav', 'flac', 'mp3'];
const LOADED_AT_ONCE_SECONDS = 60; // What is longer is fetched when it is played.

const MAX_BYTES = Number(document.documentElement.dataset.songBytes);
const MAX_SECONDS = Number(document.documentElement.dataset.songSeconds);
const OPTIONS = ['pitch-mode', 'pitch', 'preview', 'cover-format', 'input-kind', 'vocal-gain', 'instrumental-gain', 'cover-model'];
const RECENT = 10; // are shown again after a reload; the others are in the history

const form = $('cover-form');
let songs = []; // {file, player, element, submission: {key, of}}: one sent again after a lost answer makes no second job
let sending = null;
let mayList = false;
const accepted = new Set(); // Jobs of which the form says that they were accepted.

// --- The form --------------------------------------------------------------------------------------------------------

/** Takes songs into the form, whose size the server takes. */
export function addSongs(...files) {
  ui.clearNotices(form);
  for (const file of files) {
    if (file.size > MAX_BYTES) {
      ui.addHint(form, 'cover.too_large', { name: file.name, ...ui.sizes(file.size, MAX_BYTES) });
      continue;
    }
    const player = new FilePlayer(file);
    const one = { file, player, submission: null };
    one.element = h('div', { class: 'song' },
      h('div', { class: 'split' }, h('strong', { class: 'title', dir: 'auto' }, file.name),
        ui.button('cover.clear', { icon: 'cross', quiet: true, onclick: () => dropSong(one) })),
      ui.playerView(player, { label: ['plain', { text: file.name }], onError: (error) => ui.showError(form, error) }));
    songs.push(one);
    $('song').append(one.element);
    player.load().then(() => {
      if (player.duration <= MAX_SECONDS || !songs.includes(one)) return;
      ui.addHint(form, 'cover.too_long', { name: file.name, found: () => clock(player.duration), limit: () => clock(MAX_SECONDS) });
    }, (error) => ui.showError(form, error));
  }
  showSongs();
}

function dropSong(one) {
  one.player.dispose();
  one.element.remove();
  songs = songs.filter((other) => other !== one);
  showSongs();
  $('song-file').focus();
}

function showSongs() {
  $('song').hidden = !songs.length;
  setText($('song-drop').querySelector('strong'), songs.length ? 'cover.drop_more' : 'cover.drop');
  remember();
}

/** What is in the form, kept until it is changed or sent. */
function remember() {
  const unsent = songs.filter((one) => !one.sent).map(({ file }) => file);
  keep('cover', { songs: unsent, options: Object.fromEntries(OPTIONS.map((id) => [id, $(id).value])) });
}

async function restore() {
  const before = await kept('cover');
  if (!before || songs.length) return;
  ui.setFields(before.options ?? {});
  if (before.songs?.length) addSongs(...before.songs);
}

function collect(song) {
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
  if (!songs.length) {
    ui.showHint(form, 'cover.no_song');
    $('song-file').focus();
    return;
  }
  if (!voice.isChosen()) {
    voice.insist(form);
    return;
  }
  sending = new AbortController();
  $('cover-button').hidden = true;
  $('cover-stop').hidden = false;
  $('cover-stop').focus();
  // All of them; those that are left of several after an error, when it is pressed again.
  const unsent = songs.filter((one) => !one.sent);
  const these = unsent.length ? unsent : songs;
  try {
    for (const [index, one] of these.entries()) {
      const card = await send(one, { number: String(index + 1), count: String(these.length) });
      if (index === these.length - 1) card.focus();
    }
    say(accepted.size ? 'cover.accepted' : null);
  } catch (error) {
    if (api.isAbort(error)) say('cover.upload_stopped');
    else {
      say(null);
      if (!voice.lost(error, form)) ui.showError(form, error);
    }
  } finally {
    sending = null;
    $('cover-stop').hidden = true;
    $('cover-button').hidden = false;
    if (document.activeElement === document.body) $('cover-button').focus();
  }
}

/** Sends one song; its card. place: {number, count} among those that are sent now. */
async function send(one, place) {
  const data = collect(one.file);
  const of = JSON.stringify([...data].map(([name, value]) => [name, value.name ? [value.name, value.size, value.lastModified] : value]));
  if (one.submission?.of !== of) one.submission = { key: api.newIdempotencyKey(), of };
  const several = place.count > 1;
  const telling = (percent) => say(several ? 'cover.sending_of' : 'cover.sending', { percent, ...place });
  const { signal } = sending;
  const upload = () => {
    telling('0');
    return api.upload('/cover/jobs', data, {
      headers: { 'Idempotency-Key': one.submission.key },
      signal,
      onStalled: () => say('cover.stalled'),
      onProgress: (share) => (share < 1 ? telling(number(share * 100)) : say('cover.checking')),
    });
  };
  // The same key each time: what did arrive is not made twice.
  const job = await api.persistently(upload, {
    onBroken: (seconds) => say('cover.broken', { seconds: String(seconds) }),
    onOffline: () => say('cover.offline'),
  }, signal);
  one.submission = null;
  one.sent = true;
  remember();
  accepted.add(job.job_id);
  tell('made');
  return addJob(job);
}

// --- Jobs ------------------------------------------------------------------------------------------------------------

const shown = new Map(); // job_id -> {stop}

function addJob(job) {
  const there = shown.get(job.job_id);
  if (there) return there.element;
  const element = jobItem(job, {
    eager: true, onGone: () => shown.delete(job.job_id), onNew: (fresh) => addJob(fresh).focus(),
    onEnd: () => {
      accepted.delete(job.job_id);
      if (!accepted.size && !sending) say(null); // It speaks of what is still to be done.
    },
  });
  shown.set(job.job_id, { element, stop: () => element.dispatchEvent(new Event('studio:stop')) });
  $('jobs').prepend(element);
  return element;
}

/**
 * A job as a card that follows the job while it lives. eager: short sounds are fetched before they are played; onGone:
 * it was deleted; onNew(job): a remix of it was made; onEnd(): it has ended.
 */
export function jobItem(job, { eager = false, onGone = () => {}, onNew = () => {}, onEnd = () => {} } = {}) {
  const controller = new AbortController();
  const players = new Map();
  const name = ['cover.job_title', { id: job.job_id.slice(0, 8), when: () => dateTime(job.created_at) }];
  const state = h('span', { class: 'state', role: 'status' });
  const steps = h('ol', { class: 'steps' }, ...STAGES.map((stage) => h('li', { 'data-stage': stage }, h('span', { t: `stage.${stage}` }))));
  const bar = h('progress', { max: '100', 't-aria-label': name });
  const facts = h('p', { class: 'small meta' });
  const title = titleOf(job, { untitled: name });
  const now = h('p', { class: 'small meta' });
  let heard = 0; // When the job's row was told, in ms of this page's clock: the server's may be another.
  let ticking = 0;
  const audio = h('div', { class: 'tracks' });
  const buttons = h('div', { class: 'buttons' });
  const notices = h('div', { class: 'notices' });
  const remix = h('div');
  const item = h('article', { class: 'item job', tabindex: '-1', 'data-id': job.job_id },
    h('div', { class: 'split top' }, h('div', {}, title.element, facts), buttons),
    h('div', { class: 'split' }, state, now), steps, bar, audio, remix, notices);
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
          tell('deleted', { id: job.job_id });
        });
      },
    }),
  };
  const share = sharing(() => job.links.self);
  // In the order in which they stand, whichever was made first.
  const compare = ui.comparison(item, () => TRACKS.map((kind) => players.get(kind)).filter(Boolean));
  compare.hidden = true;
  buttons.append(compare, share.press, actions.cancel, actions.retry, actions.remix, actions.delete);

  function gone() {
    stop();
    ui.removeCard(item);
    onGone();
  }
  function stop() {
    controller.abort();
    clearInterval(ticking);
    for (const player of players.values()) player.dispose();
  }
  item.insertBefore(share.place, notices);
  item.addEventListener('studio:stop', stop);
  item.addEventListener('studio:deleted', gone);
  item.addEventListener('studio:named', ({ detail }) => show({ ...job, title: detail }));

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
        tell('made');
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
    for (const kind of TRACKS) {
      const link = job.links[kind];
      if (!link || players.has(kind)) continue;
      const player = new FilePlayer(() => api.blob(link, controller.signal), duration ?? 0);
      player.name = () => t(`track.${kind}`);
      players.set(kind, player);
      const file = () => fileName(title.title(), job.job_id, kind === 'result' ? job.response_format : 'wav', kind === 'result' ? '' : `-${kind}`);
      const save = ui.button('download_what', {
        icon: 'download', quiet: true, values: { what: () => t(`track.${kind}`) },
        onclick: (event) => act(event.currentTarget, async () => ui.saveBlob(await player.load(), file())),
      });
      const track = h('div', { class: `track ${kind}`, 'data-kind': kind }, h('span', { class: 'label', t: `track.${kind}` }),
        ui.playerView(player, { label: [`track.${kind}`], onError, extra: [save] }));
      if (kind === 'result') audio.prepend(track);
      else audio.append(track);
      if (duration <= LOADED_AT_ONCE_SECONDS) {
        const load = () => player.load().catch((error) => controller.signal.aborted || onError(error));
        if (eager) load();
        else if (kind === 'result') ui.whenSeen(track, load);
      }
    }
    for (const [kind, player] of players) {
      if (job.links[kind]) continue; // Expired, or a new attempt makes it again.
      player.dispose();
      players.delete(kind);
      audio.querySelector(`[data-kind=${kind}]`).remove();
    }
    compare.hidden = players.size < 2;
  }

  /** What is done now, since when, and for how long still. */
  function showTimes() {
    const since = (performance.now() - heard) / 1000;
    if (job.status !== 'running' || job.elapsed_seconds === null) {
      setText(now, null);
      return;
    }
    const left = job.estimated_seconds_remaining;
    setText(now, left === null ? 'cover.elapsed' : 'cover.remaining', {
      doing: () => t(`doing.${job.stage}`), elapsed: clock(job.elapsed_seconds + since), left: clock(Math.max(1, (left ?? 0) - since)),
    });
  }

  function show(next) {
    const ended = api.isLive(job) && !api.isLive(next);
    job = next;
    heard = performance.now();
    title.show(job);
    const live = api.isLive(job);
    clearInterval(ticking);
    if (live && !controller.signal.aborted) ticking = setInterval(showTimes, 1000);
    showTimes();
    item.dataset.status = job.status;
    const [words, kind] = stateOf(job, job.links.result);
    state.className = `state ${kind}`;
    if (job.status === 'queued') {
      setText(state, job.queue_position ? 'cover.queued_at' : 'status.queued', { position: String(job.queue_position) });
    } else if (job.status === 'running') {
      setText(state, 'cover.running', { stage: () => t(`stage.${job.stage}`), progress: number(job.progress) });
    } else setText(state, words);
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
    setText(facts, job.remix_of ? 'cover.facts_remix' : job.pitch_shift === 0 ? 'cover.facts' : 'cover.facts_pitch', {
      when: () => dateTime(job.created_at), length: clock(job.duration_seconds ?? 0), pitch, format: job.response_format.toUpperCase(),
      vocal: ui.decibel(job.vocal_gain_db), instrumental: ui.decibel(job.instrumental_gain_db),
    });
    actions.cancel.hidden = !job.links.cancel;
    actions.retry.hidden = !job.links.retry;
    actions.remix.hidden = !job.links.remix;
    share.offer(Boolean(job.links.result));
    showTracks();
    const said = [];
    if (job.error) said.push(ui.errorNotice(new api.ApiError(job.error, job.error_message ?? job.error)));
    if (job.warning) said.push(h('div', { class: 'notice warn', icon: 'alert' }, h('p', {}, job.warning)));
    if (job.status === 'queued' && job.expected_start_at) {
      const late = new Date(job.expected_start_at) <= Date.now();
      said.push(h('p', { class: 'small', t: late ? ['cover.expected_soon'] : ['cover.expected', { when: () => dateTime(job.expected_start_at) }] }));
    }
    notices.replaceChildren(...said);
    if (ended) onEnd();
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

/** What is being made, and what was made lately, as after a reload. */
async function resume() {
  try {
    const found = new Map();
    for (const query of ['status=queued&page_size=20', 'status=running&page_size=20', `page_size=${RECENT}`]) {
      for (const job of (await api.json(`/cover/jobs?${query}`)).results) found.set(job.job_id, job);
    }
    [...found.values()].sort((a, b) => a.created_at.localeCompare(b.created_at)).forEach(addJob);
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
  restore();
  mayList = scopes.covers !== false;
  if (mayList) resume();
}

export function close() {
  sending?.abort();
  mayList = false;
  for (const { stop } of shown.values()) stop();
  shown.clear();
  accepted.clear();
  $('jobs').replaceChildren();
}

export function start() {
  ui.dropZone($('song-drop'), addSongs);
  form.addEventListener('input', remember);
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
  presets($('cover-presets'), 'cover', OPTIONS);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    submit();
  });
  $('cover-stop').addEventListener('click', () => sending?.abort());
  hear('made', () => mayList && resume());
}
