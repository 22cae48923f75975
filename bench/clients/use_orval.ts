// By a client of orval, which sends with fetch.
import { readFileSync, writeFileSync } from 'node:fs';
import { createCover, getCover, getCoverResult, synthesize } from './client/client';

const [base, key, songPath, referencePath, folder] = process.argv.slice(2) as [string, string, string, string, string];
const file = (path: string) => new File([readFileSync(path)], path.split('/').pop()!);
const headers = { 'X-API-Key': key };
const send = globalThis.fetch;
globalThis.fetch = (url, init) => send(new URL(String(url), base), init); // The document's server is `/`.

async function main(): Promise<void> {
  const said = await synthesize(
    { text: 'Made by a generated client.', reference_audio: file(referencePath) }, undefined, { headers },
  );
  if (said.status !== 200) throw new Error(JSON.stringify(said.data));
  writeFileSync(`${folder}/said.wav`, Buffer.from(await (said.data as Blob).arrayBuffer()));

  const created = await createCover(
    { song: file(songPath), reference_voice: file(referencePath), preview_seconds: 10, pitch_shift: '3' }, { headers },
  );
  if (created.status !== 202) throw new Error(JSON.stringify(created.data));
  let job = created.data;
  while (job.status === 'queued' || job.status === 'running') {
    const found = await getCover(job.job_id, { headers: { ...headers, Prefer: 'wait=30' } });
    if (found.status !== 200) throw new Error(JSON.stringify(found.data));
    job = found.data;
  }
  if (job.status !== 'succeeded' || job.pitch_shift !== 3) throw new Error(job.error_message ?? job.status);
  const result = await getCoverResult(job.job_id, undefined, { headers });
  if (result.status !== 200) throw new Error(JSON.stringify(result.data));
  writeFileSync(`${folder}/cover.wav`, Buffer.from(await (result.data as Blob).arrayBuffer()));

  const refused = await createCover(
    { song: file(songPath), reference_voice: file(referencePath), preview_seconds: 3 }, { headers },
  );
  if (refused.status !== 400 || refused.data.error !== 'validation_error') throw new Error(JSON.stringify(refused));
}

main().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
