// The bundles of both SDKs in a page of another origin.
import OpenAI from 'openai7'
import { ElevenLabsClient } from 'el2'
window.use = async (base, key) => {
  const told = []
  async function tell(feature, action) {
    let why = ''
    try { why = (await action()) ? '' : 'nothing came' } catch (error) { why = `${error.name}: ${error.message}`.slice(0, 200) }
    told.push({ feature, why })
  }
  const openai = new OpenAI({ baseURL: `${base}/openai/v1`, apiKey: key, dangerouslyAllowBrowser: true, maxRetries: 0 })
  const eleven = new ElevenLabsClient({ baseUrl: `${base}/elevenlabs`, apiKey: key })
  await tell('Models', async () => (await openai.models.list()).data.length && (await eleven.models.list()).length)
  await tell('Speech', async () => {
    const answer = await openai.audio.speech.create({ model: 'tts-1', voice: 'alloy', input: 'Hello from a page.' })
    if (!answer.headers.get('x-synthesis-id')) throw new Error('its headers cannot be read')
    let bytes = (await answer.arrayBuffer()).byteLength
    for await (const part of await eleven.textToSpeech.convert('alloy', { text: 'Hello from a page.' })) bytes += part.length
    return bytes > 20000
  })
  await tell('WebSocket', () => new Promise((resolve, reject) => {
    const url = `${base.replace('http', 'ws')}/elevenlabs/v1/text-to-speech/alloy/stream-input?output_format=pcm_24000`
    const socket = new WebSocket(url)
    let characters = 0
    socket.onopen = () => {
      for (const said of [{ text: ' ', xi_api_key: key }, { text: 'Hello from a page. ' }, { text: '' }]) socket.send(JSON.stringify(said))
    }
    socket.onmessage = ({ data }) => { characters += JSON.parse(data).audio?.length ?? 0 }
    socket.onclose = ({ code, reason }) => code === 1000 ? resolve(characters > 20000) : reject(new Error(`${code} ${reason}`))
  }))
  await tell('Errors', async () => {
    try { await openai.audio.speech.create({ model: 'tts-1', voice: 'nobody', input: 'Hello.' }) } catch (error) { return error.code === 'not_found' }
  })
  return JSON.stringify(told)
}
