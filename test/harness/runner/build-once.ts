import { buildAll } from '../../../scripts/build.ts'

/**
 * Builds dist/ before the first system test of a run, because these tests start the programs as
 * they are installed.
 */
export async function setup(): Promise<void> {
  await buildAll()
}
