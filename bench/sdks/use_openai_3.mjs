// openai for Node, 3.x: it knew no speech.
const [base, key, , name] = process.argv.slice(2)
const { Configuration, OpenAIApi } = (await import(name)).default
const client = new OpenAIApi(new Configuration({ apiKey: key, basePath: `${base}/openai/v1` }))
async function tell(feature, action) {
  let why = ''
  try { why = (await action()) ? '' : 'nothing came' } catch (error) { why = `${error.name}: ${error.message}`.slice(0, 200) }
  console.log(JSON.stringify({ feature, why }))
}
await tell('Models', async () => (await client.listModels()).data.data.length)
await tell('Errors', async () => {
  try { await client.retrieveModel('nothing') } catch (error) { return error.response.data.error.code === 'not_found' }
})
