// By a client of @hey-api/openapi-ts.
import { readFileSync, writeFileSync } from 'node:fs';
import { createClient } from './client/client';
import { createCover, getCover, getCoverResult, synthesize } from './client';

const [base, key, songPath, referencePath, folder] = process.argv.slice(2) as [string, string, string, string, string];
const file = (path: string) => new File([readFileSync(path)], path.split('/').pop()!);

async function main(): Promise<void> {
  const client = createClient({ baseUrl: base, auth: key });
  const said = await synthesize({
    client,
    body: { text: 'Made by a generated client.', reference_audio: file(referencePath) },
    parseAs: 'arrayBuffer',
  });
  if (said.error !== undefined) throw new Error(said.error.message);
  writeFileSync(`${folder}/said.wav`, Buffer.from(said.data as unknown as ArrayBuffer));

  const created = await createCover({
    client,
    body: { song: file(songPath), reference_voice: file(referencePath), preview_seconds: 10, pitch_shift: '3' },
  });
  if (created.error !== undefined) throw new Error(created.error.message);
  let job = created.data;
  while (job.status === 'queued' || job.status === 'running') {
    const found = await getCover({ client, path: { id: job.job_id }, headers: { Prefer: 'wait=30' } });
    if (found.error !== undefined) throw new Error(found.error.message);
    job = found.data;
  }
  if (job.status !== 'succeeded' || job.pitch_shift !== 3) throw new Error(job.error_message ?? job.status);
  const result = await getCoverResult({ client, path: { id: job.job_id }, parseAs: 'arrayBuffer' });
  if (result.error !== undefined) throw new Error(result.error.message);
  writeFileSync(`${folder}/cover.wav`, Buffer.from(result.data as unknown as ArrayBuffer));

  const refused = await createCover({
    client,
    body: { song: file(songPath), reference_voice: file(referencePath), preview_seconds: 3 },
  });
  if (refused.error?.error !== 'validation_error') throw new Error(JSON.stringify(refused.error));
}

main().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
