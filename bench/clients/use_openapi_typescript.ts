// By the types of openapi-typescript, with openapi-fetch.
import { readFileSync, writeFileSync } from 'node:fs';
import createClient from 'openapi-fetch';
import type { components, paths } from './client/schema';

const [base, key, songPath, referencePath, folder] = process.argv.slice(2) as [string, string, string, string, string];
// A file is a string to it: what is sent is said by bodySerializer.
const file = (path: string) => new File([readFileSync(path)], path.split('/').pop()!) as unknown as string;
const form = (body: object) => {
  const made = new FormData();
  for (const [name, value] of Object.entries(body)) made.append(name, value instanceof Blob ? value : String(value));
  return made;
};

async function main(): Promise<void> {
  const client = createClient<paths>({ baseUrl: base, headers: { 'X-API-Key': key } });
  const said = await client.POST('/api/v1/voice/synthesize', {
    body: { text: 'Made by a generated client.', reference_audio: file(referencePath) },
    bodySerializer: form,
    parseAs: 'arrayBuffer',
  });
  if (said.error !== undefined) throw new Error(said.error.message);
  writeFileSync(`${folder}/said.wav`, Buffer.from(said.data as unknown as ArrayBuffer));

  const created = await client.POST('/api/v1/cover/jobs', {
    body: { song: file(songPath), reference_voice: file(referencePath), preview_seconds: 10, pitch_shift: '3' },
    bodySerializer: form,
  });
  if (created.error !== undefined) throw new Error(created.error.message);
  let job: components['schemas']['CoverJob'] = created.data;
  while (job.status === 'queued' || job.status === 'running') {
    const found = await client.GET('/api/v1/cover/jobs/{id}', {
      params: { path: { id: job.job_id }, header: { Prefer: 'wait=30' } },
    });
    if (found.error !== undefined) throw new Error(found.error.message);
    job = found.data;
  }
  if (job.status !== 'succeeded' || job.pitch_shift !== 3) throw new Error(job.error_message ?? job.status);
  const result = await client.GET('/api/v1/cover/jobs/{id}/result', {
    params: { path: { id: job.job_id } },
    parseAs: 'arrayBuffer',
  });
  if (result.error !== undefined) throw new Error(result.error.message);
  writeFileSync(`${folder}/cover.wav`, Buffer.from(result.data as unknown as ArrayBuffer));

  const refused = await client.POST('/api/v1/cover/jobs', {
    body: { song: file(songPath), reference_voice: file(referencePath), preview_seconds: 3 },
    bodySerializer: form,
  });
  if (refused.error?.error !== 'validation_error') throw new Error(JSON.stringify(refused.error));
}

main().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
