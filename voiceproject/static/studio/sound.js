/** Sound without any page: WAV in and out, streams of PCM, measures, peaks for waveforms, the two kinds of players. */

export const MIN_REFERENCE_SECONDS = 3;
export const MAX_REFERENCE_SECONDS = 60;

// --- WAV and PCM, as the bytes arrive --------------------------------------------------------------------------------

const text = (view, at) => String.fromCharCode(...[0, 1, 2, 3].map((index) => view.getUint8(at + index)));

/**
 * Reads WAV (PCM of 16, 24 or 32 bits, or float) or bare 16-bit PCM from pieces of any length. `push` gives the frames
 * that are whole by then, mixed to mono: Float32Array (n,) in [-1, 1]. Throws TypeError where it is something else.
 */
export class PcmReader {
  /** rate: of bare PCM in Hz; without it the bytes are a WAV file. */
  constructor(rate = 0) {
    this.rate = rate;
    this.channels = 1;
    this.bits = 16;
    this.float = false;
    this.left = Infinity; // Bytes of samples to come; a stream states the greatest length there is.
    this.rest = new Uint8Array(0);
    this.inData = Boolean(rate);
  }

  push(bytes) {
    if (this.rest.length) {
      const joined = new Uint8Array(this.rest.length + bytes.length);
      joined.set(this.rest);
      joined.set(bytes, this.rest.length);
      bytes = joined;
    }
    if (!this.inData) bytes = this.#header(bytes);
    if (!this.inData) {
      this.rest = bytes;
      return new Float32Array(0);
    }
    if (bytes.length > this.left) bytes = bytes.subarray(0, this.left);
    const width = (this.bits / 8) * this.channels;
    const frames = Math.floor(bytes.length / width);
    this.left -= frames * width;
    this.rest = bytes.slice(frames * width);
    return this.#samples(bytes, frames);
  }

  /** Takes chunks up to the samples; what is left of `bytes`. */
  #header(bytes) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    if (bytes.length >= 12 && (text(view, 0) !== 'RIFF' || text(view, 8) !== 'WAVE')) throw new TypeError('not WAV');
    let at = 12;
    while (at + 8 <= bytes.length) {
      const [name, size] = [text(view, at), view.getUint32(at + 4, true)];
      if (name === 'data') {
        if (!this.rate) throw new TypeError('no format before the samples');
        this.left = size >= 0xffffff00 || size === 0 ? Infinity : size;
        this.inData = true;
        return bytes.subarray(at + 8);
      }
      if (at + 8 + size > bytes.length) break;
      if (name === 'fmt ') {
        const coding = view.getUint16(at + 8, true);
        const kind = coding === 0xfffe && size >= 26 ? view.getUint16(at + 32, true) : coding;
        this.channels = view.getUint16(at + 10, true);
        this.rate = view.getUint32(at + 12, true);
        this.bits = view.getUint16(at + 22, true);
        this.float = kind === 3;
        const known = (kind === 1 && [16, 24, 32].includes(this.bits)) || (kind === 3 && this.bits === 32);
        if (!known || !this.channels || !this.rate) throw new TypeError('a kind of WAV that is not read here');
      }
      at += 8 + size + (size % 2);
    }
    return bytes;
  }

  #samples(bytes, frames) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const step = this.bits / 8;
    const read = {
      16: (at) => view.getInt16(at, true) / 0x8000,
      24: (at) => ((view.getInt8(at + 2) << 16) | view.getUint16(at, true)) / 0x800000,
      32: this.float ? (at) => view.getFloat32(at, true) : (at) => view.getInt32(at, true) / 0x80000000,
    }[this.bits];
    const samples = new Float32Array(frames);
    for (let frame = 0, at = 0; frame < frames; frame += 1) {
      let sum = 0;
      for (let channel = 0; channel < this.channels; channel += 1, at += step) sum += read(at);
      samples[frame] = sum / this.channels;
    }
    return samples;
  }
}

/** Mono samples in [-1, 1] as a WAV file of 16 bits. */
export function encodeWav(samples, rate) {
  const bytes = new ArrayBuffer(44 + 2 * samples.length);
  const view = new DataView(bytes);
  const put = (at, word) => [...word].forEach((letter, index) => view.setUint8(at + index, letter.charCodeAt(0)));
  put(0, 'RIFF');
  view.setUint32(4, 36 + 2 * samples.length, true);
  put(8, 'WAVEfmt ');
  view.setUint32(16, 16, true);
  view.setUint16(20, 1, true);
  view.setUint16(22, 1, true);
  view.setUint32(24, rate, true);
  view.setUint32(28, 2 * rate, true);
  view.setUint16(32, 2, true);
  view.setUint16(34, 16, true);
  put(36, 'data');
  view.setUint32(40, 2 * samples.length, true);
  samples.forEach((sample, index) => view.setInt16(44 + 2 * index, Math.max(-1, Math.min(1, sample)) * 0x7fff, true));
  return new Blob([bytes], { type: 'audio/wav' });
}

/** {samples (n,), rate} of any file that the browser can read, mono, at `rate` Hz. Throws where it cannot. */
export async function decode(file, rate = 24_000) {
  const decoded = await new OfflineAudioContext(1, 1, rate).decodeAudioData(await file.arrayBuffer());
  const samples = new Float32Array(decoded.length);
  for (let channel = 0; channel < decoded.numberOfChannels; channel += 1) {
    const one = decoded.getChannelData(channel);
    for (let index = 0; index < samples.length; index += 1) samples[index] += one[index] / decoded.numberOfChannels;
  }
  return { samples, rate: decoded.sampleRate };
}

// --- Measures and peaks ----------------------------------------------------------------------------------------------

const decibels = (power) => 10 * Math.log10(power + 1e-12);

/** The browser's own look at a reference, until the server's report comes: the same names as that has. */
export function measure(samples, rate) {
  const size = Math.round(rate * 0.02);
  const levels = [];
  for (let start = 0; start + size <= samples.length; start += size) {
    let power = 0;
    for (let index = start; index < start + size; index += 1) power += samples[index] ** 2;
    levels.push(decibels(power / size));
  }
  const sorted = [...levels].sort((a, b) => a - b);
  const at = (share) => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? -120;
  const [floor, loud] = [at(0.05), at(0.9)];
  const threshold = Math.max(floor + 6, loud - 30);
  const clipped = samples.reduce((count, sample) => count + (Math.abs(sample) >= 0.999), 0);
  return {
    duration_seconds: samples.length / rate,
    speech_ratio: levels.length ? levels.filter((level) => level >= threshold).length / levels.length : 0,
    snr_db: Math.min(60, Math.max(0, loud - floor)),
    clipping_ratio: samples.length ? clipped / samples.length : 0,
    level_db: loud,
  };
}

const BLOCK_SECONDS = 0.02;

/** The greatest absolute sample of each 20 ms, gathered as samples come. */
export class Peaks {
  constructor(rate) {
    this.block = Math.max(1, Math.round(rate * BLOCK_SECONDS));
    this.values = [];
    this.inBlock = 0;
    this.highest = 0;
  }

  push(samples) {
    for (const sample of samples) {
      if (this.inBlock === 0) this.values.push(0);
      const size = Math.abs(sample);
      if (size > this.values[this.values.length - 1]) this.values[this.values.length - 1] = size;
      if (size > this.highest) this.highest = size;
      this.inBlock = (this.inBlock + 1) % this.block;
    }
  }

  /** `count` heights in [0, 1], of the loudest. */
  columns(count) {
    const { values } = this;
    return Float32Array.from({ length: count }, (_, index) => {
      const from = Math.floor((index * values.length) / count);
      const to = Math.max(from + 1, Math.floor(((index + 1) * values.length) / count));
      let peak = 0;
      for (let at = from; at < to && at < values.length; at += 1) peak = Math.max(peak, values[at]);
      return this.highest ? peak / this.highest : 0;
    });
  }
}

/** Peaks and seconds of a file. A WAV is read piece by piece, since a decoded song would fill the memory. */
async function peaksOf(file) {
  try {
    const reader = new PcmReader();
    let [peaks, frames] = [null, 0];
    for (const stream = file.stream().getReader(); ; ) {
      const { value, done } = await stream.read();
      if (done) break;
      const samples = reader.push(value);
      if (reader.inData) (peaks ??= new Peaks(reader.rate)).push(samples);
      frames += samples.length;
    }
    if (peaks && frames) return { peaks, seconds: frames / reader.rate };
  } catch (error) {
    if (!(error instanceof TypeError)) throw error; // Not a WAV.
  }
  const { samples, rate } = await decode(file, 8000);
  const peaks = new Peaks(rate);
  peaks.push(samples);
  return { peaks, seconds: samples.length / rate };
}

// --- Players ---------------------------------------------------------------------------------------------------------

let sounding = null; // One at a time.

/** What both kinds share. Events: `change` (state, length, peaks), `time`. */
class Player extends EventTarget {
  playing = false;
  waiting = false;
  failed = null;
  peaks = null;

  get hasWaveform() {
    return Boolean(this.peaks?.values.length);
  }

  emit(name = 'change') {
    this.dispatchEvent(new Event(name));
  }

  takeOver() {
    if (sounding && sounding !== this) sounding.pause();
    sounding = this;
  }

  toggle() {
    return this.playing ? this.pause() : this.play();
  }
}

const contexts = new Map();
const RATE_STORE = 'studio.rate';

/** One context for each sample rate: at the stream's own rate its pieces join without a click. */
function contextFor(rate) {
  if (!contexts.has(rate)) contexts.set(rate, new AudioContext({ sampleRate: rate, latencyHint: 'playback' }));
  return contexts.get(rate);
}

/** In a click's own turn, as some browsers want it: makes ready what the stream will probably need. */
export function unlockAudio() {
  const rate = Number(sessionStorage.getItem(RATE_STORE)) || 24_000;
  contextFor(rate).resume();
}

/** Plays samples (mono, float) while they come, and again afterwards. */
export class StreamPlayer extends Player {
  #blocks = []; // [first frame, samples]
  #frames = 0;
  #position = 0; // Seconds, while it does not play.
  #sources = new Set();
  #scheduled = 0; // Frames that are handed to the context.
  #next = 0; // The context's time at which the next piece starts.
  #anchor = null; // {time, frame} of the last start without a gap.
  finished = false;

  constructor(rate) {
    super();
    this.rate = rate;
    this.context = contextFor(rate);
    this.peaks = new Peaks(rate);
    sessionStorage.setItem(RATE_STORE, String(rate));
  }

  get duration() {
    return this.#frames / this.rate;
  }

  get currentTime() {
    if (!this.playing || !this.#anchor) return this.#position;
    const elapsed = Math.max(0, this.context.currentTime - this.#anchor.time);
    return Math.min(this.#anchor.frame / this.rate + elapsed, this.#scheduled / this.rate);
  }

  push(samples) {
    if (!samples.length) return;
    this.#blocks.push([this.#frames, samples]);
    this.#frames += samples.length;
    this.peaks.push(samples);
    if (this.playing) this.#schedule();
    this.emit();
  }

  finish() {
    this.finished = true;
    if (this.playing && !this.#sources.size) this.#stop(this.duration);
    this.emit();
  }

  play() {
    this.takeOver();
    if (this.finished && this.#position >= this.duration - 0.01) this.#position = 0;
    this.context.resume();
    this.playing = true;
    this.#anchor = null;
    this.#next = 0;
    this.#scheduled = Math.round(this.#position * this.rate);
    this.#schedule();
    this.emit();
  }

  pause() {
    this.#stop(this.currentTime);
  }

  seek(seconds) {
    const again = this.playing;
    this.#stop(Math.max(0, Math.min(seconds, this.duration)));
    if (again) this.play();
    this.emit('time');
  }

  dispose() {
    this.#stop(0);
  }

  #stop(position) {
    this.#position = position;
    this.playing = this.waiting = false;
    for (const source of this.#sources) {
      source.onended = null;
      source.stop();
    }
    this.#sources.clear();
    this.emit();
  }

  #schedule() {
    const fresh = this.#blocks.filter(([first, samples]) => first + samples.length > this.#scheduled);
    for (const [first, samples] of fresh) {
      const piece = samples.subarray(Math.max(0, this.#scheduled - first));
      if (this.#next < this.context.currentTime) {
        // At the start, and after the stream was slower than the ear.
        const start = this.context.currentTime + 0.08;
        this.#next = Math.ceil(start * this.rate) / this.rate;
        this.#anchor = { time: this.#next, frame: this.#scheduled };
      }
      const buffer = this.context.createBuffer(1, piece.length, this.rate);
      buffer.copyToChannel(piece, 0);
      const source = this.context.createBufferSource();
      source.buffer = buffer;
      source.connect(this.context.destination);
      source.onended = () => this.#ended(source);
      source.start(this.#next);
      this.#sources.add(source);
      this.#next += piece.length / this.rate;
      this.#scheduled += piece.length;
    }
    this.waiting = !this.#sources.size && !this.finished;
  }

  #ended(source) {
    this.#sources.delete(source);
    if (this.#sources.size) return;
    if (this.finished) this.#stop(this.duration);
    else this.waiting = true;
    this.emit();
  }
}

const EXACT_RATE = 48_000;
const MAX_EXACT_SECONDS = 360; // Decoded it is 140 MB; of longer ones the element's own clock has to do.
const exact = []; // The two players that are decoded.

/** Goes on with another sound at the place of the first: at an exact sample, without a gap, where both can be decoded. */
export async function exchange(from, to) {
  await to.load?.();
  const both = from && (await from.arm?.(to)) && (await to.arm?.(from));
  if (!both) {
    const at = from?.currentTime ?? 0;
    to.seek(at);
    from?.pause();
    await to.play();
    return;
  }
  const context = contextFor(EXACT_RATE);
  await context.resume();
  const when = context.currentTime + 0.02;
  const place = from.placeAt(when);
  from.stopAt(when);
  sounding = to;
  to.startAt(when, place < to.duration ? place : 0);
}

/** Plays a file. `source`: a Blob, or a function that fetches one when it is first wanted. */
export class FilePlayer extends Player {
  #audio = new Audio();
  #loading = null;
  #seconds;
  #disposed = false;
  #buffer = null; // All of it, decoded.
  #node = null; // What plays that: {source, when, offset}.

  /** seconds: what is known of the length before it is loaded. */
  constructor(source, seconds = 0) {
    super();
    this.source = source;
    this.#seconds = seconds;
    const changed = () => {
      this.playing = Boolean(this.#node) || (!this.#audio.paused && !this.#audio.ended);
      this.emit();
    };
    for (const name of ['play', 'pause', 'ended', 'durationchange']) this.#audio.addEventListener(name, changed);
    this.#audio.addEventListener('seeked', () => this.emit('time'));
    if (source instanceof Blob) this.load();
  }

  get duration() {
    return this.#seconds || (Number.isFinite(this.#audio.duration) ? this.#audio.duration : 0);
  }

  get currentTime() {
    return this.#node ? this.placeAt(contextFor(EXACT_RATE).currentTime) : this.#audio.currentTime;
  }

  // --- At an exact sample ---

  /** Decodes all of it, beside `other`. False where that takes too much memory, or cannot be done. */
  async arm(other) {
    if (this.#buffer) return true;
    const blob = await this.load();
    if (!this.duration || this.duration > MAX_EXACT_SECONDS) return false;
    try {
      this.#buffer = await contextFor(EXACT_RATE).decodeAudioData(await blob.arrayBuffer());
    } catch {
      return false;
    }
    exact.push(this);
    if (exact.length > 2) exact.splice(exact.findIndex((one) => one !== this && one !== other), 1)[0].#disarm();
    return true;
  }

  #disarm() {
    this.#stopNode();
    this.#buffer = null;
  }

  /** The place in seconds at a time of the context. */
  placeAt(when) {
    if (!this.#node) return this.#audio.currentTime;
    return Math.min(this.duration, this.#node.offset + Math.max(0, when - this.#node.when));
  }

  startAt(when, offset) {
    this.#stopNode();
    const context = contextFor(EXACT_RATE);
    const source = context.createBufferSource();
    source.buffer = this.#buffer;
    source.connect(context.destination);
    source.onended = () => {
      if (this.#node?.source !== source) return;
      this.#stopNode();
      this.#audio.currentTime = 0;
    };
    source.start(when, offset);
    this.#node = { source, when, offset };
    this.playing = true;
    this.emit();
  }

  stopAt(when) {
    this.#audio.pause();
    this.#stopNode(when);
  }

  /** Stops at a time of the context; the element goes on from there. */
  #stopNode(when = 0) {
    if (!this.#node) return;
    const place = this.placeAt(when || contextFor(EXACT_RATE).currentTime);
    const { source } = this.#node;
    this.#node = null;
    source.stop(when);
    this.#audio.currentTime = place;
    this.playing = false;
    this.emit();
  }

  /** The Blob, with its waveform. Throws what the fetch throws, and may then be called again. */
  load() {
    this.#loading ??= this.#load().catch((error) => {
      this.#loading = null;
      throw error;
    });
    return this.#loading;
  }

  async #load() {
    this.waiting = true;
    this.emit();
    try {
      const blob = this.source instanceof Blob ? this.source : await this.source();
      if (this.#disposed) return blob;
      this.url = URL.createObjectURL(blob);
      this.#audio.src = this.url;
      try {
        const { peaks, seconds } = await peaksOf(blob);
        this.peaks = peaks;
        this.#seconds = seconds;
      } catch {
        // The browser cannot read it: it is drawn as a line, and the server may read it all the same.
        this.failed = 'unreadable';
      }
      return blob;
    } finally {
      this.waiting = false;
      this.emit();
    }
  }

  async play() {
    this.takeOver();
    await this.load();
    if (sounding === this && !this.#disposed) await this.#audio.play();
  }

  pause() {
    this.#stopNode();
    this.#audio.pause();
  }

  seek(seconds) {
    if (this.#node) this.startAt(contextFor(EXACT_RATE).currentTime, Math.max(0, Math.min(seconds, this.duration)));
    else if (this.url) this.#audio.currentTime = Math.max(0, Math.min(seconds, this.duration));
  }

  dispose() {
    this.#disposed = true;
    this.pause();
    this.#buffer = null;
    if (exact.includes(this)) exact.splice(exact.indexOf(this), 1);
    this.#audio.removeAttribute('src');
    this.#audio.load(); // Lets go of the source: an element without it goes on reading what it had.
    const { url } = this;
    // Not at once: a read that is under way would find nothing, and the browser would complain of it.
    if (url) setTimeout(() => URL.revokeObjectURL(url), 10_000);
  }
}
