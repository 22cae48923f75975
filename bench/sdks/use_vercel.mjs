// The AI SDK of Vercel, with its providers of OpenAI and ElevenLabs.
const [base, key] = process.argv.slice(2)
const { experimental_generateSpeech: generateSpeech } = await import('ai')
const { createOpenAI } = await import('@ai-sdk/openai')
const { createElevenLabs } = await import('@ai-sdk/elevenlabs')
const openai = createOpenAI({ baseURL: `${base}/openai/v1`, apiKey: key })
const to = new URL(base)
// Its provider of ElevenLabs has no base URL: what it asks is sent here.
const elevenlabs = createElevenLabs({ apiKey: key, fetch: (url, init) => {
  const asked = new URL(url)
  return fetch(`${to.origin}/elevenlabs${asked.pathname}${asked.search}`, init)
} })
async function tell(feature, action) {
  let why = ''
  try { why = (await action()) ? '' : 'nothing came' } catch (error) { why = `${error.name}: ${error.message}`.slice(0, 200) }
  console.log(JSON.stringify({ feature, why }))
}
const speak = async (model, voice, outputFormat) => (await generateSpeech({ model, voice, text: 'Hello from a client.', outputFormat, maxRetries: 0 })).audio.uint8Array.length
await tell('Speech', async () => {
  for (const format of ['mp3', 'opus', 'aac', 'flac', 'pcm']) if (!(await speak(openai.speech('tts-1'), 'alloy', format))) return false
  return (await speak(elevenlabs.speech('eleven_multilingual_v2'), 'alloy', 'mp3')) && (await speak(elevenlabs.speech('eleven_v3'), 'alloy', 'opus'))
})
await tell('WAV', () => speak(openai.speech('tts-1'), 'alloy', 'wav'))
await tell('Voice by name', () => speak(openai.speech('gpt-4o-mini-tts'), 'jane of the bench', 'mp3'))
