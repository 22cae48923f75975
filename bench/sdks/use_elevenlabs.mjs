// @elevenlabs/elevenlabs-js, and its 1.x and 0.x, which were named elevenlabs.
import { createReadStream, readFileSync } from 'node:fs'
const [base, key, wav, name] = process.argv.slice(2)
const { ElevenLabsClient } = await import(name)
const newer = name === 'el2'
const client = newer ? new ElevenLabsClient({ baseUrl: `${base}/elevenlabs`, apiKey: key })
  : new ElevenLabsClient({ environment: `${base}/elevenlabs`, baseUrl: `${base}/elevenlabs`, apiKey: key })
// 0.x has no option for the server: it is set where the client keeps it.
if (name === 'elevenlabs0') client._options.environment = `${base}/elevenlabs`
const text = 'Hello from a client.'
const formatted = (outputFormat) => (newer ? { text, outputFormat } : { text, output_format: outputFormat })
async function tell(feature, action) {
  let why = ''
  try { why = (await action()) ? '' : 'nothing came' } catch (error) { why = `${error.name}: ${error.message}`.slice(0, 200) }
  console.log(JSON.stringify({ feature, why }))
}
async function all(stream) {
  const parts = []
  for await (const part of await stream) parts.push(Buffer.from(part))
  return Buffer.concat(parts)
}
const speak = (voice, format = 'mp3_44100_128') => all(client.textToSpeech.convert(voice, formatted(format)))
await tell('Models', async () => (await (client.models.list ?? client.models.getAll).call(client.models)).length)
await tell('Speech', async () => (await speak('alloy')).length)
await tell('WAV', async () => !(await speak('alloy', 'wav_24000')).includes('C2PA'))
await tell('Stream', async () => (await all((client.textToSpeech.stream ?? client.textToSpeech.convertAsStream).call(client.textToSpeech, 'alloy', formatted('pcm_16000')))).length > 20000)
await tell('Timestamps', async () => (await (client.textToSpeech.convertWithTimestamps ?? client.textToSpeech.convertWithTimstamps).call(client.textToSpeech, 'alloy', { text })).alignment.characters.join('') === text)
await tell('Voice by name', async () => (await speak('jane of the bench')).length)
await tell('Premade ids', async () => (await speak('JBFqnCBsd6RMkjVDRZzb')).length)
await tell('Cloning', async () => {
  // 0.x sends streams as their names.
  const files = [name === 'elevenlabs0' ? new File([readFileSync(wav)], 'sample.flac') : createReadStream(wav)]
  const made = newer ? await client.voices.ivc.create({ name: 'Short lived', files }) : await client.voices.add({ name: 'Short lived', files })
  const id = made.voiceId ?? made.voice_id
  const heard = (await speak(id)).length
  await client.voices.delete(id)
  return heard
})
await tell('History', async () => {
  const listed = await (client.history.list ?? client.history.getAll).call(client.history)
  const id = listed.history[0].historyItemId ?? listed.history[0].history_item_id
  return (await all(client.history.getAudio ? client.history.getAudio(id) : client.history.audio.get(id))).length
})
await tell('Errors', async () => {
  try { await speak('nobody') } catch (error) { return error.statusCode === 404 && (!newer || error.body.detail.code === 'voice_not_found') }
})
