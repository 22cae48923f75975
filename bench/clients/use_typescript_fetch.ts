// By a client of openapi-generator's typescript-fetch.
import { readFileSync, writeFileSync } from 'node:fs';
import { Configuration, CoverApi, ResponseError, VoiceApi } from './client';

const [base, key, songPath, referencePath, folder] = process.argv.slice(2) as [string, string, string, string, string];
const file = (path: string) => new File([readFileSync(path)], path.split('/').pop()!);

async function main(): Promise<void> {
  const configuration = new Configuration({ basePath: base, apiKey: key });
  const said = await new VoiceApi(configuration).synthesize({
    text: 'Made by a generated client.', referenceAudio: file(referencePath),
  });
  writeFileSync(`${folder}/said.wav`, Buffer.from(await (said as Blob).arrayBuffer()));

  const covers = new CoverApi(configuration);
  let job = await covers.createCover({
    song: file(songPath), referenceVoice: file(referencePath), previewSeconds: 10, pitchShift: '3',
  });
  while (job.status === 'queued' || job.status === 'running') {
    job = await covers.getCover({ id: job.jobId, prefer: 'wait=30' });
  }
  if (job.status !== 'succeeded' || job.pitchShift !== 3) throw new Error(job.errorMessage ?? job.status);
  writeFileSync(`${folder}/cover.wav`, Buffer.from(await (await covers.getCoverResult({ id: job.jobId })).arrayBuffer()));

  try {
    await covers.createCover({ song: file(songPath), referenceVoice: file(referencePath), previewSeconds: 3 });
    throw new Error('it was not refused');
  } catch (error) {
    if (!(error instanceof ResponseError)) throw error;
    const told = (await error.response.json()) as { error: string };
    if (told.error !== 'validation_error') throw new Error(JSON.stringify(told));
  }
}

main().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
