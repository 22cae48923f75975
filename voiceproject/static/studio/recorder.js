/** The microphone, recorded as it is: no echo cancelling, no noise gate, no gain that rides, which all bend a voice. */

import { encodeWav, MAX_REFERENCE_SECONDS } from './sound.js';

/** Where it can be asked for at all: browsers give it to https and to localhost only. */
export const canRecord = () => Boolean(navigator.mediaDevices?.getUserMedia && window.AudioWorkletNode);

export class Recorder {
  #blocks = [];
  #frames = 0;

  /** onBlock(seconds so far, peak of the block); onFull() when the longest reference is reached. */
  constructor(onBlock, onFull) {
    this.onBlock = onBlock;
    this.onFull = onFull;
  }

  /** Throws what getUserMedia throws: NotAllowedError, NotFoundError, NotReadableError. */
  async start() {
    this.stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
    });
    this.context = new AudioContext();
    try {
      await this.context.audioWorklet.addModule(new URL('./recorder-worklet.js', import.meta.url));
      const node = new AudioWorkletNode(this.context, 'recorder', {
        numberOfOutputs: 0,
        channelCount: 1,
        channelCountMode: 'explicit',
      });
      node.port.onmessage = ({ data }) => this.#take(data);
      this.context.createMediaStreamSource(this.stream).connect(node);
    } catch (error) {
      this.#close();
      throw error;
    }
  }

  #take(block) {
    if (!this.stream) return;
    this.#blocks.push(block);
    this.#frames += block.length;
    const peak = block.reduce((most, sample) => Math.max(most, Math.abs(sample)), 0);
    this.onBlock(this.seconds, peak);
    // A little less than the limit: the server counts decoded samples.
    if (this.seconds >= MAX_REFERENCE_SECONDS - 0.2) this.onFull();
  }

  get seconds() {
    return this.#frames / (this.context?.sampleRate ?? 48_000);
  }

  /** Ends it and gives the WAV. */
  stop() {
    const rate = this.context.sampleRate;
    this.#close();
    const samples = new Float32Array(this.#frames);
    let at = 0;
    for (const block of this.#blocks) {
      samples.set(block, at);
      at += block.length;
    }
    return new File([encodeWav(samples, rate)], 'recording.wav', { type: 'audio/wav' });
  }

  #close() {
    this.stream?.getTracks().forEach((track) => track.stop());
    this.stream = null;
    this.context?.close();
  }
}
