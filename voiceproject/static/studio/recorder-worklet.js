/** Hands what the microphone gives to the page: Float32Array blocks of 2048 frames, mono. */
class Recorder extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Float32Array(2048);
    this.filled = 0;
  }

  process([input]) {
    const channel = input[0];
    if (channel) {
      this.block.set(channel, this.filled);
      this.filled += channel.length;
      if (this.filled === this.block.length) {
        this.port.postMessage(this.block.slice());
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor('recorder', Recorder);
