// openai for Node, of whatever major is named.
import { createReadStream } from 'node:fs'
const [base, key, wav, name] = process.argv.slice(2)
const { default: OpenAI, NotFoundError } = await import(name)
const client = new OpenAI({ baseURL: `${base}/openai/v1`, apiKey: key, maxRetries: 0 })
const said = { model: 'tts-1', input: 'Hello from a client.' }
async function tell(feature, action) {
  let why = ''
  try { why = (await action()) ? '' : 'nothing came' } catch (error) { why = `${error.name}: ${error.message}`.slice(0, 200) }
  console.log(JSON.stringify({ feature, why }))
}
const speak = async (more = {}) => Buffer.from(await (await client.audio.speech.create({ ...said, voice: 'alloy', ...more })).arrayBuffer())
await tell('Models', async () => (await client.models.list()).data.length)
await tell('Speech', async () => {
  for (const response_format of ['mp3', 'opus', 'aac', 'flac', 'pcm']) if (!(await speak({ response_format })).length) return false
  return true
})
await tell('WAV', async () => !(await speak({ response_format: 'wav' })).includes('C2PA'))
await tell('Stream', async () => {
  let bytes = 0
  const answer = await client.audio.speech.create({ ...said, voice: 'alloy', response_format: 'pcm' })
  for await (const block of answer.body) bytes += block.length
  return bytes > 20000
})
await tell('Voice by name', async () => (await speak({ voice: 'jane of the bench' })).length)
await tell('Errors', async () => {
  try { await speak({ voice: 'nobody' }) } catch (error) { return error instanceof (NotFoundError ?? OpenAI.NotFoundError) && error.code === 'not_found' }
})
if (client.audio.voiceConsents) {
  await tell('Cloning', async () => {
    const consent = await client.audio.voiceConsents.create({ name: 'Jane', language: 'en', recording: createReadStream(wav) })
    const voice = await client.audio.voices.create({ name: 'Short lived', audio_sample: createReadStream(wav), consent: consent.id })
    return (await speak({ voice: { id: voice.id } })).length
  })
}
